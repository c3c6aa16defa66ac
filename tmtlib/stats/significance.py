"""p values, effect sizes and power of paired comparisons. Pure functions of arrays; all tests are two-sided."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from tmtlib.stats.statistics import differences

EXACT_PAIRS = 12  # up to here all 2^n sign flips are tried: at most 4096
NO_SPREAD = 1e-9  # differences whose sd is a smaller share of their mean are equal but for rounding


class McNemar(NamedTuple):
    """Utterances that only the one after (gained) or only the one before (lost) has right, and the exact p."""

    gained: int
    lost: int
    p: float


def paired_p(after: ArrayLike, before: ArrayLike) -> float:
    """p of the paired t test; NaN for a single pair, and for equal differences, which show no spread to test against.

    Raises ValueError for unequal numbers, no pair, or a NaN.
    """
    d = differences(after, before)
    if not has_spread(d):
        return float("nan")
    t = d.mean() / d.std(ddof=1) * np.sqrt(len(d))
    return float(2 * special.stdtr(len(d) - 1, -abs(t)))  # as scipy.stats.ttest_rel, without its checks


def has_spread(values: ArrayLike) -> bool:
    """Whether there are at least two values that differ by more than rounding."""
    x = np.asarray(values, np.float64)
    return x.size > 1 and bool(x.std(ddof=1) > NO_SPREAD * abs(x.mean()))


def permutation_p(after: ArrayLike, before: ArrayLike, resamples: int = 9999, seed: int = 0) -> float:
    """p of the paired permutation test of a mean difference: signs of the differences flip at random.

    Exact, over all 2^n flips, for n <= 12; else from `resamples` random ones, counting the one observed. The smallest
    p possible is 2 / 2^n: with five pairs .0625, so five seeds cannot reach .05.
    Raises ValueError for unequal numbers, no pair, or a NaN.
    """
    d = differences(after, before)
    found = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if len(d) <= EXACT_PAIRS else resamples,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def mcnemar(after: ArrayLike, before: ArrayLike) -> McNemar:
    """Exact McNemar test of two classifiers on the same utterances: which of them each has right, (N,) booleans.

    Raises ValueError for unequal numbers, no utterance, or values that are neither 0 nor 1.
    """
    a, b = np.asarray(after).reshape(-1), np.asarray(before).reshape(-1)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} utterances after and {len(b)} before; wanted the same, at least one")
    if not np.isin(np.concatenate([a, b]), (0, 1)).all():
        raise ValueError("values other than 0 and 1; wanted whether each utterance is right")
    gained, lost = int(np.sum((a == 1) & (b == 0))), int(np.sum((a == 0) & (b == 1)))
    return McNemar(gained, lost, mcnemar_p(gained, lost))


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact McNemar p from discordant counts: binomial, 1/2 each way; 1 where there are none."""
    if gained < 0 or lost < 0:
        raise ValueError(f"{gained} gained and {lost} lost; wanted counts of utterances")
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def adjusted_p(p: ArrayLike) -> np.ndarray:
    """Benjamini-Hochberg adjusted p of a family of tests, in the shape given.

    NaN, a comparison that could not be made, stays NaN and does not count. Raises ValueError for p outside 0 to 1.
    """
    values = np.asarray(p, np.float64)
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError(f"p from {np.nanmin(values)} to {np.nanmax(values)}; wanted 0 to 1")
    found = np.full_like(values, np.nan)
    if known.any():
        found[known] = stats.false_discovery_control(values[known], method="bh")
    return found


def cohen_dz(after: ArrayLike, before: ArrayLike) -> float:
    """Paired effect size: mean of the differences over their sd (ddof 1); NaN where they have no spread."""
    d = differences(after, before)
    return float(d.mean() / d.std(ddof=1)) if has_spread(d) else float("nan")


def hedges_gz(after: ArrayLike, before: ArrayLike) -> float:
    """`cohen_dz` without its upward bias for few pairs (Hedges 1981, exact gamma form).

    NaN below three pairs, where the correction is not defined.
    """
    df = len(differences(after, before)) - 1
    if df < 2:
        return float("nan")
    log_factor = special.gammaln(df / 2) - special.gammaln((df - 1) / 2) - 0.5 * np.log(df / 2)
    return float(np.exp(log_factor) * cohen_dz(after, before))


def paired_power(effect: float, n: int, sd: float = 1.0, alpha: float = 0.05) -> float:
    """Power of the paired t test of n pairs at a true mean difference `effect`, with sd of the differences.

    Raises ValueError for fewer than two pairs or an sd that is not above 0.
    """
    if n < 2 or not sd > 0:
        raise ValueError(f"n is {n} and sd {sd}; wanted at least two pairs and an sd above 0")
    df, shift = n - 1, abs(effect) / sd * np.sqrt(n)
    critical = stats.t.ppf(1 - alpha / 2, df)
    wrong_side = stats.nct.cdf(-critical, df, shift)  # scipy gives NaN where it is too small for it
    return float(stats.nct.sf(critical, df, shift) + np.nan_to_num(wrong_side))


def minimum_detectable_effect(n: int, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true mean difference that the paired t test of n pairs finds with that power; in the unit of sd.

    sd is that of the paired differences. NaN for fewer than two pairs, or where sd is NaN. Raises ValueError for a
    negative sd.
    """
    if sd < 0:
        raise ValueError(f"sd is {sd}; wanted 0 or more")
    return _detectable(n, power, alpha) * float(sd) if n >= 2 else float("nan")


@lru_cache
def _detectable(n: int, power: float, alpha: float) -> float:
    """The minimum detectable effect in units of sd."""
    # The central-t approximation is close; the root lies between 0 and twice it
    rough = (stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1)) / np.sqrt(n)
    return float(optimize.brentq(lambda d: paired_power(d, n, alpha=alpha) - power, 0, 2 * rough))
