"""Intervals, two-sided tests, effect sizes and power of paired comparisons; Shapley values."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from tmtlib.common import MODALITIES

CHUNK = 4_000_000  # weights that a bootstrap holds at once (32 MB)
EXACT_PAIRS = 12  # up to this n all 2^n sign flips are tried
NO_SPREAD = 1e-9  # differences with an sd below this share of their mean are taken as equal


class Interval(NamedTuple):
    """A mean of n values and its 95 % interval; low and high are NaN for a single value."""

    mean: float
    low: float
    high: float
    n: int


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)


class TTests(NamedTuple):
    """95 % t intervals and two-sided p against 0, an array each."""

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


class McNemar(NamedTuple):
    """Utterances that only the method after (gained) or only the one before (lost) has right, and the exact p."""

    gained: int
    lost: int
    p: float


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval, mean +- t_{n-1} sd / sqrt(n), sd of ddof 1. Raises ValueError for no values or a NaN."""
    x = _values(values)
    mean, n = float(x.mean()), len(x)
    if n == 1:
        return UNDEFINED._replace(mean=mean, n=1)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2) * (x.std(ddof=1) / np.sqrt(n)))
    return Interval(mean, mean - half, mean + half, n)


def differences(after: ArrayLike, before: ArrayLike) -> np.ndarray:
    """after - before (n,). Raises ValueError for unequal numbers, no pair, or a NaN."""
    a, b = np.asarray(after, np.float64).reshape(-1), np.asarray(before, np.float64).reshape(-1)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values after and {len(b)} before; wanted pairs")
    return _values(a - b)


def _values(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(x) or np.isnan(x).any():
        raise ValueError(f"{len(x)} values, {np.isnan(x).sum()} of them NaN; wanted at least one, and none NaN")
    return x


def interval_or_nan(values: ArrayLike, skipna: bool = True) -> Interval:
    """`t_interval` without the NaN values (n = 0: NaN); with skipna=False any NaN makes it NaN, and n counts all."""
    x = np.asarray(values, np.float64).reshape(-1)
    missing = np.isnan(x)
    if missing.any() and not skipna:
        return UNDEFINED._replace(n=len(x))
    return UNDEFINED if missing.all() else t_interval(x[~missing])


def over_seeds(
    frame: pd.DataFrame, keys: Sequence[str], value: str, against: str | Mapping | None = None, skipna: bool = True
) -> pd.DataFrame:
    """Mean of a column over seeds with its 95 % t interval: one row for each combination of `keys`, in their order.

    Args:
        frame: one row for each combination of `keys` and seed; columns `keys` and `value`, and "seed" for a mapping.
        against: compared with `value`, row by row: another column, or {key: name} for the rows in which that key has
            that name, with the other keys and the seed equal, such as {"method": "tmt"}.
        skipna: leave out NaN, and pairs with a NaN; else such a group is NaN.

    Columns: `keys`, mean, low, high, n (as `interval_or_nan`). With `against` also against (its mean over the pairs),
    difference (paired, `value` - against), difference_low, difference_high (its t interval) and pairs; NaN and 0
    without pairs. Raises ValueError where a seed occurs twice in the rows compared with.
    """
    compared = ["against", "difference", "difference_low", "difference_high", "pairs"]
    columns = [*keys, *Interval._fields, *(compared if against is not None else ())]
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


def hierarchical_bootstrap(after: ArrayLike, before: ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile interval of a paired difference, after - before, over seeds and utterances at once; n is S.

    Args: after, before: (S, N), losses or scores by seed and utterance.

    Each resample draws S seeds and N utterances with replacement, the same for both methods: crossed (Owen 2007). Too
    narrow for S below ten where seeds vary much more than utterances. Raises ValueError for other shapes or a NaN.
    """
    a, b = np.asarray(after, np.float64), np.asarray(before, np.float64)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"shapes {a.shape} after and {b.shape} before; wanted the same (seeds, utterances)")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError(f"{np.isnan(a).sum()} values after and {np.isnan(b).sum()} before are NaN; wanted none")
    return _percentiles(a - b, resamples, seed)


def bootstrap_scores(
    score: Callable[[np.ndarray], Mapping[str, float]],
    n: int,
    resamples: int = 500,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """`score(index)` of all n utterances with 95 % percentile intervals over utterances drawn with replacement; with
    `groups`, such as the video of each, over whole groups: what one video's utterances share counts once."""
    rng = np.random.default_rng(seed)
    members = None if groups is None else list(pd.Series(groups).groupby(groups, sort=False).indices.values())

    def drawn() -> np.ndarray:
        if members is None:
            return rng.integers(n, size=n)
        return np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])

    draws = pd.DataFrame([score(drawn()) for _ in range(resamples)])
    low, high = draws.quantile(0.025), draws.quantile(0.975)  # a metric that some draws lack: of the others
    return {name: Interval(value, low[name], high[name], n) for name, value in score(np.arange(n)).items()}


