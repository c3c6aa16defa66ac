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
   not absorbed exactly can still be learned around: `frozen_weights` compares models whose A was held at very unequal
   weights while all the rest was trained.
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

from tmtlib.analysis.importance import importance_table
from tmtlib.common import MODALITIES
from tmtlib.data.loading import load
from tmtlib.models.amw import AMW
from tmtlib.models.base import Batch
from tmtlib.models.tmt import TMT
from tmtlib.stats.statistics import over_seeds
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
        rows += _compared("shift of W", model, _shifted(model), batch, lambda m, _: m.weighting.W)
    if run.model.placement == "R3":
        rows += _compared("projection", model, _absorbed(model, a[0], weights), batch)
    elif run.model.placement != "R2" and float((a - a[..., :1]).abs().max()) < 1e-9:
        rows += _compared("f2 alone", model, _rescaled(model, a[0, :, 0], weights), batch, output=_f2)
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


def _shifted(model: TMT) -> TMT:
    """The model with c_j ~ N(2, 1) added to W of feature j in all modalities: the same A."""
    other = copy.deepcopy(model)
    w = other.weighting.W
    w += 2 + torch.randn(w.shape[1], generator=torch.Generator().manual_seed(0)).to(w)
    return other


def _absorbed(model: TMT, before: Float[Tensor, "M d"], weights: Sequence[float]) -> TMT:
    """An R3 model with the given weights in every feature, and projections that make up for it."""
    other = with_weights(model, weights)
    for m, a, b in zip(MODALITIES, before, weights, strict=True):
        other.project[m].weight *= (a / b)[:, None]
        other.project[m].bias *= a / b
    return other


def _rescaled(model: TMT, before: Float[Tensor, " M"], weights: Sequence[float]) -> TMT:
    """A model of one number a modality with other numbers, and source positions of f2 that follow."""
    other, ratio = with_weights(model, weights), torch.tensor(weights).to(before) / before
    positions = other.shared_from_specific.source_positions
    positions *= ratio.repeat_interleave(model.config.specific_tokens)[None, :, None]
    return other


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
    outputs = []
    with model.shared_from_specific.register_forward_hook(lambda module, inputs, output: outputs.append(output)):
        model(batch)
    return outputs[0]


def _output(model: TMT, batch: Batch) -> Tensor:
    return model(batch)[0]


def _weights(model: TMT, batch: Batch) -> Float[Tensor, "M d"]:
    return model(batch)[1].weights[0]


def _compared(
    pair: str, model: TMT, other: TMT, batch: Batch, weights: Callable = _weights, output: Callable = _output
) -> list[dict]:
    """Rows of two models: their `weights(model, batch)`, (M, d), and how far their `output(model, batch)` differs."""
    before, after = (weights(m, batch).mean(1).numpy() for m in (model, other))
    difference = float((output(model, batch) - output(other, batch)).abs().max())
    return _rows(pair, before, after, weighted_sizes(model, batch), weighted_sizes(other, batch), difference)


def weighted_sizes(model: TMT, batch: Batch) -> Float[np.ndarray, " M"]:
    """Mean norm of what the layers after the weights get of each modality: A_m * S_m, or for R3 A_m * mean of X_m."""
    trace = model(batch)[1]
    r3 = model.config.placement == "R3"
    weighted = {m: x[:, None] for m, x in trace.projected.items()} if r3 else trace.tokens
    sizes = [(trace.weights[:, i, None] * weighted[m]).norm(dim=-1).mean() for i, m in enumerate(MODALITIES)]
    return torch.stack(sizes).numpy()


def _rows(pair: str, before, after, size_before, size_after, difference: float) -> list[dict]:
    by_modality = zip(MODALITIES, before, after, size_before, size_after, strict=True)
    return [
        {"pair": pair, "modality": m} | dict(zip(COLUMNS, (*map(float, numbers), float(difference)), strict=True))
        for m, *numbers in by_modality
    ]


def frozen_weights(todo: Sequence[Run], baseline: str, device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """Models whose weights were held at given values in training, beside the one that learned them.

    todo: finished runs of a `baseline` method and of others (such as `FROZEN`) on the same seeds. One row a data set,
    method and modality: weight, weighted_size and shapley (shares, `importance_table`, means over seeds), mae with its
    95 % t interval over seeds (low, high), mae_difference to the baseline with its paired interval (difference_low,
    difference_high), and n seeds. Raises ValueError where the baseline has no runs.
    """
    if baseline not in {run.method for run in todo}:
        raise ValueError(f"no run of {baseline!r}, which the others are compared with; wanted its runs among `todo`")
    keys = ["dataset", "source", "method"]
    errors = over_seeds(pd.DataFrame([runs.row(run) for run in todo]), keys, "mae", against={"method": baseline})
    errors = errors.rename(columns={"mean": "mae", "difference": "mae_difference"})
    measures = {"weight": "weight", "weighted_size": "weighted_size", "shapley_permuted": "shapley"}
    shares = importance_table(todo, device, jobs)
    shares = shares[shares["measure"].isin(measures)].replace({"measure": measures})
    shares = shares.pivot(index=[*keys, "modality"], columns="measure", values="mean").reset_index()
    numbers = "mae low high mae_difference difference_low difference_high n".split()
    frame = errors[[*keys, *numbers]].merge(shares, on=keys, sort=False).rename_axis(columns=None)
    ordered = {"method": list(errors["method"].unique()), "modality": list(MODALITIES)}
    return frame.sort_values([*ordered], key=lambda column: column.map(ordered[column.name].index), ignore_index=True)
