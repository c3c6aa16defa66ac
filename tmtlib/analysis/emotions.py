"""Models that say which emotions are present, on data with such labels: scores, and what learned weights add."""

import pandas as pd

from tmtlib.analysis.trivial_baselines import emotion_rows
from tmtlib.stats import emotions
from tmtlib.study.study import Study

TABLES = ("emotions", "emotions_differences")
METHODS = ("tmt_emotions", "tmt_amw_emotions", "tmt_uniform_emotions", "tmt_reliability_emotions")


def has_emotions(study: Study) -> bool:
    return any(dataset.train.emotion_labels is not None for dataset in study.datasets())


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """`TABLES` of `METHODS`, whose missing runs are trained, with constant answers, and the paired differences."""
    felt = study.ensure(*METHODS, few=True)
    able = [dataset for dataset in study.datasets() if dataset.train.emotion_labels is not None]
    scores = emotions.table(pd.concat([felt, *map(emotion_rows, able)], ignore_index=True))
    return dict(zip(TABLES, (scores, emotions.differences(felt)), strict=True))
