"""The second task: which of six emotions an utterance shows, none or several (multi-label), as CMU-MOSEI has them.

A label is a strength from 0 to 3 for each of `EMOTIONS`, and an emotion is present where its strength is above 0, the
field's convention. A model gives each emotion's chance, and says that it is present where that is above one half.

Rare emotions make plain accuracy empty: to deny fear always is right in nine utterances of ten. So, for each emotion,
with P utterances that have it and N that do not:

    wa    weighted accuracy (TP N / P + TN) / 2N, which is (TP / P + TN / N) / 2: one half for every constant answer
    f1    F1 of "present", 2 TP / (P + predicted); 0 when it is never predicted
    wf1   F1 of "present" and of "absent", weighted by P and N

and their unweighted means over emotions. What cannot be measured is NaN and left out of the mean: wa where P or N is 0,
f1 where P is 0. A NaN prediction is neither "present" nor "absent", so it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tmtlib.common import EMOTIONS

KINDS = {"wa": "weighted accuracy", "f1": "F1", "wf1": "F1, both answers, weighted"}
METRICS = tuple(f"{kind}_{name}" for kind in KINDS for name in ("mean", *EMOTIONS))
THRESHOLD = 0.5
# What learned weights gain beyond TMT has to show beyond uniform ones too
COMPARED = (
    ("tmt_amw_emotions", "tmt_emotions"),
    ("tmt_uniform_emotions", "tmt_emotions"),
    ("tmt_amw_emotions", "tmt_uniform_emotions"),
)


def score(chance: ArrayLike, label: ArrayLike) -> dict[str, float]:
    """The metrics of `METRICS`, in that order, as fractions: "wa_mean", "wa_happy", ..., "f1_mean", ..., "wf1_fear".

    Args: chances (N, 6) that each of `EMOTIONS` is present, and labels (N, 6), present where above 0.
    Raises ValueError for other shapes, no utterances, or labels that are not finite.
    """
    predicted, present = (np.asarray(x, dtype=np.float32) for x in (chance, label))
    if present.ndim != 2 or present.shape[1] != len(EMOTIONS) or predicted.shape != present.shape or not len(present):
        wanted = f"one row of {len(EMOTIONS)} an utterance in each"
        raise ValueError(f"chances are {predicted.shape} and labels {present.shape}; wanted {wanted}")
    if not np.isfinite(present).all():
        raise ValueError("labels hold NaN or infinity; drop those utterances or repair their labels")
    yes, no, present = predicted > THRESHOLD, predicted <= THRESHOLD, present > 0
    true_yes, true_no, p, n = (x.sum(0) for x in (yes & present, no & ~present, present, ~present))
    with np.errstate(invalid="ignore"):  # 0 / 0, which is NaN, as said above
        f1 = 2 * true_yes / (p + yes.sum(0))
        found = {
            "wa": (true_yes / p + true_no / n) / 2,
            "f1": np.where(p > 0, f1, np.nan),
            "wf1": (p * np.nan_to_num(f1) + n * np.nan_to_num(2 * true_no / (n + no.sum(0)))) / (p + n),
        }
    return {
        f"{kind}_{name}": float(value)
        for kind, values in found.items()
        for name, value in zip(("mean", *EMOTIONS), (_mean(values), *values), strict=True)
    }


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs (or `floors`) as a long table: one row a data set, method, metric and emotion, in that order.

    Columns: dataset, source, alignment, method, metric ("wa", "f1", "wf1"), emotion (one of `EMOTIONS`, or "mean" over
    them), mean and sd (ddof 1; NaN for one run) over n runs, as fractions. Rows without emotion metrics are left out.
    """
    keys = ["dataset", "source", "alignment", "method"]
    grouped = rows.groupby(keys, sort=False)[[m for m in METRICS if m in rows]]
    parts = {"mean": grouped.mean(), "sd": grouped.std(ddof=1), "n": grouped.count()}
    long = pd.concat({name: part.stack() for name, part in parts.items()}, axis=1).rename_axis([*keys, "column"])
    long = long[long["n"] > 0].reset_index()
    long[["metric", "emotion"]] = [name.split("_") for name in long["column"]]
    return long[[*keys, "metric", "emotion", "mean", "sd", "n"]]


def differences(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]] = COMPARED) -> pd.DataFrame:
    """Paired differences over seeds, after minus before, of each (after, before) in `pairs` that was trained.

    Columns: dataset, source, after, before, metric, emotion, difference (a fraction; positive is better), low and high
    (95 % t interval over seeds), n. A metric that cannot be measured in some run has no row. Raises ValueError where
    two methods have not the same seeds.
    """
    from tmtlib.stats.statistics import paired_interval  # scipy is slow to import, and training imports this module

    found = []
    for (dataset, source), here in rows.groupby(["dataset", "source"], sort=False):
        by = {method: some.set_index("seed")[list(METRICS)] for method, some in here.groupby("method")}
        for after, before in (pair for pair in pairs if set(pair) <= set(by)):
            if set(by[after].index) != set(by[before].index):
                seeds = [sorted(by[m].index) for m in (after, before)]
                raise ValueError(f"seeds of {after} are {seeds[0]} and of {before} {seeds[1]}; wanted the same")
            for name in METRICS:
                one, other = by[after][name], by[before].loc[by[after].index, name]
                if one.notna().all() and other.notna().all():
                    interval = paired_interval(one, other)
                    found.append((dataset, source, after, before, *name.split("_"), *interval))
    names = ["dataset", "source", "after", "before", "metric", "emotion", "difference", "low", "high", "n"]
    return pd.DataFrame(found, columns=names)


def _mean(values: np.ndarray) -> float:
    """Over what could be measured; NaN if nothing could."""
    measured = values[~np.isnan(values)]
    return measured.mean() if len(measured) else np.nan
