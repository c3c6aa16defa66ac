"""Models: TMT with or without a modality weighting, and baselines. One file a model, its config on top of it."""

from tmtlib.models import reliability  # noqa: F401 (registers its weightings)
from tmtlib.models.amw import WEIGHTINGS
from tmtlib.models.base import Batch, Model, ModelConfig, Trace, count_parameters

__all__ = ["Batch", "Model", "ModelConfig", "Trace", "build_model", "count_parameters"]

BUILT_IN = frozenset(WEIGHTINGS)  # worker processes must be told of all others


def build_model(config: ModelConfig, dataset) -> Model:
    """A freshly initialised model for the shapes and metric family of `dataset` (a `Dataset` or `DataShape`).

    Draws from torch's global generator. Raises TypeError for a config without a model.
    """
    return config.model_class(config, dataset.shapes, dataset.family)
