"""Trivial baselines: constants, ridge regression on features averaged over time, and for synthetic data the oracle."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.stats import emotions, metrics
from tmtlib.stats.statistics import hierarchical_bootstrap, t_interval
from tmtlib.study.records import JUDGED, Run, read_record, succeeded

PENALTIES = np.logspace(-2, 5, 15)  # ridge penalties tried by leave-one-out on the training split


def predictions(dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Predictions (N,) in label units of each trivial baseline, fitted on train alone, by split ("valid" and "test").

    constant    the training labels' median, the best constant for MAE
    train_mean  their mean
    linear_m    ridge regression on modality m's features, averaged over valid frames; linear_all on all of them
    oracle      synthetic data only: the median of the label given the features, which nothing beats in expected MAE
    A modality that is absent from the training split has no row, and linear_all none where only one is there.
    """
    present = [m for m in MODALITIES if dataset.train.lengths[m].any()]
    by_name = constants(dataset)
    used = {m: [m] for m in present} | ({"all": present} if len(present) > 1 else {})
    for name, modalities in used.items():
        by_name[f"linear_{name}"] = _ridge(dataset, modalities)
    if dataset.truth is not None:
        by_name["oracle"] = {s: dataset.truth.splits[s].best_value for s in JUDGED}
    low, high = dataset.card.label_range
    return {k: {s: np.clip(p, low, high).astype(np.float32) for s, p in v.items()} for k, v in by_name.items()}


