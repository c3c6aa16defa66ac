"""Sentiment metrics by the MMSA definitions (https://github.com/thuiar/MMSA, `metricsTop.py`), not rounded.

    mosi   CMU-MOSI and CMU-MOSEI, labels in [-3, 3]: classes by rounding the clipped value
    sims   CH-SIMS, labels in [-1, 1]: classes by right-closed bins; every metric is of the clipped value

As in MMSA, values are compared as float32, in which 0.7 equals the bin edge 0.7. A NaN prediction has class -1: wrong
in every accuracy and F1 (MMSA's comparisons make it negative for mosi); MAE and Corr are NaN.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import ArrayLike

from tmtlib.common import EMOTIONS, check_choice
from tmtlib.stats import emotions

Family = Literal["mosi", "sims"]
Values = Float32[np.ndarray, " N"]
Classes = Int64[np.ndarray, " N"]

METRICS = {
    "mosi": ("acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc3", "acc5", "acc7", "mae", "corr"),
    "sims": ("acc2", "acc3", "acc5", "f1", "mae", "corr"),
}
LABELS = {"acc2": "Acc-2", "acc2_has0": "Acc-2 (has-0)", "acc2_non0": "Acc-2 (non-0)"}
LABELS |= {"acc3": "Acc-3", "acc5": "Acc-5", "acc7": "Acc-7"}
LABELS |= {"f1": "F1, 2-class, weighted", "f1_has0": "F1 (has-0)", "f1_non0": "F1 (non-0)"}
LABELS |= {"f1_5class": "F1, 5-class, weighted", "f1_5class_swapped": "F1, 5-class, swapped arguments (legacy)"}
LABELS |= {"f1_macro": "F1, 3-class, macro", "mae": "MAE (label units)", "corr": "Corr"}
FINER = ("acc5", "acc7", "f1_5class", "f1_5class_swapped")  # undefined for labels of three values
LOWER_IS_BETTER = ("mae",)
# Value of each predicted class of Acc-5; it falls into the same class
CLASS_CENTRES5 = {"mosi": (-2.0, -1.0, 0.0, 1.0, 2.0), "sims": (-0.9, -0.4, 0.0, 0.4, 0.9)}
# Inner edges by number of classes; a value on an edge is in the lower bin
SIMS_EDGES = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}


def scores_of(
    task: str, values: np.ndarray, labels: np.ndarray, family: Family, names: Sequence[str] = EMOTIONS
) -> dict[str, float]:
    """The metrics of a task, "regression", "classification" or "emotions" (of these names), from `Model.values`."""
    return emotions.score(values, labels, names) if task == "emotions" else evaluate(values, labels, family)


def three_valued(labels: ArrayLike, family: Family) -> bool:
    """Whether N labels fall into three or fewer of Acc-5's classes, as -1, 0 and 1 do: no label is in its other ones,
    and it counts a prediction on the right side as wrong. Raises ValueError as `classes5`."""
    return len(np.unique(classes5(labels, family))) <= 3


def for_three_values(scores: dict[str, float], prediction: ArrayLike, label: ArrayLike, family: Family) -> dict:
    """The scores of `evaluate` with NaN for those in FINER, and `f1_macro`: the F1 of Acc-3's classes, mean over the
    classes that occur in labels or predictions."""
    from sklearn.metrics import f1_score  # slow to import

    p, t = (_classes(value, family, 3) for value in _pair(prediction, label, family))
    macro = float(f1_score(t, p, average="macro", zero_division=0))
    return scores | {name: np.nan for name in FINER if name in scores} | {"f1_macro": macro}


def evaluate(prediction: ArrayLike, label: ArrayLike, family: Family = "mosi") -> dict[str, float]:
    """`score`, and `f1_5class` and `f1_5class_swapped` (the two conventions of `f1`)."""
    return score(prediction, label, family) | {
        "f1_5class": f1(prediction, label, family, classes=5, convention="true"),
        "f1_5class_swapped": f1(prediction, label, family, classes=5, convention="pred"),
    }


def score(prediction: ArrayLike, label: ArrayLike, family: Family = "mosi") -> dict[str, float]:
    """The metrics of `METRICS[family]`, in that order: fractions, MAE in label units, Pearson's r.

    Args: N predictions and N labels in label units, each (N,) or (N, 1): array, list or torch tensor.

      mosi  acc2/f1_has0: value >= 0, all utterances;  acc2/f1_non0: value > 0, where the label is not 0
            acc3/5/7: equal after clipping to +-1/2/3 and rounding half to even;  mae, corr: un-clipped
      sims  acc2/3/5: equal bins after clipping to +-1, zero being negative in acc2;  f1: on acc2's bins
            mae, corr: of clipped values

    F1 is weighted by true support. NaN: corr when either side is constant, acc2_non0 and f1_non0 when all labels are 0.
    Raises ValueError for an unknown family, other shapes, unequal sizes, no values, or a label that is not finite.
    """
    p, t = _pair(prediction, label, family)
    if family == "sims":
        p, t = np.clip(p, -1, 1), np.clip(t, -1, 1)
    two, three, five = ((_classes(p, family, k), _classes(t, family, k)) for k in (2, 3, 5))
    scores = {"acc3": float(np.mean(np.equal(*three))), "acc5": float(np.mean(np.equal(*five)))}
    scores |= {"mae": float(np.abs(p - t).mean(dtype=np.float64)), "corr": _corr(p, t)}
    if family == "sims":
        scores["acc2"], scores["f1"] = _agreement(*two)
    else:
        scores["acc7"] = float(np.mean(_classes(p, family, 7) == _classes(t, family, 7)))
        scores["acc2_has0"], scores["f1_has0"] = _agreement(*two)
        p, t = p[t != 0], t[t != 0]
        scores["acc2_non0"], scores["f1_non0"] = _agreement(_mark_nan(p > 0, p), _mark_nan(t > 0, t))
    return {name: scores[name] for name in METRICS[family]}


def f1(
    prediction: ArrayLike, label: ArrayLike, family: Family = "mosi", classes: int = 2, convention: str = "true"
) -> float:
    """F1 averaged over 2 classes (mosi: has-0) or 5.

    convention "true": weighted by true support, the definition. "pred": weighted by predicted support, as in early code
    (MMSA before 2021-05-06, see its issue 17; MulT, MISA, TMT), which swapped the arguments of scikit-learn's f1_score;
    a constant prediction of accuracy a scores 2a / (1 + a). F1(true) + F1(pred) = 2 * accuracy: class c adds 2 TP_c /
    (n_c + p_c) * (n_c + p_c) / N, with n_c its true and p_c its predicted support.

    Arguments and errors as `score`; also ValueError for other `classes` or `convention`.
    """
    check_choice("classes", classes, (2, 5))
    check_choice("convention", convention, ("true", "pred"))
    p, t = (_classes(value, family, classes) for value in _pair(prediction, label, family))
    return _agreement(p, t)[1] if convention == "true" else _agreement(t, p)[1]


def classes5(value: ArrayLike, family: Family) -> Classes:
    """Class 0..4 of Acc-5 of each of N values in label units; -1 for NaN.

    Raises ValueError for an unknown family or a shape other than (N,) or (N, 1).
    """
    check_choice("family", family, tuple(METRICS))
    return _classes(_flat(value, "value"), family, 5)


def _classes(value: Values, family: Family, number: int) -> Classes:
    """Class numbers from 0; of two mosi classes, 1 is 0 or more; NaN has class -1."""
    if family == "sims":
        # In float64 the edge 0.7 would differ from the float32 value (0.699999988)
        classes = np.searchsorted(np.asarray(SIMS_EDGES[number], dtype=np.float32), value, side="left")
    elif number == 2:
        classes = value >= 0
    else:
        limit = number // 2
        classes = np.round(np.clip(np.nan_to_num(value), -limit, limit)) + limit
    return _mark_nan(classes, value)


def _mark_nan(classes: np.ndarray, value: Values) -> Classes:
    return np.where(np.isnan(value), -1, classes).astype(np.int64)


def _agreement(p: Classes, t: Classes) -> tuple[float, float]:
    """Accuracy, and F1 weighted by the support of `t`; NaN without values."""
    from sklearn.metrics import f1_score  # slow to import

    if not len(t):
        return np.nan, np.nan
    return float(np.mean(p == t)), float(f1_score(t, p, average="weighted", zero_division=0))


def _corr(p: Values, t: Values) -> float:
    """Pearson's r; NaN for a constant side (also N = 1) or predictions that are not finite."""
    if not np.isfinite(p).all() or p.min() == p.max() or t.min() == t.max():
        return float("nan")
    return float(np.corrcoef(p, t)[0, 1])


def _pair(prediction: ArrayLike, label: ArrayLike, family: Family) -> tuple[Values, Values]:
    check_choice("family", family, tuple(METRICS))
    p, t = _flat(prediction, "prediction"), _flat(label, "label")
    if len(p) != len(t):
        raise ValueError(f"{len(p)} predictions but {len(t)} labels; give one prediction for each label")
    if not len(t):
        raise ValueError("no predictions and no labels; metrics need at least one utterance")
    if len(bad := np.flatnonzero(~np.isfinite(t))):
        where = f"{len(bad)} of {len(t)} labels are NaN or infinite (the first at index {bad[0]})"
        raise ValueError(f"{where}; drop those utterances or repair their labels")
    return p, t


def _flat(value: ArrayLike, name: str) -> Values:
    if hasattr(value, "detach"):  # a torch tensor; torch is not imported here
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value, dtype=np.float32)
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise ValueError(f"{name} has shape {array.shape}; wanted (N,) or (N, 1), one number an utterance")
    return array.reshape(-1)
