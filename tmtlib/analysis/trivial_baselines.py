"""Trivial baselines: constants, ridge regression on features averaged over time, and for synthetic data the oracle."""

import numpy as np
import pandas as pd

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.stats import emotions, metrics

PENALTIES = np.logspace(-2, 5, 15)  # ridge penalties tried by leave-one-out on the training split


def predictions(dataset: Dataset) -> dict[str, np.ndarray]:
    """Test predictions (N,) in label units of each trivial baseline, fitted on train alone.

    constant    the training labels' median, the best constant for MAE
    train_mean  their mean
    linear_m    ridge regression on modality m's features, averaged over valid frames; linear_all on all of them
    oracle      synthetic data only: the median of the label given the features, which nothing beats in expected MAE
    A modality that is absent from the training split has no row.
    """
    label, n = dataset.train.labels, len(dataset.test)
    by_name = {"constant": np.full(n, np.median(label)), "train_mean": np.full(n, label.mean())}
    present = [m for m in MODALITIES if dataset.train.lengths[m].any()]
    for name, modalities in {**{m: [m] for m in present}, "all": present}.items():
        by_name[f"linear_{name}"] = _ridge(dataset, modalities)
    if dataset.truth is not None:
        by_name["oracle"] = dataset.truth.splits["test"].best_value
    return {name: np.clip(p, *dataset.card.label_range).astype(np.float32) for name, p in by_name.items()}


def rows(dataset: Dataset) -> pd.DataFrame:
    """Test metrics of `predictions`, one row each: dataset, source, alignment, method, all metrics."""
    test, family = dataset.test.labels, dataset.card.family
    return _rows(dataset, {name: metrics.evaluate(p, test, family) for name, p in predictions(dataset).items()})


def emotion_rows(dataset: Dataset) -> pd.DataFrame:
    """As `rows` of two constant answers. majority: each emotion is present if it is in more than half of the training
    split, the best constant for accuracy. always: every emotion is present in every utterance, the best constant for
    F1. Raises DataError where the data have no emotion labels."""
    label = dataset.test.labels_for("emotions")
    rates = (dataset.train.labels_for("emotions") > 0).mean(0)
    chances = {"majority": rates, "always": np.ones(len(EMOTIONS))}
    return _rows(dataset, {k: emotions.score(np.broadcast_to(p, label.shape), label) for k, p in chances.items()})


def _rows(dataset: Dataset, scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    card = dataset.card
    start = {"dataset": card.name, "source": card.source, "alignment": card.alignment}
    return pd.DataFrame(start | {"method": method} | numbers for method, numbers in scores.items())


def _ridge(dataset: Dataset, modalities: list[str]) -> np.ndarray:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (np.hstack([_pooled(split, m) for m in modalities]) for split in (dataset.train, dataset.test))
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(train, dataset.train.labels).predict(test)


def _pooled(split: Split, modality: str) -> np.ndarray:
    """Mean over valid frames (N, D); zero where an utterance has none."""
    valid = valid_frames(split, modality)[..., None]
    total = np.where(valid, split.features[modality], 0).sum(1, dtype=np.float64)
    return total / np.maximum(1, split.lengths[modality])[:, None]
