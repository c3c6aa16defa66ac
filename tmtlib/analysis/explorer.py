"""Utterance by utterance what the explorer page shows (`tmtlib.figures.explorer`): weights, Shapley values, truth."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tmtlib.analysis.importance import prediction_shapley, subset_values, weight_values
from tmtlib.analysis.weights import unreliable
from tmtlib.common import MODALITIES, one_thread
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.schema import Dataset
from tmtlib.stats.statistics import conformal_half_width
from tmtlib.study import cache
from tmtlib.study.runs import Run, load_model, read_record

UTTERANCES = 130  # the first of a test split
NOISE = (Corruption("noise", level=math.inf), *(Corruption("noise", (m,), 0.0) for m in ("text", "audio")))
LEVEL = 0.9  # of the intervals


def table(todo: Sequence[Run], device: str = "auto", jobs: int | None = None) -> pd.DataFrame:
    """The first `UTTERANCES` test utterances by finished run and noise level: a row each.

    Columns: dataset, source, method, seed, noise ("clean", "text 0 dB", ...), utterance (its place in test), id,
    transcript, unreliable (as in `weights.by_utterance`), label, prediction, low, high (split conformal interval that
    holds the label with probability `LEVEL` on clean data, in label units, within the label range), and of each
    modality weight_<m> (mean of A over features; empty for models without weights), shapley_<m> (what it adds to the
    prediction before clipping, by absence) and truth_<m> (its part of the best prediction from clean synthetic data;
    empty for real data), rounded to three digits. Raises FileNotFoundError for an untrained run, ValueError for a model
    of emotions or of token ids.
    """
    for run in todo:
        if run.model.task == "emotions" or run.model.reads_token_ids:
            raise ValueError(f"{run.method} predicts emotions or reads token ids; wanted sentiment from features")
    return cache.map_runs(_rows, [(run,) for run in todo], device, jobs, "explorer")


@cache.per_run("explorer")
def _rows(run: Run, device: str, data: Dataset) -> list[dict]:
    record, model, n = read_record(run), load_model(run, data.shape), min(UTTERANCES, len(data.test))
    half = conformal_half_width(np.abs(record.predictions["valid"] - record.labels["valid"]), LEVEL)
    (low, high), scale = data.card.label_range, noise_scale(data.train)
    test, unknown = data.test.take(np.arange(n)), np.full((len(MODALITIES), n), np.nan)
    truth = unknown if data.truth is None else data.truth.splits["test"].importance[:n].T
    fixed = {"utterance": range(n), "id": test.ids, "transcript": test.raw_text, "unreliable": unreliable(data)[:n]}
    frames = []
    for how in NOISE:
        split = corrupt(test, how, scale)
        with one_thread(device):
            values = subset_values(model, split, "absent", data.train, run.training, device)
            weight = weight_values(model, split, device).get("weight", unknown)
        predicted = np.clip(values[MODALITIES], low, high)
        interval = {"low": np.clip(predicted - half, low, high), "high": np.clip(predicted + half, low, high)}
        measures = {"weight": weight, "shapley": prediction_shapley(values), "truth": truth}
        by_modality = {f"{k}_{m}": v for k, x in measures.items() for m, v in zip(MODALITIES, x, strict=True)}
        noise = "clean" if how.changes_nothing else f"{how.where} {how.level:g} dB"
        columns = {"noise": noise} | fixed | {"label": test.labels, "prediction": predicted} | interval | by_modality
        frames.append(pd.DataFrame(columns).round(3))
    return pd.concat(frames).to_dict("records")
