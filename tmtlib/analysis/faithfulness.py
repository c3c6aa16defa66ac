"""Does a measure find the frames that a prediction rests on? Deletion and insertion curves.

All valid frames of an utterance, of every modality, are put in order by a measure, greatest first. "deletion" sets
more and more of them to zero, the training mean of normalised features; "insertion" starts from zeros and puts them
back (Samek et al. 2017; Petsiuk et al. 2018, sec. 3.3). A curve is the mean change of the prediction, |f(x) - f(x_k)|,
over utterances. A good measure changes the prediction early by deletion (a large area under the curve) and restores it
early by insertion (a small one), compared with frames in random order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64

from tmtlib.analysis import attribution, importance
from tmtlib.analysis.attribution import Frames
from tmtlib.common import MODALITIES, one_thread, pick_device
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Batch, Model
from tmtlib.stats.statistics import paired_interval, t_interval
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import OnDevice

ORDERS = ("deletion", "insertion")
FRACTIONS = tuple(k / 10 for k in range(11))  # of all valid frames of an utterance
UTTERANCES = 100  # at most so many of a test split, its first
RANDOM = "random"


def table(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The curves of finished runs on the first 100 test utterances.

    Columns: dataset, source, method, seed, measure (see `scores`), order ("deletion" or "insertion"), fraction (of an
    utterance's valid frames taken away or put back), change (mean |f(x) - f(x_k)|, label units). Raises ValueError for
    a model that does not predict one number from features.
    """
    return cache.map_runs(_curves, [(run,) for run in todo], device, jobs, "faithfulness")


def summary(curves: pd.DataFrame) -> pd.DataFrame:
    """Areas under the curves of `table`: a row a data set, method, measure and order.

    Columns: dataset, source, method, measure, order, area (mean over seeds, label units: the curve's mean height), low
    and high (95 % t interval over seeds), n, difference (area less that of the random order of the same seed),
    difference_low, difference_high (95 % paired t interval). Better than random: above 0 by deletion, below 0 by
    insertion.
    """
    keys, rows = ["dataset", "source", "method", "measure", "order"], []
    ordered = curves.sort_values("fraction", kind="stable")
    grouped = ordered.groupby([*keys, "seed"], sort=False)
    areas = grouped.apply(lambda c: np.trapezoid(c["change"], c["fraction"])).rename("area").reset_index()
    areas = areas.set_index([*keys, "seed"])["area"].unstack("seed")
    for key in curves[keys].drop_duplicates().itertuples(index=False, name=None):
        some = areas.loc[key].dropna()
        chance = areas.loc[(*key[:3], RANDOM, key[4])].loc[some.index]
        area, difference = t_interval(some), paired_interval(some, chance)
        row = dict(zip(keys, key, strict=True)) | {"area": area.mean, "low": area.low, "high": area.high, "n": area.n}
        named = {"difference": difference.mean, "difference_low": difference.low, "difference_high": difference.high}
        rows.append(row | named)
    return pd.DataFrame(rows)


def scores(model: Model, split: Split, device: str = "auto") -> dict[str, Frames]:
    """How much each frame is worth by every measure that the model has, (N, T) by modality; only their order counts.

    The sizes of "gradient_input", "integrated_gradients" and "rollout" (`attribution.by_frame`); "weighted_size",
    |A_m S_m|, the same for all frames of a modality; and "random", nothing by which to tell one from another.
    """
    found = {}
    for name in attribution.possible(model):
        found[name] = {m: np.abs(x) for m, x in attribution.by_frame(model, split, name, device).items()}
    shape = {m: x.shape for m, x in next(iter(found.values())).items()}
    size = importance.weight_values(model, split).get("weighted_size")
    if size is not None:
        found["weighted_size"] = {m: np.broadcast_to(size[m][:, None], shape[m]) for m in MODALITIES}
    return found | {RANDOM: {m: np.zeros(shape[m], np.float32) for m in MODALITIES}}


def ranks(score: Frames, lengths: dict[str, Int64[np.ndarray, " N"]], seed: int = 0) -> Int64[np.ndarray, "N K"]:
    """The place of each frame in its utterance's order, 0 for the greatest score, over the K = sum of T frames of all
    modalities side by side. Equal scores are in random order by `seed`; padding comes last."""
    valid = np.concatenate([np.arange(score[m].shape[1]) < lengths[m][:, None] for m in MODALITIES], axis=1)
    value = np.concatenate([score[m] for m in MODALITIES], axis=1)
    ties = np.random.default_rng(seed).random(value.shape)
    return np.lexsort((ties, np.where(valid, -value, np.inf)), axis=1).argsort(1)


@torch.no_grad()
def changes(
    model: Model, split: Split, score: Frames, device: str = "auto", seed: int = 0
) -> dict[str, Float[np.ndarray, "F N"]]:
    """|f(x) - f(x_k)| of each utterance at each of FRACTIONS, by order, in label units."""
    where = pick_device(device)
    data, model = OnDevice(split, where, model.config, model.family), model.to(where).eval()
    rank = torch.from_numpy(ranks(score, {m: n.cpu().numpy() for m, n in data.lengths.items()}, seed)).to(where)
    rank = dict(zip(MODALITIES, rank.split([data.features[m].shape[1] for m in MODALITIES], dim=1), strict=True))
    count = torch.tensor(FRACTIONS, device=where)[:, None] * data.total
    count = count.round().long()[..., None]  # (F, N, 1): so many frames come first
    found = {order: torch.zeros(count.shape[:2]) for order in ORDERS}
    for index in data.by_length(torch.arange(len(data), device=where)).split(attribution.TOGETHER):
        features, lengths = data.gather(index, data.trim)
        first = {m: rank[m][index, : x.shape[1]] < count[:, index] for m, x in features.items()}  # (F, B, T)
        kept = {"deletion": {m: ~x for m, x in first.items()}, "insertion": first}
        predicted = {order: _predicted(model, features, lengths, mask) for order, mask in kept.items()}
        for order, values in predicted.items():
            found[order][:, index.cpu()] = (values - predicted["deletion"][0]).abs().cpu()
    return {order: x.numpy() for order, x in found.items()}


def _predicted(model: Model, features: dict, lengths: dict, kept: dict) -> Float[torch.Tensor, "F B"]:
    """Predictions with the frames that are kept, (F, B, T) by modality, and zeros for the others."""
    steps, size = kept["text"].shape[:2]
    some = {m: (x * kept[m][..., None]).flatten(0, 1) for m, x in features.items()}
    prediction, _ = model(Batch(some, {m: n.repeat(steps) for m, n in lengths.items()}))
    return prediction.float().view(steps, size)


@cache.per_run("faithfulness")
def _curves(run: Run, device: str, data: Dataset) -> list[dict]:
    model = load_model(run, data.shape)
    if "integrated_gradients" not in attribution.possible(model):
        found = f"{run.method} predicts {run.model.task}" + (
            " from token ids" if data.test.text_bert is not None else ""
        )
        raise ValueError(f"{found}; faithfulness curves need a model that predicts one number from features")
    some, rows = data.test.take(np.arange(min(len(data.test), UTTERANCES))), []
    with one_thread(device):
        for measure, score in scores(model, some, device).items():
            for order, change in changes(model, some, score, device, run.seed).items():
                curve = zip(FRACTIONS, change.mean(1).tolist(), strict=True)
                rows += [{"measure": measure, "order": order, "fraction": f, "change": c} for f, c in curve]
    return rows
