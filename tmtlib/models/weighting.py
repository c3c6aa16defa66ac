"""Adaptive modality weighting (AMW) and its controls: modules that give each modality a weight per feature.

A weighting sees the modality-specific tokens and returns A (B or 1, M, d), positive and summing to one over the
M modalities. `TMT` decides where A acts (its `placement`). To add one of your own, decorate a module with
`@register("name")` and write that name in `TMTConfig.weighting`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tmtlib.config import MODALITIES, TMTConfig

WEIGHTINGS: dict[str, Callable[[TMTConfig], nn.Module]] = {}


def register(name: str):
    """Class decorator: makes a weighting known by name. Raises ValueError when the name is taken."""

    def add(cls):
        if name in WEIGHTINGS:
            raise ValueError(f"a weighting named {name!r} is registered already: {WEIGHTINGS[name]}")
        WEIGHTINGS[name] = cls
        return cls

    return add


def build_weighting(config: TMTConfig) -> nn.Module | None:
    """The weighting a config names; None for "none" (plain TMT). Raises ValueError for an unknown name."""
    if config.weighting == "none":
        return None
    if config.weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {config.weighting!r}; registered are: none, {', '.join(sorted(WEIGHTINGS))}")
    return WEIGHTINGS[config.weighting](config)


@register("static")
class StaticWeighting(nn.Module):
    """The paper's equation (sec. "Adaptive Modality Weight Calculation"): A = softmax over modalities of W.

    W in R^{M x d} is a parameter: A is the same for every utterance. At W = 0 every weight is 1/M.
    """

    def __init__(self, config: TMTConfig):
        super().__init__()
        if config.temperature <= 0:
            raise ValueError(f"temperature is {config.temperature}; wanted a positive number")
        self.temperature = config.temperature
        self.W = nn.Parameter(torch.zeros(len(MODALITIES), config.width))
        if config.weighting_init_std:  # else nothing is drawn, and TMT's own random numbers stay as they are
            nn.init.normal_(self.W, std=config.weighting_init_std)

    def forward(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M d"]:
        return (self.W / self.temperature).softmax(dim=0)[None]


@register("uniform")
class UniformWeighting(nn.Module):
    """The control: A = 1/M for ever. What AMW gains beyond this, it gains by learning the weights."""

    def __init__(self, config: TMTConfig):
        super().__init__()
        self.register_buffer("A", torch.full((1, len(MODALITIES), config.width), 1 / len(MODALITIES)))

    def forward(self, tokens: Float[Tensor, "B M k d"]) -> Float[Tensor, "1 M d"]:
        return self.A
