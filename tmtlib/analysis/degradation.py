"""What can be said of rows of `robustness.sweep`: areas under curves, worst cases, orders of methods. Pure functions.

Means are over masks first, so n always counts training seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from tmtlib.data.corruption import CURVES
from tmtlib.stats import metrics
from tmtlib.stats.statistics import Interval, t_interval

METHOD = ["dataset", "source", "method", "regime"]
WHAT = ["protocol", "kind", "modality", "level"]
LOWER_IS_BETTER = ("mae",)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One long table of means over training seeds (of means over masks), sd (ddof 1) and n.

    Columns: dataset, source, method, regime, protocol, kind, modality, level, metric, mean, sd, n.
    """
    seeds = by_seed(rows).dropna(subset="value")
    grouped = seeds.groupby([*METHOD, *WHAT, "metric"], sort=False, dropna=False)["value"]
    return grouped.agg(mean="mean", sd=lambda v: v.std(ddof=1), n="count").reset_index()


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over masks in long form: METHOD, seed, WHAT, metric, value. A value is NaN where it is undefined with any
    mask (Corr of a constant prediction); metrics that a data set does not have are left out."""
    measured = [m for m in metrics.LABELS if m in rows]
    keys = [*METHOD, "seed", *WHAT]
    grouped = rows.groupby(keys, sort=False, dropna=False)[measured]
    means = grouped.mean().where(grouped.count().eq(grouped.size(), axis=0)).reset_index()
    long = means.melt(keys, measured, "metric", "value")
    return long[long.groupby([*METHOD, "metric"], sort=False)["value"].transform(lambda v: v.notna().any())]


def area_under_curve(rows: pd.DataFrame, metric: str = "mae", kind: str = "noise") -> pd.DataFrame:
    """Mean of a metric over the levels of one kind of corruption: a row a run and modality.

    Columns: dataset, source, method, regime, seed, modality, area (the metric's own unit: the normalised AUILC), clean
    (the metric where nothing is corrupted) and beyond (area minus clean: what the corruption adds).
    """
    some = rows[rows["kind"] == kind].rename(columns={metric: "value"})
    seeds = some.groupby([*METHOD, "seed", *WHAT], sort=False, dropna=False)["value"].mean().reset_index()
    found = _areas(seeds, [*METHOD, "seed", "modality"])
    return found.assign(area=found["auilc_normalised"], beyond=found["auilc_normalised"] - found["clean"])[
        [*METHOD, "seed", "modality", "area", "clean", "beyond"]
    ]


def auilc(rows: pd.DataFrame, measured: Sequence[str] = ("mae", "acc5", "f1_5class", "corr")) -> pd.DataFrame:
    """The area under each curve of a metric over levels, AUILC (Yuan et al. 2021): one row a method and curve.

    AUILC = sum over neighbouring levels of (x_i + x_{i+1}) / 2 (r_{i+1} - r_i), where r is the rate of missing frames
    (P1), the share of a block or the frames of a shift (P8), and for noise (P7), where decibels from infinity have no
    width, equal steps from 0 (clean) to 1 (the noisiest).

    Columns: dataset, source, method, regime, protocol, kind, modality, metric, auilc (mean over seeds),
    auilc_normalised (divided by the range of r: the metric's own unit), low, high (95 % t interval of
    auilc_normalised), clean (the metric where nothing is corrupted), relative_drop ((auilc_normalised - clean) /
    |clean|: a loss is positive for MAE and negative for all others), worst (over levels, of the means) and n. Where a
    metric is undefined at some level (Corr of a constant prediction), so is its area.
    """
    seeds = by_seed(rows)
    seeds = seeds[seeds["kind"].isin(CURVES) & seeds["metric"].isin(measured)]
    areas = _areas(seeds, [*METHOD, "seed", "protocol", "kind", "modality", "metric"])
    keys, found = [*METHOD, "protocol", "kind", "modality", "metric"], []
    for key, some in areas.groupby(keys, sort=False):
        area, undefined = some["auilc_normalised"], Interval(*3 * (float("nan"),), len(some))
        mean, low, high, n = t_interval(area) if area.notna().all() else undefined
        clean = some["clean"].mean(skipna=False)
        total = some["auilc"].mean(skipna=False)
        found.append((*key, total, mean, low, high, clean, (mean - clean) / abs(clean), n))
    columns = [*keys, "auilc", "auilc_normalised", "low", "high", "clean", "relative_drop", "n"]
    table = pd.DataFrame(found, columns=columns)
    means = seeds.groupby([*keys, "level"], sort=False)["value"].mean().groupby(keys, sort=False)
    worst = pd.concat([means.max(), means.min()], axis=1, keys=["max", "min"]).reset_index()
    table = table.merge(worst, on=keys)
    table["worst"] = np.where(table["metric"].isin(LOWER_IS_BETTER), table["max"], table["min"])
    return table[[*columns[:-1], "worst", "n"]]


def _areas(seeds: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """auilc, auilc_normalised and clean for each group of rows with `kind`, `level` and `value`."""
    found = []
    for key, some in seeds.groupby(keys, sort=False):
        ordered = some.sort_values("level", ascending=some["kind"].iloc[0] != "noise", kind="stable")
        value, level = ordered["value"].to_numpy(), ordered["level"].to_numpy()
        if some["kind"].iloc[0] == "noise":
            level = np.linspace(0, 1, len(level)) if len(level) > 1 else np.zeros(1)
        span = level[-1] - level[0]
        area = float(np.trapezoid(value, level))
        found.append((*key, area, area / span if span else float(value[0]), float(value[0])))
    return pd.DataFrame(found, columns=[*keys, "auilc", "auilc_normalised", "clean"])


def worst_case(rows: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Where each method is worst, over all corruptions: METHOD, metric, clean, worst (means over seeds and masks), n,
    and the protocol, kind, modality and level of the worst."""
    table = summary(rows)
    table, found = table[table["metric"] == metric], []
    for key, some in table.groupby(METHOD, sort=False):
        at = some["mean"].idxmax() if metric in LOWER_IS_BETTER else some["mean"].idxmin()
        clean = some[(some["kind"] == "missing_modalities") & (some["modality"] == "all")]["mean"]
        place = some.loc[at]
        known = clean.iloc[0] if len(clean) else float("nan")
        found.append((*key, metric, known, place["mean"], int(place["n"]), *(place[w] for w in WHAT)))
    return pd.DataFrame(found, columns=[*METHOD, "metric", "clean", "worst", "n", *WHAT])


def ranking_stability(areas: pd.DataFrame, draws: int = 1000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
    """Whether the methods' order by area under a curve is their order on clean data, and whether it can be relied on.

    For each data set, regime and modality of `area_under_curve`'s rows (only methods that all have the same seeds):
    tau, Kendall's rank correlation of the methods' mean clean values and mean areas; low and high, its percentiles over
    bootstrap draws of seeds; best (method with the least mean area), best_again (share of draws in which it is best
    again), methods and n (seeds). Areas must be of a metric where less is better.
    """
    rng, found = np.random.default_rng(seed), []
    keys = ["dataset", "source", "regime", "modality"]
    for key, some in areas.groupby(keys, sort=False):
        wide = some.pivot(index="seed", columns="method", values=["clean", "area"]).dropna(axis=1)
        clean, area = (wide[c] for c in ("clean", "area"))
        names, n = list(area.columns), len(area)
        if len(names) < 2:
            continue
        picks = rng.integers(0, n, (draws, n))
        taus = [kendalltau(clean.iloc[p].mean(), area.iloc[p].mean()).statistic for p in picks]
        best = area.mean().idxmin()
        again = np.mean([area.iloc[p].mean().idxmin() == best for p in picks])
        low, high = np.nanquantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
        tau = kendalltau(clean.mean(), area.mean()).statistic
        found.append((*key, tau, low, high, best, again, len(names), n))
    columns = [*keys, "tau", "low", "high", "best", "best_again", "methods", "n"]
    return pd.DataFrame(found, columns=columns)