def constants(dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Those of `predictions` that are constant."""
    values = {"constant": np.median(dataset.train.labels), "train_mean": dataset.train.labels.mean()}
    return {name: {s: np.full(len(dataset[s]), value) for s in JUDGED} for name, value in values.items()}


def rows(dataset: Dataset, of: Callable[[Dataset], dict] = predictions) -> pd.DataFrame:
    """Test metrics of `predictions` (or of `constants`), one row each: dataset, source, alignment, method, all metrics
    (of labels of three values, as of runs, those of `metrics.for_three_values`)."""
    test, family = dataset.test.labels, dataset.card.family
    judged = {name: p["test"] for name, p in of(dataset).items()}
    scores = {name: metrics.evaluate(p, test, family) for name, p in judged.items()}
    if metrics.three_valued(np.concatenate([dataset[s].labels for s in JUDGED]), family):
        scores = {k: metrics.for_three_values(v, judged[k], test, family) for k, v in scores.items()}
    return _rows(dataset, scores)


def table(datasets: Iterable[Dataset]) -> pd.DataFrame:
    """`rows` of several data sets."""
    return pd.concat(map(rows, datasets), ignore_index=True)


def emotion_rows(dataset: Dataset) -> pd.DataFrame:
    """As `rows` of two constant answers. majority: the training split's rates as chances (of CMU-MOSEI's six those in
    more than half of it are present, of named emotions the commonest), the best constant for accuracy. always: every
    emotion is present in every utterance, the best constant for F1. Raises DataError for data without emotion labels.
    """
    label = dataset.test.labels_for("emotions")
    rates = (dataset.train.labels_for("emotions") > 0).mean(0)
    chances = {"majority": rates, "always": np.ones(len(rates))}
    judged = {k: (np.broadcast_to(p, label.shape), label, dataset.emotions) for k, p in chances.items()}
    return _rows(dataset, {k: emotions.score(*each) for k, each in judged.items()})


def against_linear(todo: Sequence[Run]) -> pd.DataFrame:
    """Finished runs against the linear model with the least MAE on validation: one row a data set and method.

    Columns: dataset, source, method, n_seeds, n_utterances; linear (its name), linear_valid_mae; linear_mae on test,
    linear_low and linear_high (95 %, bootstrap over utterances). Then "single_" (the seeds' models, in the mean) and
    "ensemble_" (the seeds' mean prediction) before the columns of `_against`. Errors are in label units, for family
    sims of clipped values.
    Raises FileNotFoundError for an untrained run, ValueError for runs of the task "emotions" and for NaN predictions.
    """
    return pd.DataFrame([_against_linear(runs) for runs in _grouped(todo)])


def _grouped(todo: Sequence[Run]) -> list[list[Run]]:
    """The runs by data and method, without those whose training failed."""
    groups: dict[tuple, list[Run]] = {}
    for run in succeeded(todo):
        if run.model.task == "emotions":
            raise ValueError(f"{run.method} predicts emotions; wanted runs that predict sentiment")
        groups.setdefault((run.data, run.method), []).append(run)
    return list(groups.values())


def _test_values(runs: list[Run], data: Dataset) -> np.ndarray:
    """Test predictions (seeds, N), as in MAE."""
    values = np.stack([read_record(run).predictions["test"] for run in runs])
    return np.clip(values, *data.card.label_range) if data.card.family == "sims" else values


def against_constant(todo: Sequence[Run]) -> pd.DataFrame:
    """Finished runs against the training labels' median: one row a data set and method. Columns: dataset, source,
    method, n_seeds, n_utterances, constant_mae and those of `_against`. Errors as in `against_linear`; raises as it
    does."""
    rows = []
    for runs in _grouped(todo):
        data = load(runs[0].data)
        values, error = _test_values(runs, data), np.abs(constants(data)["constant"]["test"] - data.test.labels)
        row = {"dataset": data.card.name, "source": data.card.source, "method": runs[0].method}
        row |= {"n_seeds": len(runs), "n_utterances": len(error), "constant_mae": error.mean()}
        rows.append(row | _against(values, error, data.test.labels))
    return pd.DataFrame(rows)


def _against(values: np.ndarray, error: np.ndarray, label: np.ndarray) -> dict:
    """Predictions (seeds, N) against a baseline's absolute errors (N,): mae (mean over seeds); difference (mae minus
    the baseline's), low and high (95 %: the outermost bounds of `hierarchical_bootstrap` over utterances and seeds and
    of several seeds' t interval); verdict: "beats" (high < 0), "does not beat" (low > 0: worse), else "ranks nothing".
    """
    errors = np.abs(values - label)
    mean, low, high, _ = hierarchical_bootstrap(errors, np.broadcast_to(error, errors.shape))
    if len(errors) > 1:  # with few seeds the bootstrap is too narrow
        over_seeds = t_interval(errors.mean(1) - error.mean())
        low, high = np.fmin(low, over_seeds.low), np.fmax(high, over_seeds.high)
    verdict = "beats" if high < 0 else "does not beat" if low > 0 else "ranks nothing"
    return {"mae": errors.mean(), "difference": mean, "low": low, "high": high, "verdict": verdict}


def _against_linear(runs: list[Run]) -> dict:
    data = load(runs[0].data)
    label, card = data.test.labels, data.card
    linear = {name: p for name, p in predictions(data).items() if name.startswith("linear_")}
    valid_mae = {name: np.abs(p["valid"] - data.valid.labels).mean() for name, p in linear.items()}
    best = min(valid_mae, key=valid_mae.get)
    error = np.abs(linear[best]["test"] - label)
    mean, low, high, _ = hierarchical_bootstrap(error[None], np.zeros_like(error)[None])
    row = {"dataset": card.name, "source": card.source, "method": runs[0].method}
    row |= {"n_seeds": len(runs), "n_utterances": len(label), "linear": best, "linear_valid_mae": valid_mae[best]}
    row |= {"linear_mae": mean, "linear_low": low, "linear_high": high}
    values = _test_values(runs, data)
    for name, p in {"single": values, "ensemble": values.mean(0, keepdims=True)}.items():
        row |= {f"{name}_{key}": value for key, value in _against(p, error, label).items()}
    return row


def _rows(dataset: Dataset, scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    card = dataset.card
    start = {"dataset": card.name, "source": card.source, "alignment": card.alignment}
    return pd.DataFrame(start | {"method": method} | numbers for method, numbers in scores.items())


def _ridge(dataset: Dataset, modalities: list[str]) -> dict[str, np.ndarray]:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = {s: np.hstack([_pooled(dataset[s], m) for m in modalities]) for s in ("train", *JUDGED)}
    model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(x["train"], dataset.train.labels)
    return {s: model.predict(x[s]) for s in JUDGED}


def _pooled(split: Split, modality: str) -> np.ndarray:
    """Mean over valid frames (N, D); zero where an utterance has none."""
    valid = valid_frames(split, modality)[..., None]
    total = np.where(valid, split.features[modality], 0).sum(1, dtype=np.float64)
    return total / np.maximum(1, split.lengths[modality])[:, None]
