"""Planted worlds: the same latent model with other variances and reliabilities, drawn by a number.

A recipe is one answer to "which modality matters"; whether a measure of importance finds the answer shows only over
many. World k keeps a recipe's labels, shapes, sizes and partner and draws, each independently,

    w_e ~ U(0.2, 0.4)                                                 noise, that no modality shows
    (w_0, w_text, w_audio, w_vision, w_x) ~ (1 - w_e) Dirichlet(1, 1, 1, 1, 1/2)
    rho_m ~ U(0.7, 1)                                                 reliability

so that true importance ranges from nearly nothing to nearly all in every modality, and none is favoured on average
but by the interaction, which text is always part of.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tmtlib.data.planted import Recipe

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


def world_name(name: str, world: int | None) -> str:
    """The name on a world's card: "mosi-world3"."""
    return name if world is None else f"{name}-world{world}"


def split_name(name: str) -> tuple[str, int | None]:
    """A card's name as recipe and world: ("mosi", 3) of "mosi-world3", ("mosi", None) of "mosi"."""
    found = re.fullmatch(r"(.+)-world(\d+)", name)
    return (found[1], int(found[2])) if found else (name, None)
