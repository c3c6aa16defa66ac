"""Recipes of synthetic data (`synthetic_recipes.toml`), and worlds: recipes with random variances and reliabilities.

World k keeps a recipe's labels, shapes, sizes and partner and draws, each independently,

    w_e ~ U(0.2, 0.4)                                                 noise, that no modality shows
    (w_0, w_text, w_audio, w_vision, w_x) ~ (1 - w_e) Dirichlet(1, 1, 1, 1, 1/2)
    rho_m ~ U(0.7, 1)                                                 reliability

A world of a recipe in which modalities mislead has that recipe, and other utterances.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tmtlib.common import as_tuples


@dataclass(frozen=True)
class Recipe:
    """The latent model of one data set (`synthetic`). Variances w and reliabilities rho are chosen, not measured."""

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
    misleading: tuple[float, float, float] = (0.0, 0.0, 0.0)  # share of utterances in which modality m misleads
    cued: bool = False  # whether one frame of each modality says if it misleads

    @property
    def noise(self) -> float:
        """w_e."""
        return 1 - self.shared - sum(self.specific) - self.interaction


_CONTENT = tomllib.loads(Path(__file__).with_name("synthetic_recipes.toml").read_text(encoding="utf-8"))
RECIPES: Mapping[str, Recipe] = {
    name: Recipe(**{k: as_tuples(v) for k, v in fields.items()}) for name, fields in _CONTENT["recipe"].items()
}
EMOTION_RATES: Mapping[str, float] = _CONTENT["emotion_rates"]
EMOTION_LOADINGS: Mapping[str, Mapping[str, list[float]]] = _CONTENT["emotion_loadings"]

NOISE = (0.2, 0.4)
CONCENTRATION = (1.0, 1.0, 1.0, 1.0, 0.5)  # shared, text, audio, vision, interaction
RELIABILITY = (0.7, 1.0)
STREAM = 20_240  # separates the worlds' random numbers from the data's


def recipe_of(name: str, world: int | None = None) -> Recipe:
    """A data set's recipe, or a world of it (equal draws for all). Raises ValueError for other names and world < 0."""
    if name not in RECIPES:
        raise ValueError(f"no data set {name!r}; synthetic are {', '.join(RECIPES)}; a file is given with its ending")
    if world is None:
        return RECIPES[name]
    if world < 0:
        raise ValueError(f"world is {world}; wanted 0, 1, 2, ..., or None for the recipe as it is")
    if any(RECIPES[name].misleading):
        return RECIPES[name]  # another draw of the data alone
    rng = np.random.default_rng([STREAM, world])
    shown = 1 - rng.uniform(*NOISE)
    shared, *specific, interaction = (shown * rng.dirichlet(CONCENTRATION)).tolist()
    variances = {"shared": shared, "specific": tuple(specific), "interaction": interaction}
    return replace(RECIPES[name], reliability=tuple(rng.uniform(*RELIABILITY, 3).tolist()), **variances)
