"""Adaptive modality weighting (AMW), its variants and controls: weights of each modality and feature.

To add one, derive it from `Weighting` (or write any module that maps the tokens to weights (#B, M, d)), decorate it
with `@register("name")`, and set `TMTConfig.weighting` to that name; `TMTConfig.placement` says where it acts.

Axes: B utterances, M modalities, k tokens a modality, d width; "#": the axis may be 1 and is then broadcast.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch, ModelConfig

WEIGHTINGS: dict[str, Callable[[ModelConfig], nn.Module]] = {}
RANK = 16  # inner width of the input-dependent scorers: few parameters, so that size does not explain a difference


def register(name: str):
    """Class decorator that registers a weighting. Raises ValueError when the name is taken."""

    def add(cls):
        if name in WEIGHTINGS:
            raise ValueError(f"a weighting named {name!r} is registered already: {WEIGHTINGS[name]}")
        WEIGHTINGS[name] = cls
        return cls

    return add


def build_weighting(config: ModelConfig) -> nn.Module | None:
    """The weighting of a config; None for "none" (plain TMT). Raises ValueError for an unknown name."""
    if config.weighting == "none":
        return None
    if config.weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {config.weighting!r}; registered are: none, {', '.join(sorted(WEIGHTINGS))}")
    return WEIGHTINGS[config.weighting](config)


class Weighting(nn.Module):
    """Base: A = softmax over modalities of logits / temperature. Raises ValueError for temperature <= 0.

    With `config.mask_absent`, a modality that an utterance lacks has weight 0 (unless all are absent).
    """

    by_token = False  # in placement R3: called with every frame instead of their mean

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
        z = self.logits(tokens) / self.temperature
        if self.mask_absent and present is not None:
            hidden = ~present & present.any(1, keepdim=True)
            z = z.masked_fill(hidden[:, :, None, None], -torch.inf)
        return z.softmax(dim=1)


@register("static")
class AMW(Weighting):
    """A = softmax over modalities of W, a parameter (M, d); the paper's sec. "Adaptive Modality Weight Calculation"."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.W = nn.Parameter(torch.zeros(len(MODALITIES), config.width))
        if config.weighting_init_std:  # at 0 nothing is drawn, so TMT's random numbers do not change
            nn.init.normal_(self.W, std=config.weighting_init_std)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return self.W[None, :, None]


@register("random")
class RandomWeighting(Weighting):
    """Control C2: W frozen at a draw from N(0, 1)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.register_buffer("W", torch.randn(len(MODALITIES), config.width))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return self.W[None, :, None]


class FixedWeighting(Weighting):
    """Controls: A in proportion to `shares` by modality, the same in all features. C1: equal; C3: mostly one."""

    def __init__(self, config: ModelConfig, shares: tuple[float, ...]):
        super().__init__(config)
        self.shares = shares

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 1"]:
        return self.temperature * tokens.new_tensor(self.shares).log()[None, :, None, None]


register("uniform")(partial(FixedWeighting, shares=(1.0, 1.0, 1.0)))
for _most in MODALITIES:
    register(f"mostly_{_most}")(partial(FixedWeighting, shares=tuple(0.8 if m == _most else 0.1 for m in MODALITIES)))


# The true mean reliability of text, audio, vision in the worlds where a modality misleads
register("oracle_static")(partial(FixedWeighting, shares=(0.92, 0.78, 0.90)))


@register("oracle")
class Oracle(FixedWeighting):
    """Control, on synthetic data: told which modalities of an utterance are reliable (`Batch.reliable`), it gives those
    equal weights and the others 0; in placement "attention" it hides the others' frames."""

    def __init__(self, config: ModelConfig):
        super().__init__(replace(config, mask_absent=True), shares=(1.0, 1.0, 1.0))

    def gates(self, groups: list, signal: None) -> tuple[Float[Tensor, "B M"], None]:
        """Log gates: 0, or -inf where a modality is not reliable."""
        return torch.cat([truth_of(group) for _, group in groups]).float().log(), None


def truth_of(batch: Batch) -> Bool[Tensor, "B M"]:
    """Which modalities are reliable. Raises ValueError where nobody knows."""
    if batch.reliable is None:
        raise ValueError("weighting 'oracle' is told which modalities are reliable, which only synthetic data know")
    return batch.reliable


@register("scalar")
class ScalarWeighting(Weighting):
    """One learned logit a modality, M parameters (the paper's future work, "more lightweight")."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.w = nn.Parameter(torch.zeros(len(MODALITIES)))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 1"]:
        return self.w[None, :, None, None]


@register("lowrank")
class LowRankWeighting(Weighting):
    """W = u v^T, M + d parameters. u is random and v starts at 0: W = 0, with a gradient."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.u = nn.Parameter(torch.randn(len(MODALITIES)))
        self.v = nn.Parameter(torch.zeros(config.width))

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M 1 d"]:
        return torch.outer(self.u, self.v)[None, :, None]


class Gate(Weighting):
    """Adds to another weighting's logits the tokens' scores by one small network for all modalities, 0 at the start."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        outputs = 1 if isinstance(self, ScalarWeighting) else config.width
        self.scorer = nn.Sequential(nn.Linear(config.width, RANK), nn.Tanh(), nn.Linear(RANK, outputs, bias=False))
        nn.init.zeros_(self.scorer[2].weight)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M #k #d"]:
        return super().logits(tokens) + self.scorer(tokens if self.by_token else tokens.mean(2, keepdim=True))


@register("gated")
class GatedWeighting(Gate, AMW):
    """Input-dependent weights, as in the paper's prose: Z = W + scorer(mean over k of S_m), (B, M, d)."""


@register("gated_scalar")
class ScalarGatedWeighting(Gate, ScalarWeighting):
    """One logit a modality and utterance: Z = w + scorer(mean over k of S_m), (B, M)."""


@register("token")
class TokenWeighting(Gate, AMW):
    """For each token (the paper's future work 1), in placement R3 each frame: Z = W + scorer(S_mk), (B, M, k, d)."""

    by_token = True


@register("attention")
class AttentionWeighting(Weighting):
    """Attention over modalities, as in the paper's related work; the query is the mean of all modalities."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.query = nn.Linear(config.width, RANK, bias=False)
        self.key = nn.Linear(config.width, RANK, bias=False)

    def logits(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "B M 1 1"]:
        s = tokens.mean(2)
        score = (self.query(s.mean(1, keepdim=True)) * self.key(s)).sum(-1) / RANK**0.5
        return score[:, :, None, None]
