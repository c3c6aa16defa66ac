"""What each frame is worth to a prediction, without taking anything away: by gradients, and by attention.

"gradient_input": gradient times input (Shrikumar et al. 2017). "integrated_gradients": the mean gradient on the
straight way from nothing to the input, times the input (Sundararajan et al. 2017); they sum to f(x) - f(nothing). Both
are captum's, summed over the features of a frame, signed, in label units. Nothing is zero in every feature of every
frame, lengths kept: the training mean of normalised features.
"rollout": how much of the attention into TMT's label tokens comes from a frame, over all encoder layers and residual
connections (Abnar & Zuidema 2020). It has no sign, and what comes after the encoder, AMW above all, is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from tmtlib.common import MODALITIES, check_choice, pick_device
from tmtlib.data.schema import Split
from tmtlib.models.base import Batch, Model
from tmtlib.models.tmt import TMT
from tmtlib.training.batches import OnDevice

MEASURES = ("gradient_input", "integrated_gradients", "rollout")
STEPS = 32  # points of Gauss-Legendre's rule from nothing to the input: sums are then right to about 1 % for TMT
TOGETHER = 16  # utterances of like length in one batch
Frames = dict[str, Float[np.ndarray, "N T"]]  # by modality


def possible(model: Model) -> tuple[str, ...]:
    """The measures that a model has: gradients need one number predicted from features, roll-out TMT's encoder."""
    gradients = model.config.task == "regression" and getattr(model.config, "bert", None) is None
    return (MEASURES[:2] if gradients else ()) + (MEASURES[2:] if isinstance(model, TMT) else ())


def by_frame(model: Model, split: Split, measure: str, device: str = "auto", steps: int = STEPS) -> Frames:
    """The attribution of each frame, (N, T) by modality, zero beyond each length; in evaluation mode and float32.

    Where a model cuts a window out of an utterance, T and the frames are those of the window. `steps` is for
    integrated gradients. Raises ValueError for an unknown measure, or one that the model does not have.
    """
    check_choice("measure", measure, MEASURES)
    if measure not in possible(model):
        have = ", ".join(possible(model)) or "none"
        raise ValueError(f"{type(model).__name__} for {model.config.task} has no {measure}; its measures are: {have}")
    where = pick_device(device)
    data = OnDevice(split, where, model.config, model.family)
    model = model.to(where).eval()
    if measure == "rollout":
        return _collected(partial(_flow, model), data)
    if measure == "gradient_input":
        return _collected(partial(_gradients, model, InputXGradient(partial(_value, model))), data)
    integrated = IntegratedGradients(partial(_value, model))
    options = {"n_steps": steps, "internal_batch_size": 16 * TOGETHER}
    return _collected(partial(_gradients, model, integrated, **options), data)


def by_modality(frames: Frames) -> dict[str, Float[np.ndarray, " N"]]:
    """Attributions summed over each modality's frames."""
    return {m: x.sum(1) for m, x in frames.items()}


def rollout(maps: Sequence[Float[Tensor, "B h Q K"]]) -> Float[Tensor, "B Q K"]:
    """Attention roll-out: the product over layers, first to last, of half the heads' mean map and half the identity.

    A row holds what a token of the last layer has of each token of the input, and sums to one. The queries of a map
    are the first of its keys: all of them, or in the last layer the label tokens alone. (Abnar & Zuidema 2020, eq. 1:
    the identity is the residual connection.) Raises ValueError for no maps.
    """
    if not maps:
        raise ValueError("no attention maps; wanted one a layer, first to last")
    flow = None
    for map_ in maps:
        mixed = 0.5 * map_.float().mean(1)
        mixed = mixed + 0.5 * torch.eye(*mixed.shape[1:], device=mixed.device)
        flow = mixed if flow is None else mixed @ flow
    return flow


@torch.no_grad()
def _flow(model: Model, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
    """Roll-out of the encoder from valid frames into the label tokens, in the mean over those."""
    _, trace = model(batch, attention=True)
    maps = [trace.attention[f"encoder.{i}"] for i in range(model.config.encoder_layers)]
    flow = rollout(maps)
    sizes = [flow.shape[1], *(batch.features[m].shape[1] for m in MODALITIES)]
    _, *frames = flow.mean(1).split(sizes, dim=-1)
    return {m: x * batch.valid(m) for m, x in zip(MODALITIES, frames, strict=True)}


def _value(model: Model, *arguments: Tensor) -> Float[Tensor, " B"]:
    """A prediction as a function of features and lengths by modality, one after another, as captum hands them over."""
    parts = (dict(zip(MODALITIES, some, strict=True)) for some in (arguments[:3], arguments[3:]))
    return model(Batch(*parts))[0].float()


def _gradients(model: Model, explain, batch: Batch, **options) -> dict[str, Float[Tensor, "B T"]]:
    features = tuple(batch.features[m].requires_grad_() for m in MODALITIES)
    lengths = tuple(batch.lengths[m] for m in MODALITIES)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTMs have no gradient in evaluation mode
        found = explain.attribute(features, additional_forward_args=lengths, **options)
    return {m: x.detach().sum(-1) * batch.valid(m) for m, x in zip(MODALITIES, found, strict=True)}


def _collected(look: Callable[[Batch], Mapping[str, Float[Tensor, "B T"]]], data: OnDevice) -> Frames:
    """What `look` sees in batches of like length, put together in the order of the utterances."""
    found = {m: torch.zeros(x.shape[:2]) for m, x in data.features.items()}
    for index in data.by_length(torch.arange(len(data), device=data.device)).split(TOGETHER):
        batch = Batch(*data.gather(index, data.trim), None if data.text_bert is None else data.text_bert[index])
        for m, x in look(batch).items():
            found[m][index.cpu(), : x.shape[1]] = x.float().cpu()
    return {m: x.numpy() for m, x in found.items()}
