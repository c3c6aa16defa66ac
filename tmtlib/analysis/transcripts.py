"""Trained models on test data whose transcripts lost words or have other words: protocol P6.

Text features are made anew by the user's encoder (`data.text`) and normalised as the file's own, also at level 0, so
that a curve does not show the encoder. In word-aligned data, lost words move the text against audio and vision.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib.analysis import robustness
from tmtlib.analysis.robustness import cases, groups, row_start, scores
from tmtlib.data import corruption, schema
from tmtlib.data.corrupt import noise_scale
from tmtlib.data.corruption import Corruption
from tmtlib.data.loading import load
from tmtlib.data.schema import DataError, DataRef, Dataset, Split
from tmtlib.data.text import FrozenBert, WordVectors, open_encoder
from tmtlib.data.transcripts import drop_words, substitute_words, vocabulary
from tmtlib.study import cache, runs
from tmtlib.study.profiles import Profile
from tmtlib.study.runs import Run

Encoder = WordVectors | FrozenBert
CLOSE = 0.05  # standard deviations by which a feature may differ


def summary(todo: Sequence[Run], encoder: str | Path, profile: Profile, device: str = "auto") -> pd.DataFrame:
    """`robustness.summary` of `sweep` at the profile's rates of missing frames."""
    return robustness.summary(sweep(todo, encoder, profile.missing_rates, profile.masks, device, profile.jobs))


def sweep(
    todo: Sequence[Run],
    encoder: str | Path,
    rates: Sequence[float],
    masks: int = 1,
    device: str = "auto",
    jobs: int | None = None,
) -> pd.DataFrame:
    """Test metrics of finished runs with words dropped and substituted: rows as those of `robustness.sweep`.

    `encoder`: the .npz of word vectors or folder of a BERT that made the data's text features; `rates`: of words, 0 to
    1; words are drawn `masks` times, the same for every model. Raises as `open_encoder` and `check_text`, ValueError
    for a model that reads token ids, FileNotFoundError for an untrained run.
    """
    for run in todo:
        if run.model.reads_token_ids:
            raise ValueError(f"{run.method} has a BERT of its own, which reads token ids and no features; leave it out")
    options = str(encoder), open_encoder(encoder, device).sha256, tuple(corruption.in_transcripts(rates)), masks
    tasks = [(group, *options) for group in groups(todo, together=len(todo))]
    rows = cache.map_runs(_computed, tasks, device, jobs, "corrupted transcripts")
    return rows.astype({"level": float}) if len(rows) else rows


def agreement(ref: DataRef, encoder: str | Path, device: str = "auto") -> float:
    """Share of test utterances whose text made anew has the length of the file's own and, to `CLOSE`, its features.
    Raises as `open_encoder` and `check_text`."""
    data = load(ref.clean)
    encode = open_encoder(encoder, device)
    check_text(data, encode)
    anew, scale = encoded(data, data.test.raw_text, encode), noise_scale(data.train)["text"]
    near = np.abs(anew.features["text"] - data.test.features["text"]) <= CLOSE * scale
    return float(np.mean(near.all((1, 2)) & (anew.lengths["text"] == data.test.lengths["text"])))


def check_text(data: Dataset, encode: Encoder) -> None:
    """Raises DataError for synthetic data, an empty test transcript, under 3 frames an utterance, or another width."""
    (frames, width), name, texts = data.test.shapes["text"], data.card.title, data.test.raw_text
    if data.card.source == "synthetic":
        raise DataError(f"{name}: synthetic transcripts hold no words that say the label; use a file with transcripts")
    if empty := sum(not text.strip() for text in texts):
        raise DataError(f"{name}: {empty} of {len(texts)} test transcripts are empty; wanted 'raw_text' for each")
    if frames < 3:
        raise DataError(f"{name}: text has {frames} frames an utterance; wanted a frame a word")
    if (features := encode(texts[:1], frames)[0].shape[2]) != width:
        made = f"{encode.path} makes {features} features a word, but the text of {name} has {width}"
        raise DataError(f"{made}; give the encoder that made the file's text")


def encoded(data: Dataset, raw_text: Sequence[str], encode: Encoder) -> Split:
    """The test split with text features of other transcripts, normalised as `data` are."""
    test = data.test
    text, length = encode(raw_text, test.shapes["text"][0])
    features, lengths = {**test.features, "text": text}, {**test.lengths, "text": length}
    # text_bert are the token ids of the old words
    new = replace(test, features=features, lengths=lengths, raw_text=tuple(raw_text), text_bert=None)
    return schema.normalize(new, {"text": _statistics(data.ref.clean)}) if data.ref.normalize else new


@lru_cache(maxsize=2)
def _statistics(ref: DataRef) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the training text before normalisation."""
    return schema.normalizer(load(replace(ref, normalize=False)).train)["text"]


@cache.per_group("transcripts")
def _computed(
    group: Sequence[Run],
    encoder: str,
    sha256: str,
    grid: tuple[Corruption, ...],
    masks: int,
    device: str,
    data: Dataset,
) -> list[list[dict]]:
    """Rows of each run. Each corruption is encoded once for all, as that takes most of the time."""
    encode = open_encoder(encoder, device)
    check_text(data, encode)
    counts, texts = vocabulary(data.train.raw_text), data.test.raw_text
    models, rows = [runs.load_model(run, data.shape) for run in group], [[] for _ in group]
    for how, mask in cases(grid, masks):
        dropped = how.kind == "words_dropped"
        said = drop_words(texts, how.level, mask) if dropped else substitute_words(texts, how.level, counts, mask)
        split = encoded(data, said, encode)
        for run, scored, of_run in zip(group, scores(group, models, split, device), rows, strict=True):
            of_run.append(row_start(run, how, mask, len(split)) | scored)
    return rows
