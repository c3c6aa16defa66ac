"""How much of a prediction each modality is worth to a trained model: by taking modalities away, and beside that by
gradients and attention (`tmtlib.analysis.attribution`) and by AMW's weights.

Three ways of taking one away, which need not agree: "absent" (no frames, length 0), "mean" (every valid frame is the
training mean) and "permuted" (another utterance's). A model's value of a subset S of modalities is its prediction when
the others are taken away; a modality's importance is its Shapley value (Shapley 1953): what it adds to a subset,
averaged over all orders of adding, exact for three players. An utterance's values sum to what all add over none.

On synthetic data `importance_agreement` asks whether a measure follows an utterance's own true importance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats

from tmtlib.analysis import attribution
from tmtlib.common import MODALITIES, check_choice, one_thread
from tmtlib.data.corrupt import swap_utterances
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.data.synthetic import SplitTruth
from tmtlib.models.base import Model
from tmtlib.stats.statistics import over_seeds, shapley
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import passes
from tmtlib.training.fit import Training, predict

REMOVALS = ("absent", "mean", "permuted")
UTTERANCES = 200  # at most so many of a test split, its first, for gradients, attention and `importance_agreement`
BATCH = 256  # utterances that go through a model at once
KEYS = ["dataset", "source", "method", "measure", "modality"]
SUBSETS = tuple(s for k in range(len(MODALITIES) + 1) for s in combinations(MODALITIES, k))
Values = dict[tuple[str, ...], Float[np.ndarray, " N"]]  # predictions by subset of modalities
Measure = Float[np.ndarray, "M N"]  # what each modality, in the order of MODALITIES, is worth in each utterance


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


def prediction_shapley(values: Values) -> Measure:
    """Shapley values of each utterance's prediction, in label units; they sum to v(all) - v(none)."""
    return np.stack(list(shapley(lambda subset: values[_ordered(subset)]).values()))


def error_shapley(values: Values, labels: Float[np.ndarray, " N"]) -> Float[np.ndarray, " M"]:
    """Shapley values of the reduction in MAE that a subset brings, over all utterances, in label units; negative where
    a modality makes the error larger."""
    return np.array(list(shapley(lambda subset: -float(np.abs(values[_ordered(subset)] - labels).mean())).values()))


