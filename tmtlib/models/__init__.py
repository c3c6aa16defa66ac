"""Models: TMT with or without a modality weighting, and baselines. One file a model, its config on top of it."""

from dataclasses import replace

from tmtlib.models import reliability  # noqa: F401 (registers its weightings)
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, count_parameters

__all__ = ["Batch", "Model", "ModelConfig", "Trace", "build_model", "count_parameters"]

BUILT_IN = frozenset(WEIGHTINGS)  # worker processes must be told of all others


def build_model(config: ModelConfig, dataset) -> Model:
    """A freshly initialised model for the shapes, metric family and emotions of `dataset` (`Dataset` or `DataShape`).

    Draws from torch's global generator. Raises TypeError for a config without a model.
    """
    if dataset.emotions:
        config = replace(config, emotions=dataset.emotions)
    return config.model_class(config, dataset.shapes, dataset.family)
