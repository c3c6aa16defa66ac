"""Attention and pre-norm blocks of TMT. Axes: B batch, Q queries, K keys, d width, h heads, e head width."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tmtlib.models.dropout import Dropout

Target, Source = Float[Tensor, "B Q d"], Float[Tensor, "B K d"]  # what attends, and what it attends to
Valid = Bool[Tensor, "B K"]  # False where a key gets no attention, as in padding
Heads, Map = Float[Tensor, "B h K e"], Float[Tensor, "B h Q K"]


class Attention(nn.Module):
    """Multi-head attention with heads of any width: softmax(Q K^T / sqrt(head_width)) V, then an output projection.

    Only the output projection has a bias, as in the original TMT. `dropout` acts on the output, `map_dropout` on the
    attention map, which is then formed in training.
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float, map_dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, heads * head_width, bias=False)
        self.value = nn.Linear(width, heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)
        self.dropout = Dropout(dropout)
        self.map_dropout = Dropout(map_dropout)

    def forward(
        self,
        query: Target,
        key: Source,
        value: Source,
        valid: Valid | None = None,
        want_map: bool = False,
    ) -> tuple[Target, Map | None]:
        """Attended values, and the map on request (else None). Keys where `valid` is False get no attention."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, Q or K, head_width)
            for project, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if valid is None else valid[:, None, None, :]
        if want_map or (self.training and self.map_dropout.rate > 0):
            score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            map_ = (score if mask is None else score.masked_fill(~mask, -torch.inf)).softmax(-1)
            mixed = self.map_dropout(map_) @ v
        else:
            map_, mixed = None, fused_attention(q, k, v, mask)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2))), map_ if want_map else None


def fused_attention(
    q: Float[Tensor, "B h Q e"], k: Heads, v: Heads, mask: Bool[Tensor, "B 1 1 K"] | None
) -> Float[Tensor, "B h Q e"]:
    """PyTorch's fused attention; on a CPU in float32, as its bfloat16 kernel is slow for narrow heads (e = 16)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):
            return scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def feed_forward(width: int, hidden: int, activation: nn.Module, inner: float, outer: float) -> list[nn.Module]:
    """Two linear maps with an activation in between; `inner` and `outer`: dropout after it and at the end."""
    return [nn.Linear(width, hidden), activation, Dropout(inner), nn.Linear(hidden, width), Dropout(outer)]


class Block(nn.Module):
    """t <- t + Attn(LN_q t, LN_k s, LN_v s), then t <- t + FF(LN t); s is the source."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, dropout: float):
        super().__init__()
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, heads, head_width, dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), *feed_forward(width, hidden, nn.GELU(), dropout, dropout)
        )

    def forward(
        self, target: Target, source: Source, valid: Valid | None = None, want_map: bool = False
    ) -> tuple[Target, Map | None]:
        query, key, value = self.norm_query(target), self.norm_key(source), self.norm_value(source)
        mixed, map_ = self.attention(query, key, value, valid, want_map)
        target = target + mixed
        return target + self.feed_forward(target), map_
