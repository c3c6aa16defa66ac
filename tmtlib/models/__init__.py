"""Models: TMT with or without a modality weighting, and baselines, each built from a config and data shapes."""

from __future__ import annotations

from tmtlib.config import BertTextConfig, LateFusionConfig, MISAConfig, ModelConfig, MulTConfig, TMTConfig
from tmtlib.models.base import Batch, Model, Trace, count_parameters
from tmtlib.models.bert_text import BertTextOnly
from tmtlib.models.late_fusion import LateFusion
from tmtlib.models.misa import MISA
from tmtlib.models.mult import MulT
from tmtlib.models.tmt import TMT

MODELS = {
    TMTConfig: TMT,
    MulTConfig: MulT,
    MISAConfig: MISA,
    LateFusionConfig: LateFusion,
    BertTextConfig: BertTextOnly,
}

__all__ = [
    "MISA",
    "MODELS",
    "TMT",
    "Batch",
    "BertTextOnly",
    "LateFusion",
    "Model",
    "MulT",
    "Trace",
    "build_model",
    "count_parameters",
    "model_class",
]


def model_class(config: ModelConfig) -> type[Model]:
    """The class of the model that a config describes. Raises TypeError for an unknown config."""
    if type(config) not in MODELS:
        raise TypeError(f"no model for a {type(config).__name__}; known: {[c.__name__ for c in MODELS]}")
    return MODELS[type(config)]


def build_model(config: ModelConfig, dataset) -> Model:
    """A freshly initialised model for the shapes and metric family of `dataset` (a `Dataset` or `DataShape`).

    Initialisation draws from torch's global generator: seed it first. Raises TypeError for an unknown config.
    """
    return model_class(config)(config, dataset.shapes, dataset.family)
