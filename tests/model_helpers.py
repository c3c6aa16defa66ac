"""Small synthetic data, small models, and TMT written a second time: slowly, from its equations."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch

from tmtlib.common import MODALITIES
from tmtlib.data.schema import Dataset, Split, SyntheticSize
from tmtlib.data.synthetic import generate
from tmtlib.models import build_model
from tmtlib.models.base import Batch
from tmtlib.models.tmt import TMTConfig
from tmtlib.training.fit import Training

SMALL = TMTConfig(width=16, encoder_layers=2, cross_layers=2, heads=2, head_width=8, encoder_hidden=32, cross_hidden=16)


@lru_cache
def synthetic(name: str = "mosi", utterances=(32, 24, 8), frames=(9, 11, 10)) -> Dataset:
    return generate(name, SyntheticSize(utterances, frames))


def make(config: TMTConfig, dataset: Dataset | None = None, seed: int = 0):
    """A model in float64 and evaluation mode: what should be equal is then equal to 1e-9, not merely alike."""
    torch.manual_seed(seed)
    return build_model(config, dataset or synthetic()).double().eval()


def protocol(**changes) -> Training:
    """A short training; changes are fields of `Training`."""
    usual = {"learning_rate": 3e-3, "batch_size": 16, "epochs": 3, "patience": None, "precision": "float32"}
    return Training(**usual | changes)


def batch_of(split: Split | None = None) -> Batch:
    """A whole split (default: synthetic MOSI's validation split) in float64, padded to its full T."""
    split = split or synthetic().valid
    features = {m: torch.from_numpy(split.features[m]).double() for m in MODALITIES}
    return Batch(features, {m: torch.from_numpy(split.lengths[m]) for m in MODALITIES})


def grouped(batch: Batch, groups: int) -> tuple[Batch, torch.Tensor]:
    """The batch from short to long in at most so many groups, and the order of its utterances."""
    order = sum(batch.lengths.values()).argsort(stable=True)
    lengths = {m: n[order] for m, n in batch.lengths.items()}
    size = math.ceil(len(order) / groups)
    longest = {m: [max(1, int(part.max())) for part in n.split(size)] for m, n in lengths.items()}
    sizes = tuple(dict(zip(longest, part, strict=True)) for part in zip(*longest.values(), strict=True))
    return Batch({m: x[order] for m, x in batch.features.items()}, lengths, groups=sizes), order


def change(batch: Batch, modality: str, features=None, lengths=None) -> Batch:
    """The batch with one modality's features or lengths changed."""
    return replace(
        batch,
        features={**batch.features, modality: batch.features[modality] if features is None else features},
        lengths={**batch.lengths, modality: batch.lengths[modality] if lengths is None else lengths},
    )


def reference(model, batch: Batch) -> torch.Tensor:
    """The prediction in evaluation mode, from the equations: every row in every layer, one head after another."""
    c = model.config
    projected, valid = {}, [torch.ones(len(batch.lengths["text"]), model.tokens.shape[1], dtype=torch.bool)]
    A = None if model.weighting is None else model.weighting(torch.zeros(1, 3, 1, c.width))[0, :, 0]
    for i, m in enumerate(MODALITIES):
        x = batch.features[m] @ model.project[m].weight.T + model.project[m].bias
        projected[m] = A[i] * x if A is not None and c.placement == "R3" else x
        frames = torch.arange(x.shape[1]).expand(x.shape[:2])
        valid.append(frames < batch.lengths[m][:, None] if c.masked else frames >= 0)
    x = torch.cat([model.tokens.expand(len(x), -1, -1), *(projected[m] for m in MODALITIES)], dim=1)
    tables = [model.positions[m][:, : projected[m].shape[1]] for m in MODALITIES]
    x = x + torch.cat([model.token_positions, *tables], dim=1)
    for layer in model.encoder:
        x = _block(layer, x, x, torch.cat(valid, dim=1))

    n, k = c.shared_tokens, c.specific_tokens
    shared, specific = x[:, :n], [x[:, n + i * k : n + (i + 1) * k] for i in range(3)]
    if A is not None and c.placement not in ("R2p", "R3"):
        specific = [A[i] * s * (3 if c.placement == "R1M" else 1) for i, s in enumerate(specific)]
    feature = sum(A[i] * s.mean(1) for i, s in enumerate(specific)) if c.placement == "R2p" and A is not None else 0
    specific = sum(specific) if c.placement == "R2" else torch.cat(specific, dim=1)

    for half, target, source in (
        (model.specific_from_shared, specific, shared),
        (model.shared_from_specific, shared, specific),
    ):
        target, source = target + half.target_positions, source + half.source_positions
        for layer in half.layers:
            target = _block(layer, target, source)
        feature = feature + target.mean(1)
    hidden = feature @ model.head[0].weight.T + model.head[0].bias
    if c.head_activation == "gelu":
        hidden = _gelu(hidden)
    output = hidden @ model.head[-1].weight.T + model.head[-1].bias
    return output if c.task == "classification" else output[:, 0]


def _block(block, target, source, valid=None):
    q, k, v = _norm(block.norm_query, target), _norm(block.norm_key, source), _norm(block.norm_value, source)
    a, mixed = block.attention, []
    for wq, wk, wv in zip(*(p.weight.chunk(a.heads) for p in (a.query, a.key, a.value)), strict=True):
        score = (q @ wq.T) @ (k @ wk.T).mT / math.sqrt(len(wq))
        if valid is not None:
            score = torch.where(valid[:, None], score, -math.inf)
        mixed.append(torch.softmax(score, -1) @ (v @ wv.T))
    target = target + torch.cat(mixed, -1) @ a.out.weight.T + a.out.bias
    norm, first, _, _, second, _ = block.feed_forward
    return target + _gelu(_norm(norm, target) @ first.weight.T + first.bias) @ second.weight.T + second.bias


def _norm(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * norm.weight + norm.bias


def _gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
