"""A BERT fine-tuned on the text alone, as Devlin et al., "BERT" (NAACL 2019), sec. 4.1: one linear map on the first
token's last hidden state. What a multimodal model gains beyond it, it gains from audio and vision, or from fusion.

Axes: B batch, W word pieces, H BERT's width.
"""

from __future__ import annotations

from torch import Tensor, nn

from tmtlib.config import BertTextConfig
from tmtlib.models.base import Batch, Model, Trace
from tmtlib.models.dropout import Dropout
from tmtlib.models.inputs import bert_of, groups_with_bert, read_out, text_encoded
from tmtlib.models.temporal import masked_mean


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
        self.bert = bert_of(config)
        self.head = nn.Sequential(Dropout(config.dropout), nn.Linear(self.bert.width, self.outputs))

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction, (B,) or (B, 5), and trace: the pooled text (B, H) as `projected`. No attention is given out."""
        batch = text_encoded(self.bert, batch)
        hidden, valid = batch.features["text"], batch.valid("text")
        if self.config.pooling == "cls":
            hidden, valid = hidden[:, :1], valid[:, :1]
        pooled = masked_mean(hidden, valid)
        return read_out(self.head, pooled, self.config.task), Trace(projected={"text": pooled})

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """BERT has a learning rate of its own."""
        return groups_with_bert(self, learning_rate)
