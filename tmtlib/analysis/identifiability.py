"""Can other weights give the same model? Where they can, a weight by itself says nothing of importance.

A layer y = sum_m v_m . (alpha_m * F_m) is the same function for any positive alpha': the layer after it absorbs the
ratio (v'_m = v_m alpha_m / alpha'_m), or the layer before it (F'_m likewise), which leaves |alpha_m * F_m| as it was.
In TMT + AMW: before disentanglement (R3) the projections P_m absorb any A exactly. After it (R1, R1M, R2) W is only
known up to a shift in all modalities, and f2, which reads A_m S_m through LayerNorms, is blind to a modality's scale up
to their epsilon; f1's residual stream is not. `frozen_weights` tests what training can make up for.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tmtlib.analysis import swap
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
    where each modality has one weight for all features, "f2 alone" (R1, R1M). Raises ValueError for `weights` as
    `with_weights`, and for a run without weights or with weights that differ between utterances.
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
    frames, present = [linear_pairs(weights)], [m for m in MODALITIES if data.test.lengths[m].any()]
    if isinstance(model.weighting, AMW):
        other = copy.deepcopy(model)
        w = other.weighting.W
        w += 2 + torch.randn(w.shape[1], generator=torch.Generator().manual_seed(0)).to(w)  # by feature: the same A
        means = {f"weight_{k}": m.weighting.W.mean(1).numpy() for k, m in (("before", model), ("after", other))}
        frames.append(_compared("shift of W", model, other, batch).assign(**means))
    if run.model.placement == "R3":
        other = with_weights(model, weights)
        for m, before, after in zip(MODALITIES, a[0], weights, strict=True):
            other.project[m].weight *= (before / after)[:, None]
            other.project[m].bias *= before / after
        frames.append(_compared("projection", model, other, batch))
    elif run.model.placement != "R2" and float((a - a[..., :1]).abs().max()) < 1e-9:
        other, ratio = with_weights(model, weights), torch.tensor(weights).to(a) / a[0, :, 0]
        positions = other.shared_from_specific.source_positions  # they follow
        positions *= ratio.repeat_interleave(model.config.specific_tokens)[None, :, None]
        frames.append(_compared("f2 alone", model, other, batch, output=_f2))
    of_model = [frame[frame["modality"].isin(present)] for frame in frames[1:]]  # an absent one has no weight
    return pd.concat([frames[0], *of_model], ignore_index=True)


def table(todo: Sequence[Run]) -> pd.DataFrame:
    """`pairs` of several runs, by method."""
    return pd.concat([pairs(run).assign(method=run.method) for run in todo], ignore_index=True)


def linear_pairs(weights: Sequence[float] = OTHER) -> pd.DataFrame:
    """Rows of y = sum_m v_m . (alpha_m * F_m), F and v standard normal, at equal weights and at others, which the
    layer after (v) or the layer before (F) makes up for."""
    rng, shape, equal = np.random.default_rng(0), (len(MODALITIES), 16), 1 / len(MODALITIES)
    f, v = rng.standard_normal((1000, *shape)), rng.standard_normal(shape)
    after = np.asarray(weights, float)[:, None]
    frames = []
    for layer, f_after, v_after in (("after", f, v * equal / after), ("before", f * equal / after, v)):
        weighted = equal * f, after * f_after
        y = [np.einsum("nmd,md->n", *terms) for terms in zip(weighted, (v, v_after), strict=True)]
        sizes = [np.linalg.norm(x, axis=-1).mean(0) for x in weighted]
        frames.append(_pair(f"linear layer {layer}", equal, after[:, 0], *sizes, np.abs(y[1] - y[0]).max()))
    return pd.concat(frames, ignore_index=True)


def with_weights(model: TMT, weights: Sequence[float]) -> TMT:
    """`swap.with_weights`. Raises ValueError for weights that are not positive, one a modality, and one in sum."""
    a = torch.tensor(weights, dtype=torch.float64)
    if a.shape != (len(MODALITIES),) or not (a > 0).all() or abs(float(a.sum()) - 1) > 1e-9:
        raise ValueError(f"weights are {tuple(weights)}; wanted {len(MODALITIES)} positive numbers that sum to one")
    return swap.with_weights(model, a[:, None])


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
    shares = importance_table(todo, device, jobs).pivot_table("mean", [*keys, "modality"], "measure", sort=False)
    shares = shares.rename(columns={"shapley_permuted": "shapley"})[["shapley", "weight", "weighted_size"]]
    return errors[[*keys, *numbers]].merge(shares.reset_index(), on=keys, sort=False).rename_axis(columns=None)
