"""What each modality contributes to a trained model's predictions: by removing modalities, beside gradients and
attention (`tmtlib.analysis.attribution`) and AMW's weights.

A removed modality is "absent" (no frames, length 0), "mean" (every valid frame is the training mean) or "permuted"
(another utterance's). Importance is the exact Shapley value (Shapley 1953) over the eight subsets of modalities.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

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
UTTERANCES = 200  # the first of a test split, for gradients, attention and `importance_agreement`
BATCH = 256  # utterances that go through a model at once
KEYS = ["dataset", "source", "method", "measure", "modality"]
SUBSETS = tuple(s for k in range(len(MODALITIES) + 1) for s in combinations(MODALITIES, k))
Values = dict[tuple[str, ...], Float[np.ndarray, " N"]]  # predictions by subset of modalities
Measure = Float[np.ndarray, "M N"]  # importance of each modality, in the order of MODALITIES, in each utterance


def taken_away(split: Split, modalities: tuple[str, ...], removal: str, train: Split, seed: int = 0) -> Split:
    """The split without some modalities, in one of the three ways. Raises ValueError for an unknown removal."""
    check_choice("removal", removal, REMOVALS)
    if not modalities:
        return split
    if removal == "permuted":
        return swap_utterances(split, modalities, seed)
    features, lengths = dict(split.features), dict(split.lengths)
    for m in modalities:
        features[m] = np.zeros_like(split.features[m])
        if removal == "absent":
            lengths[m] = np.zeros_like(split.lengths[m])
        else:
            frames = train.features[m][valid_frames(train, m)]
            features[m][valid_frames(split, m)] = frames.mean(0) if len(frames) else 0
    return replace(split, features=features, lengths=lengths)


def subset_values(
    model: Model, split: Split, removal: str, train: Split, training: Training, device: str = "auto", seed: int = 0
) -> Values:
    """The model's predictions (N,) for each of the eight subsets of modalities that are left."""
    removed = {s: tuple(m for m in MODALITIES if m not in s) for s in SUBSETS}
    return {s: predict(model, taken_away(split, r, removal, train, seed), training, device) for s, r in removed.items()}


def prediction_shapley(values: Values) -> Measure:
    """Shapley values of each utterance's prediction, in label units; they sum to v(all) - v(none)."""
    return np.stack([*shapley(lambda subset: values[tuple(m for m in MODALITIES if m in subset)]).values()])


def error_shapley(values: Values, labels: Float[np.ndarray, " N"]) -> Float[np.ndarray, " M"]:
    """Shapley values of the reduction in MAE (label units) over all utterances; negative where a modality does harm."""
    return prediction_shapley({s: -float(np.abs(v - labels).mean()) for s, v in values.items()})


def occlusion(values: Values) -> Measure:
    """What the prediction loses when one modality alone is taken away: v(all) - v(all but m), in label units."""
    return np.stack([values[MODALITIES] - values[tuple(x for x in MODALITIES if x != m)] for m in MODALITIES])


def removal_values(run: Run, model: Model, data: Dataset, device: str, removals=REMOVALS) -> dict[str, Values]:
    """`subset_values` of a run's model on the test split, by removal."""
    return {r: subset_values(model, data.test, r, data.train, run.training, device, run.seed) for r in removals}


def removal_measures(values: dict[str, Values]) -> dict[str, Measure]:
    """The measures "shapley_absent", "occlusion" (absent), "shapley_mean" and "shapley_permuted"."""
    measures = {f"shapley_{removal}": prediction_shapley(v) for removal, v in values.items()}
    return {"shapley_absent": measures["shapley_absent"], "occlusion": occlusion(values["absent"])} | measures


@torch.no_grad()
def weight_values(model: Model, split: Split, device: str = "auto") -> dict[str, Measure]:
    """The measures "weight" (mean of A_m over features) and "weighted_size" (norm of A_m S_m, mean over tokens).

    NaN for a modality that no utterance of the split has. Empty for a model without weights. Where each token has
    weights of its own, A is their mean.
    """
    if model.config.weighting == "none":
        return {}
    measures = np.empty((2, len(MODALITIES), len(split)), np.float32)
    for index, batch in passes(model, split, BATCH, device):
        _, trace = model(batch)
        a = trace.weights.expand(len(index), -1, -1)
        sizes = [(a[:, i, None] * trace.tokens[m]).norm(dim=-1).mean(1) for i, m in enumerate(MODALITIES)]
        measures[:, :, index] = torch.stack([a.mean(-1).T, torch.stack(sizes)]).cpu()
    measures[:, [not split.lengths[m].any() for m in MODALITIES]] = np.nan
    named = dict(zip(("weight", "weighted_size"), measures, strict=True))
    return named if model.config.placement != "attention" else {"weight": named["weight"]}  # nothing is multiplied


def shares(values: Float[np.ndarray, "M ..."]) -> Float[np.ndarray, "M ..."]:
    """Sizes |value| as shares of their sum over modalities; equal shares where all are 0."""
    size = np.abs(values).astype(np.float64)
    total = size.sum(0)
    return np.divide(size, total, out=np.full_like(size, 1 / len(size)), where=total > 0)


