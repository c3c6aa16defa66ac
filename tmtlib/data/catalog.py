"""The field's standard feature files: shapes, SHA-256 and download sources (`standard_files.toml`)."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tmtlib.common import as_tuples


@dataclass(frozen=True)
class StandardFile:
    name: str  # of the data set: "mosi", "mosei", "sims"
    alignment: str  # "aligned" or "unaligned"
    path: str  # below the data folder, as MMSA lays it out
    sha256: str
    family: str  # metric family: "mosi" or "sims"
    utterances: tuple[int, int, int]  # train, valid, test
    shapes: tuple[tuple[int, int], ...]  # (T, D) of text, audio, vision
    tools: str  # what extracted text / audio / vision

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[-1]


_CONTENT = tomllib.loads(Path(__file__).with_name("standard_files.toml").read_text(encoding="utf-8"))
SOURCES = tuple(_CONTENT["sources"])
STANDARD_FILES = tuple(StandardFile(**{k: as_tuples(v) for k, v in row.items()}) for row in _CONTENT["file"])
NAMES = tuple(dict.fromkeys(f.name for f in STANDARD_FILES))


def feature_file(path: str | Path) -> Path:
    """The path with `~` expanded. Raises FileNotFoundError unless it is a file."""
    path = Path(path).expanduser()
    if not path.is_file():
        place = "a folder" if path.is_dir() else "not there"
        raise FileNotFoundError(f"{path} is {place}; wanted a feature file (MMSA, MMSA-FET or MulT pickle)")
    return path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal; cached until its size or time stamp changes."""
    path = Path(path).resolve()
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(sha256: str) -> StandardFile | None:
    """The standard file with this hash, or None."""
    return next((f for f in STANDARD_FILES if f.sha256 == sha256), None)


def files_of(name: str) -> tuple[StandardFile, ...]:
    """The standard files of a data set, the preferred one first; empty for an unknown name."""
    return tuple(f for f in STANDARD_FILES if f.name == name)


def namesake(name: str, file: str) -> StandardFile | None:
    """The standard file of data set `name` with the file name `file`, or None."""
    return next((f for f in files_of(name) if f.file == file), None)


def places(file: StandardFile, folder: Path) -> tuple[Path, ...]:
    """Paths to try for a standard file in a user's folder: MMSA's layout, then the data set's folder."""
    upper = file.name.upper()
    paths = (folder / file.path, folder / upper / file.file)
    # aligned_50.pkl may be MOSI's or MOSEI's; the folder's name decides
    only_one = sum(f.file == file.file for f in STANDARD_FILES) == 1
    if only_one or upper in (folder.name.upper(), folder.parent.name.upper()):
        paths += (folder / "Processed" / file.file, folder / file.file)
    return paths


def missing_message(name: str, looked: Sequence[Path]) -> str:
    """Error text for a folder without the data set: paths tried, files wanted, download sources."""
    if name not in NAMES:
        return f"no standard file is known for {name!r} (known: {', '.join(NAMES)}); give the file's own path"
    wanted = [f"{f.path}  SHA-256 {f.sha256}" for f in files_of(name)]
    parts = {
        f"no feature file of {name!r} found. Looked at:": looked,
        "Wanted one of:" if len(wanted) > 1 else "Wanted:": wanted,
        "Get it from one of these and keep its folders:": SOURCES,
        "or give one feature file itself, or no data folder: synthetic data need no files.": (),
    }
    return "\n".join(line for title, rows in parts.items() for line in (title, *(f"  {row}" for row in rows)))
