"""Dropout from random words: four elements share one 64-bit number, four times as fast on a CPU.

Models trained together (`training.learners`) must drop what each would drop alone: within `bits_from`, each `Dropout`
takes its bits from a list made in advance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Int16
from torch import Tensor, nn

LEVELS = 2**16  # a rate is rounded to a multiple of 1 / LEVELS


class Dropout(nn.Module):
    """Zeroes elements with probability `rate`, divides others by 1 - rate. Raises ValueError unless 0 <= rate <= 1."""

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"dropout is {rate}; wanted 0 to 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.rate * LEVELS)
        if not self.training or dropped == 0:
            return x
        source = _SOURCE.get()
        bits = random_bits(x.numel(), x.device) if source is None else source.take(x.numel())
        keep = bits.view(x.shape) < LEVELS // 2 - dropped  # int16 goes from -LEVELS / 2 to LEVELS / 2 - 1
        return x * keep * (LEVELS / max(1, LEVELS - dropped))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Bits:
    """Random bits, taken front to back."""

    def __init__(self, values: Int16[Tensor, " N"]):
        self.values, self.taken = values, 0

    def take(self, count: int) -> Int16[Tensor, " n"]:
        start, self.taken = self.taken, self.taken + count
        return self.values[start : self.taken]


class Counter(Bits):
    """Counts the bits taken; the bits drop nothing."""

    def __init__(self, device: torch.device):
        super().__init__(torch.full((1,), -LEVELS // 2, dtype=torch.int16, device=device))

    def take(self, count: int) -> Int16[Tensor, " n"]:
        self.taken += count
        return self.values.expand(count)


_SOURCE: ContextVar[Bits | None] = ContextVar("random bits for dropout", default=None)


@contextmanager
def bits_from(source: Bits) -> Iterator[Bits]:
    """Dropout takes its random bits from `source` instead of PyTorch's generator."""
    token = _SOURCE.set(source)
    try:
        yield source
    finally:
        _SOURCE.reset(token)


def random_bits(count: int, device: torch.device, generator: torch.Generator | None = None) -> Int16[Tensor, " n"]:
    """`count` random 16-bit numbers, four at a time."""
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
