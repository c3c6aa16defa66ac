"""How much of a prediction each modality is worth to a trained model, by taking modalities away.

Three ways of taking one away, which need not agree: "absent" (no frames, length 0), "mean" (every valid frame is the
training mean) and "permuted" (another utterance's). A model's value of a subset S of modalities is its prediction when
the others are taken away; a modality's importance is its Shapley value (Shapley 1953): what it adds to a subset,
averaged over all orders of adding, exact for three players. An utterance's values sum to what all add over none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tmtlib import looks, truth
from tmtlib.batches import sample_batch
from tmtlib.config import MODALITIES, Run, Training, check_choice
from tmtlib.data.corrupt import swap_utterances
from tmtlib.data.planted import shapley
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.models import Model
from tmtlib.runs import load_model, one_thread
from tmtlib.statistics import t_interval
from tmtlib.training import predict

REMOVALS = ("absent", "mean", "permuted")
SUBSETS = tuple(s for k in range(len(MODALITIES) + 1) for s in combinations(MODALITIES, k))
Values = dict[tuple[str, ...], Float[np.ndarray, " N"]]


def taken_away(split: Split, modalities: tuple[str, ...], removal: str, train: Split, seed: int = 0) -> Split:
    """The split without some modalities, in one of the three ways. Raises ValueError for an unknown removal."""
    check_choice("removal", removal, REMOVALS)
    if removal == "permuted":
        return swap_utterances(split, modalities, seed) if modalities else split
    features, lengths = dict(split.features), dict(split.lengths)
    for m in modalities:
        if removal == "absent":
            features[m], lengths[m] = np.zeros_like(features[m]), np.zeros_like(lengths[m])
        else:
            frames = train.features[m][valid_frames(train, m)]
            features[m] = np.where(valid_frames(split, m)[..., None], frames.mean(0), np.float32(0)).astype(np.float32)
    return replace(split, features=features, lengths=lengths)


def subset_values(
    model: Model, split: Split, removal: str, train: Split, training: Training, device: str = "auto", seed: int = 0
) -> Values:
    """The model's predictions (N,) for each of the eight subsets of modalities that are left."""
    left = {s: tuple(m for m in MODALITIES if m not in s) for s in SUBSETS}
    return {
        s: predict(model, taken_away(split, gone, removal, train, seed), training, device) for s, gone in left.items()
    }


def per_utterance(values: Values) -> dict[str, Float[np.ndarray, " N"]]:
    """Shapley values of the prediction by modality, in label units; they sum to v(all) - v(none)."""
    return shapley(lambda subset: values[_ordered(subset)])


def of_the_error(values: Values, labels: Float[np.ndarray, " N"]) -> dict[str, float]:
    """Global importance: Shapley values of the reduction in MAE that a subset brings, in label units."""
    return shapley(lambda subset: -float(np.abs(values[_ordered(subset)] - labels).mean()))


def occlusion(values: Values) -> dict[str, Float[np.ndarray, " N"]]:
    """What the prediction loses when one modality alone is taken away: v(all) - v(all but m), in label units."""
    return {m: values[MODALITIES] - values[tuple(x for x in MODALITIES if x != m)] for m in MODALITIES}


def shares(importance: dict[str, float | np.ndarray]) -> dict[str, float]:
    """Mean sizes |importance| as shares of their sum; equal where there is nothing to share."""
    size = {m: float(np.abs(x).mean()) for m, x in importance.items()}
    total = sum(size.values())
    return {m: s / total if total else 1 / len(size) for m, s in size.items()}


def table(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Measures of importance of finished runs beside the planted truth, as means over seeds on the test split.

    Columns: dataset, source, method, measure, modality, mean (a share; the three sum to one), low and high (95 % t
    interval over seeds), n, truth (the planted share; NaN for real data). Measures: "shapley_absent", "shapley_mean"
    and "shapley_permuted" (mean |value| of the prediction), "mae_absent", "mae_mean" and "mae_permuted" (of the error),
    "occlusion" (absent), and of models with weights "weight" (mean of A) and "weighted_size" (mean |A_m S_m|: what the
    next layers see, whatever A and S_m are by themselves).
    """
    found = looks.together(_looked, [(run,) for run in todo], device, jobs, "importance")
    keys, rows = ["dataset", "source", "method", "measure", "modality"], []
    for key, some in found.groupby(keys, sort=False):
        mean, low, high, n = t_interval(some["share"])
        rows.append(dict(zip(keys, key, strict=True)) | {"mean": mean, "low": low, "high": high, "n": n})
    frame = pd.DataFrame(rows)
    return frame.merge(truth.importance(todo), on=["dataset", "source", "modality"], how="left")


def _looked(run: Run, device: str, data: Dataset) -> list[dict]:
    return looks.kept(run, ("importance",), ("importance.py",), lambda: _measures(run, device, data))


def _measures(run: Run, device: str, data: Dataset) -> list[dict]:
    model, found = load_model(run, data.shape), {}
    with one_thread(device):
        for removal in REMOVALS:
            values = subset_values(model, data.test, removal, data.train, run.training, device, run.seed)
            found[f"shapley_{removal}"] = shares(per_utterance(values))
            found[f"mae_{removal}"] = shares(of_the_error(values, data.test.labels))
            if removal == "absent":
                found["occlusion"] = shares(occlusion(values))
        found |= _weights(model, data.test)
    return [{"measure": k, "modality": m, "share": float(v)} for k, of in found.items() for m, v in of.items()]


@torch.no_grad()
def _weights(model: Model, split: Split) -> dict[str, dict[str, float]]:
    """Mean weights, and the mean size of weighted tokens, as shares; nothing for a model without weights."""
    _, trace = model.cpu().eval()(sample_batch(model, split, len(split)))
    if trace.weights is None:
        return {}
    weights = {m: trace.weights[:, i] for i, m in enumerate(MODALITIES)}
    size = {m: (weights[m][:, None] * trace.tokens[m]).norm(dim=-1) for m in MODALITIES}
    return {
        name: shares({m: x.numpy() for m, x in of.items()})
        for name, of in (("weight", weights), ("weighted_size", size))
    }


def _ordered(subset) -> tuple[str, ...]:
    return tuple(m for m in MODALITIES if m in subset)