def conformal_half_width(errors: ArrayLike, level: float) -> float:
    """Half the width of an interval around a prediction that holds the label with probability `level`.

    Split conformal prediction (Lei et al. 2018, JASA): the ceil((V + 1) level)-th smallest of V errors, |prediction -
    label| on utterances that the model was not fitted to; infinite where V is too small. Exact for exchangeable ones.
    Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a probability between 0 and 1, such as 0.9")
    errors, rank = np.sort(errors), int(np.ceil((len(errors) + 1) * level))
    return float(errors[rank - 1]) if rank <= len(errors) else np.inf


def probability_of_improvement(
    after: ArrayLike, before: ArrayLike, better: int = 1, resamples: int = 2000, seed: int = 0
) -> Interval:
    """P(a run after is better than a run before), ties half, with a 95 % percentile bootstrap interval over runs.

    Mann-Whitney's U / (n m) over all pairs of runs (Agarwal et al. 2021); each method's runs are resampled separately.
    `better`: +1 where more is better, -1 where less is. n: runs after. Raises ValueError for no values or a NaN.
    """
    a, b = _values(after), _values(before)
    wins = 0.5 + 0.5 * np.sign(better * (a[:, None] - b[None, :]))
    if wins.size == 1:
        return UNDEFINED._replace(mean=float(wins.mean()), n=1)
    return _percentiles(wins, resamples, seed)


def _percentiles(values: np.ndarray, resamples: int, seed: int) -> Interval:
    """Mean of `values` (S, N), and percentiles .025 and .975 of means of rows and columns drawn with replacement."""
    rng, (n_rows, n_columns) = np.random.default_rng(seed), values.shape
    step = max(1, CHUNK // n_columns)
    means = []  # of a resample given as counts of rows and columns: two products, without copying `values`
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size) / n_rows
        columns = rng.multinomial(n_columns, np.full(n_columns, 1 / n_columns), size) / n_columns
        means.append(np.einsum("rn,rn->r", rows @ values, columns))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), n_rows)


def paired_p(after: ArrayLike, before: ArrayLike) -> float:
    """p of the paired t test; NaN for one pair and for equal differences. Raises ValueError as `differences`."""
    return np.nan if np.isnan(cohen_dz(after, before)) else float(stats.ttest_rel(after, before).pvalue)


def t_tests(mean: ArrayLike, error: ArrayLike, df: ArrayLike, confidence: float = 0.95) -> TTests:
    """t tests of means (cells,) with these standard errors and degrees of freedom (cells,).

    p is NaN where there is no spread: an error of `NO_SPREAD` times the mean or less.
    """
    mean, error, df = (np.asarray(values, np.float64) for values in (mean, error, df))
    half = special.stdtrit(df, (1 + confidence) / 2) * error
    spread = error > NO_SPREAD * np.abs(mean)
    t = np.divide(mean, error, out=np.full_like(mean, np.nan), where=spread)
    return TTests(mean - half, mean + half, 2 * special.stdtr(df, -np.abs(t)))


def moderated_error(sd: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of means and their degrees of freedom, (cells,) each, with variances pooled over the cells.

    Args: sd: of n values (ddof 1), n: at least 2, (cells,) each, of one unit. Cells with a NaN sd stay NaN.

    The moderated t of Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3, 3): variances have a scaled inverse chi-square
    prior, d0 degrees of freedom at s0^2, both from the moments of the log variances, as in limma's `fitFDist`. No more
    degrees of freedom than all cells have together. Fewer than three cells, and those of which most have no spread, are
    not pooled.
    """
    sd, n = np.asarray(sd, np.float64), np.asarray(n, np.float64)
    known = ~np.isnan(sd) & (n > 1)
    df, variance = n - 1, sd**2
    if known.sum() < 3 or not np.median(variance[known]):
        return sd / np.sqrt(n), df
    d, v = df[known], variance[known]
    v = np.maximum(v, 1e-5 * np.median(v))  # as limma: a variance of 0 has no logarithm
    log_v = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    excess = log_v.var(ddof=1) - special.polygamma(1, d / 2).mean()  # of the log variances over sampling
    if excess > 0:
        half_d0 = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1 / excess, 1 / excess + 1)
        s0 = np.exp(log_v.mean() + special.digamma(half_d0) - np.log(half_d0))
        posterior = (2 * half_d0 * s0 + df * variance) / (2 * half_d0 + df)
        total = df + 2 * half_d0
    else:
        posterior, total = np.where(known, np.exp(log_v.mean()), np.nan), np.full_like(df, np.inf)
    return np.sqrt(posterior / n), np.minimum(total, d.sum())


