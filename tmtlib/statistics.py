"""Statistics over seeds: what a mean of few runs is worth. Pure functions of arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A mean, its 95 % interval, and how many values it rests on; low and high are NaN for a single value."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean: mean +- t_{n-1} sd / sqrt(n), with sd of ddof 1.

    Raises ValueError for no values or a value that is NaN.
    """
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(x) or np.isnan(x).any():
        raise ValueError(f"{len(x)} values, {np.isnan(x).sum()} of them NaN; wanted at least one, and none NaN")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def paired_interval(after: ArrayLike, before: ArrayLike, confidence: float = 0.95) -> Interval:
    """The t interval of the mean difference after - before, pair by pair (a pair is a seed).

    Raises ValueError where the two have not the same number of values.
    """
    a, b = np.asarray(after, np.float64).reshape(-1), np.asarray(before, np.float64).reshape(-1)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values after and {len(b)} before; wanted pairs")
    return t_interval(a - b, confidence)
