"""The study's figures: pure functions of DataFrames, data sets, models and arrays that return a matplotlib Figure.

No function reads a file (but for the style sheet) or keeps state: a figure is closed in pyplot before it is returned,
so a notebook shows it once, as the value of a cell. One colour stands for one modality or method in every figure.
Spread is always one standard deviation over seeds (ddof = 1), said in the figure with the number of seeds.

Figures 1 and 2 are in `schematics` and figure 3 in `mechanism`, all drawn on a `sheet` from a built model's `stages`;
figure 4 is in `data`, figure 5 and all other scores in `results`, what weightings learn in `weights`, whether they
adapt in `adaptation`, and what these share in `style`.
"""

from __future__ import annotations

from tmtlib.data.schema import dataset_title
from tmtlib.figures.adaptation import adaptation, reliability_diagram, reliability_weights
from tmtlib.figures.data import figure4_datasets
from tmtlib.figures.evidence import forest, weight_reach
from tmtlib.figures.mechanism import figure3_amw
from tmtlib.figures.results import figure5_comparison, learning_curves, mae_against_accuracy, missing_bars, noise_curves
from tmtlib.figures.schematics import figure1_fusion, figure2_tmt
from tmtlib.figures.speed import throughput
from tmtlib.figures.style import (
    METHOD_COLOURS,
    MODALITY_COLOURS,
    ONE_COLUMN,
    TWO_COLUMNS,
    method_colour,
    method_title,
    metric_label,
    save,
)
from tmtlib.figures.weights import importance, weight_heatmap, weight_trajectories, weights_against_truth

__all__ = [
    "METHOD_COLOURS",
    "MODALITY_COLOURS",
    "ONE_COLUMN",
    "TWO_COLUMNS",
    "adaptation",
    "dataset_title",
    "figure1_fusion",
    "figure2_tmt",
    "figure3_amw",
    "figure4_datasets",
    "figure5_comparison",
    "forest",
    "importance",
    "learning_curves",
    "mae_against_accuracy",
    "method_colour",
    "method_title",
    "metric_label",
    "missing_bars",
    "noise_curves",
    "reliability_diagram",
    "reliability_weights",
    "save",
    "throughput",
    "weight_heatmap",
    "weight_reach",
    "weight_trajectories",
    "weights_against_truth",
]