def permutation_p(after: ArrayLike, before: ArrayLike, resamples: int = 9999, seed: int = 0) -> float:
    """p of the paired permutation test of a mean difference, by random signs of the differences.

    Exact, over all 2^n signs, for n <= 12; else `resamples` random ones and the one observed. The smallest possible p
    is 2 / 2^n, .0625 for five pairs. Raises ValueError for unequal numbers, fewer than two pairs, or a NaN.
    """
    d, rng = differences(after, before), np.random.default_rng(seed)
    tries = np.inf if len(d) <= EXACT_PAIRS else resamples
    signs = {"permutation_type": "samples", "vectorized": True, "n_resamples": tries, "rng": rng}
    return float(stats.permutation_test((d,), np.mean, **signs).pvalue)


def mcnemar(after: ArrayLike, before: ArrayLike) -> McNemar:
    """Exact McNemar test of two (N,) booleans: whether each utterance is right. Raises ValueError for other values."""
    a, b = np.asarray(after).reshape(-1), np.asarray(before).reshape(-1)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} utterances after and {len(b)} before; wanted the same, at least one")
    if not np.isin(np.concatenate([a, b]), (0, 1)).all():
        raise ValueError("values other than 0 and 1; wanted whether each utterance is right")
    gained, lost = int(np.sum((a == 1) & (b == 0))), int(np.sum((a == 0) & (b == 1)))
    return McNemar(gained, lost, mcnemar_p(gained, lost))


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact McNemar p from discordant counts (binomial, 1/2); 1 without any. Raises ValueError for negative counts."""
    if gained < 0 or lost < 0:
        raise ValueError(f"{gained} gained and {lost} lost; wanted counts of utterances")
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def adjusted_p(p: ArrayLike) -> np.ndarray:
    """Benjamini-Hochberg adjusted p; NaN stays NaN and is not counted. Raises ValueError for p outside 0 to 1."""
    values = np.array(p, np.float64)
    defined = ~np.isnan(values)
    if ((values[defined] < 0) | (values[defined] > 1)).any():
        raise ValueError(f"p from {np.nanmin(values)} to {np.nanmax(values)}; wanted 0 to 1")
    if defined.any():
        values[defined] = stats.false_discovery_control(values[defined], method="bh")
    return values


def cohen_dz(after: ArrayLike, before: ArrayLike) -> float:
    """Paired effect size: mean over sd (ddof 1) of the differences; NaN where they have no spread."""
    d = differences(after, before)
    spread = d.std(ddof=1) if len(d) > 1 else 0.0
    return float(d.mean() / spread) if spread > NO_SPREAD * abs(d.mean()) else float("nan")


def paired_power(effect: float, n: int, sd: float = 1.0, alpha: float = 0.05) -> float:
    """Power of the paired t test at a mean difference `effect` with `sd`. Raises ValueError for n < 2 or sd <= 0."""
    if n < 2 or not sd > 0:
        raise ValueError(f"n is {n} and sd {sd}; wanted at least two pairs and an sd above 0")
    df, shift = n - 1, abs(effect) / sd * np.sqrt(n)
    critical = stats.t.ppf(1 - alpha / 2, df)
    wrong_side = stats.nct.cdf(-critical, df, shift)  # scipy gives NaN where it is too small for it
    return float(stats.nct.sf(critical, df, shift) + np.nan_to_num(wrong_side))


def minimum_detectable_effect(n: int, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest mean difference, in the unit of `sd`, that the paired t test of n pairs finds with that power.

    `sd`: of the paired differences. NaN for n < 2 or a NaN sd. Raises ValueError for a negative sd.
    """
    if sd < 0:
        raise ValueError(f"sd is {sd}; wanted 0 or more")
    return _detectable(n, power, alpha) * float(sd) if n >= 2 else float("nan")


@lru_cache
def _detectable(n: int, power: float, alpha: float) -> float:
    """The minimum detectable effect in units of sd, a root between 0 and twice the central-t approximation."""
    rough = (stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1)) / np.sqrt(n)
    return float(optimize.brentq(lambda d: paired_power(d, n, alpha=alpha) - power, 0, 2 * rough))


def pairs_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Fewest pairs with which the paired t test finds a mean difference `effect` with that power; `sd` as above.

    NaN for no effect, no sd or a NaN. Raises ValueError for a negative sd.
    """
    if sd < 0:
        raise ValueError(f"sd is {sd}; wanted 0 or more")
    if not abs(effect) > 0 or not sd > 0:
        return float("nan")
    normal = ((special.ndtri(1 - alpha / 2) + special.ndtri(power)) * sd / effect) ** 2  # a t test needs more
    n = max(2, int(normal))
    while paired_power(effect, n, sd, alpha) < power:
        n += 1
    return float(n)


def shapley(value: Callable[[tuple[str, ...]], float | np.ndarray]) -> dict[str, float | np.ndarray]:
    """Shapley value of each modality for a set function `value(tuple of modalities)`."""
    values, total = {}, len(MODALITIES)
    for m in MODALITIES:
        others = [x for x in MODALITIES if x != m]
        subsets = (s for k in range(total) for s in combinations(others, k))
        values[m] = sum(1 / (total * comb(total - 1, len(s))) * (value((*s, m)) - value(s)) for s in subsets)
    return values
