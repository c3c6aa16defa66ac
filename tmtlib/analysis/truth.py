"""What runs found beside what was generated. Only for synthetic data: real data have no known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.study.runs import Run, read_record


def explained_variance(prediction: np.ndarray, label: np.ndarray) -> float:
    """R^2 = 1 - sum of squared errors / sum of squares about the mean; at most 1."""
    return float(1 - np.mean((prediction - label) ** 2) / np.var(label))


def explained_share(todo: Sequence[Run]) -> pd.DataFrame:
    """Test R^2 of finished runs, of the best prediction that exists, and their ratio: one row a run.

    Empty where the data are real. The best prediction is the one with the least expected absolute error.
    """
    rows = []
    for run in todo:
        data, record = load(run.data), read_record(run)
        if data.truth is None:
            continue
        model, oracle = (
            explained_variance(p, data.test.labels)
            for p in (record.predictions["test"], data.truth.splits["test"].best_value)
        )
        rows.append((data.card.name, data.card.source, run.method, run.seed, model, oracle, model / oracle))
    return pd.DataFrame(rows, columns=["dataset", "source", "method", "seed", "r2", "oracle_r2", "share"])


def importance(todo: Sequence[Run]) -> pd.DataFrame:
    """The true importance of each modality as shares that sum to one: columns dataset, source, modality, truth."""
    refs = dict.fromkeys(run.data for run in todo)
    synthetic = (data for data in map(load, refs) if data.truth is not None)  # one at a time in memory
    rows = [
        (d.card.name, d.card.source, m, d.truth.importance[m] / d.truth.explained)
        for d in synthetic
        for m in MODALITIES
    ]
    return pd.DataFrame(rows, columns=["dataset", "source", "modality", "truth"])
