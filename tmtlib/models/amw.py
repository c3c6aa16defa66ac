"""Adaptive modality weighting (AMW), its variants and its controls: each gives every modality a weight per feature.

A weighting turns the modality-specific tokens into logits; the base class makes them weights, positive and summing to
one over the M modalities. `TMT` decides where they act (its `placement`). To add one of your own, derive it from
`Weighting` (or take any module that maps the tokens to weights (#B, M, d)), decorate it with `@register("name")`, and
write that name in `TMTConfig.weighting`.

A weighting is given TMT's config, of which it reads width, temperature, mask_absent and weighting_init_std.

Axes: B utterances, M modalities, k tokens a modality, d width; "#" marks an axis that may be 1 and then holds for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tmtlib.common import MODALITIES
from tmtlib.models.base import ModelConfig

WEIGHTINGS: dict[str, Callable[[ModelConfig], nn.Module]] = {}
# Inner width of the scorers that see the input: small, so that seeing it, and not size, is the difference to a static W
RANK = 16


def register(name: str):
    """Class decorator: makes a weighting known by name. Raises ValueError when the name is taken."""

    def add(cls):
        if name in WEIGHTINGS:
            raise ValueError(f"a weighting named {name!r} is registered already: {WEIGHTINGS[name]}")
        WEIGHTINGS[name] = cls
        return cls

    return add


def build_weighting(config: ModelConfig) -> nn.Module | None:
    """The weighting a config names; None for "none" (plain TMT). Raises ValueError for an unknown name."""
    if config.weighting == "none":
        return None
    if config.weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {config.weighting!r}; registered are: none, {', '.join(sorted(WEIGHTINGS))}")
    return WEIGHTINGS[config.weighting](config)


class Weighting(nn.Module):
    """Base: A = softmax over modalities of logits / temperature. Derive it and write `logits`.

    With `config.mask_absent`, a modality that an utterance lacks gets weight 0 there and the others share the whole;
    where all are absent, the weights are as without the mask. Raises ValueError for a temperature that is not positive.
    """

    by_token = False  # whether in placement R3, before disentanglement, it is given every frame and not their mean

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.temperature <= 0:
            raise ValueError(f"temperature is {config.temperature}; wanted a positive number")
        self.temperature, self.mask_absent = config.temperature, config.mask_absent

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "#B M #k #d"]:
        raise NotImplementedError(f"{type(self).__name__} needs a method logits(tokens)")

    def forward(
        self, tokens: Float[Tensor, "B M k d"], present: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "#B M #k #d"]:
        """The weights; `present` says which modalities an utterance has."""
        z = self.logits(tokens) / self.temperature
        if self.mask_absent and present is not None:
            hidden = ~present & present.any(1, keepdim=True)
            z = z.masked_fill(hidden[:, :, None, None], -torch.inf)
        return z.softmax(dim=1)


@register("static")
class AMW(Weighting):
    """Adaptive Modality Weighting: A = softmax over modalities of W, the paper's equation (sec. "Adaptive Modality
    Weight Calculation").

    W in R^{M x d} is a parameter: A is the same for every utterance. At W = 0 every weight is 1/M.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.W = nn.Parameter(torch.zeros(len(MODALITIES), config.width))
        if config.weighting_init_std:  # else nothing is drawn, and TMT's own random numbers stay as they are
            nn.init.normal_(self.W, std=config.weighting_init_std)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return self.W[None, :, None]


@register("uniform")
class UniformWeighting(Weighting):
    """Control C1: A = 1/M for ever. What AMW gains beyond this, it gains by learning the weights."""

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 1"]:
        return tokens.new_zeros(1, tokens.shape[1], 1, 1)


@register("random")
class RandomWeighting(Weighting):
    """Control C2: W frozen at a draw from N(0, 1). What AMW gains beyond this, it gains by learning which weights."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.register_buffer("W", torch.randn(len(MODALITIES), config.width))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return self.W[None, :, None]


class MostlyWeighting(Weighting):
    """Control C3: for ever .8 on one modality, .1 on each other, in all features. A model as good with any of them
    shows that a weight need not say what the model relies on: the rest of it makes up for the weight."""

    def __init__(self, config: ModelConfig, most: str):
        super().__init__(config)
        self.most = most

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 1"]:
        share = [0.8 if m == self.most else 0.1 for m in MODALITIES]
        return self.temperature * tokens.new_tensor(share).log()[None, :, None, None]


for _modality in MODALITIES:
    register(f"mostly_{_modality}")(partial(MostlyWeighting, most=_modality))


@register("scalar")
class ScalarWeighting(Weighting):
    """One learned number a modality (the paper's future work: "more lightweight"): M parameters instead of M d."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.w = nn.Parameter(torch.zeros(len(MODALITIES)))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 1"]:
        return self.w[None, :, None, None]


@register("lowrank")
class LowRankWeighting(Weighting):
    """W = u v^T of rank one: M + d parameters. u is drawn and v starts at 0, so that W does too, and can leave it."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.u = nn.Parameter(torch.randn(len(MODALITIES)))
        self.v = nn.Parameter(torch.zeros(config.width))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return torch.outer(self.u, self.v)[None, :, None]


class _Scorer(nn.Sequential):
    """Scores of tokens from the tokens themselves, one small network for all modalities; at first all 0."""

    def __init__(self, width: int, outputs: int):
        super().__init__(nn.Linear(width, RANK), nn.Tanh(), nn.Linear(RANK, outputs, bias=False))
        nn.init.zeros_(self[2].weight)


@register("gated")
class GatedWeighting(AMW):
    """Weights "based on input data", as the paper has it in prose: Z = W + scorer(mean over k of S_m), (B, M, d)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.scorer = _Scorer(config.width, config.width)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M 1 d"]:
        return super().logits(tokens) + self.scorer(tokens.mean(2, keepdim=True))


@register("gated_scalar")
class ScalarGatedWeighting(ScalarWeighting):
    """The same with one number a modality and utterance: Z = w + scorer(mean over tokens of S_m), (B, M)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.scorer = _Scorer(config.width, 1)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M 1 1"]:
        return super().logits(tokens) + self.scorer(tokens.mean(2, keepdim=True))


@register("attention")
class AttentionWeighting(Weighting):
    """Attention over modalities, as in the paper's related work: the mean of all modalities asks, each one answers."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.query = nn.Linear(config.width, RANK, bias=False)
        self.key = nn.Linear(config.width, RANK, bias=False)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M 1 1"]:
        s = tokens.mean(2)
        score = (self.query(s.mean(1, keepdim=True)) * self.key(s)).sum(-1) / RANK**0.5
        return score[:, :, None, None]


@register("token")
class TokenWeighting(AMW):
    """Each token by itself (the paper's future work 1, "at the token level"): Z = W + scorer(S_mk), (B, M, k, d).

    In placement R3 a token is a frame: Z = W + scorer(X_mt), see `tmtlib.models.frames`.
    """

    by_token = True

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.scorer = _Scorer(config.width, config.width)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M k d"]:
        return super().logits(tokens) + self.scorer(tokens)


BUILT_IN = frozenset(WEIGHTINGS)  # others are registered by users, and worker processes have to be told
