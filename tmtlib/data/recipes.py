"""Synthetic worlds: the same latent model with other variances and reliabilities, drawn by a number.

A recipe is one answer to "which modality matters"; whether a measure of importance finds the answer shows only over
many. World k keeps a recipe's labels, shapes, sizes and partner and draws, each independently,

    w_e ~ U(0.2, 0.4)                                                 noise, that no modality shows
    (w_0, w_text, w_audio, w_vision, w_x) ~ (1 - w_e) Dirichlet(1, 1, 1, 1, 1/2)
    rho_m ~ U(0.7, 1)                                                 reliability

so that true importance ranges from nearly nothing to nearly all in every modality, and none is favoured on average
but by the interaction, which text is always part of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """The latent model of one data set. Variances w and reliabilities rho are chosen, not measured anywhere."""

    family: str
    step: float  # label grid
    counts: tuple[int, ...]  # utterances per grid point, lowest label first: the target of the label distribution
    utterances: tuple[int, int, int]  # published split sizes
    shapes: tuple[tuple[int, int], ...]  # published (T, D), text, audio, vision
    fill: float  # mean share of T that is valid
    shared: float  # w_0
    specific: tuple[float, float, float]  # w_m
    interaction: float  # w_x, between text and `partner`
    partner: str
    reliability: tuple[float, float, float]  # rho_m
    videos_shared: bool  # whether test videos also occur in train, as in CH-SIMS

    @property
    def noise(self) -> float:
        """w_e."""
        return 1 - self.shared - sum(self.specific) - self.interaction


# Label histograms: our own counts over all labelled utterances of each data set, on its grid (tenths of votes that
# fall between grid points go to the nearest one, never to zero).
RECIPES: Mapping[str, Recipe] = {
    "mosi": Recipe(
        family="mosi",
        step=0.2,
        counts=(12, 32, 36, 42, 63, 101, 76, 101, 81, 79, 110, 76, 58, 89, 65, 96)
        + (72, 80, 65, 81, 62, 75, 96, 93, 98, 120, 96, 55, 44, 29, 12),
        utterances=(1284, 229, 686),
        shapes=((50, 768), (50, 5), (50, 20)),
        fill=0.3,
        shared=0.25,
        specific=(0.25, 0.09, 0.02),
        interaction=0.08,
        partner="vision",
        reliability=(0.97, 0.85, 0.80),
        videos_shared=False,
    ),
    "mosei": Recipe(
        family="mosi",
        step=1 / 3,
        counts=(126, 279, 411, 647, 756, 829, 890, 1123, 1534, 4996)
        + (3012, 2535, 1885, 1419, 1013, 740, 397, 207, 61),
        utterances=(16326, 1871, 4659),
        shapes=((50, 768), (50, 74), (50, 35)),
        fill=0.4,
        shared=0.20,
        specific=(0.24, 0.05, 0.13),
        interaction=0.08,
        partner="audio",
        reliability=(0.97, 0.85, 0.90),
        videos_shared=False,
    ),
    "sims": Recipe(
        family="sims",
        step=0.2,
        counts=(621, 133, 150, 134, 200, 345, 138, 77, 131, 92, 260),
        utterances=(1368, 456, 457),
        shapes=((39, 768), (400, 33), (55, 709)),
        fill=0.4,
        shared=0.20,
        specific=(0.07, 0.13, 0.24),
        interaction=0.06,
        partner="vision",
        reliability=(0.85, 0.92, 0.97),
        videos_shared=True,
    ),
}


NOISE = (0.2, 0.4)
CONCENTRATION = (1.0, 1.0, 1.0, 1.0, 0.5)  # shared, text, audio, vision, interaction
RELIABILITY = (0.7, 1.0)
STREAM = 20_240  # keeps the worlds' draws apart from the data's


def world_recipe(recipe: Recipe, world: int | None) -> Recipe:
    """The recipe with the variances and reliabilities of a world; the recipe itself for None.

    The same number draws the same world for every data set. Raises ValueError for a number that is not 0, 1, 2, ...
    """
    if world is None:
        return recipe
    if world < 0:
        raise ValueError(f"world is {world}; wanted 0, 1, 2, ..., or None for the recipe as it is")
    rng = np.random.default_rng([STREAM, world])
    noise = rng.uniform(*NOISE)
    shared, *specific, interaction = ((1 - noise) * rng.dirichlet(CONCENTRATION)).tolist()
    reliability = tuple(rng.uniform(*RELIABILITY, 3).tolist())
    return replace(recipe, shared=shared, specific=tuple(specific), interaction=interaction, reliability=reliability)


def recipe_of(name: str, world: int | None = None) -> Recipe:
    """The recipe by data set name, or that of a world. Raises ValueError for a name without one, or no such world."""
    if name not in RECIPES:
        raise ValueError(f"no synthetic data set {name!r}; there are {', '.join(RECIPES)}")
    return world_recipe(RECIPES[name], world)
