"""The modality weights that runs have learned, as DataFrames: by epoch, at the end, and by feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.analysis.adaptation import seen
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import Dataset
from tmtlib.paper.audit import adam_bound
from tmtlib.study.runs import Run, load_model, load_state, read_record

KEYS = ["dataset", "source", "method", "seed"]


def trajectories(todo: Sequence[Run]) -> pd.DataFrame:
    """One row a run, epoch and modality; runs without a weighting have none.

    Columns: dataset, source, method, seed, epoch (0: before training), modality, weight (mean of A over features, and
    over validation utterances where it depends on them), low and high (least and greatest over features).
    """
    rows = []
    for run in todo:
        record = read_record(run)
        if record.weights is None:
            continue
        card = record.meta["card"]
        for epoch, a in enumerate(record.weights):
            for m, values in zip(MODALITIES, a, strict=True):
                found = float(values.mean()), float(values.min()), float(values.max())
                rows.append((card["name"], card["source"], run.method, run.seed, epoch, m, *found))
    return pd.DataFrame(rows, columns=[*KEYS, "epoch", "modality", "weight", "low", "high"])


def chosen(todo: Sequence[Run]) -> pd.DataFrame:
    """`trajectories` at each run's best epoch, the one that is tested."""
    best = [
        (meta["card"]["name"], meta["card"]["source"], run.method, run.seed, meta["best_epoch"])
        for run, meta in ((run, read_record(run).meta) for run in todo)
    ]
    return trajectories(todo).merge(pd.DataFrame(best, columns=[*KEYS, "epoch"]), on=[*KEYS, "epoch"])


def mean_matrix(todo: Sequence[Run]) -> dict[tuple[str, str, str], np.ndarray]:
    """A (M, d) at the best epoch, averaged over seeds, by (dataset, source, method)."""
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for run in todo:
        record = read_record(run)
        if record.weights is not None:
            card = record.meta["card"]
            a = record.weights[record.meta["best_epoch"]]
            found.setdefault((card["name"], card["source"], run.method), []).append(a)
    return {key: np.mean(matrices, axis=0) for key, matrices in found.items()}


def reach(todo: Sequence[Run]) -> pd.DataFrame:
    """How far the weights got from 1/M at the best epoch, beside how far Adam can move W in the steps taken.

    One row a data set and method: W's learning rate, steps (the most of any seed), the bound on |W| and on A
    (`audit.adam_bound`), and over features and seeds the greatest |W| and the least and greatest A.
    """
    frame = chosen(todo)
    of: dict[tuple[str, str], list[Run]] = {}
    for r in todo:
        of.setdefault((load(r.data).card.name, r.method), []).append(r)
    rows = []
    for (dataset, source, method), some in frame.groupby(["dataset", "source", "method"], sort=False):
        run = of[dataset, method][0]
        rate = run.model.weighting_lr if run.model.weighting_lr is not None else run.training.learning_rate
        per_epoch = int(np.ceil(len(load(run.data).train) / run.training.batch_size))
        steps = per_epoch * int(some["epoch"].max())
        bound = adam_bound(rate, steps, len(MODALITIES))
        greatest = max(load_state(r)["weighting.W"].abs().max().item() for r in of[dataset, method])
        rows.append((dataset, source, method, rate, steps, *bound, greatest, some["low"].min(), some["high"].max()))
    names = "dataset source method w_learning_rate steps move_bound a_low_bound a_high_bound w_max a_low a_high"
    return pd.DataFrame(rows, columns=names.split())


def by_utterance(todo: Sequence[Run]) -> pd.DataFrame:
    """The weights of each test utterance: one row a run and utterance; runs without a weighting have none.

    Columns: dataset, source, method, seed, utterance (its place in test), text, audio, vision (mean of A over features;
    they sum to one), error (|prediction - label|, label units) and unreliable (synthetic data: the modalities that show
    nothing, "none" or joined by "+"; real data: "unknown").
    """
    frames = []
    for run in todo:
        data = load(run.data.clean)
        if read_record(run).weights is None:
            continue
        values, a = seen(load_model(run, data.shape), data.test, run.training, "cpu")
        start = {"dataset": data.card.name, "source": data.card.source, "method": run.method, "seed": run.seed}
        frame = pd.DataFrame(a, columns=list(MODALITIES)).rename_axis("utterance").reset_index()
        error = np.abs(values - data.test.labels)
        frames.append(frame.assign(**start, error=error, unreliable=_unreliable(data)))
    columns = [*KEYS, "utterance", *MODALITIES, "error", "unreliable"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _unreliable(data: Dataset) -> list[str]:
    if data.truth is None:
        return ["unknown"] * len(data.test)
    reliable = data.truth.splits["test"].reliable
    return ["+".join(m for m, r in zip(MODALITIES, row, strict=True) if not r) or "none" for row in reliable]
