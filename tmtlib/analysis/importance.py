"""How much of a prediction each modality is worth to a trained model: by taking modalities away, and beside that by
gradients and attention (`tmtlib.analysis.attribution`) and by AMW's weights.

Three ways of taking one away, which need not agree: "absent" (no frames, length 0), "mean" (every valid frame is the
training mean) and "permuted" (another utterance's). A model's value of a subset S of modalities is its prediction when
the others are taken away; a modality's importance is its Shapley value (Shapley 1953): what it adds to a subset,
averaged over all orders of adding, exact for three players. An utterance's values sum to what all add over none.

On synthetic data `agreement` asks of each measure whether it follows an utterance's own true importance.
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

from tmtlib.analysis import attribution, truth
from tmtlib.common import MODALITIES, check_choice, one_thread
from tmtlib.data.corrupt import swap_utterances
from tmtlib.data.schema import Dataset, Split, valid_frames
from tmtlib.data.synthetic import SplitTruth
from tmtlib.models.base import Model
from tmtlib.stats.statistics import Interval, shapley, t_interval
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model
from tmtlib.training.batches import sample_batch
from tmtlib.training.fit import Training, predict

REMOVALS = ("absent", "mean", "permuted")
UTTERANCES = 200  # at most so many of a test split, its first, for gradients, attention and `agreement`
TOGETHER = 256  # utterances that go through a model at once
KEYS = ["dataset", "source", "method", "measure", "modality"]
SUBSETS = tuple(s for k in range(len(MODALITIES) + 1) for s in combinations(MODALITIES, k))
Values = dict[tuple[str, ...], Float[np.ndarray, " N"]]  # by subset of modalities
Measured = dict[str, Float[np.ndarray, " N"]]  # by modality


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
    """Global importance: Shapley values of the reduction in MAE that a subset brings, in label units; negative where a
    modality makes the error larger."""
    return shapley(lambda subset: -float(np.abs(values[_ordered(subset)] - labels).mean()))


def occlusion(values: Values) -> dict[str, Float[np.ndarray, " N"]]:
    """What the prediction loses when one modality alone is taken away: v(all) - v(all but m), in label units."""
    return {m: values[MODALITIES] - values[tuple(x for x in MODALITIES if x != m)] for m in MODALITIES}


def shares(importance: dict[str, float | np.ndarray]) -> dict[str, float]:
    """Mean sizes |importance| as shares of their sum; equal where there is nothing to share."""
    size = {m: float(np.abs(x).mean()) for m, x in importance.items()}
    total = sum(size.values())
    return {m: s / total if total else 1 / len(size) for m, s in size.items()}


def utterance_shares(measured: Measured) -> Float[np.ndarray, "N M"]:
    """Each utterance's sizes |value| as shares of their sum, in the order of MODALITIES; equal for nothing to share."""
    size = np.abs(np.stack([measured[m] for m in MODALITIES], axis=1)).astype(np.float64)
    total = size.sum(1, keepdims=True)
    return np.divide(size, total, out=np.full_like(size, 1 / len(MODALITIES)), where=total > 0)


def against_truth(measured: Measured, known: SplitTruth) -> list[dict]:
    """How one measure of some utterances, a split's first, agrees with what was generated in them: rows of modality,
    what, value.

    "spearman": rank correlation over utterances of the modality's share by the measure and by the true importance,
    both as sizes. "auc": the chance that the share is larger where the modality is reliable than where it is not, ties
    half (Mann-Whitney). NaN where the share is the same for every utterance, or no utterance (or every) is reliable.
    """
    found, rows = utterance_shares(measured), []
    synthetic = utterance_shares(dict(zip(MODALITIES, known.importance[: len(found)].T, strict=True)))
    for i, m in enumerate(MODALITIES):
        share, reliable = found[:, i], known.reliable[: len(found), i]
        varies = np.ptp(share) > 1e-6
        spearman = stats.spearmanr(share, synthetic[:, i]).statistic if varies and np.ptp(synthetic[:, i]) else np.nan
        auc = np.nan
        if varies and 0 < reliable.sum() < len(reliable):
            wins = stats.mannwhitneyu(share[reliable], share[~reliable]).statistic
            auc = wins / (reliable.sum() * (~reliable).sum())
        rows += [{"modality": m, "what": w, "value": float(v)} for w, v in (("spearman", spearman), ("auc", auc))]
    return rows


