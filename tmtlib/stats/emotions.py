"""Metrics of the second task: which emotions an utterance shows, each yes or no (multi-label, as CMU-MOSEI).

Labels are strengths from 0 to 3, present above 0. Predictions are probabilities; the answer is those above one half of
CMU-MOSEI's six, of which several or none may be present, and the most probable of emotions that people named.
By emotion:

    wa    weighted (balanced) accuracy: mean recall of "present" and "absent"; one half for constant predictions
    f1    F1 of "present"; 0 when it is never predicted
    wf1   F1 of "present" and of "absent", weighted by support

and their unweighted means over emotions, without NaN: wa where all are present or all absent, f1 where none is present.
A NaN prediction is wrong.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tmtlib.common import EMOTIONS
from tmtlib.stats.statistics import over_seeds

KINDS = {"wa": "weighted accuracy", "f1": "F1", "wf1": "F1, both answers, weighted"}
THRESHOLD = 0.5
COMPARED = (  # (after, before): learned weights are compared with uniform ones too
    ("tmt_amw_emotions", "tmt_emotions"),
    ("tmt_uniform_emotions", "tmt_emotions"),
    ("tmt_amw_emotions", "tmt_uniform_emotions"),
    ("tmt_reliability_emotions", "tmt_emotions"),
)


def score(chance: ArrayLike, label: ArrayLike, names: Sequence[str] = EMOTIONS) -> dict[str, float]:
    """Fractions by `metrics_of` the names of K emotions: "wa_mean", "wa_happy", ..., "f1_mean", ..., "wf1_fear".

    Args: probabilities (N, K), and labels (N, K), present above 0.
    Raises ValueError for other shapes, no utterances, or labels that are not finite.
    """
    predicted, strength = (np.asarray(x, dtype=np.float32) for x in (chance, label))
    if strength.ndim != 2 or strength.shape[1] != len(names) or predicted.shape != strength.shape or not len(label):
        wanted = f"one row of {len(names)} an utterance in each"
        raise ValueError(f"chances are {predicted.shape} and labels {strength.shape}; wanted {wanted}")
    if not np.isfinite(strength).all():
        raise ValueError("labels hold NaN or infinity; drop those utterances or repair their labels")
    least = THRESHOLD if tuple(names) == EMOTIONS else np.nextafter(predicted.max(1, keepdims=True), 0)
    answers = np.where(np.isnan(predicted), -1, predicted > least)
    scores = pd.DataFrame(map(_of_one, (strength > 0).T, answers.T), index=list(names), columns=list(KINDS))
    scores.loc["mean"] = scores.mean()
    return {metric: float(scores.at[name, kind]) for metric, (kind, name) in metrics_of(names).items()}


def metrics_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Kind and emotion by name of each metric of these emotions: {"wa_mean": ("wa", "mean"), ...}."""
    return {f"{kind}_{name}": (kind, name) for kind in KINDS for name in ("mean", *names)}


def _of_one(present: np.ndarray, answer: np.ndarray) -> tuple[float, float, float]:
    """wa, f1 and wf1 of one emotion; `answer` (N,): 1 present, 0 absent, -1 a NaN prediction."""
    from sklearn.metrics import precision_recall_fscore_support  # slow to import, and training imports this module

    _, recall, f1, counts = precision_recall_fscore_support(present, answer, labels=(0, 1), zero_division=0)
    return recall.mean() if counts.all() else np.nan, f1[1] if counts[1] else np.nan, np.average(f1, weights=counts)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs or trivial baselines as a long table: one row a data set, method, metric and emotion, in that order.

    Columns: dataset, source, alignment, method, metric ("wa", "f1", "wf1"), emotion (or "mean"),
    mean and sd (ddof 1; NaN for one run) over n runs, as fractions. Rows without emotion metrics are left out.
    """
    keys = ["dataset", "source", "alignment", "method"]
    values = _named(rows.melt(keys, list(_found(rows)), "column")).dropna(subset="value")
    order = rows[keys].drop_duplicates()
    long = values.groupby([*keys, "metric", "emotion"], sort=False)["value"].agg(["mean", "std", "count"])
    return order.merge(long.reset_index().rename(columns={"std": "sd", "count": "n"}), on=keys)


def differences(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]] = COMPARED) -> pd.DataFrame:
    """Paired differences over seeds of each (after, before) in `pairs` whose methods were both trained.

    Columns: dataset, source, after, before, metric, emotion, difference (after - before, a fraction), low and high
    (95 % t interval over seeds), n. A metric that is NaN in a run has no row. Raises ValueError for unequal seeds.
    """
    keys = ["dataset", "source", "after", "before", "metric", "emotion"]
    parts, metrics = [], list(_found(rows))
    for _, of_data in rows.groupby(["dataset", "source"], sort=False):
        by_method = {method: of_method.set_index("seed") for method, of_method in of_data.groupby("method")}
        for after, before in (pair for pair in pairs if set(pair) <= set(by_method)):
            seeds = [sorted(by_method[m].index) for m in (after, before)]
            if seeds[0] != seeds[1]:
                raise ValueError(f"seeds of {after} are {seeds[0]} and of {before} {seeds[1]}; wanted the same")
            change = by_method[after].assign(after=after, before=before)
            change[metrics] -= by_method[before][metrics]
            parts.append(change.melt(keys[:4], metrics, "column", "difference"))
    if not parts:
        return pd.DataFrame(columns=[*keys, "difference", "low", "high", "n"])
    changes = _named(pd.concat(parts))
    intervals = over_seeds(changes, keys, "difference", skipna=False).rename(columns={"mean": "difference"})
    return intervals.dropna(subset="difference").reset_index(drop=True)


def _found(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """`metrics_of` the emotions that the columns of rows of runs name."""
    found = metrics_of([name[3:] for name in rows if name.startswith("wa_") and name != "wa_mean"])
    return {name: found[name] for name in found if name in rows}


def _named(long: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns `metric` and `emotion` from the names in `column`; changes it."""
    long[["metric", "emotion"]] = long["column"].str.split("_", n=1, expand=True)
    return long
