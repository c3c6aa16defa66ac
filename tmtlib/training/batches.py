"""A split on the training device, with batches taken by index."""

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

FRAMES = 350  # approximate number of frames in a group of `Batch.split` on a CPU


class OnDevice:
    """A split as tensors; on the CPU they share memory with the split's arrays, memory-mapped ones included.

    On the CPU, if padding is hidden from the model, a batch is cut to its longest utterance and split into groups of
    similar length. On a GPU batches keep all frames, which avoids copying sizes from the device.
    """

    def __init__(self, split: Split, device: torch.device, config: ModelConfig, family: str):
        split = split if config.modalities == MODALITIES else keep_only(split, config.modalities)
        features, lengths = ({m: torch.from_numpy(x[m]) for m in MODALITIES} for x in (split.features, split.lengths))
        cut = windowed(Batch(features, lengths), config.window)  # before mix-up, as the original TMT
        self.features = {m: x.to(device) for m, x in cut.features.items()}
        self.lengths = {m: n.to(device) for m, n in cut.lengths.items()}
        self.total = sum(self.lengths.values())
        self.text_bert = None if split.text_bert is None else torch.from_numpy(split.text_bert).to(device)
        self.reliable = None if split.reliable is None else torch.from_numpy(split.reliable).to(device)
        self.labels = target = split.labels_for(config.task)
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
        """The same utterances from short to long, to reduce padding."""
        return index[self.total[index].argsort(stable=True)]

    def batch(self, index: Int64[Tensor, " B"]) -> Batch:
        """The utterances at `index`, which should be sorted by `by_length`."""
        features, lengths = self.gather(index)
        groups = min(len(index), max(1, round(int(self.total[index].sum()) / FRAMES))) if self.trim else 1
        told = (None if x is None else x[index] for x in (self.text_bert, self.reliable))
        return Batch(features, lengths, *told, groups)

    def gather(self, index: Int64[Tensor, " B"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features (B, T, D) and lengths (B,) by modality; where `trim` is set, T is cut to the longest at `index`."""
        lengths = {m: n[index] for m, n in self.lengths.items()}
        longest = {m: max(1, int(n.max())) if self.trim else None for m, n in lengths.items()}
        return {m: x[:, : longest[m]][index] for m, x in self.features.items()}, lengths

    def target(self, index: Int64[Tensor, " B"]) -> Tensor:
        """Labels (B,), classes (B,) for classification, or presence of emotions (B, K)."""
        return self.targets[index]


def sample_batch(model: Model, split: Split, size: int = 64) -> Batch:
    """The first utterances of a split as one batch on the CPU."""
    index = torch.arange(min(size, len(split)))
    data = OnDevice(split, torch.device("cpu"), model.config, model.family)
    return Batch(*data.gather(index), *(None if x is None else x[index] for x in (data.text_bert, data.reliable)))


def passes(model: Model, split: Split, size: int, device: str = "auto") -> Iterator[tuple[Int64[Tensor, " B"], Batch]]:
    """Batches of at most `size` utterances, short to long, with their indices; puts the model in evaluation mode."""
    where = pick_device(device)
    model.to(where).eval()
    data = OnDevice(split, where, model.config, model.family)
    for index in data.by_length(torch.arange(len(data), device=where)).split(size):
        yield index, data.batch(index)
