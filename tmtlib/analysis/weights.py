"""The modality weights that runs have learned, as DataFrames: by epoch, at the end, by feature and by utterance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.analysis.importance import weight_values
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset
from tmtlib.paper.audit import adam_bound
from tmtlib.study.runs import Record, Run, load_model, load_state, read_record

KEYS = ["dataset", "source", "method", "seed"]


def _weighted(todo: Sequence[Run]) -> list[tuple[Run, Record, tuple]]:
    """The runs whose model has weights, their records and what `KEYS` are of them."""
    records = [(run, read_record(run)) for run in todo]
    cards = [record.meta["card"] for _, record in records]
    return [
        (run, record, (card["name"], card["source"], run.method, run.seed))
        for (run, record), card in zip(records, cards, strict=True)
        if record.weights is not None
    ]


def trajectories(todo: Sequence[Run]) -> pd.DataFrame:
    """One row a run, epoch and modality; runs without a weighting have none.

    Columns: dataset, source, method, seed, epoch (0: before training), modality, weight (mean of A over features, and
    over validation utterances where it depends on them), low and high (least and greatest over features).
    """
    rows = [
        (*key, epoch, m, float(a.mean()), float(a.min()), float(a.max()))
        for _, record, key in _weighted(todo)
        for epoch, matrix in enumerate(record.weights)
        for m, a in zip(MODALITIES, matrix, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "epoch", "modality", "weight", "low", "high"])


def chosen(todo: Sequence[Run]) -> pd.DataFrame:
    """`trajectories` at each run's best epoch, the one that is tested."""
    best = [(*key, record.meta["best_epoch"]) for _, record, key in _weighted(todo)]
    return trajectories(todo).merge(pd.DataFrame(best, columns=[*KEYS, "epoch"]), on=[*KEYS, "epoch"])


def mean_matrix(todo: Sequence[Run]) -> dict[tuple[str, str, str], np.ndarray]:
    """A (M, d) at the best epoch, averaged over seeds, by (dataset, source, method)."""
    matrices: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for _, record, (*key, _) in _weighted(todo):
        matrices.setdefault(tuple(key), []).append(record.weights[record.meta["best_epoch"]])
    return {key: np.mean(of_seeds, axis=0) for key, of_seeds in matrices.items()}


def reach(todo: Sequence[Run]) -> pd.DataFrame:
    """How far the weights got from 1/M at the best epoch, beside how far Adam can move W in the steps taken.

    One row a data set and method: W's learning rate, steps (the most of any seed), the bound on |W| and on A
    (`audit.adam_bound`), and over features and seeds the greatest |W| and the least and greatest A.
    """
    runs_of: dict[tuple, list[Run]] = {}
    for run, _, (*key, _) in _weighted(todo):
        runs_of.setdefault(tuple(key), []).append(run)
    rows = []
    for key, runs in runs_of.items():
        run, final = runs[0], chosen(runs)
        rate = run.model.weighting_lr if run.model.weighting_lr is not None else run.training.learning_rate
        per_epoch = int(np.ceil(len(load(run.data).train) / run.training.batch_size))
        steps = per_epoch * int(final["epoch"].max())
        bound = adam_bound(rate, steps, len(MODALITIES))
        greatest = max(load_state(r)["weighting.W"].abs().max().item() for r in runs)
        rows.append((*key, rate, steps, *bound, greatest, final["low"].min(), final["high"].max()))
    names = "dataset source method w_learning_rate steps move_bound a_low_bound a_high_bound w_max a_low a_high"
    return pd.DataFrame(rows, columns=names.split())


def by_utterance(todo: Sequence[Run]) -> pd.DataFrame:
    """The weights of each test utterance: one row a run and utterance; runs without a weighting have none.

    Columns: dataset, source, method, seed, utterance (its place in test), text, audio, vision (mean of A over features;
    they sum to one), error (|prediction - label|, label units) and unreliable (synthetic data: the modalities that show
    nothing, "none" or joined by "+"; real data: "unknown").
    """
    frames = []
    for run, record, key in _weighted(todo):
        data = load(run.data.clean)
        weights = weight_values(load_model(run, data.shape), data.test, "cpu")["weight"]
        frame = pd.DataFrame(weights.T, columns=list(MODALITIES)).rename_axis("utterance").reset_index()
        error = np.abs(record.predictions["test"] - data.test.labels)
        start = dict(zip(KEYS, key, strict=True))
        frames.append(frame.assign(**start, error=error, unreliable=_unreliable(data)))
    columns = [*KEYS, "utterance", *MODALITIES, "error", "unreliable"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _unreliable(data: Dataset) -> list[str]:
    if data.truth is None:
        return ["unknown"] * len(data.test)
    reliable = data.truth.splits["test"].reliable
    return ["+".join(m for m, r in zip(MODALITIES, row, strict=True) if not r) or "none" for row in reliable]
