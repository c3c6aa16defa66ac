"""MISA (Hazarika et al., ACM MM 2020), from section 3 of the paper; CMD as similarity, no adversarial branch.

  1. utterances   u_m (B, d): mean of the text's frames; two bidirectional LSTMs over audio and over vision
  2. encode       one shared encoder and one private to each modality: h_m^c, h_m^p (B, d), values in [0, 1]
  3. fuse         a one-layer transformer over the six vectors (B, 6, d)
  4. predict      from the six, side by side (B, 6 d)
For a loss only, decoders reconstruct u_m from h_m^c + h_m^p. Axes: B batch, T frames, D features, d width.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, check_sizes, check_widths, read_out
from tmtlib.models.bert import build_bert, text_encoded
from tmtlib.models.frames import lstm_states, masked_mean, without_padding
from tmtlib.models.layers import Attention, Dropout, feed_forward
from tmtlib.models.losses import cmd, orthogonality


@dataclass(frozen=True)
class MISAConfig(ModelConfig):
    """Settings of `MISA`. Defaults: the paper's for MOSI."""

    width: int = 128
    lstm_width: int | None = None  # of each direction; None: as wide as the modality's features
    heads: int = 2  # of the transformer that fuses
    fusion_hidden: int = 2048  # its feed-forward width
    fusion_dropout: float = 0.1
    dropout: float = 0.5  # in the prediction head
    difference: float = 0.3  # beta
    similarity: float = 1.0  # alpha
    reconstruction: float = 1.0  # gamma
    task_loss: str = "mse"  # of regression: "mse" as published, or "l1" as TMT
    bert: str | None = None  # folder of a BERT to fine-tune from `text_bert`, as published; None: the file's features
    bert_lr: float = 5e-5
    compat: str = "none"  # "mmsa": the LSTMs read as many frames of audio and vision as the text has

    choices = ModelConfig.choices | {"task_loss": ("mse", "l1"), "compat": ("none", "mmsa")}
    masked = property(lambda self: self.compat == "none")
    model_class = property(lambda self: MISA)


PAIRS = tuple(combinations(MODALITIES, 2))


class BiLSTMs(nn.Module):
    """Two bidirectional LSTMs, the second over the first's normed states; (B, 4 width), the final states of both."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.first = nn.LSTM(features, width, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = nn.LSTM(2 * width, width, batch_first=True, bidirectional=True)

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int64[Tensor, " B"]) -> Float[Tensor, "B e"]:
        states, first = lstm_states(self.first, x, lengths)
        _, second = lstm_states(self.second, self.norm(states), lengths)
        return torch.cat([first, second], dim=-1)


class Fusion(nn.Module):
    """A post-norm transformer layer: x <- LN(x + Attn(x)), then x <- LN(x + FF(x))."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention = Attention(width, heads, width // heads, dropout, dropout)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(*feed_forward(width, hidden, nn.ReLU(), dropout, dropout))

    def forward(self, x: Float[Tensor, "B 6 d"], maps: dict | None) -> Float[Tensor, "B 6 d"]:
        x = self.norm_attention(x + self.attention(x, x, x, maps=maps, name="fusion"))
        return self.norm_feed_forward(x + self.feed_forward(x))


class MISA(Model):
    """MISA. Raises ValueError for a width that the heads do not divide, sizes below one, and mix-up with a BERT."""

    def __init__(self, config: MISAConfig, shapes: dict[str, tuple[int, int]], family: str):
        super().__init__(config, family)
        check_sizes(config, "width", "heads", "fusion_hidden")
        c, d = config, config.width
        if d % c.heads:
            raise ValueError(f"width is {d} with {c.heads} heads; wanted a multiple of the heads")
        self.bert, self.widths = build_bert(c, shapes)
        lstms = {m: (self.widths[m], c.lstm_width or self.widths[m]) for m in ("audio", "vision")}
        self.lstms = nn.ModuleDict({m: BiLSTMs(*sizes) for m, sizes in lstms.items()})
        inputs = {"text": self.widths["text"]} | {m: 4 * width for m, (_, width) in lstms.items()}
        self.project = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(inputs[m], d), nn.ReLU(), nn.LayerNorm(d)) for m in MODALITIES}
        )
        self.shared = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
        self.private = nn.ModuleDict({m: nn.Sequential(nn.Linear(d, d), nn.Sigmoid()) for m in MODALITIES})
        self.decode = nn.ModuleDict({m: nn.Linear(d, d) for m in MODALITIES})
        self.fusion = Fusion(d, c.heads, c.fusion_hidden, c.fusion_dropout)
        first, last = nn.Linear(6 * d, 3 * d), nn.Linear(3 * d, self.outputs)
        self.head = nn.Sequential(first, Dropout(c.dropout), nn.ReLU(), last)

    def forward(self, batch: Batch, attention: bool = False) -> tuple[Tensor, Trace]:
        """Prediction and trace: u_m as `projected`; tokens: the three h^c as "shared", and h_m^p by modality."""
        batch = text_encoded(self.bert, batch)
        check_widths(batch, self.widths)
        clean = without_padding(batch)
        vectors = {"text": masked_mean(clean.features["text"], clean.valid("text"))}
        for m, lstms in self.lstms.items():
            x, lengths = clean.features[m], clean.lengths[m]
            if self.config.compat == "mmsa":
                x, lengths = batch.features[m], clean.lengths["text"].clamp_max(x.shape[1])
            vectors[m] = lstms(x, lengths)
        trace = Trace(projected={m: self.project[m](u) for m, u in vectors.items()})
        trace.tokens["shared"] = self.shared(torch.stack(list(trace.projected.values()), dim=1))
        trace.tokens |= {m: self.private[m](u)[:, None] for m, u in trace.projected.items()}
        fused = self.fusion(torch.cat(list(trace.tokens.values()), dim=1), trace.attention if attention else None)
        return read_out(self.head, fused.flatten(1), self.config.task), trace

    def task_loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """As the base; for regression, mean squared error unless the config says "l1"."""
        checked = super().task_loss(prediction, target)
        mse = self.config.task == "regression" and self.config.task_loss == "mse"
        return mse_loss(prediction, target) if mse else checked

    def loss(self, prediction: Tensor, target: Tensor, trace: Trace) -> Float[Tensor, ""]:
        """Task + beta * difference + alpha * similarity + gamma * reconstruction (sec. 3, "Learning").

        Difference: sum over (shared, private) of each modality and over pairs of private. The other two are means.
        """
        c = self.config
        private = {m: trace.tokens[m].squeeze(1) for m in MODALITIES}
        shared = dict(zip(MODALITIES, trace.tokens["shared"].unbind(1), strict=True))
        decoded = {m: net((shared[m] + private[m]).to(net.weight.dtype)) for m, net in self.decode.items()}
        reconstruction = sum(mse_loss(x, trace.projected[m].to(x.dtype)) for m, x in decoded.items())
        shared, private = ({m: x.float() for m, x in part.items()} for part in (shared, private))
        difference = sum(orthogonality(shared[m], private[m]) for m in MODALITIES)
        difference = difference + sum(orthogonality(private[a], private[b]) for a, b in PAIRS)
        similarity = sum(cmd(shared[a], shared[b]) for a, b in PAIRS) / len(PAIRS)
        total = self.task_loss(prediction, target) + c.difference * difference + c.similarity * similarity
        return total + c.reconstruction * reconstruction / len(MODALITIES)
