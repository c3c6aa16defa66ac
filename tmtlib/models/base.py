"""What every model offers the one training loop: `forward(batch) -> (prediction, trace)`, a loss, and label values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss

from tmtlib.config import EMOTIONS, ModelConfig
from tmtlib.metrics import CLASS_CENTRES5


@dataclass
class Batch:
    """B utterances on one device: features (B, T, D) and true lengths (B,) by modality."""

    features: Mapping[str, Float[Tensor, "B T D"]]
    lengths: Mapping[str, Int64[Tensor, " B"]]
    text_bert: Int64[Tensor, "B 3 W"] | None = None  # W word pieces, padding included
    groups: int = 1  # into how many groups of like length `split` cuts it; more than 1: sorted by length

    def valid(self, modality: str) -> Bool[Tensor, "B T"]:
        """True at frames within the utterance's length."""
        length = self.lengths[modality]
        return torch.arange(self.features[modality].shape[1], device=length.device) < length[:, None]

    def split(self) -> list[Batch]:
        """Features and lengths by groups of about equal size, each cut to its own longest utterance.

        What treats each utterance by itself and ignores padding gives the same result group by group, for less work.
        """
        if self.groups == 1:
            return [self]
        size = math.ceil(len(self.lengths["text"]) / self.groups)
        lengths = {m: n.split(size) for m, n in self.lengths.items()}
        features = {m: x.split(size) for m, x in self.features.items()}
        return [
            Batch(
                {m: x[i][:, : max(1, int(lengths[m][i].max()))] for m, x in features.items()},
                {m: n[i] for m, n in lengths.items()},
            )
            for i in range(len(lengths["text"]))
        ]


@dataclass
class Trace:
    """What a forward pass computed on the way, filled where it is computed; nothing is recomputed for it."""

    tokens: dict[str, Float[Tensor, "B k d"]] = field(default_factory=dict)  # shared, text, audio, vision
    projected: dict[str, Float[Tensor, "B d"]] = field(default_factory=dict)  # mean over valid frames of X_m
    weights: Float[Tensor, "#B M d"] | None = None  # A; None when the model has no weighting
    attention: dict[str, Float[Tensor, "B h Q K"]] = field(default_factory=dict)  # by layer, only when asked for


class Model(nn.Module):
    """Base of every model. `prediction` is (B,) for regression, or logits: (B, 5) of classes, (B, 6) of emotions."""

    stackable = True  # whether seeds can be trained as one program; vmap has neither LSTMs nor BERTs

    def __init__(self, config: ModelConfig, family: str):
        super().__init__()
        self.config, self.family = config, family
        centres = torch.tensor(CLASS_CENTRES5[family], dtype=torch.float32)
        self.register_buffer("class_centres", centres, persistent=False)

    @property
    def outputs(self) -> int:
        return {"regression": 1, "classification": 5, "emotions": len(EMOTIONS)}[self.config.task]

    def loss(self, prediction: Tensor, target: Tensor, trace: Trace) -> Float[Tensor, ""]:
        """What training minimises; a model adds its auxiliary losses here."""
        return self.task_loss(prediction, target)

    def task_loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """The task's loss: mean absolute error, or cross-entropy of 5 classes or of 6 emotions, present or not.

        target: (B,) values or classes; for emotions (B, 6), 0 or 1.
        """
        if self.config.task == "classification":
            return cross_entropy(prediction, target)
        if prediction.shape != target.shape:  # (B, 1) against (B,) would broadcast to B x B and train a constant
            raise ValueError(f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; wanted equal")
        if self.config.task == "emotions":
            return binary_cross_entropy_with_logits(prediction, target)
        return l1_loss(prediction, target)

    def values(self, prediction: Tensor) -> Float[Tensor, "B ..."]:
        """A prediction on the label scale, (B,), where a class is its centre; for emotions their chances (B, 6)."""
        if self.config.task == "emotions":
            return prediction.sigmoid()
        if self.config.task == "classification":
            return self.class_centres[prediction.argmax(-1)]
        return prediction

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Parameter groups for the optimiser."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
