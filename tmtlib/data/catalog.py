"""The field's standard feature files: what is in each, its SHA-256, and where to get it (`standard_files.toml`)."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tmtlib.common import as_tuples


@dataclass(frozen=True)
class StandardFile:
    """One published MMSA feature file."""

    name: str  # data set: "mosi", "mosei", "sims"
    alignment: str  # "aligned" or "unaligned"
    path: str  # below the data folder, as MMSA lays it out
    sha256: str
    family: str  # metric family: "mosi" or "sims"
    utterances: tuple[int, int, int]  # train, valid, test
    shapes: tuple[tuple[int, int], ...]  # (T, D) of text, audio, vision
    tools: str  # what extracted text / audio / vision

    @property
    def file(self) -> str:
        """The file's name without folders."""
        return self.path.rsplit("/", 1)[-1]


_CONTENT = tomllib.loads(Path(__file__).with_name("standard_files.toml").read_text(encoding="utf-8"))
SOURCES = tuple(_CONTENT["sources"])
STANDARD_FILES = tuple(StandardFile(**{k: as_tuples(v) for k, v in row.items()}) for row in _CONTENT["file"])
NAMES = tuple(dict.fromkeys(f.name for f in STANDARD_FILES))


def feature_file(path: str | Path) -> Path:
    """The path, if a file is there. Raises FileNotFoundError saying what is there instead."""
    path = Path(path).expanduser()
    if not path.is_file():
        place = "a folder" if path.is_dir() else "not there"
        raise FileNotFoundError(f"{path} is {place}; wanted a feature file (MMSA, MMSA-FET or MulT pickle)")
    return path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal; a file is hashed once a process, unless it changes."""
    path = Path(path).resolve()
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:  # read in pieces, so that size does not matter
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(sha256: str) -> StandardFile | None:
    """The standard file with these bytes, or None."""
    return next((f for f in STANDARD_FILES if f.sha256 == sha256), None)


def files_of(name: str) -> tuple[StandardFile, ...]:
    """The standard files of a data set, the preferred one first; empty for a name without any."""
    return tuple(f for f in STANDARD_FILES if f.name == name)


def namesake(name: str, file: str) -> StandardFile | None:
    """The standard file of a data set that a file of this name would be, or None."""
    return next((f for f in files_of(name) if f.file == file), None)


def places(file: StandardFile, folder: Path) -> tuple[Path, ...]:
    """Where a standard file may lie in a user's folder: MMSA's layout, or the data set's own folder."""
    upper = file.name.upper()
    paths = [folder / file.path, folder / upper / file.file]
    # A bare aligned_50.pkl may be MOSI's or MOSEI's, so the folder's own name has to say which.
    same_name = [f for f in STANDARD_FILES if f.file == file.file]
    if len(same_name) == 1 or upper in (folder.name.upper(), folder.parent.name.upper()):
        paths += [folder / "Processed" / file.file, folder / file.file]
    return tuple(paths)


def missing_message(name: str, looked: Sequence[Path]) -> str:
    """What to tell a user whose folder lacks a data set: where was looked, what is wanted, where it is."""
    wanted = [f"{f.path}  SHA-256 {f.sha256}" for f in files_of(name)]
    parts = {
        f"no feature file of {name!r} found. Looked at:": looked,
        "Wanted one of:" if len(wanted) > 1 else "Wanted:": wanted,
        "Get it from one of these and keep its folders:": SOURCES,
        "or run without a data folder: synthetic data need no files.": (),
    }
    return "\n".join(line for title, rows in parts.items() for line in (title, *(f"  {row}" for row in rows)))
