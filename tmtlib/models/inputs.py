"""What the baselines do with a batch before they differ: padding, absent modalities, LSTMs, a BERT, and the output.

Axes: B batch, T frames, D features, h LSTM width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tmtlib.config import MODALITIES, ModelConfig
from tmtlib.models.base import Batch
from tmtlib.models.tmt import build_bert


def without_padding(batch: Batch) -> Batch:
    """The batch with zeros beyond every length, and an absent modality as one frame of zeros.

    So whatever stood in the padding is forgotten, and no mean, LSTM or attention is ever over nothing.
    """
    features = {m: x.masked_fill(~batch.valid(m)[..., None], 0.0) for m, x in batch.features.items()}
    return replace(batch, features=features, lengths={m: n.clamp_min(1) for m, n in batch.lengths.items()})


def check_widths(batch: Batch, widths: dict[str, int]) -> None:
    """Raises ValueError where the features are not as wide as those the model was built for."""
    for m in MODALITIES:
        found = batch.features[m].shape[-1]
        if found != widths[m]:
            raise ValueError(f"{m} has {found} features a frame; wanted {widths[m]}")


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Raises ValueError for a size (or one of several) that no model has."""
    for name in names:
        value = getattr(config, name)
        if min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1")


def lstm_states(
    lstm: nn.LSTM, x: Float[Tensor, "B T D"], lengths: Int64[Tensor, " B"]
) -> tuple[Float[Tensor, "B T e"], Float[Tensor, "B e"]]:
    """Hidden states at each frame and at the end of each utterance, e = h times directions; each length at least 1.

    Packed, so that neither direction reads padding. In full precision even under autocast: states add up over frames.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(lstm.weight_ih_l0.dtype)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (final, _) = lstm(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
    return states, final.transpose(0, 1).flatten(1)


def bert_of(config: ModelConfig) -> nn.Module | None:
    """The BERT that a config names to fine-tune, if any. Raises ValueError with mix-up: token ids cannot be mixed."""
    if config.bert is not None and config.mixup != "off":
        raise ValueError(f"mixup is {config.mixup!r} with a BERT; wanted 'off', as token ids cannot be mixed")
    return build_bert(config.bert)


def text_encoded(bert: nn.Module | None, batch: Batch) -> Batch:
    """The batch with the BERT's hidden states as text features; the batch itself without one.

    Raises ValueError where there is a BERT but no token ids.
    """
    if bert is None:
        return batch
    if batch.text_bert is None:
        raise ValueError("the config names a BERT to fine-tune, but the data hold no `text_bert` token ids")
    return replace(batch, features={**batch.features, "text": bert(batch.text_bert)})


def groups_with_bert(model: nn.Module, learning_rate: float) -> list[dict]:
    """Parameter groups: BERT, where there is one, has its own learning rate."""
    bert = [] if model.bert is None else list(model.bert.parameters())
    own = {id(p) for p in bert}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in own], "lr": learning_rate},
        {"params": bert, "lr": model.config.bert_lr},
    ]
    return [g for g in groups if g["params"]]


def read_out(head: nn.Module, hidden: Float[Tensor, "B e"], task: str) -> Tensor:
    """A head's prediction, (B,) for regression or logits, in full precision: bfloat16 is too coarse near edges."""
    with torch.autocast(hidden.device.type, enabled=False):
        output = head(hidden.to(next(head.parameters()).dtype))
    return output.squeeze(-1) if task == "regression" else output
