"""Is a weight an importance? Measures of importance against the ground truth of many worlds.

In one data set three points decide nothing: any measure that says "text" agrees with a truth that says "text". Over
worlds whose truth is drawn anew (`tmtlib.data.recipes`), agreement is a correlation with an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from scipy import stats

from tmtlib.common import MODALITIES
from tmtlib.data.loading import synthetic_ref
from tmtlib.data.schema import SyntheticSize
from tmtlib.study.methods import method_config
from tmtlib.study.runs import Run
from tmtlib.study.study import Study

Points = Float[np.ndarray, "*R W M"]  # shares of W worlds and M modalities; R resamples


def runs_in_worlds(
    study: Study, *methods: str, worlds: int | None = None, size: SyntheticSize | None = None, name: str = "mosi"
) -> list[Run]:
    """One run a world and method, with the study's model and training, on synthetic data whatever the study's data are.

    worlds, size: how many worlds (numbers 0, 1, ...) and how large; default: as the profile says. The seed is the
    profile's first. Train them with `runs.ensure(todo, study.device, study.profile.jobs)`.
    """
    p = study.profile
    refs = [synthetic_ref(name, replace(size or p.world_size, world=w)) for w in range(worlds or p.worlds)]
    return [Run(ref, m, method_config(m, p.model), p.training, p.seeds[0]) for m in methods for ref in refs]


def agreement(table: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How well each measure of importance agrees with the ground truth, over worlds and modalities.

    table: `importance.table` of runs in several worlds (their data sets have names of their own). One row a method,
    measure and statistic: source ("synthetic"), method, measure, statistic, value, low, high (95 % percentile bootstrap
    over worlds), chance and n (worlds). Statistics, all of shares, which sum to one in a world:

    spearman, pearson  correlation with the true share over all worlds and modalities; chance 0
    slope              of the share on the true share, least squares; 1 for the truth itself, 0 for a constant
    top                share of worlds whose most important modality the measure names; chance: naming always the one
                       that is most often on top

    A measure that never varies has no correlation (NaN). Raises ValueError for a table without a truth.
    """
    known = table.dropna(subset="truth")
    if known.empty:
        raise ValueError(f"none of {table['dataset'].nunique()} data sets has a ground truth; wanted synthetic worlds")
    rows = []
    for (source, method, measure), some in known.groupby(["source", "method", "measure"], sort=False):
        wide = some.pivot(index=["dataset", "source"], columns="modality")
        share, truth = (wide[column][list(MODALITIES)].to_numpy() for column in ("mean", "truth"))
        often = np.bincount(truth.argmax(1)).max() / len(truth)
        for name, statistic in STATISTICS.items():
            start = {"source": source, "method": method, "measure": measure, "statistic": name}
            value, low, high = _over_worlds(statistic, share, truth, resamples, seed)
            chance = often if name == "top" else 0.0
            rows.append(start | {"value": value, "low": low, "high": high, "chance": chance, "n": len(truth)})
    return pd.DataFrame(rows)


def _over_worlds(
    statistic: Callable, share: Points, truth: Points, resamples: int, seed: int
) -> tuple[float, float, float]:
    """A statistic and its 95 % percentile interval over worlds drawn with replacement; no interval for one world.

    Worlds are drawn whole, as shares of one world depend on each other. Draws that hold one world alone, or others
    without a value, are left out.
    """

    def of(worlds: Int64[np.ndarray, "*R W"]) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(share[worlds], truth[worlds])

    n = len(truth)
    value = float(of(np.arange(n)))
    if n == 1 or np.isnan(value):
        return value, float("nan"), float("nan")
    drawn = of(np.random.default_rng(seed).integers(n, size=(resamples, n)))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def _flat(points: Points) -> Float[np.ndarray, "*R P"]:
    return points.reshape(*points.shape[:-2], -1)


def pearson(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Correlation over all worlds and modalities; NaN where either never varies, beyond rounding."""
    x, y = (v - v.mean(-1, keepdims=True) for v in (_flat(share), _flat(truth)))
    x = np.where(np.abs(x).max(-1, keepdims=True) < 1e-9, 0, x)
    return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def spearman(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Rank correlation over all worlds and modalities, ties by mean ranks; shares equal to nine digits are ties."""
    ranks = (stats.rankdata(np.round(_flat(v), 9), axis=-1)[..., None] for v in (share, truth))
    return pearson(*ranks)


def slope(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Of the regression line of share on true share."""
    x, y = (v - v.mean(-1, keepdims=True) for v in (_flat(truth), _flat(share)))
    return (x * y).sum(-1) / (x**2).sum(-1)


def top(share: Points, truth: Points) -> Float[np.ndarray, "*R"]:
    """Share of worlds whose greatest share is that of the truly most important modality; k that tie count 1/k each."""
    largest = np.isclose(share, share.max(-1, keepdims=True), rtol=0, atol=1e-9)
    named = np.take_along_axis(largest, truth.argmax(-1)[..., None], -1)[..., 0] / largest.sum(-1)
    return named.mean(-1)


STATISTICS = {"spearman": spearman, "pearson": pearson, "slope": slope, "top": top}


def readable(over: pd.DataFrame, least: float = 0.25) -> pd.DataFrame:
    """What each measure may be read as, from `agreement`'s rows: one row a method and measure.

    Columns: method, measure, spearman, slope and top (values), chance (of top), n (worlds) and readable: "size" where
    the intervals of the rank correlation and of the slope lie above 0 and `least`; "order" where the first does; "not"
    else, and where either is undefined.
    """
    wide = over.pivot(index=["method", "measure"], columns="statistic", values=["value", "low", "chance", "n"])
    follows = wide["low", "spearman"] > 0
    found = wide["value"][["spearman", "slope", "top"]]
    found = found.assign(chance=wide["chance", "top"], n=wide["n", "top"].astype(int))
    found["readable"] = np.select([follows & (wide["low", "slope"] > least), follows], ["size", "order"], "not")
    return found.reset_index().rename_axis(columns=None)
