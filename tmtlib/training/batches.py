"""A split on the training device, with batches taken by index."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from tmtlib.common import MODALITIES, pick_device
from tmtlib.data.corrupt import keep_only
from tmtlib.data.schema import Split
from tmtlib.models.base import Batch, Model, ModelConfig
from tmtlib.models.frames import windowed
from tmtlib.stats import metrics

KEPT = 4  # splits that stay on a GPU
FRAMES = {"cpu": 350, "cuda": 20_000}  # approximate number of frames in a group of `Batch.split`, by device
SIZES = 8  # how many different T a modality may have on a GPU


class Reading(NamedTuple):
    """The settings of a model that decide what its batches hold."""

    modalities: tuple[str, ...]
    window: int | None
    masked: bool
    task: str

    @classmethod
    def of(cls, config: ModelConfig) -> "Reading":
        return cls(*(getattr(config, name) for name in cls._fields))


class OnDevice:
    """A split as tensors; on the CPU they share memory with the split's arrays, memory-mapped ones included.

    If padding is hidden from the model, a batch is cut to its longest utterance and, where it is large, split into
    groups of similar length; on a GPU, where every kernel costs time, into few groups of few shapes. Lengths, and the
    indices of utterances, are on the CPU, so that nothing waits for a GPU to know them.
    """

    def __init__(self, split: Split, device: torch.device, config: ModelConfig | Reading, family: str):
        split = split if config.modalities == MODALITIES else keep_only(split, config.modalities)
        features, lengths = ({m: torch.from_numpy(x[m]) for m in MODALITIES} for x in (split.features, split.lengths))
        cut = windowed(Batch(features, lengths), config.window)  # before mix-up, as the original TMT
        self.features = {m: x.to(device) for m, x in cut.features.items()}
        self.lengths = cut.lengths
        self.total = sum(self.lengths.values())
        self.text_bert = None if split.text_bert is None else torch.from_numpy(split.text_bert).to(device)
        self.reliable = None if split.reliable is None else torch.from_numpy(split.reliable).to(device)
        self.labels = target = split.labels_for(config.task)
        if config.task == "classification":
            target = metrics.classes5(target, family).astype(np.int64)
        elif config.task == "emotions":
            target = (target > 0).astype(np.float32)
        self.targets = torch.from_numpy(np.ascontiguousarray(target)).to(device)
        self.trim, self.device, self.frames = config.masked, device, FRAMES[device.type]
        self.step = {m: math.ceil(x.shape[1] / SIZES) if device.type == "cuda" else 1 for m, x in self.features.items()}

    def __len__(self) -> int:
        return len(self.targets)

    def by_length(self, index: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The same utterances from short to long, to reduce padding."""
        return index[self.total[index].argsort(stable=True)]

    def batch(self, index: Int64[Tensor, " B"]) -> Batch:
        """The utterances at `index`, which should be sorted by `by_length`."""
        features, lengths = self.gather(index)
        count = min(len(index), max(1, round(int(self.total[index].sum()) / self.frames))) if self.trim else 1
        size = math.ceil(len(index) / count)
        starts = range(0, len(index), size) if count > 1 else ()
        groups = tuple(self.sizes({m: n[i : i + size] for m, n in lengths.items()}) for i in starts)
        told = (None if x is None else x[self.at(index)] for x in (self.text_bert, self.reliable))
        return Batch(features, {m: self.at(n) for m, n in lengths.items()}, *told, groups)

    def gather(self, index: Int64[Tensor, " B"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features (B, T, D), and lengths (B,) on the CPU, by modality; where `trim` is set, T is cut by `sizes`."""
        lengths, at = {m: n[index] for m, n in self.lengths.items()}, self.at(index)
        longest = self.sizes(lengths)
        return {m: x[:, : longest[m]][at] for m, x in self.features.items()}, lengths

    def sizes(self, lengths: Mapping[str, Int64[Tensor, " B"]]) -> dict[str, int]:
        """T by modality: that of the longest utterance, at least 1, in whole `step`s; all frames without `trim`."""
        full = {m: x.shape[1] for m, x in self.features.items()}
        if not self.trim:
            return full
        steps = {m: math.ceil(max(1, int(n.max())) / self.step[m]) for m, n in lengths.items()}
        return {m: min(t, steps[m] * self.step[m]) for m, t in full.items()}

    def at(self, numbers: Tensor) -> Tensor:
        """A tensor of the CPU on the device, without waiting for it."""
        return numbers.to(self.device, non_blocking=True)

    def target(self, index: Int64[Tensor, " B"]) -> Tensor:
        """Labels (B,), classes (B,) for classification, or presence of emotions (B, K)."""
        return self.targets[self.at(index)]


def on_device(split: Split, device: torch.device, config: ModelConfig, family: str) -> OnDevice:
    """The split for a model; a GPU keeps the last `KEPT`, so that models and seeds share one upload."""
    make = OnDevice if device.type == "cpu" else uploaded
    return make(split, device, Reading.of(config), family)


uploaded = lru_cache(maxsize=KEPT)(OnDevice)


def sample_batch(model: Model, split: Split, size: int = 64) -> Batch:
    """The first utterances of a split as one batch on the CPU."""
    index = torch.arange(min(size, len(split)))
    data = OnDevice(split, torch.device("cpu"), model.config, model.family)
    return Batch(*data.gather(index), *(None if x is None else x[index] for x in (data.text_bert, data.reliable)))


def passes(model: Model, split: Split, size: int, device: str = "auto") -> Iterator[tuple[Int64[Tensor, " B"], Batch]]:
    """Batches of at most `size` utterances, short to long, with their indices, on the CPU; puts the model in evaluation
    mode."""
    where = pick_device(device)
    model.to(where).eval()
    data = on_device(split, where, model.config, model.family)
    for index in data.by_length(torch.arange(len(data))).split(size):
        yield index, data.batch(index)