def _ordered(subset: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(m for m in MODALITIES if m in subset)


def occlusion(values: Values) -> Measure:
    """What the prediction loses when one modality alone is taken away: v(all) - v(all but m), in label units."""
    return np.stack([values[MODALITIES] - values[tuple(x for x in MODALITIES if x != m)] for m in MODALITIES])


def removal_values(run: Run, model: Model, data: Dataset, device: str) -> dict[str, Values]:
    """`subset_values` of a run's model on the test split, by removal."""
    return {r: subset_values(model, data.test, r, data.train, run.training, device, run.seed) for r in REMOVALS}


def removal_measures(values: dict[str, Values]) -> dict[str, Measure]:
    """The measures "shapley_absent", "occlusion" (absent), "shapley_mean" and "shapley_permuted"."""
    absent, *others = REMOVALS
    measures = {f"shapley_{absent}": prediction_shapley(values[absent]), "occlusion": occlusion(values[absent])}
    return measures | {f"shapley_{removal}": prediction_shapley(values[removal]) for removal in others}


@torch.no_grad()
def weight_values(model: Model, split: Split, device: str = "auto") -> dict[str, Measure]:
    """The measures "weight" (mean of A_m over features) and "weighted_size" (norm of A_m S_m, mean over tokens).

    Nothing for a model without weights. Where each token has weights of its own, A is their mean.
    """
    if model.config.weighting == "none":
        return {}
    measures = np.empty((2, len(MODALITIES), len(split)), np.float32)
    for index, batch in passes(model, split, BATCH, device):
        _, trace = model(batch)
        a = trace.weights.expand(len(index), -1, -1)
        sizes = [(a[:, i, None] * trace.tokens[m]).norm(dim=-1).mean(1) for i, m in enumerate(MODALITIES)]
        measures[:, :, index.cpu()] = torch.stack([a.mean(-1).T, torch.stack(sizes)]).cpu()
    return dict(zip(("weight", "weighted_size"), measures, strict=True))


def shares(values: Float[np.ndarray, "M ..."]) -> Float[np.ndarray, "M ..."]:
    """Sizes |value| as shares of their sum over modalities; equal where there is nothing to share."""
    size = np.abs(values).astype(np.float64)
    total = size.sum(0)
    return np.divide(size, total, out=np.full_like(size, 1 / len(size)), where=total > 0)


def true_shares(data: Dataset) -> Float[np.ndarray, " M"]:
    """The true importance of each modality as shares that sum to one; NaN for real data."""
    if data.truth is None:
        return np.full(len(MODALITIES), np.nan)
    return np.array([data.truth.importance[m] / data.truth.explained for m in MODALITIES])


def utterance_agreement(values: Measure, truth: SplitTruth) -> list[dict]:
    """How one measure of the first utterances of a split agrees with what was generated in them: rows of modality,
    what, value.

    "spearman": rank correlation over utterances of the modality's share by the measure and by the true importance,
    both as sizes. "auc": the chance that the share is larger where the modality is reliable than where it is not, ties
    half (Mann-Whitney). NaN where the share is the same for every utterance, or no utterance (or every) is reliable.
    """
    n, rows = values.shape[1], []
    by_modality = zip(MODALITIES, shares(values), shares(truth.importance[:n].T), truth.reliable[:n].T, strict=True)
    for m, share, true_share, reliable in by_modality:
        spearman = auc = np.nan
        if np.ptp(share) > 1e-6:
            if np.ptp(true_share):
                spearman = stats.spearmanr(share, true_share).statistic
            if 0 < reliable.sum() < n:
                wins = stats.mannwhitneyu(share[reliable], share[~reliable]).statistic
                auc = wins / (reliable.sum() * (~reliable).sum())
        rows += [{"modality": m, "what": k, "value": float(v)} for k, v in (("spearman", spearman), ("auc", auc))]
    return rows


def importance_table(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Measures of importance of finished runs beside the ground truth, as means over seeds on the test split.

    Columns: dataset, source, method, measure, modality, mean (a share; the three sum to one), low and high (95 % t
    interval over seeds), n, truth (the true share; NaN for real data). Measures: "shapley_absent", "shapley_mean"
    and "shapley_permuted" (mean |value| of the prediction), "mae_absent", "mae_mean" and "mae_permuted" (of the error),
    "occlusion" (absent); "gradient_input", "integrated_gradients" and "rollout" (mean |sum over an utterance's frames|,
    the first 200 utterances) of models that have them; and of models with weights "weight" (mean of A) and
    "weighted_size" (mean |A_m S_m|: what the next layers see, whatever A and S_m are by themselves).
    """
    rows = cache.map_runs(_rows, [(run,) for run in todo], device, jobs, "importance")
    rows = rows[rows["what"] == "share"]
    return over_seeds(rows, KEYS, "value").merge(rows.drop_duplicates(KEYS)[[*KEYS, "truth"]], on=KEYS)


def importance_agreement(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """How each measure follows the true importance from utterance to utterance, over seeds of training.

    Columns: dataset, source, method, measure, modality, what ("spearman" or "auc", see `utterance_agreement`), mean,
    low and high (95 % t interval over seeds), n (the seeds that have a value). The first 200 test utterances, the same
    for all seeds, so the interval is of training and not of the choice of utterances. A weight that is the same for
    every utterance agrees with nothing: NaN with n = 0. No rows for real data, whose truth is not known.
    """
    rows = cache.map_runs(_rows, [(run,) for run in todo], device, jobs, "importance")
    return over_seeds(rows[rows["what"] != "share"], [*KEYS, "what"], "value")


@cache.per_run("importance")
def _rows(run: Run, device: str, data: Dataset) -> list[dict]:
    """Rows of measure, modality, what ("share", "spearman" or "auc"), value and, of shares, truth."""
    if run.model.reads_token_ids:
        raise ValueError(f"{run.method} reads token ids; importance by taking features away needs a model of features")
    model = load_model(run, data.shape)
    first = data.test.take(np.arange(min(len(data.test), UTTERANCES)))
    with one_thread(device):
        values = removal_values(run, model, data, device)
        measures = removal_measures(values)
        for name in attribution.possible(model):
            measures[name] = attribution.by_modality(attribution.by_frame(model, first, name, device))
        measures |= weight_values(model, data.test, device)
    sizes = {name: np.abs(x).mean(1) for name, x in measures.items()}
    for removal, v in values.items():
        sizes[f"mae_{removal}"] = np.maximum(0, error_shapley(v, data.test.labels))  # harm is no importance
    rows = [
        {"measure": name, "modality": m, "what": "share", "value": float(share), "truth": float(truth)}
        for name, size in sizes.items()
        for m, share, truth in zip(MODALITIES, shares(size), true_shares(data), strict=True)
    ]
    if data.truth is None:
        return rows
    return rows + [
        {"measure": name} | row
        for name, x in measures.items()
        for row in utterance_agreement(x[:, : len(first)], data.truth.splits["test"])
    ]
