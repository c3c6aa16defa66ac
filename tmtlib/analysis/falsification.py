"""What the weights under corruption say of the claim that AMW adapts: verdicts by rules fixed beforehand.

Pure functions of the rows of `tmtlib.analysis.adaptation`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from tmtlib.paper.verdicts import combined_verdict
from tmtlib.stats.statistics import Interval, paired_interval, t_interval

UNIFORM = "tmt_uniform"
LEAST = 0.01  # of a weight, or of a normalised entropy: a smaller change counts as none
CELL = ["dataset", "source", "when", "regime", "modality", "kind"]
VERDICT_COLUMNS = [
    *("dataset", "source", "method", "when", "regime", "modality", "kind", "n", "clean", "noisiest"),
    *("change", "change_low", "change_high", "spearman", "spearman_low", "spearman_high"),
    *("gain", "gain_low", "gain_high", "gain_all", "gain_all_low", "gain_all_high", "verdict", "evidence"),
]


def verdict(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether each variant down-weights a corrupted modality, and whether that lowers the error: a row a method and
    cell (data set, when, regime, modality, kind).

    Columns, all over seeds with 95 % t intervals (`_low`, `_high`; not adjusted for the number of cells): clean and
    noisiest (mean weights at the two ends), change (noisiest minus clean), spearman (of weight against how strong the
    corruption is, by seed; NaN where the weight is constant), gain (MAE minus that of uniform weights with the same
    seed, at the noisiest level; below 0 is better), gain_all (mean of that over all levels), verdict, evidence.

    Rules, in this order:
        impossible as written  in every seed the weight is the same at every level, to the last bit
        not supported          the weight surely does not fall by `LEAST`: the interval of the change lies above -LEAST
        supported              the intervals of the change, of Spearman's rho and of the gain all lie below 0
        cannot tell            else: too few seeds, an open interval, or a fall that buys nothing
    """
    rows = []
    for key, cell in frame.groupby(CELL, sort=False):
        uniform = _by_level(cell[cell["method"] == UNIFORM], "mae")
        for method, some in cell.groupby("method", sort=False):
            rows.append(dict(zip(CELL, key, strict=True)) | {"method": method} | _judged(some, uniform))
    return pd.DataFrame(rows, columns=VERDICT_COLUMNS)


def combined(judged: pd.DataFrame) -> pd.DataFrame:
    """One verdict a variant and time on "it down-weights a noisy modality", from the rows of `verdict`.

    "impossible as written" where every cell is; else "supported" where every cell is, "not supported" where any is
    not, else "cannot tell". Columns: dataset, source, method, when, verdict, cells (how many), and of the cell in which
    the weight fell most: modality, kind, change, change_low, change_high, gain, gain_low, gain_high, n.
    """
    keys, rows = ["dataset", "source", "method", "when"], []
    shown = ["modality", "kind", *(f"{c}{end}" for c in ("change", "gain") for end in ("", "_low", "_high")), "n"]
    for key, some in judged.groupby(keys, sort=False):
        found = set(some["verdict"])
        verdict = "impossible as written" if found == {"impossible as written"} else combined_verdict(some["verdict"])
        most = some.loc[some["change"].fillna(math.inf).idxmin(), shown]
        rows.append(dict(zip(keys, key, strict=True)) | {"verdict": verdict, "cells": len(some)} | most.to_dict())
    return pd.DataFrame(rows, columns=[*keys, "verdict", "cells", *shown])


def _judged(some: pd.DataFrame, uniform: pd.DataFrame) -> dict:
    """One method in one cell."""
    weight, mae = _by_level(some, "weight"), _by_level(some, "mae")
    if weight.empty:  # a training failed, or a level is missing, in every seed
        nothing = dict.fromkeys((c for c in VERDICT_COLUMNS[8:-2]), math.nan)
        return nothing | {"n": 0, "verdict": "cannot tell", "evidence": "no seed with every level"}
    ends = weight.iloc[:, 0], weight.iloc[:, -1]
    change = paired_interval(ends[1], ends[0])
    rho = [spearmanr(range(len(w)), w).statistic if np.ptp(w) else math.nan for w in weight.to_numpy()]
    rho = bounded(_interval(rho), -1, 1)
    seeds = mae.index.intersection(uniform.index)
    less = mae.loc[seeds] - uniform.reindex(columns=mae.columns).loc[seeds]
    gain, everywhere = (_interval(x) for x in (less.iloc[:, -1], less.mean(axis=1, skipna=False)))
    still = bool((np.ptp(weight.to_numpy(), axis=1) == 0).all())
    found = {"n": len(weight), "clean": ends[0].mean(), "noisiest": ends[1].mean()}
    for name, interval in {"change": change, "spearman": rho, "gain": gain, "gain_all": everywhere}.items():
        found |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    verdict, words = _rule(still, change, rho, gain)
    return found | {"verdict": verdict, "evidence": f"{words}: {_numbers(found)}"}


def _rule(still: bool, change: Interval, rho: Interval, gain: Interval) -> tuple[str, str]:
    """Verdict and what happens in words, by the rules of `verdict`. Comparisons with NaN are False."""
    if still:
        return "impossible as written", "cannot move"
    if change.low > -LEAST:
        moves = "rises" if change.low > 0 else "falls, but" if change.high < 0 else "may fall, but"
        words = moves if change.low > 0 else f"{moves} by less than {LEAST:g}"
        return "not supported", words
    if not (change.high < 0 and rho.high < 0):
        return "cannot tell", "falls or not, open" if change.n > 1 else "one seed, no interval"
    if gain.high < 0:
        return "supported", "falls, with less error than uniform weights"
    if math.isnan(gain.high):
        return "cannot tell", "falls, uniform weights not compared"
    return "cannot tell", "falls, but costs error" if gain.low > 0 else "falls, but buys nothing"


def _numbers(found: dict) -> str:
    """The evidence in numbers; what is undefined is left out."""
    parts = [f"weight {found['clean']:.4f} to {found['noisiest']:.4f}"]
    shown = (("change", "change", ".4f"), ("spearman", "Spearman", ".2f"), ("gain", "MAE minus uniform's", ".3f"))
    for name, title, digits in shown:
        mean, low, high = (found[k] for k in (name, f"{name}_low", f"{name}_high"))
        if not math.isnan(mean):
            interval = "" if math.isnan(low) else f" [{low:+{digits}}, {high:+{digits}}]"
            parts.append(f"{title} {mean:+{digits}}{interval}")
    return ", ".join([*parts, f"n = {found['n']}"])


def _by_level(some: pd.DataFrame, column: str) -> pd.DataFrame:
    """(seeds, levels), from clean to the strongest corruption; seeds without every level are left out."""
    wide = some.pivot(index="seed", columns="level", values=column).dropna()
    return wide.sort_index(axis=1, ascending=not (some["kind"] == "noise").all())


def _interval(values) -> Interval:
    """The t interval of values that may be none or undefined: then NaN."""
    values = np.asarray(values, np.float64)
    if not len(values) or np.isnan(values).any():
        return Interval(math.nan, math.nan, math.nan, len(values))
    return t_interval(values)


def bounded(interval: Interval, least: float, most: float) -> Interval:
    """The interval of a quantity that has bounds, cut there: a t interval of few values knows none."""
    return interval._replace(
        low=float(np.clip(interval.low, least, most)), high=float(np.clip(interval.high, least, most))
    )
