"""The sequences of a CMU-MultimodalSDK data set, words, text, audio, vision and labels, joined by words."""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from tmtlib.common import EMOTIONS, MODALITIES, digest
from tmtlib.data.catalog import file_sha256
from tmtlib.data.schema import SPLITS, Card, DataError, Dataset, Oddity, Split
from tmtlib.data.text import open_encoder
from tmtlib.media.alignment import interval_average, overlaps
from tmtlib.media.csd import entries, read_csd
from tmtlib.media.files import read_csv

PAUSE = "sp"  # stands among the words where nobody speaks
WIDTHS = (1, 1 + len(EMOTIONS))  # of labels: CMU-MOSI's sentiment, CMU-MOSEI's sentiment and emotions


class Segment(NamedTuple):
    """A labelled segment: W words, when each was said (s), and its labels."""

    words: list[str]
    intervals: Float64[np.ndarray, "W 2"]
    labels: Float32[np.ndarray, " K"]


def aligned(
    words: Path, text: Path, audio: Path, vision: Path, labels: Path, splits: Path, frames: int = 50
) -> Dataset:
    """One frame a word: the features of each labelled segment, averaged over its words' intervals.

    Args:
        words, text, audio, vision, labels: `.csd` files. text may be word vectors (.npz, see `data.text.open_encoder`),
            zeros for a word without. Labels are a sentiment in -3..3, or that and the strengths of `EMOTIONS`.
        splits: csv of id (a segment, or a video for all of its segments) and split (train, valid or test).
        frames: longest segment in words; longer ones are cut. Pauses are no words.

    Segments that a file lacks are left out; they, cut ones and values that are not finite are counted as oddities.
    Raises as `csd.entries`, and DataError for labels of another kind, or a split of which no segment is left.
    """
    notes: list[Oddity] = []
    segments, paths = _segments(words, labels, frames, notes), (text, audio, vision)
    features = {m: _by_word(path, segments, notes) for m, path in zip(MODALITIES, paths, strict=True)}
    split_of = _splits(splits, segments)
    has = {words: {i for i, s in segments.items() if s.words}, splits: split_of}
    has |= dict(zip(paths, features.values(), strict=True))
    for path, known in has.items():
        _note(notes, f"segments that {path.name} lacks", [i for i in segments if i not in known], "left out")
    whole = [i for i in segments if all(i in known for known in has.values())]
    parts = {s: {i: segments[i] for i in whole if split_of[i] == s} for s in SPLITS}
    if missing := [s for s in SPLITS if not parts[s]]:
        found = "; ".join(f"{o.count} {o.what}" for o in notes) or f"{splits} names none"
        raise DataError(f"no segment is left for {', '.join(missing)} ({found}); wanted the same ids in every file")
    made = {s: _split(part, features) for s, part in parts.items()}
    emotions = EMOTIONS if made["train"].emotion_labels is not None else ()
    sha256 = digest([file_sha256(path) for path in (words, *paths, labels, splits)])
    card = Card(labels.stem, "mosi", "aligned", "real", "CMU-MultimodalSDK", sha256, emotions)
    return Dataset(card, oddities=tuple(notes), **made)


def _segments(words: Path, labels: Path, frames: int, notes: list[Oddity]) -> dict[str, Segment]:
    """Each labelled segment, with the words that overlap it."""
    said, none, segments, long = read_csd(words), (np.empty((0, 2)), np.empty((0, 1), str)), {}, []
    for name, (intervals, values) in entries(labels):
        if values.dtype.kind == "U" or values.shape[1] not in WIDTHS:
            raise DataError(f"{labels}, {name}: labels are {values.dtype} {values.shape}; wanted 1 or 7 numbers a row")
        ids = [name] if name.endswith("]") else [f"{name}[{i}]" for i in range(len(values))]
        for i, interval, row in zip(ids, intervals, values, strict=False):
            times, texts = said.get(_entry(i, said), none)
            own = (texts[:, 0] != PAUSE) & (overlaps(interval[None], times)[0] | (i in said))
            long += [i] * bool(own.sum() > frames)
            segments[i] = Segment([*texts[own, 0][:frames]], times[own][:frames], row)
    _note(notes, f"segments of more than {frames} words", long, "cut")
    return segments


def _by_word(path: Path, segments: dict[str, Segment], notes: list[Oddity]) -> dict[str, Float32[np.ndarray, "W D"]]:
    """Features, one row a word, of each segment that a file has."""
    if path.suffix == ".npz":
        vectors = open_encoder(path)
        table = np.vstack([vectors.vectors, np.zeros_like(vectors.vectors[:1])])
        return {i: table[[vectors.places.get(word.lower(), -1) for word in s.words]] for i, s in segments.items()}
    of_video, made, odd = defaultdict(list), {}, 0
    for i in segments:
        of_video[i.rpartition("[")[0]].append(i)
    for name, (intervals, x) in entries(path):
        if x.dtype.kind == "U":
            raise DataError(f"{path}, {name}: features are texts; wanted numbers")
        bad = ~np.isfinite(x)
        odd += int(bad.sum())
        for i in [name] if name in segments else of_video[name]:
            made[i] = interval_average(segments[i].intervals, intervals, np.where(bad, np.float32(0), x))
    if odd:
        notes.append(Oddity("all", f"values of {path.name} that are not finite", odd, "set to 0"))
    return made


def _splits(path: Path, segments: Collection[str]) -> dict[str, str]:
    """The split of each segment that a csv names, or whose video it names."""
    table = read_csv(path, str)
    if not {"id", "split"} <= {*table} or not table["split"].isin(SPLITS).all():
        raise DataError(f"{path} has the columns {', '.join(table)}; wanted id and split, each train, valid or test")
    if table["id"].duplicated().any():
        raise DataError(f"{path} names {table['id'][table['id'].duplicated()].iloc[0]} twice; wanted each id once")
    named = dict(zip(table["id"], table["split"], strict=True))
    return {i: named[key] for i in segments if (key := _entry(i, named))}


def _entry(segment: str, known: Collection[str]) -> str | None:
    """The segment or its video, where known."""
    return next((name for name in (segment, segment.rpartition("[")[0]) if name in known), None)


def _note(notes: list[Oddity], what: str, ids: list[str], handling: str) -> None:
    if ids:
        named = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        notes.append(Oddity("all", what, len(ids), f"{handling}: {named}"))


def _split(segments: dict[str, Segment], features: dict[str, dict]) -> Split:
    """Features padded with zeros to the longest segment."""
    lengths = np.array([len(s.words) for s in segments.values()], np.int64)
    padded = {}
    for m, of_segment in features.items():
        rows = [of_segment[i] for i in segments]
        padded[m] = np.stack([np.pad(x, ((0, lengths.max() - len(x)), (0, 0))) for x in rows])
    labels = np.stack([s.labels for s in segments.values()])
    said, felt = tuple(" ".join(s.words) for s in segments.values()), labels[:, 1:] if labels.shape[1] > 1 else None
    every = dict.fromkeys(MODALITIES, lengths)
    return Split(padded, every, labels[:, 0], tuple(segments), said, emotion_labels=felt)
