"""A BERT fine-tuned on the text alone, as Devlin et al., "BERT" (NAACL 2019), sec. 4.1: one linear map on the first
token's last hidden state. What a multimodal model gains beyond it, it gains from audio and vision, or from fusion.

Axes: B batch, W word pieces, H BERT's width.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from tmtlib.common import check_choice
from tmtlib.data.text import last_hidden, load_bert
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, read_out
from tmtlib.models.dropout import Dropout
from tmtlib.models.frames import masked_mean


@dataclass(frozen=True)
class BertTextConfig(ModelConfig):
    """A fine-tuned BERT on the text alone (Devlin et al., NAACL 2019, sec. 4.1)."""

    bert: str | None = None  # its folder; one must be given
    bert_lr: float = 2e-5
    pooling: str = "cls"  # the utterance is the first token's hidden state, "cls", or their "mean"
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_choice("pooling", self.pooling, ("cls", "mean"))

    @property
    def model_class(self) -> type[Model]:
        return BertTextOnly

    @classmethod
    def beside(cls, tmt: ModelConfig, **changes) -> BertTextConfig:
        """With the BERT of the folder that TMT_BERT names, where `changes` name none."""
        return super().beside(tmt, **{"bert": os.environ.get("TMT_BERT")} | changes)


class BertText(nn.Module):
    """A BERT to fine-tune end to end inside a model; its pooler, which nothing here uses, is left out.

    Args: `model_folder`, as `model` of `encode_transcripts`; its tokenizer is not needed, but the token ids must
    be of the same vocabulary. Attribute `width`: H, the size of a hidden state.
    Raises FileNotFoundError where the folder or its model is missing.
    """

    def __init__(self, model_folder: str | Path):
        super().__init__()
        self.bert = load_bert(model_folder).train(self.training)  # transformers loads in evaluation mode
        self.width: int = self.bert.config.hidden_size

    def forward(self, text_bert: Int[Tensor, "B 3 T"]) -> Float[Tensor, "B T H"]:
        """Last hidden state, zero where the attention mask is; ids of any number type are cast to int64.

        Raises ValueError for another shape, or a T beyond what the model has positions for.
        """
        return last_hidden(self.bert, text_bert)


def build_bert(config: ModelConfig) -> nn.Module | None:
    """The BERT that a config names to fine-tune, if any. Raises ValueError with mix-up: token ids cannot be mixed."""
    if config.bert is not None and config.mixup != "off":
        raise ValueError(f"mixup is {config.mixup!r} with a BERT; wanted 'off', as token ids cannot be mixed")
    return None if config.bert is None else BertText(config.bert)


def text_encoded(bert: nn.Module | None, batch: Batch) -> Batch:
    """The batch with the BERT's hidden states as text features; the batch itself without one.

    Raises ValueError where there is a BERT but no token ids.
    """
    if bert is None:
        return batch
    if batch.text_bert is None:
        raise ValueError("the config names a BERT to fine-tune, but the data hold no `text_bert` token ids")
    return replace(batch, features={**batch.features, "text": bert(batch.text_bert)})


class BertTextOnly(Model):
    """The text-only BERT as a model of the study. Build it with `tmtlib.build_model`; arguments as those of `TMT`.

    Word pieces beyond the text's length are left out of the mean; an absent text (length 0) is zeros. Raises
    ValueError where the config names no BERT, or has mix-up.
    """

    stackable = False

    def __init__(self, config: BertTextConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        if config.bert is None:
            raise ValueError("bert is None; wanted the folder of a saved BERT to fine-tune")
        self.bert = build_bert(config)
        self.head = nn.Sequential(Dropout(config.dropout), nn.Linear(self.bert.width, self.outputs))

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction, (B,) or (B, 5), and trace: the pooled text (B, H) as `projected`. No attention is given out."""
        batch = text_encoded(self.bert, batch)
        hidden, valid = batch.features["text"], batch.valid("text")
        if self.config.pooling == "cls":
            hidden, valid = hidden[:, :1], valid[:, :1]
        pooled = masked_mean(hidden, valid)
        return read_out(self.head, pooled, self.config.task), Trace(projected={"text": pooled})

    def own_rates(self, learning_rate: float) -> list[tuple[nn.Module, float]]:
        return [(self.bert, self.config.bert_lr)]
