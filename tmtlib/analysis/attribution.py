"""Attribution of a prediction to single frames, by gradients (captum) and by attention.

"gradient_input": gradient times input (Shrikumar et al. 2017). "integrated_gradients": from zero, the training mean of
normalised features, to the input (Sundararajan et al. 2017). Both are sums over a frame's features in label units.
"rollout": attention from frames to TMT's label tokens (Abnar & Zuidema 2020), unsigned, without AMW and later layers.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from captum.attr import Attribution, InputXGradient, IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from tmtlib.common import MODALITIES, check_choice
from tmtlib.data.schema import Split
from tmtlib.models.base import Batch, Model
from tmtlib.models.tmt import TMT
from tmtlib.training.batches import passes

MEASURES = ("gradient_input", "integrated_gradients", "rollout")
STEPS = 32  # points of Gauss-Legendre's rule from nothing to the input: sums are then right to about 1 % for TMT
BATCH = 16  # utterances of like length in one batch
Frames = dict[str, Float[np.ndarray, "N T"]]  # by modality


def possible(model: Model) -> tuple[str, ...]:
    """The measures that a model has: gradients need one number predicted from features, roll-out TMT's encoder."""
    gradients = model.config.task == "regression" and not model.config.reads_token_ids
    return (MEASURES[:2] if gradients else ()) + (MEASURES[2:] if isinstance(model, TMT) else ())


def by_frame(model: Model, split: Split, measure: str, device: str = "auto", steps: int = STEPS) -> Frames:
    """The attribution of each frame (of the model's window, if it has one), (N, T) by modality, float32, 0 in padding.

    `steps` is for integrated gradients. Raises ValueError for an unknown measure, or one that the model does not have.
    """
    check_choice("measure", measure, MEASURES)
    if measure not in possible(model):
        have = ", ".join(possible(model)) or "none"
        raise ValueError(f"{type(model).__name__} for {model.config.task} has no {measure}; its measures are: {have}")
    value, options = partial(_value, model), {"n_steps": steps, "internal_batch_size": 16 * BATCH}
    explain = {
        "rollout": partial(_flow, model),
        "gradient_input": partial(_gradients, InputXGradient(value)),
        "integrated_gradients": partial(_gradients, IntegratedGradients(value), **options),
    }[measure]
    times = {m: min(x.shape[1], model.config.window or x.shape[1]) for m, x in split.features.items()}
    frames = {m: np.zeros((len(split), t), np.float32) for m, t in times.items()}
    for index, batch in passes(model, split, BATCH, device):
        for m, x in explain(batch).items():
            frames[m][index, : x.shape[1]] = x.float().cpu()
    return frames


def by_modality(frames: Frames) -> Float[np.ndarray, "M N"]:
    """Attributions summed over each modality's frames."""
    return np.stack([frames[m].sum(1) for m in MODALITIES])


def rollout(maps: Sequence[Float[Tensor, "B h Q K"]]) -> Float[Tensor, "B Q K"]:
    """Attention roll-out: the product over layers, first to last, of half the heads' mean map and half the identity.

    Rows sum to one. The queries of a map are the first of its keys: all, or in the last layer the label tokens alone.
    The identity is the residual connection (Abnar & Zuidema 2020, eq. 1).
    """
    flow = torch.eye(maps[0].shape[-1], device=maps[0].device)
    for map_ in maps:
        attention = map_.float().mean(1)
        flow = (0.5 * attention + 0.5 * torch.eye(*attention.shape[1:], device=map_.device)) @ flow
    return flow


@torch.no_grad()
def _flow(model: Model, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
    """Roll-out of the encoder from valid frames into the label tokens, in the mean over those."""
    _, trace = model(batch, attention=True)
    flow = rollout([trace.attention[f"encoder.{i}"] for i in range(model.config.encoder_layers)])
    sizes = [flow.shape[1], *(batch.features[m].shape[1] for m in MODALITIES)]
    _, *frames = flow.mean(1).split(sizes, dim=-1)
    return {m: x * batch.valid(m) for m, x in zip(MODALITIES, frames, strict=True)}


def _value(model: Model, *inputs: Tensor) -> Float[Tensor, " B"]:
    """A prediction as a function of the features, then the lengths of each modality, as captum passes them."""
    features, lengths = (dict(zip(MODALITIES, half, strict=True)) for half in (inputs[:3], inputs[3:]))
    return model(Batch(features, lengths))[0].float()


def _gradients(method: Attribution, batch: Batch, **options) -> dict[str, Float[Tensor, "B T"]]:
    features = tuple(batch.features[m].requires_grad_() for m in MODALITIES)
    lengths = tuple(batch.lengths[m] for m in MODALITIES)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTMs have no gradient in evaluation mode
        terms = method.attribute(features, additional_forward_args=lengths, **options)
    return {m: x.detach().sum(-1) * batch.valid(m) for m, x in zip(MODALITIES, terms, strict=True)}
