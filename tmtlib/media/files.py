"""Reading files of a user: tables, and what is said of what cannot be read."""

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from tmtlib.data.guard import reading
from tmtlib.data.schema import DataError

MOST_COLUMNS = 1000  # with the commas in texts
WANTED = "CSV with commas, in UTF-8, and a text that has commas in quotes"


def check_file(path: str | Path, wanted: str = "a clip, such as .mp4") -> None:
    """Raises FileNotFoundError for no file, DataError for a folder and for a file without content."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; wanted {wanted}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; wanted {wanted}, its path relative to the table")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes); wanted {wanted}: copy or download it again")


def read_csv(path: str | Path, kinds: Mapping[str, type] | type) -> pd.DataFrame:
    """A table with commas, UTF-8; an empty field is NaN. Raises FileNotFoundError, DataError for anything else, more
    than `MOST_COLUMNS`, and a row with more fields than the first line, whose values would stand in other columns."""
    with reading(path, WANTED), open(path, "rb") as file:
        if (columns := max((line.count(b",") + 1 for line in file), default=0)) > MOST_COLUMNS:
            raise DataError(f"{path} has a line of {columns} fields; wanted at most {MOST_COLUMNS}")
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            how = {"keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig", "index_col": False}
            return pd.read_csv(path, dtype=kinds, **how)
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#04x}"
        raise DataError(f"{path} is not in UTF-8 (found {found}); save it as CSV, UTF-8") from None
    except (ValueError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path} is no table ({' '.join(str(error).split()):.200}); wanted {WANTED}") from None


def undecodable(path: str | Path, reason: object) -> DataError:
    """The error for a clip of which FFmpeg reads nothing, for this reason."""
    with open(path, "rb") as file:
        head = file.read(12)
    found = f"bytes that begin with {head!r}"
    if head[4:8] == b"ftyp":
        found = "an .mp4 without its index, as one that was cut short"
    elif head.lstrip()[:1] == b"<":
        found = "a web page, perhaps a download that was refused"
    wanted = "wanted a clip that ffmpeg plays: copy or download it again"
    return DataError(f"{path} cannot be decoded ({reason}); found {found}; {wanted}")


def plain_reason(error: Exception, path: str) -> str:
    """Why a clip failed, in one line: what this library says, else what the system or a package said, of which file."""
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or path} cannot be read ({error.strerror}); wanted a file that you may read"
    said = " ".join(str(error).split())
    if isinstance(error, (DataError, FileNotFoundError)):
        return said
    return f"{path} could not be described ({type(error).__name__}: {said}); try it alone, or leave it out"


def versions(*packages: str) -> str:
    """Packages with their installed versions."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
