"""Operations over time. Axes: B utterances, T frames, M modalities, D features, d width, e LSTM states."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tmtlib.common import MODALITIES
from tmtlib.models.amw import Weighting
from tmtlib.models.base import Batch

SPARE = 10  # the original TMT's last start is T - 30 for a window of 20
Frames = Mapping[str, Float[Tensor, "B _ d"]]  # by modality, each with a T of its own


def weighted_frames(weighting: Weighting, frames: Frames, batch: Batch) -> tuple[Frames, Float[Tensor, "B M d"]]:
    """Each frame times its weight among the modalities at that time, and the mean weights.

    The paper's future work 1, "temporal-adaptive weighting ... at the token level". The mean is over the valid frames
    of all modalities (over padding if there are none), so it sums to 1.
    """
    weighted, weights = {}, []
    for i, m in enumerate(MODALITIES):
        moments = at_frames_of(m, frames, batch.lengths)
        weights.append(weighting(moments, batch.present).expand_as(moments))
        weighted[m] = weights[-1][:, i] * frames[m]
    valid = torch.cat([batch.valid(m) for m in MODALITIES], dim=1)
    valid = valid | ~valid.any(1, keepdim=True)
    every = torch.cat(weights, dim=2)  # (B, M, T_text + T_audio + T_vision, d)
    return weighted, torch.stack([masked_mean(every[:, i], valid) for i in range(len(MODALITIES))], dim=1)


def at_frames_of(clock: str, frames: Frames, lengths: Mapping[str, Int64[Tensor, " B"]]) -> Float[Tensor, "B M T d"]:
    """All modalities at the times of the frames of `clock`, whose T it has.

    Frame t of n lies at time (t + 1/2) / n; the nearest frame of each other modality is taken (of two, the later).
    Beyond the clock's length it is the last frame; an absent modality is zero.
    """
    t = torch.arange(frames[clock].shape[1], device=frames[clock].device)
    length, shown = lengths[clock].clamp_min(1)[:, None], []
    for m in MODALITIES:
        n = lengths[m][:, None]
        nearest = torch.minimum((2 * t + 1) * n // (2 * length), (n - 1).clamp_min(0))
        x = frames[m].gather(1, nearest[..., None].expand(-1, -1, frames[m].shape[2]))
        shown.append(x.masked_fill((n == 0)[..., None], 0.0))
    return torch.stack(shown, dim=1)


def masked_mean(x: Float[Tensor, "B T d"], valid: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B d"]:
    """Mean over valid frames, zero where there are none; for None over all frames."""
    if valid is None:
        return x.mean(1)
    weight = valid.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1)


def without_padding(batch: Batch) -> Batch:
    """Zeros beyond every length, and absent modalities as one frame of zeros, so no mean is over nothing."""
    features = {m: x.masked_fill(~batch.valid(m)[..., None], 0.0) for m, x in batch.features.items()}
    return replace(batch, features=features, lengths={m: n.clamp_min(1) for m, n in batch.lengths.items()})


def lstm_states(
    lstm: nn.LSTM, x: Float[Tensor, "B T D"], lengths: Int64[Tensor, " B"]
) -> tuple[Float[Tensor, "B T e"], Float[Tensor, "B e"]]:
    """States (e = h times directions) of all frames and of the end, without padding; float32 even under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(lstm.weight_ih_l0.dtype)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (final, _) = lstm(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
    return states, final.transpose(0, 1).flatten(1)


def windowed(batch: Batch, window: int | None) -> Batch:
    """The original TMT's cut: `window` frames from the first that is not all zero, at the latest T - window - 10."""
    if window is None:
        return batch
    features, lengths = {}, {}
    for m in MODALITIES:
        x = batch.features[m]
        size = min(window, x.shape[1])
        start = x.ne(0).any(-1).int().argmax(1).clamp_max(max(0, x.shape[1] - size - SPARE))
        index = start[:, None] + torch.arange(size, device=x.device)
        features[m] = x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
        lengths[m] = (batch.lengths[m] - start).clamp(0, size)
    return replace(batch, features=features, lengths=lengths)
