"""The yardstick: TMT as one would first write it, from the same equations and with PyTorch's own layers.

`nn.MultiheadAttention`, a `DataLoader` that collates one dictionary an utterance, every token through every layer,
every utterance padded to the longest of the data set, one seed at a time, float32. `copy_parameters` gives it the
parameters of a `tmtlib` model; predictions, loss and gradients are then the same (tests/test_benchmarks.py), so a
ratio of times compares ways of computing one thing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tmtlib.common import MODALITIES
from tmtlib.data.schema import DataShape, Split
from tmtlib.models.tmt import TMT, TMTConfig

PAIRS = [("shared", m) for m in MODALITIES] + [("text", "audio"), ("text", "vision"), ("audio", "vision")]


class EagerBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.norm_query, self.norm_key, self.norm_value = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, target: Tensor, source: Tensor, padding: Tensor | None = None) -> Tensor:
        query, key, value = self.norm_query(target), self.norm_key(source), self.norm_value(source)
        mixed, _ = self.attention(query, key, value, key_padding_mask=padding, need_weights=False)
        target = target + self.dropout(mixed)
        return target + self.feed_forward(target)


class EagerMutual(nn.Module):
    def __init__(self, c: TMTConfig, targets: int, sources: int):
        super().__init__()
        self.target_positions = nn.Parameter(c.position_std * torch.randn(1, targets, c.width))
        self.source_positions = nn.Parameter(c.position_std * torch.randn(1, sources, c.width))
        self.dropout = nn.Dropout(c.embedding_dropout)
        self.layers = nn.ModuleList(
            EagerBlock(c.width, c.heads, c.cross_hidden, c.dropout) for _ in range(c.cross_layers)
        )

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        target = self.dropout(target + self.target_positions)
        source = self.dropout(source + self.source_positions)
        for layer in self.layers:
            target = layer(target, source)
        return target


class EagerTMT(nn.Module):
    """Plain TMT, masked, for regression. Heads must fill the width: `nn.MultiheadAttention` knows no other."""

    def __init__(self, config: TMTConfig, shape: DataShape):
        super().__init__()
        c = self.config = config
        if c.heads * c.head_width != c.width:
            raise ValueError(f"{c.heads} heads of {c.head_width} in a width of {c.width}; wanted them to fill it")
        k = c.shared_tokens + 3 * c.specific_tokens
        self.project = nn.ModuleDict({m: nn.Linear(shape.shapes[m][1], c.width) for m in MODALITIES})
        self.tokens = nn.Parameter(c.token_std * torch.randn(1, k, c.width))
        self.token_positions = nn.Parameter(c.position_std * torch.randn(1, k, c.width))
        self.positions = nn.ParameterDict(
            {m: nn.Parameter(c.position_std * torch.randn(1, shape.shapes[m][0], c.width)) for m in MODALITIES}
        )
        self.embedding_dropout = nn.Dropout(c.embedding_dropout)
        self.encoder = nn.ModuleList(
            EagerBlock(c.width, c.heads, c.encoder_hidden, c.dropout) for _ in range(c.encoder_layers)
        )
        specific = 3 * c.specific_tokens
        self.specific_from_shared = EagerMutual(c, specific, c.shared_tokens)
        self.shared_from_specific = EagerMutual(c, c.shared_tokens, specific)
        self.head = nn.Sequential(nn.Linear(c.width, c.width // 2), nn.GELU(), nn.Linear(c.width // 2, 1))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Prediction (B,), label tokens by group, and each modality's mean over its valid frames (B, d)."""
        c, frames, padding, means = self.config, [], [], {}
        for m in MODALITIES:
            x = self.project[m](batch[m])
            valid = torch.arange(x.shape[1], device=x.device) < batch[f"{m}_length"][:, None]
            means[m] = (x * valid[..., None]).sum(1) / batch[f"{m}_length"].clamp_min(1)[:, None]
            frames.append(x + self.positions[m])
            padding.append(~valid)
        tokens = (self.tokens + self.token_positions).expand(len(x), -1, -1)
        padding = torch.cat([torch.zeros_like(tokens[..., 0], dtype=torch.bool), *padding], dim=1)
        x = self.embedding_dropout(torch.cat([tokens, *frames], dim=1))
        for layer in self.encoder:
            x = layer(x, x, padding)
        sizes = [c.shared_tokens] + [c.specific_tokens] * 3
        groups = dict(zip(("shared", *MODALITIES), x[:, : sum(sizes)].split(sizes, dim=1), strict=True))
        specific = torch.cat([groups[m] for m in MODALITIES], dim=1)
        f1 = self.specific_from_shared(specific, groups["shared"])
        f2 = self.shared_from_specific(groups["shared"], specific)
        return self.head(f1.mean(1) + f2.mean(1)).squeeze(-1), groups, means

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        c = self.config
        prediction, groups, means = self(batch)
        tokens = {g: x.mean(1) for g, x in groups.items()}
        unrelated = sum(orthogonality(tokens[a], tokens[b]) for a, b in PAIRS) / 3
        alike = sum(mmd(means[m], tokens[m]) for m in MODALITIES) / 3
        task = (prediction - batch["label"]).abs().mean()
        return c.task_weight * task + c.orthogonality * unrelated + c.similarity * alike


