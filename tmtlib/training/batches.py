"""A split on the device that trains on it. Batches are taken by index, without any per-utterance Python."""

from __future__ import annotations

from collections.abc import Iterator

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

FRAMES = 350  # about so many frames of like long utterances go through a model together on a CPU


class OnDevice:
    """A split as tensors on one device. On the CPU they are the split's own arrays, memory-mapped ones included.

    Where padding is hidden from the model, a batch on the CPU holds no frames beyond its longest utterance, and its
    utterances are worked on in groups of like length. On a GPU every batch is whole, so that none of its sizes has to
    be fetched from the device.
    """

    def __init__(self, split: Split, device: torch.device, config: ModelConfig, family: str):
        split = split if config.modalities == MODALITIES else keep_only(split, config.modalities)
        features, lengths = ({m: torch.from_numpy(x[m]) for m in MODALITIES} for x in (split.features, split.lengths))
        cut = windowed(Batch(features, lengths), config.window)  # before any mix-up, as the original
        self.features = {m: x.to(device) for m, x in cut.features.items()}
        self.lengths = {m: n.to(device) for m, n in cut.lengths.items()}
        self.total = sum(self.lengths.values())
        self.text_bert = None if split.text_bert is None else torch.from_numpy(split.text_bert).to(device)
        target = split.labels_for(config.task)
        if config.task == "classification":
            target = metrics.classes5(target, family).astype(np.int64)
        elif config.task == "emotions":
            target = (target > 0).astype(np.float32)
        self.targets = torch.from_numpy(np.ascontiguousarray(target)).to(device)
        self.trim = config.masked and device.type == "cpu"
        self.device = device

    def __len__(self) -> int:
        return len(self.targets)

    def by_length(self, index: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The same utterances from short to long: neighbours then need little padding."""
        return index[self.total[index].argsort(stable=True)]

    def batch(self, index: Int64[Tensor, " B"]) -> Batch:
        """The utterances at `index`, which should come `by_length`."""
        features, lengths = self.gather(index, self.trim)
        groups = min(len(index), max(1, round(int(self.total[index].sum()) / FRAMES))) if self.trim else 1
        return Batch(features, lengths, None if self.text_bert is None else self.text_bert[index], groups)

    def gather(self, index: Int64[Tensor, "*S B"], trim: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features (*S, B, T, D) and lengths (*S, B) by modality; `trim` cuts T to the longest at `index`."""
        features, lengths = {}, {}
        for m in MODALITIES:
            length, x = self.lengths[m][index], self.features[m]
            if trim:
                x = x[:, : max(1, int(length.max()))]
            features[m], lengths[m] = x[index], length
        return features, lengths

    def target(self, index: Int64[Tensor, "*S B"]) -> Tensor:
        """Labels (*S, B), or their classes where the task is classification; which emotions are there: (*S, B, 6)."""
        return self.targets[index]


def sample_batch(model: Model, split: Split, size: int = 64) -> Batch:
    """The first utterances of a split as one batch on the CPU, for a look at what a model computes."""
    index = torch.arange(min(size, len(split)))
    data = OnDevice(split, torch.device("cpu"), model.config, model.family)
    return Batch(*data.gather(index, data.trim), None if data.text_bert is None else data.text_bert[index])


def passes(model: Model, split: Split, size: int, device: str = "auto") -> Iterator[tuple[Int64[Tensor, " B"], Batch]]:
    """Batches of at most `size` utterances of a split, from short to long, and which utterances they are.

    The model is put on the device and in evaluation mode first. The caller turns gradients off where it wants none.
    """
    where = pick_device(device)
    model.to(where).eval()
    data = OnDevice(split, where, model.config, model.family)
    for index in data.by_length(torch.arange(len(data), device=where)).split(size):
        yield index, data.batch(index)
