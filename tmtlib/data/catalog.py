"""The field's standard feature files: what is in each, its SHA-256, and where to get it.

Source: the MMSA README (github.com/thuiar/MMSA) for places and checksums, its published files for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SOURCES = (
    "Google Drive https://drive.google.com/drive/folders/1A2S4pqCHryGmiqnNSPLv7rEg63WvjCSk",
    "Baidu https://pan.baidu.com/s/1a1bDX5htPsZjsRyHcvCKHw (password qq0b)",
)


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


MOSI = {"name": "mosi", "family": "mosi", "utterances": (1284, 229, 686)}
MOSEI = {"name": "mosei", "family": "mosi", "utterances": (16326, 1871, 4659)}

# The preferred file of a data set comes before its other one.
STANDARD_FILES = (
    StandardFile(
        **MOSI,
        alignment="aligned",
        path="MOSI/Processed/aligned_50.pkl",
        sha256="d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
        shapes=((50, 768), (50, 5), (50, 20)),
        tools="BERT / COVAREP subset / FACET",
    ),
    StandardFile(
        **MOSI,
        alignment="unaligned",
        path="MOSI/Processed/unaligned_50.pkl",
        sha256="78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
        shapes=((50, 768), (375, 5), (500, 20)),
        tools="BERT / COVAREP subset / FACET",
    ),
    StandardFile(
        **MOSEI,
        alignment="aligned",
        path="MOSEI/Processed/aligned_50.pkl",
        sha256="45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
        shapes=((50, 768), (50, 74), (50, 35)),
        tools="BERT / COVAREP / FACET",
    ),
    StandardFile(
        **MOSEI,
        alignment="unaligned",
        path="MOSEI/Processed/unaligned_50.pkl",
        sha256="ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
        shapes=((50, 768), (500, 74), (500, 35)),
        tools="BERT / COVAREP / FACET",
    ),
    StandardFile(
        name="sims",
        family="sims",
        utterances=(1368, 456, 457),
        alignment="unaligned",
        path="SIMS/Processed/unaligned_39.pkl",
        sha256="c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f",
        shapes=((39, 768), (400, 33), (55, 709)),
        tools="BERT / librosa / OpenFace 2",
    ),
)
NAMES = tuple(dict.fromkeys(f.name for f in STANDARD_FILES))


def feature_file(path: str | Path) -> Path:
    """The path, if a file is there. Raises FileNotFoundError saying what is there instead."""
    path = Path(path).expanduser()
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise FileNotFoundError(f"{path} is {what}; wanted a feature file (MMSA, MMSA-FET or MulT pickle)")
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


def places(file: StandardFile, folder: Path) -> tuple[Path, ...]:
    """Where a standard file may lie in a user's folder: MMSA's layout, or the data set's own folder."""
    upper = file.name.upper()
    found = [folder / file.path, folder / upper / file.file]
    # A bare aligned_50.pkl may be MOSI's or MOSEI's, so the folder's own name has to say which.
    same_name = [f for f in STANDARD_FILES if f.file == file.file]
    if len(same_name) == 1 or upper in (folder.name.upper(), folder.parent.name.upper()):
        found += [folder / "Processed" / file.file, folder / file.file]
    return tuple(found)


def missing_message(name: str, looked: Sequence[Path]) -> str:
    """What to tell a user whose folder lacks a data set: where was looked, what is wanted, where it is."""
    wanted = [f"  {f.path}  SHA-256 {f.sha256}" for f in files_of(name)]
    return "\n".join(
        [f"no feature file of {name!r} found. Looked at:"]
        + [f"  {p}" for p in looked]
        + ["Wanted one of:" if len(wanted) > 1 else "Wanted:"]
        + wanted
        + ["Get it from one of these and keep its folders:"]
        + [f"  {s}" for s in SOURCES]
        + ["or run without a data folder: synthetic data need no files."]
    )
