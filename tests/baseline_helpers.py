"""Small baselines and a small BERT, and MulT and MISA written a second time: one utterance after another, unpadded."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from model_helpers import batch_of, synthetic
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.data.schema import Dataset, Split
from tmtlib.models.base import Batch
from tmtlib.models.bert import BertTextConfig
from tmtlib.models.late_fusion import LateFusionConfig
from tmtlib.models.misa import MISAConfig
from tmtlib.models.mult import MulTConfig

MULT = MulTConfig(width=8, heads=2, layers=2, memory_layers=1, kernels=(3, 1, 5))
MISA = MISAConfig(width=16, lstm_width=4, fusion_hidden=24)
LATE = LateFusionConfig(widths=(12, 6, 8), fusion_width=10)
SMALL = {"mult": MULT, "misa": MISA, "late fusion": LATE, "bert": BertTextConfig()}
WORDS = 12  # token ids: 0 pads, 10 and 11 are "bad" and "good"


def save_bert(folder) -> str:
    """A BERT of one small layer; its folder."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=WORDS, max_position_embeddings=32, **sizes)).save_pretrained(folder)
    return str(folder)


def with_ids(split: Split, seed: int = 0) -> Split:
    """The split with token ids as long as its text, in which one word says whether the label is positive."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 10, split.features["text"].shape[:2])
    ids[np.arange(len(split)), rng.integers(0, np.maximum(1, split.lengths["text"]))] = 10 + (split.labels > 0)
    mask = np.arange(ids.shape[1]) < split.lengths["text"][:, None]
    return replace(split, text_bert=np.stack([ids * mask, mask, 0 * ids], axis=1).astype(np.int64))


def spoken(*size) -> Dataset:
    data = synthetic(*size)
    return replace(data, **{name: with_ids(data[name], i) for i, name in enumerate(("train", "valid", "test"))})


def spoken_batch(split: Split | None = None) -> Batch:
    split = with_ids(split or synthetic().valid)
    return replace(batch_of(split), text_bert=torch.from_numpy(split.text_bert))


def cut(batch: Batch, i: int, modality: str) -> torch.Tensor:
    """The true frames of one utterance, (T, D)."""
    return batch.features[modality][i, : int(batch.lengths[modality][i])]


def mult_by_hand(model, batch: Batch) -> torch.Tensor:
    """MulT's predictions in evaluation mode, from the paper's equations; regression, every length at least 1."""
    return torch.stack(
        [_mult_of_one(model, {m: cut(batch, i, m) for m in MODALITIES}) for i in range(len(batch.lengths["text"]))]
    )


def _mult_of_one(model, features: dict) -> torch.Tensor:
    x = {m: _convolution(model.convolve[m], features[m]) for m in MODALITIES}
    last = []
    for target in MODALITIES:
        crossed = []
        for source in (s for s in MODALITIES if s != target):
            stack, z = model.cross[f"{source}_to_{target}"], x[target] + _positions(x[target])
            for layer in stack.layers:
                z = _layer(layer, z, x[source] + _positions(x[source]))
            crossed.append(_norm(stack.norm, z))
        z = torch.cat(crossed, -1)
        z = z + _positions(z)
        for layer in model.memory[target].layers:
            z = _layer(layer, z, z)
        last.append(_norm(model.memory[target].norm, z)[-1])
    h = torch.cat(last)
    first, _, _, second = model.residual
    h = h + second.weight @ torch.relu(first.weight @ h + first.bias) + second.bias
    return (model.head.weight @ h + model.head.bias)[0]


def _convolution(conv, x: torch.Tensor) -> torch.Tensor:
    k = conv.weight.shape[2]
    before, rows = (k - 1) // 2, []
    for t in range(len(x)):
        places = [(j, t + j - before) for j in range(k)]
        rows.append(sum(conv.weight[:, :, j] @ x[s] for j, s in places if 0 <= s < len(x)))
    return torch.stack(rows)


def _positions(x: torch.Tensor) -> torch.Tensor:
    t, d = x.shape
    wave = [(math.sin, math.cos)[i % 2] for i in range(d)]
    return torch.tensor([[wave[i](s / 10000 ** ((i - i % 2) / d)) for i in range(d)] for s in range(t)]).to(x)


def _layer(layer, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    q, kv, a, mixed = _norm(layer.norm, target), _norm(layer.norm, source), layer.attention, []
    for wq, wk, wv in zip(*(p.weight.chunk(a.heads) for p in (a.query, a.key, a.value)), strict=True):
        mixed.append(torch.softmax((q @ wq.T) @ (kv @ wk.T).T / math.sqrt(len(wq)), -1) @ (kv @ wv.T))
    target = target + torch.cat(mixed, -1) @ a.out.weight.T + a.out.bias
    norm, first, _, _, second, _ = layer.feed_forward
    return target + torch.relu(_norm(norm, target) @ first.weight.T + first.bias) @ second.weight.T + second.bias


def _norm(norm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * norm.weight + norm.bias


def misa_by_hand(model, batch: Batch) -> tuple[torch.Tensor, dict]:
    """MISA's predictions in evaluation mode, and u, h^c, h^p (B, d) by modality; fused by PyTorch's own layer."""
    parts = {}
    for m in MODALITIES:
        u = torch.stack([_utterance(model, m, cut(batch, i, m)) for i in range(len(batch.lengths["text"]))])
        linear, _, norm = model.project[m]
        u = _norm(norm, torch.relu(u @ linear.weight.T + linear.bias))
        common, own = (torch.sigmoid(u @ e[0].weight.T + e[0].bias) for e in (model.shared, model.private[m]))
        parts[m] = u, common, own
    six = torch.stack([parts[m][i] for i in (1, 2) for m in MODALITIES], dim=1)
    first, _, _, second = model.head
    h = torch.relu(torchs_layer(model.fusion)(six).flatten(1) @ first.weight.T + first.bias)
    return (h @ second.weight.T + second.bias)[:, 0], parts


def _utterance(model, modality: str, x: torch.Tensor) -> torch.Tensor:
    if modality == "text":
        return x.mean(0)
    lstms, final = model.lstms[modality], []
    for lstm in (lstms.first, lstms.second):
        forward, backward = _lstm(lstm, x, ""), _lstm(lstm, x.flip(0), "_reverse").flip(0)
        final += [forward[-1], backward[0]]
        x = _norm(lstms.norm, torch.cat([forward, backward], -1))
    return torch.cat(final)


def _lstm(lstm, x: torch.Tensor, direction: str) -> torch.Tensor:
    """Hidden states (T, h) of one direction, gate by gate."""
    wx, wh, bx, bh = (
        getattr(lstm, f"{name}_l0{direction}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = torch.zeros_like(wh[0])
    states = []
    for frame in x:
        i, f, g, o = (wx @ frame + bx + wh @ h + bh).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def torchs_layer(fusion) -> nn.TransformerEncoderLayer:
    """PyTorch's post-norm layer with the fusion's weights."""
    a = fusion.attention
    width = a.out.out_features
    hidden = fusion.feed_forward[0].out_features
    theirs = nn.TransformerEncoderLayer(width, a.heads, hidden, batch_first=True).double().eval()
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([a.query.weight, a.key.weight, a.value.weight]))
        theirs.self_attn.in_proj_bias.zero_()
    theirs.self_attn.out_proj.load_state_dict(a.out.state_dict())
    theirs.linear1.load_state_dict(fusion.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(fusion.feed_forward[3].state_dict())
    theirs.norm1.load_state_dict(fusion.norm_attention.state_dict())
    theirs.norm2.load_state_dict(fusion.norm_feed_forward.state_dict())
    return theirs