def orthogonality(u: Tensor, v: Tensor) -> Tensor:
    u, v = u - u.mean(0), v - v.mean(0)
    u = u / (u.norm(dim=1, keepdim=True).detach() + 1e-6)
    v = v / (v.norm(dim=1, keepdim=True).detach() + 1e-6)
    return (u.T @ v).square().mean()


def mmd(x: Tensor, y: Tensor) -> Tensor:
    both = torch.cat([x, y])
    n, b = len(both), len(x)
    distance = (both[None] - both[:, None]).square().sum(-1)
    bandwidth = distance.detach().sum() / (n * n - n) / 4
    kernel = sum(torch.exp(-distance / (bandwidth * 2**k)) for k in range(5))
    return (kernel[:b, :b] + kernel[b:, b:] - kernel[:b, b:] - kernel[b:, :b]).mean()


class Utterances(Dataset):
    """A split as a map-style data set: one dictionary an utterance."""

    def __init__(self, split: Split):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        item = {m: torch.from_numpy(self.split.features[m][i]) for m in MODALITIES}
        item |= {f"{m}_length": torch.tensor(self.split.lengths[m][i]) for m in MODALITIES}
        return item | {"label": torch.tensor(self.split.labels[i])}


def loader(split: Split, batch_size: int, seed: int = 0) -> DataLoader:
    """Shuffled batches, collated by PyTorch's default."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(Utterances(split), batch_size=batch_size, shuffle=True, generator=generator)


def train_epoch(model: EagerTMT, batches: DataLoader, optimiser: torch.optim.Optimizer, device: torch.device) -> float:
    """One pass over the data; returns the last batch's loss."""
    model.train()
    for batch in batches:
        loss = model.loss({k: x.to(device) for k, x in batch.items()})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


def copy_parameters(eager: EagerTMT, ours: TMT) -> None:
    """Gives the yardstick the parameters of a `tmtlib` model of the same config."""
    state = ours.state_dict()
    for name in [n for n in state if n.endswith("attention.query.weight")]:
        attention = name.removesuffix("query.weight")
        q, k, v = (state.pop(f"{attention}{part}.weight") for part in ("query", "key", "value"))
        state[f"{attention}in_proj_weight"] = torch.cat([q, k, v])
        state[f"{attention}in_proj_bias"] = torch.zeros(3 * len(q), dtype=q.dtype)  # ours has none
        for part in ("weight", "bias"):
            state[f"{attention}out_proj.{part}"] = state.pop(f"{attention}out.{part}")
    eager.load_state_dict(state)
