"""Can other weights give the same model? Where they can, a weight by itself says nothing of importance.

A layer y = sum_m v_m . (alpha_m * F_m) is the same function for any positive alpha': the layer after it absorbs the
ratio (v'_m = v_m alpha_m / alpha'_m), or the layer before it (F'_m likewise), which leaves |alpha_m * F_m| as it was.
In TMT + AMW: before disentanglement (R3) the projections P_m absorb any A exactly. After it (R1, R1M, R2) W is only
known up to a shift in all modalities, and f2, which reads A_m S_m through LayerNorms, is blind to a modality's scale up
to their epsilon; f1's residual stream is not. `frozen_weights` tests what training can make up for.
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
from tmtlib.models.base import Batch, Trace
from tmtlib.models.tmt import TMT
from tmtlib.stats.statistics import over_seeds
from tmtlib.study import runs
from tmtlib.study.runs import Run
from tmtlib.training.batches import sample_batch

FROZEN = tuple(f"tmt_mostly_{m}" for m in MODALITIES)
OTHER = (0.1, 0.2, 0.7)  # weights to give a model instead of its own
NUMBERS = "weight_before weight_after weighted_size_before weighted_size_after largest_output_difference".split()


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
    frames = [linear_pairs(weights)]
    if isinstance(model.weighting, AMW):
        other = _shifted(model)
        w_before, w_after = (m.weighting.W.mean(1).numpy() for m in (model, other))
        rows = _compared("shift of W", model, other, batch)
        frames.append(rows.assign(weight_before=w_before, weight_after=w_after))
    if run.model.placement == "R3":
        frames.append(_compared("projection", model, _absorbed(model, a[0], weights), batch))
    elif run.model.placement != "R2" and float((a - a[..., :1]).abs().max()) < 1e-9:
        frames.append(_compared("f2 alone", model, _rescaled(model, a[0, :, 0], weights), batch, output=_f2))
    return pd.concat(frames, ignore_index=True)


def linear_pairs(weights: Sequence[float] = OTHER, width: int = 16, seed: int = 0) -> pd.DataFrame:
    """Rows of y = sum_m v_m . (alpha_m * F_m), F and v standard normal, at equal weights and at others, which the
    layer after (v) or the layer before (F) makes up for."""
    rng, shape = np.random.default_rng(seed), (len(MODALITIES), width)
    f, v, equal = rng.standard_normal((1000, *shape)), rng.standard_normal(shape), 1 / len(MODALITIES)
    after = np.asarray(weights, float)[:, None]
    frames = []
    for layer, f_after, v_after in (("after", f, v * equal / after), ("before", f * equal / after, v)):
        weighted = equal * f, after * f_after
        y = [np.einsum("nmd,md->n", *terms) for terms in zip(weighted, (v, v_after), strict=True)]
        sizes = [np.linalg.norm(x, axis=-1).mean(0) for x in weighted]
        frames.append(_pair(f"linear layer {layer}", equal, after[:, 0], *sizes, np.abs(y[1] - y[0]).max()))
    return pd.concat(frames, ignore_index=True)


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


def _compared(pair: str, model: TMT, other: TMT, batch: Batch, output: Callable | None = None) -> pd.DataFrame:
    """Rows of two models: their mean weights and weighted sizes, and how far their predictions, or what
    `output(model, batch)` gives, differ."""
    (before, after), traces = zip(model(batch), other(batch), strict=True)
    if output:
        before, after = output(model, batch), output(other, batch)
    weights = [trace.weights[0].mean(1).numpy() for trace in traces]
    sizes = [weighted_sizes(trace, model.config.placement) for trace in traces]
    return _pair(pair, *weights, *sizes, float((before - after).abs().max()))


def weighted_sizes(trace: Trace, placement: str) -> Float[np.ndarray, " M"]:
    """Mean norm of what the layers after the weights get of each modality: A_m * S_m, or for R3 A_m * mean of X_m."""
    weighted = {m: x[:, None] for m, x in trace.projected.items()} if placement == "R3" else trace.tokens
    sizes = [(trace.weights[:, i, None] * weighted[m]).norm(dim=-1).mean() for i, m in enumerate(MODALITIES)]
    return torch.stack(sizes).numpy()


def _pair(pair: str, *numbers: np.ndarray | float) -> pd.DataFrame:
    """Rows of one pair: the columns NUMBERS, by modality or the same for all."""
    return pd.DataFrame({"pair": pair, "modality": MODALITIES} | dict(zip(NUMBERS, numbers, strict=True)))


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
    numbers = "mae low high mae_difference difference_low difference_high n".split()
    measures = {"shapley_permuted": "shapley", "weight": "weight", "weighted_size": "weighted_size"}
    shares = importance_table(todo, device, jobs).pivot_table("mean", [*keys, "modality"], "measure", sort=False)
    shares = shares[[*measures]].rename(columns=measures).reset_index()
    return errors[[*keys, *numbers]].merge(shares, on=keys, sort=False).rename_axis(columns=None)
