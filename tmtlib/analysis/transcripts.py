"""Trained models on test data whose transcripts lost words or have other words in them: protocol P6.

The text features are made anew from the corrupted transcripts, by an encoder that the user gives (`data.text`),
and normalised as the file's own were. Level 0 is made anew too, so that a curve shows what the words do and not
what the encoder does; `agreement` says how far it is the file's own text. Audio and vision stay.

In word-aligned data, frames of text no longer stand beside the audio and vision of the same words once words are lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache as memoised
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib.analysis.robustness import as_rows, cases
from tmtlib.common import one_thread
from tmtlib.data import corruption, schema
from tmtlib.data.corrupt import noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import DataError, DataRef, Dataset, Split
from tmtlib.data.text import FrozenBert, WordVectors, open_encoder
from tmtlib.data.transcripts import drop_words, substitute_words, vocabulary
from tmtlib.stats.metrics import scores_of
from tmtlib.study import cache, runs
from tmtlib.study.runs import Run
from tmtlib.training.fit import predict

CLOSE = 0.05  # standard deviations that a feature may differ by and be the same


def sweep(
    todo: Sequence[Run],
    encoder: str | Path,
    rates: Sequence[float],
    masks: int = 1,
    device: str = "auto",
    jobs: int | None = None,
) -> pd.DataFrame:
    """Test metrics of finished runs with words dropped and substituted: rows as those of `robustness.sweep`.

    Args:
        encoder: .npz of word vectors or folder of a BERT: the one that made the data's text features.
        rates: of words lost or replaced, 0 to 1; 0 is the transcript itself, encoded anew.
        masks: how many times words are drawn, the same for every model.

    Raises what `open_encoder` raises, DataError where the text cannot be made anew (synthetic data, no transcripts, one
    frame an utterance, another width), ValueError for a model that reads token ids rather than features, and
    FileNotFoundError for a run that was not trained.
    """
    for run in todo:
        if run.model.reads_token_ids:
            raise ValueError(f"{run.method} has a BERT of its own, which reads token ids and no features; leave it out")
    by_data: dict[DataRef, list[Run]] = {}
    for run in todo:
        by_data.setdefault(run.data.clean, []).append(run)
    grid = tuple(corruption.in_transcripts(rates))
    tasks = [(some[0], tuple(some), str(encoder), grid, masks) for some in by_data.values()]
    rows = cache.map_runs(_scores, tasks, device, jobs, "corrupted transcripts")
    return rows.astype({"level": float}) if len(rows) else rows


def agreement(ref: DataRef, encoder: str | Path, device: str = "auto") -> float:
    """Share of test utterances whose text, made anew from the transcript, is the file's own: of the same length, and
    within .05 standard deviations everywhere. Arguments and errors as `sweep`."""
    data = load(ref.clean)
    encode = open_encoder(encoder, device)
    check_text(data, encode)
    anew, own = encoded(data, data.test.raw_text, encode), data.test
    scale = noise_scale(data.train)["text"]
    near = np.abs(anew.features["text"] - own.features["text"]) <= CLOSE * scale
    return float(np.mean(near.all((1, 2)) & (anew.lengths["text"] == own.lengths["text"])))


def check_text(data: Dataset, encode: WordVectors | FrozenBert) -> None:
    """Raises DataError where the test split's text cannot be made anew from its transcripts by this encoder."""
    (frames, width), name, said = data.test.shapes["text"], data.card.title, data.test.raw_text
    if data.card.source == "synthetic":
        raise DataError(f"{name}: synthetic transcripts hold no words that say the label; use a file with transcripts")
    if empty := sum(not text.strip() for text in said):
        raise DataError(f"{name}: {empty} of {len(said)} test transcripts are empty; wanted 'raw_text' for each")
    if frames < 3:
        raise DataError(f"{name}: text has {frames} frames an utterance; wanted a frame a word")
    found = encode(said[:1], frames)[0].shape[2]
    if found != width:
        raise DataError(
            f"{encode.path} makes {found} features a word, but the text of {name} has {width}; "
            "give the encoder that made the file's text"
        )


def encoded(data: Dataset, raw_text: Sequence[str], encode: WordVectors | FrozenBert) -> Split:
    """The test split with text features made of other transcripts, normalised by the training split as `data` are."""
    own = data.test
    features, lengths = encode(raw_text, own.shapes["text"][0])
    new = replace(
        own,
        features={**own.features, "text": features},
        lengths={**own.lengths, "text": lengths},
        raw_text=tuple(raw_text),
        text_bert=None,  # token ids of the old words
    )
    return schema.normalize(new, {"text": _statistics(data.ref.clean)}) if data.ref.normalize else new


@lru_cache(maxsize=2)
def _statistics(ref: DataRef) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the training text as it is in the file, by which the data of `ref` are scaled."""
    return schema.normalizer(load(replace(ref, normalize=False)).train)["text"]


def _scores(
    first: Run,
    todo: tuple[Run, ...],
    encoder: str,
    grid: tuple[Corruption, ...],
    masks: int,
    device: str,
    data: Dataset,
) -> list[dict]:
    """Rows of all runs on one data set: each corruption is encoded once for all of them, as that is the dear part."""
    encode = open_encoder(encoder, device)
    fresh = memoised(partial(_computed, todo, encode, grid, masks, device, data))
    rows = []
    for run in todo:
        key = ("transcripts", encode.sha256, grid, masks)
        own = cache.stored(run, __name__, key, lambda run=run: fresh()[run.id])
        rows += [{"method": run.method, "seed": run.seed} | row for row in own]
    return rows


def _computed(
    todo: tuple[Run, ...],
    encode: WordVectors | FrozenBert,
    grid: tuple[Corruption, ...],
    masks: int,
    device: str,
    data: Dataset,
) -> dict[str, list[dict]]:
    """Rows by run id."""
    counts = vocabulary(data.train.raw_text)
    found: dict[str, dict] = {run.id: {} for run in todo}
    check_text(data, encode)
    models = {run.id: runs.load_model(run, data.shape) for run in todo}
    for case in cases(grid, masks, distinct=True):
        split = encoded(data, _corrupted(data.test.raw_text, *case, counts), encode)
        for run in todo:
            task = run.model.task
            with one_thread(device):
                values = predict(models[run.id], split, run.training, device)
            found[run.id][case] = scores_of(task, values, split.labels_for(task), data.family)
    return {run.id: as_rows(run, grid, masks, found[run.id], len(data.test)) for run in todo}


def _corrupted(raw_text: Sequence[str], how: Corruption | None, mask: int, counts: Mapping[str, int]) -> Sequence[str]:
    if how is None:
        return raw_text
    if how.kind == "words_dropped":
        return drop_words(raw_text, how.level, mask)
    return substitute_words(raw_text, how.level, counts, mask)
