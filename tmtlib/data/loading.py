"""From a name or a path to a `DataRef` (`resolve`) and to the data (`load`).

A name ("mosi", "mosei", "sims") is looked up in the data folder under the standard file names; without a folder the
data are synthetic. "crema" is the real data that come with the library. A path may be any feature file.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from tmtlib import common
from tmtlib.data import catalog, crema, mmsa, schema, synthetic
from tmtlib.data.corrupt import corrupt, noise_scale
from tmtlib.data.recipes import EMOTION_LOADINGS
from tmtlib.data.schema import DataError, DataRef, Dataset, SyntheticSize

FEATURES = re.compile(r".+\.(p|pkl|pickle|npz|joblib)(\.(gz|bz2|xz|z))?")  # names of feature files


class Stated(NamedTuple):
    """Properties that a `DataRef` does not hold."""

    source: str  # "real" or "synthetic"; a file may hold synthetic data
    has_emotions: bool


def load_dataset(
    name_or_path: str | Path,
    *,
    data: str | Path | None = None,
    normalize: bool = True,
    synthetic_size: SyntheticSize | None = None,
    family: str | None = None,
    clip_labels: bool | None = None,
) -> Dataset:
    """A validated data set.

    Args:
        name_or_path: a name ("mosi", "mosei", "sims", "crema"), or the path of a feature file.
        data: folder with the files of a name; default: the environment variable TMT_DATA, else synthetic data.
        normalize: z-score each feature by the training split's valid frames, as the study does.
        synthetic_size: utterances and frames of synthetic data; default: as published.
        family: metric family of a file, "mosi" or "sims"; default: from the file, or guessed and reported.
        clip_labels: a file's labels beyond the family's range become its ends; default: TMT_CLIP_LABELS, else refused.

    Raises FileNotFoundError (with the paths tried, the SHA-256 wanted and download sources), DataError for a file that
    cannot be used, and ValueError for `family` with synthetic data or a name without a recipe.
    """
    ref = resolve(name_or_path, data=data, normalize=normalize, synthetic_size=synthetic_size, clip_labels=clip_labels)
    if family is None:
        return load(ref)
    if ref.path in (None, str(crema.PATH)):
        raise ValueError(f"family={family!r} is for files; the data set {ref.name!r} has its own")
    dataset = mmsa.read(ref.path, family=family, clip_labels=ref.clip_labels)
    return _prepared(dataset, None, normalize)  # a DataRef cannot state a family


def resolve(
    name_or_path: str | Path,
    *,
    data: str | Path | None = None,
    normalize: bool = True,
    synthetic_size: SyntheticSize | None = None,
    clip_labels: bool | None = None,
) -> DataRef:
    """The reference, with content hash, of a name or path; arguments and errors as `load_dataset`."""
    if looks_like_path(name_or_path):
        return _file_ref(Path(name_or_path), normalize, clip_labels)
    name = str(name_or_path)
    if name == crema.NAME:
        return _crema_ref(normalize)
    folder = Path(data).expanduser() if data else common.data_folder()
    if folder is None:
        return synthetic_ref(name, synthetic_size, normalize)
    if folder.is_file():
        raise FileNotFoundError(f"data is the file {folder}, so there is no folder to look for {name!r} in")
    places = [place for file in catalog.files_of(name) for place in catalog.places(file, folder)]
    if found := next(filter(Path.is_file, places), None):
        return _file_ref(found, normalize, clip_labels)
    raise FileNotFoundError(catalog.missing_message(name, places))


def synthetic_ref(name: str, size: SyntheticSize | None = None, normalize: bool = True) -> DataRef:
    """A synthetic data set, even if there are files. Raises ValueError for a name without a recipe."""
    return DataRef(name=name, sha256=synthetic.settings_sha256(name, size), synthetic=size, normalize=normalize)


def resolve_all(
    names: Sequence[str], *, data: str | Path | None, normalize: bool, sizes: dict[str, SyntheticSize]
) -> tuple[list[DataRef], list[str]]:
    """The data sets of a study, and a message for each that the data folder lacks (never replaced by synthetic data).

    A file as `data`, or "crema", is the only data set, and so is the one file of a folder without standard files.
    Raises FileNotFoundError for a folder with none of these.
    """
    if data == crema.NAME:
        return [_crema_ref(normalize)], []
    place = Path(data).expanduser() if data else common.data_folder()
    if place is not None and not place.is_dir():
        return [_file_ref(place, normalize)], []
    refs, missing = [], []
    for name in names:
        try:
            refs.append(resolve(name, data=place, normalize=normalize, synthetic_size=sizes.get(name)))
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing and not refs:
        own = sorted(path for path in place.iterdir() if path.is_file() and FEATURES.fullmatch(path.name))
        if len(own) == 1:
            warnings.warn(f"{place} has no standard file; its one feature file, {own[0].name}, is taken", stacklevel=2)
            return [_file_ref(own[0], normalize)], []
        there = f"\n\nThere are {', '.join(path.name for path in own)}: give one of them by its path" if own else ""
        raise FileNotFoundError("\n\n".join(missing) + there)
    return refs, missing


def looks_like_path(value: str | Path) -> bool:
    """Whether a value is a file's path and not a data set's name, which has neither dots nor slashes."""
    return isinstance(value, Path) or any(mark in str(value) for mark in "/\\.")


def _file_ref(path: Path, normalize: bool, clip_labels: bool | None = None) -> DataRef:
    path = catalog.feature_file(path).resolve()
    sha256, clip = catalog.file_sha256(path), common.clip_labels() if clip_labels is None else clip_labels
    return DataRef(mmsa.name_of(path, sha256), "real", sha256, str(path), normalize=normalize, clip_labels=clip)


def _crema_ref(normalize: bool) -> DataRef:
    return DataRef(crema.NAME, "real", catalog.file_sha256(crema.PATH), str(crema.PATH), normalize=normalize)


@lru_cache(maxsize=4)
def load(ref: DataRef) -> Dataset:
    """The data of a reference. Raises DataError if the file has changed since, FileNotFoundError if it is gone.

    A `training_corruption` is applied to train and valid once, so every epoch has the same masks (as in TFR-Net).
    """
    if ref.training_corruption is not None:
        dataset = load(ref.clean)
        scale = noise_scale(dataset.train)
        seeds = {"train": 1001, "valid": 1002}  # test masks use seeds from 0 upwards
        splits = {s: corrupt(dataset[s], ref.training_corruption, scale, seed) for s, seed in seeds.items()}
        return replace(dataset, ref=ref, **splits)
    if ref.source == "synthetic":
        return _prepared(synthetic.generate(ref.name, ref.synthetic), ref, ref.normalize)
    if ref.path is None:
        raise FileNotFoundError(f"the data of {ref.name!r} came from a file whose place was not recorded")
    shipped = ref.sha256 == catalog.file_sha256(crema.PATH)
    dataset = crema.read() if shipped else mmsa.read(ref.path, clip_labels=ref.clip_labels)
    if dataset.card.sha256 != ref.sha256:
        hashes = f"its SHA-256 is {dataset.card.sha256}, but {ref.sha256} was asked for"
        wanted = "bring the old file back, or run again from the start to use the new one"
        raise DataError(f"{ref.path} has changed: {hashes}; {wanted}")
    return _prepared(dataset, ref, ref.normalize)


@cache
def stated(ref: DataRef) -> Stated:
    """Source and presence of emotion labels; only a file that is not a published one is read for it."""
    if ref.source == "synthetic":
        return Stated("synthetic", ref.name in EMOTION_LOADINGS)
    if catalog.known_sha256(ref.sha256):
        return Stated("real", False)
    dataset = load(ref.clean)
    return Stated(dataset.card.source, dataset.train.emotion_labels is not None)


def _prepared(dataset: Dataset, ref: DataRef | None, normalize: bool) -> Dataset:
    if normalize:
        statistics = schema.normalizer(dataset.train)
        dataset = replace(dataset, **{s: schema.normalize(dataset[s], statistics) for s in schema.SPLITS})
    return replace(dataset, ref=ref)
