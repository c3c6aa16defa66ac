"""Models: TMT with or without a modality weighting, built from a frozen config and a data set's shapes."""

from __future__ import annotations

from tmtlib.config import ModelConfig, TMTConfig
from tmtlib.models.base import Batch, Model, Trace, count_parameters
from tmtlib.models.tmt import TMT

MODELS = {TMTConfig: TMT}

__all__ = ["MODELS", "Batch", "Model", "Trace", "TMT", "build_model", "count_parameters"]


def build_model(config: ModelConfig, dataset) -> Model:
    """A freshly initialised model for the shapes and metric family of `dataset` (a `Dataset` or `DataShape`).

    Initialisation draws from torch's global generator: seed it first. Raises TypeError for an unknown config.
    """
    if type(config) not in MODELS:
        raise TypeError(f"no model for a {type(config).__name__}; known: {[c.__name__ for c in MODELS]}")
    return MODELS[type(config)](config, dataset.shapes, dataset.family)
