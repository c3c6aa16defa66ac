"""Predictors that every result has to beat: constants, and ridge regression on features averaged over time.

For synthetic data there is also the predictor that none can beat.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.stats import emotions, metrics

PENALTIES = np.logspace(-2, 5, 15)  # ridge penalties tried by leave-one-out on the training split


def predictions(dataset: Dataset) -> dict[str, np.ndarray]:
    """Test predictions (N,) in label units of each floor; only train is fitted on, nothing is selected elsewhere.

    constant    the training labels' median, the best constant for MAE
    train_mean  their mean
    linear_m    ridge regression on modality m's features, averaged over valid frames; linear_all on all of them
    oracle      synthetic data only: the median of the label given the features, which nothing beats in expected MAE
    A modality that is absent from the training split has no row.
    """
    label = dataset.train.labels
    n = len(dataset.test)
    found = {"constant": np.full(n, np.median(label)), "train_mean": np.full(n, label.mean())}
    present = [m for m in MODALITIES if dataset.train.lengths[m].any()]
    for name, modalities in {**{m: [m] for m in present}, "all": present}.items():
        found[f"linear_{name}"] = _ridge(dataset, modalities)
    if dataset.truth is not None:
        found["oracle"] = dataset.truth.splits["test"].best_value
    low, high = dataset.card.label_range
    return {name: np.clip(p, low, high).astype(np.float32) for name, p in found.items()}


def rows(dataset: Dataset) -> pd.DataFrame:
    """One row a floor, with the columns that rows of runs share: dataset, source, alignment, method, all metrics."""
    card = dataset.card
    start = {"dataset": card.name, "source": card.source, "alignment": card.alignment}
    return pd.DataFrame(
        start | {"method": name} | metrics.evaluate(p, dataset.test.labels, card.family)
        for name, p in predictions(dataset).items()
    )


def _ridge(dataset: Dataset, modalities: list[str]) -> np.ndarray:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = {s: np.concatenate([_pooled(dataset[s], m) for m in modalities], axis=1) for s in ("train", "test")}
    model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    return model.fit(x["train"], dataset.train.labels).predict(x["test"])


def _pooled(split: Split, modality: str) -> np.ndarray:
    """Mean over valid frames (N, D); zero where an utterance has none."""
    valid = valid_frames(split, modality)[..., None]
    total = np.where(valid, split.features[modality], 0).sum(1, dtype=np.float64)
    return total / np.maximum(1, split.lengths[modality])[:, None]


def floors(dataset: Dataset) -> pd.DataFrame:
    """Test metrics of two answers that need no features, one row each, with the columns that rows of runs share.

    majority: each emotion is present if it is in more than half of the training split; no other constant is right more
    often. always: every emotion is present in every utterance, the best constant for F1.
    Raises DataError where the data have no emotion labels.
    """
    label, card = dataset.test.labels_for("emotions"), dataset.card
    rates = (dataset.train.labels_for("emotions") > 0).mean(0)
    start = {"dataset": card.name, "source": card.source, "alignment": card.alignment}
    constants = {"majority": rates, "always": np.ones(len(EMOTIONS))}
    return pd.DataFrame(
        start | {"method": method} | emotions.score(np.broadcast_to(chance, label.shape), label)
        for method, chance in constants.items()
    )
