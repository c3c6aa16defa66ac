"""A text-only baseline: a fine-tuned BERT (Devlin et al., NAACL 2019, sec. 4.1), and the BERT inside other models.

Axes: B batch, T tokens, padding included, H BERT's width.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from tmtlib.common import MODALITIES
from tmtlib.data.text import last_hidden, load_bert
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, read_out
from tmtlib.models.frames import masked_mean
from tmtlib.models.layers import Dropout


@dataclass(frozen=True)
class BertTextConfig(ModelConfig):
    """Settings of `BertTextOnly`."""

    bert: str | None = None  # folder; required
    bert_lr: float = 2e-5
    pooling: str = "cls"  # "cls": the first token's hidden state; "mean": that of all tokens
    dropout: float = 0.1

    choices = ModelConfig.choices | {"pooling": ("cls", "mean")}
    model_class = property(lambda self: BertTextOnly)

    @classmethod
    def beside(cls, tmt: ModelConfig, **changes) -> "BertTextConfig":
        """The BERT is the folder in TMT_BERT unless `changes` name one."""
        return super().beside(tmt, **{"bert": os.environ.get("TMT_BERT")} | changes)


class BertText(nn.Module):
    """A BERT to fine-tune inside a model; `width` is H. Raises FileNotFoundError without folder or model."""

    def __init__(self, model_folder: str | Path):
        super().__init__()
        self.bert = load_bert(model_folder).train(self.training)  # transformers loads in evaluation mode
        self.width: int = self.bert.config.hidden_size

    def forward(self, text_bert: Int[Tensor, "B 3 T"]) -> Float[Tensor, "B T H"]:
        """See `last_hidden`. Raises ValueError for another shape or too many tokens."""
        return last_hidden(self.bert, text_bert)


def build_bert(config: ModelConfig, shapes: dict[str, tuple[int, int]]) -> tuple[nn.Module | None, dict[str, int]]:
    """The BERT of a config, or None, and the features' widths. Raises ValueError with mix-up: ids cannot be mixed."""
    widths = {m: shapes[m][1] for m in MODALITIES}
    if config.bert is None:
        return None, widths
    if config.mixup != "off":
        raise ValueError(f"mixup is {config.mixup!r} with a BERT; wanted 'off', as token ids cannot be mixed")
    bert = BertText(config.bert)
    return bert, widths | {"text": bert.width}


def text_encoded(bert: nn.Module | None, batch: Batch) -> Batch:
    """The batch with BERT's hidden states, if any, as text features. Raises ValueError for a BERT without token ids."""
    if bert is None:
        return batch
    if batch.text_bert is None:
        why = "but the data hold no `text_bert` token ids (`tmt data check` says whether a file's were left out)"
        raise ValueError(f"the config names a BERT to fine-tune, {why}; encode_transcripts makes them of raw_text")
    return replace(batch, features={**batch.features, "text": bert(batch.text_bert)})


class BertTextOnly(Model):
    """BERT and one linear layer; an absent text is zeros. Raises ValueError without a BERT, and with mix-up."""

    def __init__(self, config: BertTextConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        if config.bert is None:
            raise ValueError("bert is None; wanted the folder of a saved BERT to fine-tune")
        self.bert, _ = build_bert(config, shapes)
        self.head = nn.Sequential(Dropout(config.dropout), nn.Linear(self.bert.width, self.outputs))

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction and trace, with the pooled text (B, H) as `projected`; no attention maps."""
        batch = text_encoded(self.bert, batch)
        hidden, valid = batch.features["text"], batch.valid("text")
        if self.config.pooling == "cls":
            hidden, valid = hidden[:, :1], valid[:, :1]
        pooled = masked_mean(hidden, valid)
        return read_out(self.head, pooled, self.config.task), Trace(projected={"text": pooled})
