"""The interface of every model: `forward(batch) -> (prediction, trace)`, a loss, and label values."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss

from tmtlib.common import EMOTIONS, MODALITIES, check_choice
from tmtlib.stats.metrics import CLASS_CENTRES5

PUBLISHED_SIZES = Path(__file__).with_name("published_sizes.toml")
TASKS = ("regression", "classification", "emotions")


@dataclass(frozen=True)
class ModelConfig:
    """Settings that every model has."""

    # "regression" (L1 loss), "classification" (5 classes, cross-entropy) or "emotions" (yes or no each, cross-entropy)
    task: str = "regression"
    schedule: str = "constant"  # or "warmup_cosine" (by epoch, linear from 0 over 10 %, then cosine), "cosine" (no 0)
    mixup: str = "off"  # "off", "original" (inputs mixed, only the first label kept), "correct" (both labels)
    modalities: tuple[str, ...] = MODALITIES  # those the model is given; the others are absent, in training too
    # Names, of task "emotions"; `build_model` puts those of the data here
    emotions: tuple[str, ...] = field(default=EMOTIONS, metadata={"identity": False})

    # Not fields: allowed values, by field
    choices = {"task": TASKS, "schedule": ("constant", "warmup_cosine", "cosine")}
    choices |= {"mixup": ("off", "original", "correct")}
    # Defaults; a config may have a field or a property of the same name instead
    masked = True  # whether padding is hidden from the model; then batches may be cut to their longest utterance
    window = None  # number of frames a modality that the model keeps; None for all
    weighting = "none"  # name of the modality weighting; "none" without one
    bert = None  # folder of a BERT to fine-tune; a config with such a field has a field bert_lr too

    def __post_init__(self):
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities is {self.modalities!r}; wanted one or more of {MODALITIES}")
        for name, allowed in self.choices.items():
            check_choice(name, getattr(self, name), allowed)

    @property
    def outputs(self) -> int:
        """Numbers that a model's head gives for an utterance."""
        return {"regression": 1, "classification": 5, "emotions": len(self.emotions)}[self.task]

    @property
    def model_class(self) -> type["Model"]:
        """The `Model` subclass of this config. Raises TypeError in the base."""
        raise TypeError(f"no model for a {type(self).__name__}; give it a property model_class")

    @classmethod
    def beside(cls, tmt: "ModelConfig", **changes) -> "ModelConfig":
        """This model as a baseline of `tmt`: at the size of its own paper, with TMT's schedule."""
        return cls(schedule=tmt.schedule, **changes)

    @classmethod
    def published(cls, dataset: str, **changes) -> "ModelConfig":
        """The published sizes of a data set (published_sizes.toml) and `changes`. Raises ValueError without any."""
        sizes = tomllib.loads(PUBLISHED_SIZES.read_text(encoding="utf-8")).get(cls.__name__)
        if sizes is None:
            raise ValueError(f"no hyper-parameters by data set are published for a {cls.__name__}")
        check_choice("dataset", dataset, tuple(sizes))
        fields_ = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes[dataset].items()}
        return cls(**fields_ | changes)

    @property
    def reads_token_ids(self) -> bool:
        """Whether the model has a BERT; it then ignores precomputed text features."""
        return self.bert is not None


@dataclass
class Batch:
    """B utterances on one device: features (B, T, D) and true lengths (B,) by modality."""

    features: Mapping[str, Float[Tensor, "B T D"]]
    lengths: Mapping[str, Int64[Tensor, " B"]]
    text_bert: Int64[Tensor, "B 3 W"] | None = None  # W word pieces, padding included
    reliable: Bool[Tensor, "B M"] | None = None  # ground truth, which oracles alone may read
    groups: tuple[Mapping[str, int], ...] = ()  # T by modality of each part made by `split`, short to long

    @property
    def present(self) -> Bool[Tensor, "B M"]:
        """False for the modalities that an utterance lacks."""
        return torch.stack([self.lengths[m] > 0 for m in MODALITIES], dim=1)

    def valid(self, modality: str) -> Bool[Tensor, "B T"]:
        """True within the utterance's length."""
        length = self.lengths[modality]
        return torch.arange(self.features[modality].shape[1], device=length.device) < length[:, None]

    def split(self) -> list["Batch"]:
        """Features and lengths in parts of about equal numbers, each cut to the T in `groups`, to save work on padding.
        Without groups, the batch itself."""
        if not self.groups:
            return [self]
        count, parts = len(self.lengths["text"]), []
        size = math.ceil(count / len(self.groups))
        for start, frames in zip(range(0, count, size), self.groups, strict=True):
            lengths = {m: n[start : start + size] for m, n in self.lengths.items()}
            features = {m: x[start : start + size, : frames[m]] for m, x in self.features.items()}
            reliable = None if self.reliable is None else self.reliable[start : start + size]
            parts.append(Batch(features, lengths, reliable=reliable))
        return parts