def table(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Measures of importance of finished runs beside the ground truth, as means over seeds on the test split.

    Columns: dataset, source, method, measure, modality, mean (a share; the three sum to one), low and high (95 % t
    interval over seeds), n, truth (the synthetic share; NaN for real data). Measures: "shapley_absent", "shapley_mean"
    and "shapley_permuted" (mean |value| of the prediction), "mae_absent", "mae_mean" and "mae_permuted" (of the error),
    "occlusion" (absent); "gradient_input", "integrated_gradients" and "rollout" (mean |sum over an utterance's frames|,
    the first 200 utterances) of models that have them; and of models with weights "weight" (mean of A) and
    "weighted_size" (mean |A_m S_m|: what the next layers see, whatever A and S_m are by themselves).
    """
    found = _found(todo, device, jobs)
    rows = _over_seeds(found[found["what"] == "share"], KEYS)
    return rows.merge(truth.importance(todo), on=["dataset", "source", "modality"], how="left")


def agreement(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """How each measure follows the true importance from utterance to utterance, over seeds of training.

    Columns: dataset, source, method, measure, modality, what ("spearman" or "auc", see `against_truth`), mean, low and
    high (95 % t interval over seeds), n (the seeds that have a value). The first 200 test utterances, the same for all
    seeds, so the interval is of training and not of the choice of utterances. A weight that is the same for every
    utterance agrees with nothing: NaN with n = 0. No rows for real data, whose truth is not known.
    """
    found = _found(todo, device, jobs)
    return _over_seeds(found[found["what"] != "share"], [*KEYS, "what"])


def _over_seeds(found: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for key, values in found.groupby(keys, sort=False)["value"]:
        some = values.dropna()
        interval = t_interval(some) if len(some) else Interval(*3 * [float("nan")], 0)
        rows.append(dict(zip(keys, key, strict=True)) | interval._asdict())
    return pd.DataFrame(rows, columns=[*keys, *Interval._fields])


def _found(todo: Sequence[Run], device: str, jobs: int | None) -> pd.DataFrame:
    return cache.map_runs(_rows, [(run,) for run in todo], device, jobs, "importance")


@cache.per_run("importance")
def _rows(run: Run, device: str, data: Dataset) -> list[dict]:
    """Rows of measure, modality, what ("share", "spearman" or "auc") and value."""
    if run.model.reads_token_ids:
        raise ValueError(f"{run.method} reads token ids; importance by taking features away needs a model of features")
    model = load_model(run, data.shape)
    some = data.test.take(np.arange(min(len(data.test), UTTERANCES)))
    with one_thread(device):
        measured, of_all = _by_removal(run, model, data, device)
        for name in attribution.possible(model):
            measured[name] = attribution.by_modality(attribution.by_frame(model, some, name, device))
        measured |= weight_values(model, data.test)
    found = {name: shares(of) for name, of in (measured | of_all).items()}
    rows = [
        {"measure": k, "modality": m, "what": "share", "value": float(v)}
        for k, of in found.items()
        for m, v in of.items()
    ]
    if data.truth is None:
        return rows
    first = {k: {m: x[: len(some)] for m, x in of.items()} for k, of in measured.items()}
    known = data.truth.splits["test"]
    return rows + [{"measure": k} | row for k, of in first.items() for row in against_truth(of, known)]


def _by_removal(
    run: Run, model: Model, data: Dataset, device: str
) -> tuple[dict[str, Measured], dict[str, dict[str, float]]]:
    """Measures that take modalities away, by utterance, and those of the error of all utterances together."""
    measured, of_all = {}, {}
    for removal in REMOVALS:
        values = subset_values(model, data.test, removal, data.train, run.training, device, run.seed)
        measured[f"shapley_{removal}"] = per_utterance(values)
        error = of_the_error(values, data.test.labels)
        of_all[f"mae_{removal}"] = {m: max(0.0, x) for m, x in error.items()}  # harm is no importance
        if removal == "absent":
            measured["occlusion"] = occlusion(values)
    return measured, of_all


@torch.no_grad()
def weight_values(model: Model, split: Split) -> dict[str, Measured]:
    """By utterance, "weight" (mean of A_m over features) and "weighted_size" (norm of A_m S_m, mean over tokens).

    Nothing for a model without weights. Where each token has weights of its own, A is their mean.
    """
    model, parts = model.cpu().eval(), []
    for start in range(0, len(split), TOGETHER):
        some = split.take(np.arange(start, min(start + TOGETHER, len(split))))
        _, trace = model(sample_batch(model, some, len(some)))
        if trace.weights is None:
            return {}
        a = trace.weights.expand(len(some), -1, -1)
        sizes = [(a[:, i, None] * trace.tokens[m]).norm(dim=-1).mean(1) for i, m in enumerate(MODALITIES)]
        parts.append(torch.stack([a.mean(-1), torch.stack(sizes, dim=1)]))
    weight, size = torch.cat(parts, dim=1).numpy()
    named = {"weight": weight, "weighted_size": size}
    return {k: {m: x[:, i] for i, m in enumerate(MODALITIES)} for k, x in named.items()}


def _ordered(subset) -> tuple[str, ...]:
    return tuple(m for m in MODALITIES if m in subset)
