"""The one type of a data set, checked when it is made: card, three splits, oddities, ground truth."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float32, Int64

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.corruption import REGIMES, Corruption


@dataclass(frozen=True)
class SyntheticSize:
    """Utterances by split and frames by modality of synthetic data; None: as published."""

    utterances: tuple[int, int, int] | None = None
    frames: tuple[int, int, int] | None = None  # text, audio, vision
    world: int | None = None  # number of another ground truth (tmtlib.data.recipes); None: the recipe's


@dataclass(frozen=True)
class DataRef:
    """Identifies a data set that can be loaded: a file, or the settings of the synthetic generator."""

    name: str
    source: str = "synthetic"  # by the generator; "real": from a file, whose card may still say "synthetic"
    sha256: str = ""  # of the file, or of the generator's settings
    path: str | None = field(default=None, metadata={"identity": False})  # a moved file is the same data
    synthetic: SyntheticSize | None = None
    normalize: bool = True  # per-feature z-score from the training split's valid frames
    training_corruption: Corruption | None = None  # of train and valid, not of test
    clip_labels: bool = field(default=False, metadata={"identity": "if set"})  # a file's, to the range of its family

    @property
    def clean(self) -> "DataRef":
        """The same data without a training corruption."""
        return replace(self, training_corruption=None)

    @property
    def regime(self) -> str:
        """Name in `corruption.REGIMES` ("clean", "masked"), or the training corruption in words."""
        how = self.training_corruption
        if name := next((name for name, corruption in REGIMES.items() if corruption == how), None):
            return name
        return f"{how.kind} {how.where}" + ("" if how.level is None else f" {how.level:g}")


SPLITS = ("train", "valid", "test")
FAMILY_RANGE = {"mosi": (-3.0, 3.0), "sims": (-1.0, 1.0)}  # label range of each metric family
TITLES = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI", "sims": "CH-SIMS", "simsv2": "CH-SIMS v2", "crema": "CREMA-D votes"}


def dataset_title(name: str, source: str) -> str:
    """A data set's name in figures and tables; synthetic data are marked "(synthetic)", worlds by their number."""
    if source != "synthetic":
        return TITLES.get(name, name)
    name, world = split_name(name)
    return f"{TITLES.get(name, name)} (synthetic)" + ("" if world is None else f", world {world}")


def world_name(name: str, world: int | None) -> str:
    """The name on a world's card: "mosi-world3"."""
    return name if world is None else f"{name}-world{world}"


