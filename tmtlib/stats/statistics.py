"""Statistics over seeds and utterances: what a mean of few runs is worth. Pure functions of arrays.

Means and intervals are here; p values, effect sizes and power are in `tmtlib.stats.significance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from tmtlib.common import MODALITIES

CHUNK = 4_000_000  # weights of utterances held at once by a bootstrap (32 MB)


class Interval(NamedTuple):
    """A mean, its 95 % interval, and how many values it rests on; low and high are NaN for a single value."""

    mean: float
    low: float
    high: float
    n: int


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)


class Summary(NamedTuple):
    """A mean, the standard deviation (ddof 1; NaN for a single value), and how many values they rest on."""

    mean: float
    sd: float
    n: int


def summary(values: ArrayLike) -> Summary:
    """Mean, sd and n. Raises ValueError for no values or a value that is NaN."""
    x = _values(values)
    return Summary(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else float("nan"), len(x))


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean: mean +- t_{n-1} sd / sqrt(n), with sd of ddof 1.

    Raises ValueError for no values or a value that is NaN.
    """
    mean, sd, n = summary(values)
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * sd / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(after: ArrayLike, before: ArrayLike, confidence: float = 0.95) -> Interval:
    """The t interval of the mean difference after - before, pair by pair (a pair is a seed).

    Raises ValueError where the two have not the same number of values.
    """
    return t_interval(differences(after, before), confidence)


def differences(after: ArrayLike, before: ArrayLike) -> np.ndarray:
    """after - before, pair by pair, as (n,). Raises ValueError for unequal numbers, no pair, or a NaN."""
    a, b = np.asarray(after, np.float64).reshape(-1), np.asarray(before, np.float64).reshape(-1)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values after and {len(b)} before; wanted pairs")
    return _values(a - b)


def interval_or_nan(values: ArrayLike, skipna: bool = True) -> Interval:
    """`t_interval` of the values that are not NaN; NaN with n = 0 where there is none.

    With skipna=False one NaN among the values makes the interval NaN, and n counts all of them.
    """
    x = np.asarray(values, np.float64).reshape(-1)
    missing = np.isnan(x)
    if missing.any() and not skipna:
        return UNDEFINED._replace(n=len(x))
    return UNDEFINED if missing.all() else t_interval(x[~missing])


def over_seeds(
    frame: pd.DataFrame,
    keys: Sequence[str],
    value: str,
    against: str | Mapping[str, str] | None = None,
    skipna: bool = True,
) -> pd.DataFrame:
    """Mean of a column over seeds with its 95 % t interval: one row for each combination of `keys`, as they come.

    Args:
        frame: one row for each combination of `keys` and seed; columns `keys` and `value`, and "seed" for a mapping.
        against: what `value` is compared with, row by row: another column of the same rows, or {key: name} for the rows
            in which that key has that name, the other keys and the seed being the same, such as {"method": "tmt"}.
        skipna: leave out undefined values, and pairs of which one is undefined; else such a group is NaN.

    Columns: `keys`, mean, low, high, n (as `interval_or_nan`). With `against` also against (mean of what is compared
    with, over the pairs), difference (paired, `value` - against), difference_low, difference_high (its t interval) and
    pairs; NaN and 0 pairs where there is nothing to compare with. Raises ValueError where a seed of the rows compared
    with occurs twice.
    """
    columns = [*keys, *Interval._fields]
    if against is not None:
        columns += ["against", "difference", "difference_low", "difference_high", "pairs"]
    if frame.empty:
        return pd.DataFrame(columns=columns)
    if isinstance(against, Mapping):
        ((key, name),) = against.items()
        shared = [*(k for k in keys if k != key), "seed"]
        reference = frame.loc[frame[key] == name, [*shared, value]].rename(columns={value: "against"})
        frame, against = frame.merge(reference, on=shared, how="left", validate="many_to_one"), "against"
    rows = []
    for names, group in frame.groupby(list(keys), sort=False, dropna=False):
        row = (*names, *interval_or_nan(group[value], skipna))
        if against is not None:
            pairs = group.dropna(subset=[value, against]) if skipna else group
            difference = interval_or_nan(pairs[value] - pairs[against], skipna)
            row += (pairs[against].mean(skipna=skipna), *difference)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, method: str = "BCa", resamples: int = 9999, seed: int = 0
) -> Interval:
    """Bootstrap interval of a mean over seeds: "BCa" (bias-corrected, accelerated) or "percentile".

    It assumes no distribution, but with few seeds it is too narrow: of five normal values it covers the mean in 82 to
    85 of 100 cases where the t interval covers it in 95. Equal values have an interval of no width.
    Raises ValueError for no values, a NaN, or another method.
    """
    x = _values(values)
    if method not in ("BCa", "percentile"):
        raise ValueError(f"method is {method!r}; wanted 'BCa' or 'percentile'")
    mean = float(x.mean())
    if len(x) == 1 or np.ptp(x) == 0:
        low = high = float("nan") if len(x) == 1 else mean
        return Interval(mean, low, high, len(x))
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((x,), np.mean, confidence_level=confidence, n_resamples=resamples, method=method, rng=rng)
    return Interval(mean, *map(float, found.confidence_interval), len(x))


Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]  # predictions (S, N), labels (N,) -> a value a seed (S,)


