"""Attention and pre-norm blocks of TMT, and dropout. Axes: B batch, Q queries, K keys, d width, h heads, e head width.

In dropout four elements share one 64-bit random number, four times as fast on a CPU.
"""

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

LEVELS = 2**16  # a dropout rate is rounded to a multiple of 1 / LEVELS
Target, Source = Float[Tensor, "B Q d"], Float[Tensor, "B K d"]  # what attends, and what it attends to
# False where a key gets no attention, as in padding; or numbers that are added to the scores
Valid = Bool[Tensor, "B K"] | Bool[Tensor, "1 Q K"] | Float[Tensor, "B K"]
Heads = Float[Tensor, "B h K e"]


class Dropout(nn.Module):
    """Zeroes elements with probability `rate`, divides others by 1 - rate. Raises ValueError unless 0 <= rate <= 1."""

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"dropout is {rate}; wanted 0 to 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.rate * LEVELS)
        if not self.training or dropped == 0:
            return x
        bits = random_bits(x.numel(), x.device)  # from -LEVELS / 2 to LEVELS / 2 - 1
        factor = (bits.view(x.shape) < LEVELS // 2 - dropped) * (LEVELS / max(1, LEVELS - dropped))
        return (x * factor).to(x.dtype)


def random_bits(count: int, device: torch.device) -> Int16[Tensor, " n"]:
    """`count` random 16-bit numbers, four at a time."""
    words = torch.randint(-(2**63), 2**63 - 1, (-(-count // 4),), device=device)  # `random_` would not compile
    return words.bitwise_xor_(-(2**63)).view(torch.int16)[:count]  # 64 bits as they were drawn


class Attention(nn.Module):
    """Multi-head attention with heads of any width: softmax(Q K^T / sqrt(head_width)) V, then an output projection.

    Only the output projection has a bias, as in the original TMT. `dropout` acts on the output, `map_dropout` on the
    attention map, which is then formed in training.
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float, map_dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.dropout, self.map_dropout = Dropout(dropout), Dropout(map_dropout)

    def forward(
        self,
        query: Target,
        key: Source,
        value: Source,
        valid: Valid | None = None,
        maps: dict | None = None,
        name: str = "",
    ) -> Target:
        """Attended values; the map (B, h, Q, K) goes into `maps`, if any. `valid` is False where a key is
        hidden, or a number that is added to its scores."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, Q or K, head_width)
            for project, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if valid is None else valid[:, None] if valid.ndim == 3 else valid[:, None, None]
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        if maps is not None or (self.training and self.map_dropout.rate > 0):
            score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            if mask is not None:
                score = score + mask if mask.is_floating_point() else score.masked_fill(~mask, -torch.inf)
            map_ = score.softmax(-1)
            mixed = self.map_dropout(map_) @ v
        else:
            mixed = fused_attention(q, k, v, mask)
        if maps is not None:
            maps[name] = map_
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


def fused_attention(
    q: Float[Tensor, "B h Q e"], k: Heads, v: Heads, mask: Bool[Tensor, "#B 1 #Q K"] | Float[Tensor, "B 1 1 K"] | None
) -> Float[Tensor, "B h Q e"]:
    """PyTorch's fused attention; on a CPU in float32, as its bfloat16 kernel is slow for narrow heads (e = 16)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):
            mask = mask.float() if mask is not None and mask.is_floating_point() else mask
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
        self, target: Target, source: Source, valid: Valid | None = None, maps: dict | None = None, name: str = ""
    ) -> Target:
        query, key, value = self.norm_query(target), self.norm_key(source), self.norm_value(source)
        target = target + self.attention(query, key, value, valid, maps, name)
        return target + self.feed_forward(target)