def split_name(name: str) -> tuple[str, int | None]:
    """A card's name as recipe and world: ("mosi", 3) of "mosi-world3", ("mosi", None) of "mosi"."""
    match = re.fullmatch(r"(.+)-world(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


class DataError(ValueError):
    """A data file or array that cannot be used. What is said is one line; of a long one, its start and its end."""

    def __init__(self, message: str):
        short = message if len(message) <= 2000 else f"{message[:1400]} ... {message[-500:]}"
        super().__init__("".join(c if c.isprintable() else " " for c in short))


class Unlabelled(DataError):
    """Utterances without the three splits or without labels: a saved model's predictions can be made, no training."""


@dataclass(frozen=True, eq=False)  # hashed by identity
class Split:
    """N utterances. Raises DataError when shapes, lengths or labels do not fit together."""

    features: Mapping[str, Float32[np.ndarray, "N T D"]]  # by modality
    lengths: Mapping[str, Int64[np.ndarray, " N"]]  # valid frames, 0 (modality absent) to T
    labels: Float32[np.ndarray, " N"]  # sentiment intensity, in the label range of the card
    ids: tuple[str, ...]
    raw_text: tuple[str, ...]
    unimodal_labels: Mapping[str, Float32[np.ndarray, " N"]] = field(default_factory=dict)
    text_bert: Int64[np.ndarray, "N 3 T"] | None = None  # token ids, mask, segments
    emotion_labels: Float32[np.ndarray, "N K"] | None = None  # strength 0..3 of each of `Card.emotions`; 0: absent
    reliable: Bool[np.ndarray, "N M"] | None = None  # synthetic data: the truth, for the controls that are told it

    def __post_init__(self):
        n = len(self.labels)
        if not set(self.features) == set(self.lengths) == set(MODALITIES):
            raise DataError(f"a split needs features and lengths for {MODALITIES}; found {tuple(self.features)}")
        _check_array("labels", self.labels, np.float32, (n,))
        for m, x in self.features.items():
            length = self.lengths[m]
            _check_array(f"{m} features", x, np.float32, (n, "T", "D"))
            _check_array(f"{m} lengths", length, np.int64, (n,))
            if n and (length.min() < 0 or length.max() > x.shape[1]):
                raise DataError(f"{m} lengths span {length.min()}..{length.max()}; wanted 0..{x.shape[1]}")
            with np.errstate(all="ignore"):  # the sum first: it needs no copy of the array
                finite = np.isfinite(x.sum()) or np.isfinite(x).all()
            if not finite:
                raise DataError(f"{m} features hold NaN or infinity; every value must be finite")
        if len(self.ids) != n or len(self.raw_text) != n:
            raise DataError(f"{n} labels but {len(self.ids)} ids and {len(self.raw_text)} transcripts")
        if not np.isfinite(self.labels).all():
            raise DataError("labels hold NaN or infinity; every utterance needs a finite label")
        for m, labels in self.unimodal_labels.items():
            if m not in MODALITIES or labels.shape != (n,) or not np.isfinite(labels).all():
                raise DataError(f"unimodal labels of {m} are {labels.shape}; wanted {n} finite values of a modality")
        if self.text_bert is not None and self.text_bert.shape != (n, 3, self.shapes["text"][0]):
            raise DataError(f"text_bert is {self.text_bert.shape}; wanted ({n}, 3, {self.shapes['text'][0]})")
        if self.emotion_labels is not None:
            _check_array("emotion_labels", self.emotion_labels, np.float32, (n, "K"))
            bad = np.flatnonzero(~((self.emotion_labels >= 0) & (self.emotion_labels <= 3 + 1e-4)).all(1))  # NaN too
            if len(bad):
                rows, first = f"{len(bad)} of {n} rows", self.emotion_labels[bad[0]].tolist()
                where = f"within 0..3 (the first in row {bad[0]}: {first})"
                raise DataError(f"emotion_labels of {rows} are not {where}; repair or remove them")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(T, D) by modality."""
        return {m: self.features[m].shape[1:] for m in MODALITIES}

    def take(self, index: np.ndarray) -> "Split":
        """The utterances at `index`: positions, or True and False for each."""
        index = np.asarray(index)

        def rows(values):
            if isinstance(values, Mapping):
                return {m: x[index] for m, x in values.items()}
            if isinstance(values, tuple):
                return tuple(np.array(values, object)[index])
            return None if values is None else values[index]

        return replace(self, **{f.name: rows(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def concat(cls, parts: Sequence["Split"]) -> "Split":
        """Splits one after another, padded to the longest T; optional fields that a part lacks are dropped.

        Raises DataError where the padding would be a hundred times the data."""
        size, n = sum(x.nbytes for p in parts for x in p.features.values()), sum(map(len, parts))
        for m in MODALITIES:
            frames, width = np.max([p.shapes[m] for p in parts], axis=0)
            if 4 * n * int(frames) * int(width) > 100 * size + (1 << 26):
                raise DataError(
                    f"{m} of {n} utterances would be padded to {frames} frames; cut or leave out the longest"
                )
        return cls(**{f.name: _joined([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def labels_for(self, task: str) -> Float32[np.ndarray, "N ..."]:
        """Targets: sentiment (N,), or strengths (N, K) for "emotions". Raises DataError if there are none."""
        if task == "emotions" and self.emotion_labels is None:
            six = f"'emotion_labels' (N, {len(EMOTIONS)}): {', '.join(EMOTIONS)}, each 0 to 3"
            wanted = f"in each split {six}; or 'emotion', a name an utterance"
            raise DataError(f"no emotion labels, so the task 'emotions' cannot be trained; wanted {wanted}")
        return self.emotion_labels if task == "emotions" else self.labels


@dataclass(frozen=True)
class Card:
    """A data set's properties, as every result row states them."""

    name: str
    family: str  # metric family: "mosi" or "sims"
    alignment: str  # "aligned" (one clock for all modalities) or "unaligned"
    source: str  # "real" or "synthetic"
    origin: str  # a file name or the generator
    sha256: str
    emotions: tuple[str, ...] = ()  # names of the columns of `emotion_labels`; none without such labels

    @property
    def label_range(self) -> tuple[float, float]:
        return FAMILY_RANGE[self.family]

    @property
    def title(self) -> str:
        return dataset_title(self.name, self.source)


@dataclass(frozen=True)
class Oddity:
    """A departure of a file from its documented layout."""

    split: str
    what: str
    count: int
    handling: str
    loud: bool = False  # changes what is learned or can be concluded, so it is said when the file is read


def said_at_once(oddities: Sequence[Oddity]) -> list[str]:
    """A line for each loud oddity, the same one of several splits in one."""
    counts: dict[tuple[str, str], int] = {}
    for o in oddities:
        if o.loud:
            counts[o.what, o.handling] = counts.get((o.what, o.handling), 0) + o.count
    return [f"{what} ({count}); {handling}" for (what, handling), count in counts.items()]


@dataclass(frozen=True)
class DataShape:
    """What models and training may use of the whole data set: (T, D) by modality, metric family, names of emotions."""

    shapes: Mapping[str, tuple[int, int]]
    family: str
    emotions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Three validated splits with the same modalities and widths. Raises DataError if they do not fit together."""

    card: Card
    train: Split
    valid: Split
    test: Split
    ref: DataRef | None = None
    oddities: tuple[Oddity, ...] = ()
    truth: object | None = None  # tmtlib.data.synthetic.Truth of synthetic data
    feature_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of modalities whose file names them

    def __post_init__(self):
        low, high = self.card.label_range
        for name in SPLITS:
            split = self[name]
            if not len(split):
                raise DataError(f"split {name} of {self.card.name} is empty; train, valid and test all need utterances")
            smallest, largest = split.labels.min(), split.labels.max()
            if smallest < low - 1e-4 or largest > high + 1e-4:
                bad = np.flatnonzero((split.labels < low - 1e-4) | (split.labels > high + 1e-4))
                ids = ", ".join(split.ids[i] for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
                wanted = f"{low:g}..{high:g}, which {len(bad)} of {len(split)} leave ({ids})"
                span = f"labels of {name} span {smallest:.2f}..{largest:.2f}"
                mend = "rescale them (classes too), set the family, or clip them (clip_labels=True, --clip-labels)"
                raise DataError(f"{span}; family {self.card.family!r} wants {wanted}: {mend}")
            for m in MODALITIES:
                width, wanted = split.shapes[m][1], self.train.shapes[m][1]
                if width != wanted:
                    raise DataError(f"{m} is {width} wide in {name} but {wanted} in train")
            labels = split.emotion_labels
            if labels is not None and labels.shape[1] != len(self.emotions):
                wanted = f"wanted one for each of Card.emotions: {', '.join(self.emotions) or 'none given'}"
                raise DataError(f"emotion_labels of {name} have {labels.shape[1]} columns; {wanted}")
        without = [s for s in SPLITS if self[s].emotion_labels is None]
        if 0 < len(without) < len(SPLITS):
            raise DataError(f"no emotion labels in {', '.join(without)}; wanted them in every split or in none")

    def __getitem__(self, split: str) -> Split:
        if split not in SPLITS:
            raise KeyError(f"no split {split!r}; wanted one of {SPLITS}")
        return getattr(self, split)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(longest T over the splits, D) by modality."""
        every = [self[s].shapes for s in SPLITS]
        return {m: (max(s[m][0] for s in every), every[0][m][1]) for m in MODALITIES}

    @property
    def family(self) -> str:
        return self.card.family

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.card.emotions

    @property
    def shape(self) -> DataShape:
        return DataShape(self.shapes, self.family, self.emotions)


def normalizer(train: Split) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation (D,) per modality over valid frames; sd 1 for a constant feature, so it becomes 0."""
    statistics = {}
    for m in MODALITIES:
        mean, std = frame_moments(train, m)
        statistics[m] = mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)
    return statistics


def normalize(split: Split, statistics: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Split:
    """z = (x - mean) / sd at valid frames of each modality in `statistics`; padding stays zero."""
    features = dict(split.features)
    for m, (mean, std) in statistics.items():
        valid = valid_frames(split, m)
        features[m] = np.zeros_like(split.features[m])
        features[m][valid] = (split.features[m][valid] - mean) / std
    return replace(split, features=features)


def frame_moments(split: Split, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of each feature over the valid frames, in float64; 0 where none is valid."""
    frames = split.features[modality][valid_frames(split, modality)].astype(np.float64)
    return (frames.mean(0), frames.std(0)) if len(frames) else tuple(np.zeros((2, frames.shape[1])))


def valid_frames(split: Split, modality: str) -> np.ndarray:
    """Boolean (N, T): True within the utterance's length."""
    return np.arange(split.shapes[modality][0]) < split.lengths[modality][:, None]


def _joined(values: list):
    """One field of several splits, concatenated; arrays are padded to the longest."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], Mapping):
        return {m: _joined([x[m] for x in values]) for m in values[0] if all(m in x for x in values)}
    if isinstance(values[0], tuple):
        return tuple(chain.from_iterable(values))
    longest = np.max([x.shape[1:] for x in values], axis=0)
    missing = [longest - x.shape[1:] for x in values]
    return np.concatenate(
        [np.pad(x, [(0, 0), *((0, k) for k in m)]) if m.any() else x for x, m in zip(values, missing, strict=True)]
    )


def _check_array(name: str, x: np.ndarray, dtype: type, shape: tuple[int | str, ...]) -> None:
    """Raises DataError unless dtype and shape are as given; a named axis has any size."""
    fits = x.ndim == len(shape) and all(isinstance(b, str) or a == b for a, b in zip(x.shape, shape, strict=True))
    if not fits or x.dtype != dtype:
        wanted = f"{np.dtype(dtype)} {shape}".replace("'", "")
        raise DataError(f"{name} are {x.dtype} {x.shape}; wanted {wanted}")