def hierarchical_bootstrap(
    after: ArrayLike,
    before: ArrayLike,
    labels: ArrayLike | None = None,
    metric: Metric | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a paired difference, after - before, over seeds and utterances at once.

    Each resample draws S seeds and N utterances with replacement, the same for both methods, so that what a seed or an
    utterance has in common cancels. The two are crossed: every seed sees every utterance (Owen 2007).

    Args:
        after, before: (S, N), a row a seed: losses or scores of utterances, or with `metric` predictions.
        labels, metric: (N,) and a function of (predictions (S, N), labels (N,)) to (S,), for a metric that is no mean
            over utterances, such as F1 or a correlation. Without them the difference is that of the means.

    The interval is for both kinds of chance together. Where seeds differ much more than utterances, S below ten makes
    it too narrow, as any bootstrap of few values; S = 1 has utterances alone. n is S.
    Raises ValueError for other shapes, a NaN, or only one of labels and metric.
    """
    a, b = _same_shape(after, before)
    rng = np.random.default_rng(seed)
    if metric is None and labels is None:
        difference = a - b
        mean, drawn = float(difference.mean()), _resampled_means(difference, resamples, rng)
    elif metric is None or labels is None:
        raise ValueError("only one of labels and metric is given; wanted both or neither")
    else:
        y = np.asarray(labels)
        if y.shape != a.shape[1:]:
            raise ValueError(f"labels have shape {y.shape}; wanted {a.shape[1:]}, one an utterance")
        mean, drawn = float(np.mean(metric(a, y) - metric(b, y))), _resampled_metric(a, b, y, metric, resamples, rng)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), len(a))


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `values` (S, N) with rows and columns drawn with replacement: (resamples,).

    A resample is a count for each row and each column, so its mean is two products and no copy of the values.
    """
    seeds, utterances = values.shape
    step = max(1, CHUNK // utterances)
    found = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size) / seeds
        columns = rng.multinomial(utterances, np.full(utterances, 1 / utterances), size) / utterances
        found.append(np.einsum("rn,rn->r", rows @ values, columns))
    return np.concatenate(found)


def _resampled_metric(
    after: np.ndarray, before: np.ndarray, labels: np.ndarray, metric: Metric, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean differences of a metric with seeds and utterances drawn with replacement: (resamples,)."""
    drawn = np.empty(resamples)
    for r in range(resamples):
        seeds, some = (rng.integers(size, size=size) for size in after.shape)
        a, b = (predictions[np.ix_(seeds, some)] for predictions in (after, before))
        drawn[r] = np.mean(metric(a, labels[some]) - metric(b, labels[some]))
    return drawn


def probability_of_improvement(
    after: ArrayLike,
    before: ArrayLike,
    better: int = 1,
    paired: bool = False,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """P(a run after is better than a run before), ties half, with a percentile bootstrap interval over runs.

    Unpaired: the share of all pairs of runs, Mann-Whitney's U / (n m) (Agarwal et al. 2021); each method's runs are
    resampled on their own. Paired: the share of seeds. `better` is +1 where more is better and -1 where less is.
    n is the number of runs after. Raises ValueError for no values, a NaN, or unequal numbers where paired.
    """
    if paired:
        wins = 0.5 + 0.5 * np.sign(better * differences(after, before))
        drawn = _resampled_means(wins[None], resamples, np.random.default_rng(seed))
    else:
        a, b = _values(after), _values(before)
        wins = 0.5 + 0.5 * np.sign(better * (a[:, None] - b[None, :]))
        drawn = _resampled_means(wins, resamples, np.random.default_rng(seed))
    if wins.size == 1:
        return Interval(float(wins.mean()), float("nan"), float("nan"), 1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(wins.mean()), float(low), float(high), len(wins))


def _values(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(x) or np.isnan(x).any():
        raise ValueError(f"{len(x)} values, {np.isnan(x).sum()} of them NaN; wanted at least one, and none NaN")
    return x


def _same_shape(after: ArrayLike, before: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(after, np.float64), np.asarray(before, np.float64)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"shapes {a.shape} after and {b.shape} before; wanted the same (seeds, utterances)")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError(f"{np.isnan(a).sum()} values after and {np.isnan(b).sum()} before are NaN; wanted none")
    return a, b


def shapley(value) -> dict[str, float]:
    """Shapley value of each modality for a set function `value(tuple of modalities)`."""
    total = len(MODALITIES)
    result = {}
    for m in MODALITIES:
        others = [x for x in MODALITIES if x != m]
        result[m] = sum(
            factorial(k) * factorial(total - k - 1) / factorial(total) * (value((*s, m)) - value(s))
            for k in range(total)
            for s in combinations(others, k)
        )
    return result