def true_shares(data: Dataset) -> Float[np.ndarray, " M"]:
    """The true importance of each modality as shares that sum to one; NaN for real data."""
    if data.truth is None:
        return np.full(len(MODALITIES), np.nan)
    return np.array([data.truth.importance[m] / data.truth.explained for m in MODALITIES])


def utterance_agreement(values: Measure, truth: SplitTruth) -> list[dict]:
    """How a measure of a split's first utterances agrees with what was generated: rows of modality, what, value.

    "spearman": rank correlation over utterances of the modality's share by the measure and by the true importance,
    both as sizes. "auc": the chance that the share is larger where the modality is reliable than where it is not, ties
    half (Mann-Whitney). NaN where the share is the same for every utterance, or no utterance (or every) is reliable.
    """
    n = values.shape[1]
    share, true = (pd.DataFrame(shares(x).T, columns=list(MODALITIES)) for x in (values, truth.importance[:n].T))
    rank, reliable = share.rank(), truth.reliable[:n]
    count = reliable.sum(0)
    wins = rank.where(reliable).sum() - count * (count + 1) / 2
    agreement = pd.DataFrame({"spearman": rank.corrwith(true.rank()), "auc": wins / (count * (n - count))})
    agreement[np.ptp(share.to_numpy(), axis=0) <= 1e-6] = np.nan
    return [{"modality": m, "what": k, "value": row[k]} for m, row in agreement.iterrows() for k in agreement]


def importance_table(
    todo: Sequence[Run], device: str = "auto", jobs: int | None = None, brief: bool = False
) -> pd.DataFrame:
    """Measures of importance of finished runs beside the ground truth, as means over seeds on the test split.

    Columns: dataset, source, method, measure, modality (those that some test utterance has), mean (a share; they sum to
    one), low and high (95 % t
    interval over seeds), n, truth (the true share; NaN for real data). Measures: "shapley_absent", "shapley_mean"
    and "shapley_permuted" (mean |value| of the prediction), "mae_absent", "mae_mean" and "mae_permuted" (of the error),
    "occlusion" (absent); "gradient_input", "integrated_gradients" and "rollout" (mean |sum over an utterance's frames|,
    the first 200 utterances) of models that have them; of models with weights "weight" (mean of A) and "weighted_size"
    (mean |A_m S_m|). `brief`: those of removal as "absent", and of weights. Raises ValueError for a model that reads
    token ids.
    """
    rows = cache.map_runs(_rows, [(run, brief) for run in todo], device, jobs, "importance")
    rows = rows[rows["what"] == "share"]
    return over_seeds(rows, KEYS, "value").merge(rows.drop_duplicates(KEYS)[[*KEYS, "truth"]], on=KEYS)


def importance_agreement(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """How each measure follows the true importance over the first 200 test utterances.

    Columns: dataset, source, method, measure, modality, what ("spearman" or "auc", see `utterance_agreement`), mean,
    low and high (95 % t interval over seeds of training), n (the seeds that have a value; 0 and NaN for a weight that
    is the same in every utterance). No rows for real data.
    """
    rows = cache.map_runs(_rows, [(run, False) for run in todo], device, jobs, "importance")
    return over_seeds(rows[rows["what"] != "share"], [*KEYS, "what"], "value")


@cache.per_run("importance")
def _rows(run: Run, brief: bool, device: str, data: Dataset) -> list[dict]:
    """Rows of measure, modality, what ("share", "spearman" or "auc"), value and, of shares, truth."""
    if run.model.reads_token_ids:
        raise ValueError(f"{run.method} reads token ids; importance by taking features away needs a model of features")
    model = load_model(run, data.shape)
    first = data.test.take(np.arange(len(data.test))[:UTTERANCES])
    with one_thread(device):
        values = removal_values(run, model, data, device, REMOVALS[:1] if brief else REMOVALS)
        measures = removal_measures(values)
        for name in () if brief else attribution.possible(model):
            measures[name] = attribution.by_modality(attribution.by_frame(model, first, name, device))
        measures |= weight_values(model, data.test, device)
    present = [i for i, m in enumerate(MODALITIES) if data.test.lengths[m].any()]
    sizes = {name: np.abs(x).mean(1) for name, x in measures.items()}
    for removal, v in values.items():
        sizes[f"mae_{removal}"] = np.maximum(0, error_shapley(v, data.test.labels))  # harm is no importance
    rows = [
        {"measure": name, "modality": MODALITIES[i], "what": "share", "value": float(share), "truth": float(truth)}
        for name, size in sizes.items()
        for i, share, truth in zip(present, shares(size[present]), true_shares(data)[present], strict=True)
    ]
    for name, x in measures.items() if data.truth is not None else ():
        agreement = utterance_agreement(x[:, : len(first)], data.truth.splits["test"])
        rows += [{"measure": name} | row for row in agreement]
    return rows
