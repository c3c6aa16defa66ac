"""What every model offers the one training loop: `forward(batch) -> (prediction, trace)`, a loss, and label values."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tmtlib.common import EMOTIONS, MODALITIES, check_choice
from tmtlib.stats.metrics import CLASS_CENTRES5

PUBLISHED_SIZES = Path(__file__).with_name("published_sizes.toml")
TASKS = ("regression", "classification", "emotions")


@dataclass(frozen=True)
class ModelConfig:
    """What every model shares: the task and the training habits that belong to its recipe."""

    # "regression" (L1 loss), "classification" (5 classes, cross-entropy) or "emotions" (6 yes or no, cross-entropy)
    task: str = "regression"
    schedule: str = "constant"  # "constant" or "warmup_cosine" (per epoch, linear from 0 over 10 %, then cosine)
    mixup: str = "off"  # "off", "original" (inputs mixed, only the first label kept), "correct" (both labels)
    modalities: tuple[str, ...] = MODALITIES  # those the model is given; the others are absent, in training too

    def __post_init__(self):
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities is {self.modalities!r}; wanted one or more of {MODALITIES}")
        check_choice("task", self.task, TASKS)
        check_choice("schedule", self.schedule, ("constant", "warmup_cosine"))
        check_choice("mixup", self.mixup, ("off", "original", "correct"))

    @property
    def model_class(self) -> type[Model]:
        """The model that this configures. A model of your own names its class here, and nothing else need know it."""
        raise TypeError(f"no model for a {type(self).__name__}; give it a property model_class")

    @classmethod
    def beside(cls, tmt: ModelConfig, **changes) -> ModelConfig:
        """This model in a study whose TMT has that config: at the size of its own paper, with TMT's schedule."""
        return cls(schedule=tmt.schedule, **changes)

    @classmethod
    def published(cls, dataset: str, **changes) -> ModelConfig:
        """The published sizes for "mosi", "mosei", "sims" or "simsv2" (published_sizes.toml), and `changes`.

        Raises ValueError for another data set, or a model without any.
        """
        sizes = tomllib.loads(PUBLISHED_SIZES.read_text(encoding="utf-8")).get(cls.__name__)
        if sizes is None:
            raise ValueError(f"no hyper-parameters by data set are published for a {cls.__name__}")
        check_choice("dataset", dataset, tuple(sizes))
        fields_ = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes[dataset].items()}
        return cls(**fields_ | changes)

    # What the rest of the study asks of any model; a config with a field of that name answers with the field

    @property
    def masked(self) -> bool:
        """Whether padding is hidden from the model, so that a batch can do without what no utterance of it needs."""
        return True

    @property
    def window(self) -> int | None:
        """How many frames a modality the model keeps; None for all."""
        return None

    @property
    def weighting(self) -> str:
        """The name of the model's modality weighting; "none" for a model without one."""
        return "none"

    @property
    def reads_token_ids(self) -> bool:
        """Whether the model has a BERT of its own, which sees no change to precomputed text features."""
        return getattr(self, "bert", None) is not None


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
        """Parameter groups for the optimiser: the modules of `own_rates`, and all the rest at the training's rate."""
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in self.own_rates(learning_rate)]
        separate = {id(p) for group in groups for p in group["params"]}
        rest = {"params": [p for p in self.parameters() if id(p) not in separate], "lr": learning_rate}
        return [group for group in (rest, *groups) if group["params"]]

    def own_rates(self, learning_rate: float) -> list[tuple[nn.Module, float]]:
        """Modules with a learning rate of their separate, given the training's."""
        return []


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def without_padding(batch: Batch) -> Batch:
    """The batch with zeros beyond every length, and an absent modality as one frame of zeros.

    So whatever stood in the padding is forgotten, and no mean, LSTM or attention is ever over nothing.
    """
    features = {m: x.masked_fill(~batch.valid(m)[..., None], 0.0) for m, x in batch.features.items()}
    return replace(batch, features=features, lengths={m: n.clamp_min(1) for m, n in batch.lengths.items()})


def check_widths(batch: Batch, widths: dict[str, int]) -> None:
    """Raises ValueError where the features are not as wide as those the model was built for."""
    for m in MODALITIES:
        width = batch.features[m].shape[-1]
        if width != widths[m]:
            raise ValueError(f"{m} has {width} features a frame; wanted {widths[m]}")


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Raises ValueError for a size (or one of several) below 1; None is no size."""
    for name in names:
        value = getattr(config, name)
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1")


def lstm_states(
    lstm: nn.LSTM, x: Float[Tensor, "B T D"], lengths: Int64[Tensor, " B"]
) -> tuple[Float[Tensor, "B T e"], Float[Tensor, "B e"]]:
    """Hidden states at each frame and at the end of each utterance, e = h times directions; each length at least 1.

    Packed, so that neither direction reads padding. In full precision even under autocast: states add up over frames.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(lstm.weight_ih_l0.dtype)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (final, _) = lstm(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
    return states, final.transpose(0, 1).flatten(1)


def read_out(head: nn.Module, hidden: Float[Tensor, "B e"], task: str) -> Tensor:
    """A head's prediction, (B,) for regression or logits, in full precision: bfloat16 is too coarse near edges."""
    with torch.autocast(hidden.device.type, enabled=False):
        output = head(hidden.to(next(head.parameters()).dtype))
    return output.squeeze(-1) if task == "regression" else output
