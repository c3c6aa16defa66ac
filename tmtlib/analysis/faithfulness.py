"""Does a measure find the frames that a prediction rests on? Deletion and insertion curves.

The valid frames of all modalities are ordered by a measure, greatest first. "deletion" sets more and more of them to
zero, the training mean of normalised features; "insertion" puts them back, from zeros (Samek et al. 2017; Petsiuk et
al. 2018, sec. 3.3). A good measure has a larger area by deletion and a smaller one by insertion than a random order.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tmtlib.analysis import attribution, importance
from tmtlib.analysis.attribution import Frames
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Batch, Model
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import OnDevice, passes

ORDERS = ("deletion", "insertion")
FRACTIONS = tuple(k / 10 for k in range(11))  # of all valid frames of an utterance
UTTERANCES = 100  # the first of a test split
RANDOM = "random"


def faithfulness_curves(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The curves of finished runs on the first 100 test utterances.

    Columns: dataset, source, method, seed, measure (see `scores`), order ("deletion" or "insertion"), fraction (of an
    utterance's valid frames taken away or put back), change (mean |f(x) - f(x_k)|, label units). Raises ValueError for
    a model that does not predict one number from features.
    """
    return cache.map_runs(_curves, [(run,) for run in todo], device, jobs, "faithfulness")


def faithfulness_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Areas under `faithfulness_curves`: a row a data set, method, measure and order.

    Columns: dataset, source, method, measure, order, area (mean over seeds, label units: the curve's mean height), low
    and high (95 % t interval over seeds), n, difference (area less that of the random order of the same seed),
    difference_low, difference_high (95 % paired t interval).
    """
    keys = ["dataset", "source", "method", "measure", "order"]
    grouped = curves.sort_values("fraction", kind="stable").groupby([*keys, "seed"], sort=False)[["fraction", "change"]]
    areas = grouped.apply(lambda curve: np.trapezoid(curve["change"], curve["fraction"])).rename("area").reset_index()
    areas = over_seeds(areas, keys, "area", against={"measure": RANDOM}).rename(columns={"mean": "area"})
    return areas.drop(columns=["against", "pairs"])


def scores(model: Model, split: Split, device: str = "auto") -> dict[str, Frames]:
    """The score of each frame by every measure that the model has, (N, T) by modality; only their order counts.

    The sizes of "gradient_input", "integrated_gradients" and "rollout" (`attribution.by_frame`); "weighted_size",
    |A_m S_m|, the same for all frames of a modality; and "random", all zeros, whose order is that of the ties.
    """
    by_measure = {}
    for name in attribution.possible(model):
        frames = attribution.by_frame(model, split, name, device)
        by_measure[name] = {m: np.abs(x) for m, x in frames.items()}
    zeros = {m: np.zeros_like(x) for m, x in frames.items()}
    if weights := importance.weight_values(model, split, device):
        sizes = zip(MODALITIES, weights["weighted_size"], strict=True)
        by_measure["weighted_size"] = {m: zeros[m] + size[:, None] for m, size in sizes}
    return by_measure | {RANDOM: zeros}


def ranks(score: Frames, lengths: dict[str, Int64[np.ndarray, " N"]], seed: int = 0) -> Int64[np.ndarray, "N K"]:
    """The rank of each frame in its utterance, 0 for the greatest score, over the K = sum of T frames of all modalities
    side by side. Equal scores are in random order by `seed`; padding comes last."""
    valid = np.concatenate([np.arange(score[m].shape[1]) < lengths[m][:, None] for m in MODALITIES], axis=1)
    value = np.concatenate([score[m] for m in MODALITIES], axis=1)
    ties = np.random.default_rng(seed).random(value.shape)
    return np.lexsort((ties, np.where(valid, -value, np.inf)), axis=1).argsort(1)


@torch.no_grad()
def changes(
    model: Model, split: Split, score: Frames, device: str = "auto", seed: int = 0
) -> dict[str, Float[np.ndarray, "F N"]]:
    """|f(x) - f(x_k)| of each utterance at each of FRACTIONS, by order, in label units."""
    lengths = OnDevice(split, torch.device("cpu"), model.config, model.family).lengths  # of windows, where it cuts them
    rank = torch.from_numpy(ranks(score, {m: n.numpy() for m, n in lengths.items()}, seed))
    rank = dict(zip(MODALITIES, rank.split([score[m].shape[1] for m in MODALITIES], dim=1), strict=True))
    count = (torch.tensor(FRACTIONS)[:, None] * sum(lengths.values())).round().long()[..., None]  # (F, N, 1) come first
    by_order = {order: np.zeros(count.shape[:2], np.float32) for order in ORDERS}
    for index, batch in passes(model, split, attribution.BATCH, device):
        first = {m: rank[m][index, : x.shape[1]] < count[:, index] for m, x in batch.features.items()}  # (F, B, T)
        first = {m: x.to(batch.features[m].device) for m, x in first.items()}
        deleted = _predicted(model, batch, {m: ~x for m, x in first.items()})
        for order, values in zip(ORDERS, (deleted, _predicted(model, batch, first)), strict=True):
            by_order[order][:, index] = (values - deleted[0]).abs().cpu()
    return by_order


def _predicted(model: Model, batch: Batch, kept: dict[str, Bool[Tensor, "F B T"]]) -> Float[Tensor, "F B"]:
    """Predictions with the frames that are kept, and zeros for the others."""
    steps, size = kept["text"].shape[:2]
    features = {m: (x * kept[m][..., None]).flatten(0, 1) for m, x in batch.features.items()}
    prediction, _ = model(Batch(features, {m: n.repeat(steps) for m, n in batch.lengths.items()}))
    return prediction.float().view(steps, size)


@cache.per_run("faithfulness")
def _curves(run: Run, device: str, data: Dataset) -> list[dict]:
    model = load_model(run, data.shape)
    if "integrated_gradients" not in attribution.possible(model):
        wanted = "faithfulness curves need a model that predicts one number from features, not token ids"
        raise ValueError(f"{run.method} predicts {run.model.task}; {wanted}")
    first = data.test.take(np.arange(len(data.test))[:UTTERANCES])
    with one_thread(device):
        return [
            {"measure": measure, "order": order, "fraction": fraction, "change": float(value)}
            for measure, score in scores(model, first, device).items()
            for order, change in changes(model, first, score, device, run.seed).items()
            for fraction, value in zip(FRACTIONS, change.mean(1), strict=True)
        ]
