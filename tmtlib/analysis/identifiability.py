r"""Can other weights give the same model? Where they can, a weight by itself says nothing of importance.

A layer y = sum_m v_m . (alpha_m * F_m) is the same function for any other positive alpha': the layer after it makes up
for it with v'_m = v_m alpha_m / alpha'_m, or the layer before with F'_m = F_m alpha_m / alpha'_m. In the second case
the product |alpha_m * F_m| stays what it was, so it is known where alpha is not, and stands beside alpha everywhere
here; in the first it changes as alpha does. In TMT + AMW, whose blocks are pre-norm, it depends on where A acts:

R3 (A_m * X_m, before disentanglement): X_m = P_m x + b_m is a layer before, one for each modality, and nothing else
   reads it: P'_m = diag(A_m / A'_m) P_m, b'_m likewise. Any A' gives the same predictions; A is not identified at all.
   (Only the auxiliary losses see the unweighted X_m.)
R1, R1M, R2 (A_m * S_m, after it): the softmax ignores what is added to W of a feature in all modalities, so W is not
   identified, at best A is. Neither side absorbs a scaling exactly: S_m leaves a residual stream whose last block all
   tokens share, and A_m * S_m enters another. One of the two ways on is blind to the scale: f2 reads A_m S_m + position
   through LayerNorms alone, which remove a token's scale (to their epsilon), so a number a modality is absorbed by the
   source positions. The scale of a modality is seen only by f1's residual stream, whose mean goes to the head. What is
   not absorbed exactly can still be learned around: `frozen` compares models whose A was held at very unequal weights
   while all the rest was trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tmtlib.analysis import importance
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.models.amw import AMW
from tmtlib.models.base import Batch
from tmtlib.models.tmt import TMT
from tmtlib.stats.statistics import paired_interval, t_interval
from tmtlib.study import runs
from tmtlib.study.runs import Run
from tmtlib.training.batches import sample_batch

FROZEN = tuple(f"tmt_mostly_{m}" for m in MODALITIES)
OTHER = (0.1, 0.2, 0.7)  # weights to give a model instead of its own
COLUMNS = ("weight_before", "weight_after", "weighted_size_before", "weighted_size_after", "largest_output_difference")


@torch.no_grad()
def pairs(run: Run, weights: Sequence[float] = OTHER, size: int = 256) -> pd.DataFrame:
    """A finished run's model beside models with other weights, in float64 on its first `size` test utterances.

    One row a pair and modality. Columns: pair, modality, weight_before and weight_after (mean of A over features; in
    "shift of W" the mean of W), weighted_size_before and _after (`weighted_sizes`), and largest_output_difference
    (over utterances, label units; in "f2 alone" over the elements of f2). Pairs: for any run "linear layer after" and
    "linear layer before" (the equation above); "shift of W" where W is static; by placement "projection" (R3) or,
    where each modality has one weight for all features, "f2 alone" (R1, R1M).

    weights: of the other model, positive, one a modality and one in sum. Raises ValueError for others, and for a run
    without weights or with weights that differ between utterances.
    """
    data = load(run.data)
    model = runs.load_model(run, data.shape).double()
    if not isinstance(model, TMT) or model.weighting is None:
        raise ValueError(f"{run.method} has no modality weights; wanted a method such as tmt_amw or tmt_amw_r3")
    batch = sample_batch(model, data.test, size)
    batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
    a = model(batch)[1].weights
    if len(a) != 1:
        raise ValueError(f"the weights of {run.method} differ between utterances; wanted a static weighting")
    rows = linear_pairs(weights)
    if isinstance(model.weighting, AMW):
        rows += _shifted(model, batch)
    if run.model.placement == "R3":
        rows += _absorbed(model, batch, weights)
    elif run.model.placement != "R2" and float((a - a[..., :1]).abs().max()) < 1e-9:
        rows += _rescaled(model, batch, weights)
    return pd.DataFrame(rows)


def linear_pairs(weights: Sequence[float] = OTHER, width: int = 16, seed: int = 0) -> list[dict]:
    """Rows of y = sum_m v_m . (alpha_m * F_m), F and v standard normal, at equal weights and at others, which the
    layer after (v) or the layer before (F) makes up for."""
    rng, shape = np.random.default_rng(seed), (len(MODALITIES), width)
    f, v, equal = rng.standard_normal((1000, *shape)), rng.standard_normal(shape), 1 / len(MODALITIES)
    after = np.asarray(weights, float)[:, None]
    ways = {"after": (f, v * equal / after), "before": (f * equal / after, v)}
    rows, y = [], np.einsum("nmd,md->n", equal * f, v)
    for way, (f_after, v_after) in ways.items():
        sizes = [np.linalg.norm(x, axis=-1).mean(0) for x in (equal * f, after * f_after)]
        difference = np.abs(np.einsum("nmd,md->n", after * f_after, v_after) - y).max()
        rows += _rows(f"linear layer {way}", [equal] * len(f[0]), after[:, 0], *sizes, difference)
    return rows


def _shifted(model: TMT, batch: Batch) -> list[dict]:
    """Rows of the model and one with c_j ~ N(2, 1) added to W of feature j in all modalities: the same A."""
    other = copy.deepcopy(model)
    w = other.weighting.W
    w += 2 + torch.randn(w.shape[1], generator=torch.Generator().manual_seed(0)).to(w)
    return _compared("shift of W", model, other, batch, *(m.weighting.W.mean(1).numpy() for m in (model, other)))


def _absorbed(model: TMT, batch: Batch, weights: Sequence[float]) -> list[dict]:
    """Rows of an R3 model and of one with the given weights in every feature, with projections that make up for it."""
    other, before = with_weights(model, weights), model(batch)[1].weights[0]
    for m, a, b in zip(MODALITIES, before, weights, strict=True):
        other.project[m].weight *= (a / b)[:, None]
        other.project[m].bias *= a / b
    return _compared("projection", model, other, batch, before.mean(1).numpy(), weights)


def _rescaled(model: TMT, batch: Batch, weights: Sequence[float]) -> list[dict]:
    """Rows of f2 alone, of a model with a number a modality: other numbers, and source positions that follow."""
    other, before = with_weights(model, weights), model(batch)[1].weights[0, :, 0]
    ratio = torch.tensor(weights).to(before) / before
    half = other.shared_from_specific
    half.source_positions *= ratio.repeat_interleave(model.config.specific_tokens)[None, :, None]
    return _compared("f2 alone", model, other, batch, before.numpy(), weights, of=_f2)


def with_weights(model: TMT, weights: Sequence[float]) -> TMT:
    """A copy of the model with the same weight in all features of a modality, and nothing else changed.

    Raises ValueError for weights that are not positive, one a modality, and one in sum.
    """
    a = torch.tensor(weights, dtype=torch.float64)
    if a.shape != (len(MODALITIES),) or not (a > 0).all() or abs(float(a.sum()) - 1) > 1e-9:
        raise ValueError(f"weights are {tuple(weights)}; wanted {len(MODALITIES)} positive numbers that sum to one")
    other, weighting = copy.deepcopy(model), AMW(model.config)
    weighting.W.data = (model.config.temperature * a.log())[:, None].repeat(1, model.config.width)
    other.weighting = weighting.to(model.tokens)
    return other


def _f2(model: TMT, batch: Batch) -> Float[Tensor, "B k d"]:
    seen = []
    with model.shared_from_specific.register_forward_hook(lambda module, inputs, output: seen.append(output)):
        model(batch)
    return seen[0]


def _output(model: TMT, batch: Batch) -> Tensor:
    return model(batch)[0]


def _compared(
    pair: str, model: TMT, other: TMT, batch: Batch, before, after, of: Callable[[TMT, Batch], Tensor] = _output
) -> list[dict]:
    difference = float((of(model, batch) - of(other, batch)).abs().max())
    return _rows(pair, before, after, weighted_sizes(model, batch), weighted_sizes(other, batch), difference)


def weighted_sizes(model: TMT, batch: Batch) -> Float[np.ndarray, " M"]:
    """Mean norm of what the layers after the weights get of each modality: A_m * S_m, or for R3 A_m * mean of X_m."""
    trace = model(batch)[1]
    seen = {m: x[:, None] for m, x in trace.projected.items()} if model.config.placement == "R3" else trace.tokens
    sizes = [(trace.weights[:, i, None] * seen[m]).norm(dim=-1).mean() for i, m in enumerate(MODALITIES)]
    return torch.stack(sizes).numpy()


def _rows(pair: str, before, after, size_before, size_after, difference: float) -> list[dict]:
    found = zip(MODALITIES, before, after, size_before, size_after, strict=True)
    return [
        {"pair": pair, "modality": m} | dict(zip(COLUMNS, (*map(float, numbers), float(difference)), strict=True))
        for m, *numbers in found
    ]


def frozen(todo: Sequence[Run], baseline: str, device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Models whose weights were held at given values in training, beside the one that learned them.

    todo: finished runs of a `baseline` method and of others (such as `FROZEN`) on the same seeds. One row a data set,
    method and modality: weight, weighted_size and shapley (shares, `importance.table`, means over seeds), mae with its
    95 % t interval over seeds (low, high), mae_difference to the baseline with its paired interval (difference_low,
    difference_high), and n seeds. Raises ValueError where the baseline has no runs.
    """
    if baseline not in {run.method for run in todo}:
        raise ValueError(f"no run of {baseline!r}, which the others are compared with; wanted its runs among `todo`")
    scores = pd.DataFrame([runs.row(run) for run in todo])
    keys, rows = ["dataset", "source"], []
    for (dataset, source, method), some in scores.groupby([*keys, "method"], sort=False):
        of = (scores["dataset"] == dataset) & (scores["method"] == baseline)
        both = some.merge(scores.loc[of, ["seed", "mae"]], on="seed", suffixes=("", "_before"))
        mae, difference = t_interval(some["mae"]), paired_interval(both["mae"], both["mae_before"])
        numbers = {"mae": mae.mean, "low": mae.low, "high": mae.high, "mae_difference": difference.mean}
        numbers |= {"difference_low": difference.low, "difference_high": difference.high, "n": mae.n}
        rows.append({"dataset": dataset, "source": source, "method": method} | numbers)
    wanted = {"weight": "weight", "weighted_size": "weighted_size", "shapley_permuted": "shapley"}
    found = importance.table(todo, device, jobs)
    found = found[found["measure"].isin(wanted)].assign(measure=lambda f: f["measure"].map(wanted))
    shares = found.pivot(index=[*keys, "method", "modality"], columns="measure", values="mean").reset_index()
    frame = pd.DataFrame(rows).merge(shares, on=[*keys, "method"], sort=False).rename_axis(columns=None)
    order = frame["modality"].map(MODALITIES.index)
    return frame.iloc[
        np.lexsort((order, frame["method"].map(list(dict.fromkeys(scores["method"])).index)))
    ].reset_index(drop=True)
