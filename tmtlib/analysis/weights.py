"""The modality weights that runs have learned, as DataFrames: by epoch, at the end, by feature and by utterance.

A modality that no utterance of the data has is given no weight here (no row, or NaN), though AMW computes one for it:
the weights of the others then sum to less than one.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.data.schema import SPLITS, Dataset
from tmtlib.paper.audit import adam_bound
from tmtlib.study import cache
from tmtlib.study.runs import Run, read_record

KEYS = ["dataset", "source", "method", "seed"]


def _weighted(todo: Sequence[Run]) -> pd.DataFrame:
    """`KEYS`, run, record and best epoch of the runs whose model has weights, A (epochs + 1, M, d), NaN for a modality
    that the data lack, and A (M, d) at the best epoch ("final")."""
    rows = []
    for run in todo:
        record = read_record(run)
        if record.weights is not None:
            card, best = record.meta["card"], record.meta["best_epoch"]
            a = np.where(_present(run)[:, None], record.weights, np.nan)
            rows.append((card["name"], card["source"], run.method, run.seed, run, record, best, a, a[best]))
    return pd.DataFrame(rows, columns=[*KEYS, "run", "record", "epoch", "weights", "final"])


def _present(run: Run) -> np.ndarray:
    """Whether any utterance of the data has each modality (M,); the generator's always have all."""
    if run.data.path is None:
        return np.ones(len(MODALITIES), bool)
    data = load(run.data.clean)
    return np.array([any(data[s].lengths[m].any() for s in SPLITS) for m in MODALITIES])


def trajectories(todo: Sequence[Run]) -> pd.DataFrame:
    """One row a run, epoch and modality that the data have; runs without a weighting have none.

    Columns: dataset, source, method, seed, epoch (0: before training), modality, weight (mean of A over features, and
    over validation utterances where it depends on them), low and high (least and greatest over features).
    """
    rows = [
        (*key, epoch, m, float(a.mean()), float(a.min()), float(a.max()))
        for *key, run, weights in _weighted(todo)[[*KEYS, "run", "weights"]].itertuples(index=False)
        for present in [_present(run)]
        for epoch, matrix in enumerate(weights)
        for m, a in zip(np.array(MODALITIES)[present], matrix[present], strict=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "epoch", "modality", "weight", "low", "high"])


def chosen(todo: Sequence[Run]) -> pd.DataFrame:
    """`trajectories` at each run's best epoch, the one that is tested."""
    return trajectories(todo).merge(_weighted(todo)[[*KEYS, "epoch"]])


def mean_matrices(todo: Sequence[Run]) -> pd.DataFrame:
    """A (M, d) at the best epoch, averaged over seeds: dataset, source, method, modality and the d features ("0", ...),
    a row a modality; NaN for an absent one."""
    parts = []
    for key, matrices in _weighted(todo).groupby(KEYS[:3], sort=False)["final"]:
        a = pd.DataFrame(np.mean(list(matrices), axis=0)).rename(columns=str)
        parts.append(a.assign(**dict(zip(KEYS[:3], key, strict=True)), modality=MODALITIES))
    table = pd.concat(parts, ignore_index=True)
    return table[[*KEYS[:3], "modality", *table.columns[: -len(KEYS)]]]


def reach(todo: Sequence[Run]) -> pd.DataFrame:
    """How far the weights got from 1/M at the best epoch, beside how far Adam can move W in the steps taken: one row a
    data set and method, with W's learning rate, steps (the most of any seed), the bound on |W| and on A
    (`audit.adam_bound`), and over the features of modalities that are there, and seeds, the greatest |W| and the least
    and greatest A."""
    rows = []
    for key, seeds in _weighted(todo).groupby(KEYS[:3], sort=False):
        run, final = seeds["run"].iloc[0], np.stack(seeds["final"])
        rate = run.model.weighting_lr if run.model.weighting_lr is not None else run.training.learning_rate
        steps = int(np.ceil(len(load(run.data).train) / run.training.batch_size) * seeds["epoch"].max())
        present = ~np.isnan(final).all(axis=(0, 2))  # by modality
        w_max = max(float(np.abs(record.logits[present]).max()) for record in seeds["record"])
        bound = adam_bound(rate, steps, len(MODALITIES))
        rows.append((*key, rate, steps, *bound, w_max, float(np.nanmin(final)), float(np.nanmax(final))))
    names = "dataset source method w_learning_rate steps move_bound a_low_bound a_high_bound w_max a_low a_high"
    return pd.DataFrame(rows, columns=names.split())


def by_utterance(todo: Sequence[Run]) -> pd.DataFrame:
    """The weights of each test utterance, `cache.looked_at`: a row a run and utterance; none without a weighting.

    Columns: dataset, source, method, seed, utterance (its place in test), id, text, audio, vision (mean of A over
    features; they sum to one; NaN for a modality that no test utterance has), error (|prediction - label|, label
    units) and unreliable (synthetic data: the modalities that show nothing, "none" or joined by "+"; real data:
    "unknown").
    """
    columns = [*KEYS, "utterance", "id", *MODALITIES, "error", "unreliable"]
    frames = [pd.DataFrame(columns=columns)]
    for *key, run, record in _weighted(todo)[[*KEYS, "run", "record"]].itertuples(index=False):
        data = cache.looked_at(run.data)
        weights = np.where([data.test.lengths[m].any() for m in MODALITIES], record.test_weights, np.nan)
        frame = pd.DataFrame(weights[: len(data.test)], columns=list(MODALITIES)).rename_axis("utterance").reset_index()
        error = np.abs(record.predictions["test"][: len(data.test)] - data.test.labels)
        start = dict(zip(KEYS, key, strict=True))
        frames.append(frame.assign(**start, id=data.test.ids, error=error, unreliable=unreliable(data))[columns])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def unreliable(data: Dataset) -> list[str]:
    """The modalities that show nothing in each test utterance, as in `by_utterance`."""
    if data.truth is None:
        return ["unknown"] * len(data.test)
    return ["+".join(np.array(MODALITIES)[~row]) or "none" for row in data.truth.splits["test"].reliable]