@dataclass
class Trace:
    """Intermediate results of a forward pass."""

    tokens: dict[str, Float[Tensor, "B k d"]] = field(default_factory=dict)  # shared, text, audio, vision
    projected: dict[str, Float[Tensor, "B d"]] = field(default_factory=dict)  # mean over valid frames of X_m
    weights: Float[Tensor, "#B M #d"] | None = None  # A; None when the model has no weighting
    lesson: object = None  # what a weighting with a loss of its own needs of a training batch
    attention: dict[str, Float[Tensor, "B h Q K"]] = field(default_factory=dict)  # by layer, only on request


class Model(nn.Module):
    """Base of every model. `prediction` is (B,) for regression, or logits: (B, 5) of classes, (B, K) of emotions."""

    def __init__(self, config: ModelConfig, family: str):
        super().__init__()
        self.config, self.family, self.outputs = config, family, config.outputs
        centres = torch.tensor(CLASS_CENTRES5[family], dtype=torch.float32)
        self.register_buffer("class_centres", centres, persistent=False)

    def loss(self, prediction: Tensor, target: Tensor, trace: Trace) -> Float[Tensor, ""]:
        """The training loss; models add auxiliary losses."""
        return self.task_loss(prediction, target)

    def task_loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """Mean absolute error, or cross-entropy of classes, target (B,), or of each emotion, target (B, K), 0 or 1."""
        if self.config.task == "classification":
            return cross_entropy(prediction, target)
        if prediction.shape != target.shape:  # (B, 1) against (B,) would broadcast to B x B and train a constant
            raise ValueError(f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; wanted equal")
        if self.config.task == "emotions":
            return binary_cross_entropy_with_logits(prediction, target)
        return l1_loss(prediction, target)

    def values(self, prediction: Tensor) -> Float[Tensor, "B ..."]:
        """A prediction on the label scale (B,), of a class its centre; for emotions probabilities (B, K)."""
        if self.config.task == "emotions":
            return prediction.sigmoid()
        if self.config.task == "classification":
            return self.class_centres[prediction.argmax(-1)]
        return prediction

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Parameter groups for the optimiser: those of `own_rates`, and the rest at the training's rate."""
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in self.own_rates(learning_rate)]
        separate = {id(p) for group in groups for p in group["params"]}
        rest = {"params": [p for p in self.parameters() if id(p) not in separate], "lr": learning_rate}
        return [group for group in (rest, *groups) if group["params"]]

    def own_rates(self, learning_rate: float) -> list[tuple[nn.Module, float]]:
        """Modules with a learning rate other than the training's: by default a BERT."""
        bert = getattr(self, "bert", None)
        return [] if bert is None or self.config.bert is None else [(bert, self.config.bert_lr)]


def utterance_loss(task: str, output: Float[Tensor, "B K"], target: Tensor) -> Float[Tensor, " B"]:
    """`Model.task_loss` of each utterance, from a head's outputs."""
    if task == "regression":
        return (output.squeeze(-1) - target).abs()
    if task == "classification":
        return cross_entropy(output, target, reduction="none")
    return binary_cross_entropy_with_logits(output, target, reduction="none").mean(-1)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_widths(batch: Batch, widths: dict[str, int]) -> None:
    """Raises ValueError unless the features have these widths."""
    for m, width in widths.items():
        if batch.features[m].shape[-1] != width:
            raise ValueError(f"{m} has {batch.features[m].shape[-1]} features a frame; wanted {width}")


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Raises ValueError for a size (or one of a tuple) below 1; None is allowed."""
    for name in names:
        value = getattr(config, name)
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1")


def read_out(head: nn.Module, hidden: Float[Tensor, "B e"], task: str) -> Tensor:
    """The head's prediction, (B,) for regression or logits, in float32: bfloat16 is too coarse near class edges."""
    with torch.autocast(hidden.device.type, enabled=False):
        output = head(hidden.to(next(head.parameters()).dtype))
    return output.squeeze(-1) if task == "regression" else output
