# ruff: noqa: F401 (imported for the notebooks)
"""The study's figures: pure functions of DataFrames, data sets, models and arrays that return a matplotlib Figure.

No function reads a file (but for the style sheet) or keeps state: a figure is closed in pyplot before it is returned,
so a notebook shows it once, as the value of a cell. One colour stands for one modality or method in every figure.
Bands, and whiskers of MAE by modality, are one standard deviation over seeds (ddof = 1); other whiskers are 95 %
intervals. Each figure says below its panels which, with the number of seeds. `figure.get_label()` is its alternative
text, which a notebook keeps with the picture.
"""

from tmtlib.data.schema import dataset_title
from tmtlib.figures.architecture import figure2_tmt, figure3_amw
from tmtlib.figures.data import figure4_datasets
from tmtlib.figures.fusion import figure1_fusion
from tmtlib.figures.measures import agreement, faithfulness, importance, importance_by_data, unimodal, utterance, worlds
from tmtlib.figures.results import (
    family_curves,
    figure5_comparison,
    forest,
    learning_curves,
    mae_against_accuracy,
    reached,
)
from tmtlib.figures.robustness import (
    adaptation,
    auilc,
    degradation,
    missing_bars,
    reliability_diagram,
    reliability_weights,
)
from tmtlib.figures.style import MODALITY_COLOURS, ONE_COLUMN, TWO_COLUMNS, method_colour
from tmtlib.figures.weights import ternary, weight_heatmap, weight_reach, weight_trajectories, weights_against_truth
