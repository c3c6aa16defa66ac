# ruff: noqa: F401 (imported for the notebooks)
"""The study's figures: pure functions of DataFrames, data sets, models and arrays that return a matplotlib Figure.

No function reads a file (but for the style sheet) or keeps state: a figure is closed in pyplot before it is returned,
so a notebook shows it once, as the value of a cell. One colour stands for one modality or method in every figure.
Spread is always one standard deviation over seeds (ddof = 1), said in the figure with the number of seeds.

Figures 1 to 3 are in `architecture`, figure 4 in `data`, figure 5 and learning in `results`, corrupted test data in
`robustness`, what weightings learn in `weights`, whether they adapt in `adaptation`, what modalities are worth in
`measures`, paired differences in `evidence`, one utterance in `utterance`, and what these share in `style`.
"""

from __future__ import annotations

from tmtlib.data.schema import dataset_title
from tmtlib.figures.adaptation import adaptation, reliability_diagram, reliability_weights
from tmtlib.figures.architecture import figure1_fusion, figure2_tmt, figure3_amw
from tmtlib.figures.data import figure4_datasets
from tmtlib.figures.evidence import auilc, forest, weight_reach
from tmtlib.figures.measures import agreement, faithfulness, importance, unimodal, worlds
from tmtlib.figures.results import family_curves, figure5_comparison, learning_curves, mae_against_accuracy
from tmtlib.figures.robustness import degradation, missing_bars
from tmtlib.figures.style import MODALITY_COLOURS, ONE_COLUMN, TWO_COLUMNS, method_colour, method_title, metric_label
from tmtlib.figures.utterance import utterance
from tmtlib.figures.weights import ternary, weight_heatmap, weight_trajectories, weights_against_truth
