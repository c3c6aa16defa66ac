"""The table of clips that `tmt features` describes, and the metric family of its labels.

The table has one row a clip: `id`, `path` (of the clip, relative to the table), `transcript`; for training `split`
(train, valid, test) and `label`; where known `label_T`, `label_A`, `label_V` (how words, voice and face alone are
judged) and `emotion` (a name). With `words`, the path of a CSV file with `word,start,end` in seconds, all modalities
get a frame a word (aligned); else each keeps its own clock (unaligned).
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib.data.schema import FAMILY_RANGE, SPLITS, DataError
from tmtlib.media.files import read_csv

COLUMNS = {"id", "path", "split", "transcript", "label", "label_T", "label_A", "label_V", "emotion", "words"}


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a clip table, paths made absolute. Raises FileNotFoundError; DataError for a file, columns or values
    that cannot be used, naming the first line."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder; wanted a CSV file, a row a clip")
    if not path.is_file():
        wanted = "a CSV file with the columns id, path, transcript and, for training, split and label"
        raise FileNotFoundError(f"no table {path}; wanted {wanted}")
    table = read_csv(path, dict.fromkeys(("id", "path", "split", "transcript", "emotion", "words"), str))
    if missing := {"id", "path"} - set(table):
        mend = "; it has semicolons: save it with commas" if ";" in "".join(map(str, table)) else ""
        found = ", ".join(map(str, table))
        raise DataError(f"{path} has the columns {found}; wanted {' and '.join(sorted(missing))} too{mend}")
    if unknown := set(table) - COLUMNS:
        raise DataError(f"{path} has the columns {', '.join(sorted(unknown))}; known are {', '.join(sorted(COLUMNS))}")
    lacking = {"split", "label"} - set(table)
    if len(lacking) == 1:
        raise DataError(f"{path} has no column {lacking.pop()}; for training it needs both split and label")
    if table.empty:
        raise DataError(f"{path} has no rows; wanted one a clip")
    for column, (good, wanted) in _checked(table, path.parent).items():
        if not good.all():
            i, bad = int(np.flatnonzero(~good)[0]), int((~good).sum())
            found = f"{column} is {table[column].tolist()[i]!r} in line {i + 2}"
            raise DataError(f"{path}: {found}; wanted {wanted} ({bad} of {len(table)} rows cannot be used)")
    for column in {"path", "words"} & set(table):
        table[column] = [os.path.abspath(os.path.join(path.parent, p)) for p in table[column]]
    return table.assign(transcript=table["transcript"].fillna("") if "transcript" in table else "")


def _checked(table: pd.DataFrame, folder: Path) -> dict[str, tuple[pd.Series, str]]:
    """By column which values can be used, and what is wanted."""
    checks = {"id": (table["id"].notna() & ~table["id"].duplicated(), "an id, each once")}
    checks |= {
        column: (table[column].map(partial(_may_be_file, folder)), "a path of a file")
        for column in ("path", "words")
        if column in table
    }
    if "emotion" in table:
        checks["emotion"] = table["emotion"].notna(), "the name of an emotion"
    if "split" in table:
        checks["split"] = table["split"].isin(SPLITS), ", ".join(SPLITS)
    for column in [c for c in ("label", "label_T", "label_A", "label_V") if c in table]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        usable = numbers.abs() <= 3 if column == "label" else (numbers.abs() <= 3) | table[column].isna()
        checks[column] = usable, "a number in -3..3, or -1..1"
    return checks


def _may_be_file(folder: Path, path: object) -> bool:
    """Whether a cell names a file, a folder or nothing that is there: to open a pipe or device may never end."""
    if not isinstance(path, str) or "\0" in path:
        return False
    there = os.path.join(folder, path)
    return os.path.isfile(there) or os.path.isdir(there) or not os.path.exists(there)


def label_family(rows: pd.DataFrame, family: str | None) -> str:
    """The metric family of the labels; "mosi" without any. Raises DataError for labels in no family's range, and for a
    split without clips."""
    if "label" not in rows:
        return family or "mosi"
    low, high = rows["label"].min(), rows["label"].max()
    fitting = [name for name in ("sims", "mosi") if FAMILY_RANGE[name][0] <= low and high <= FAMILY_RANGE[name][1]]
    if not fitting or (family and family not in fitting):
        wanted = " or ".join(f"{a:g}..{b:g} ({name})" for name, (a, b) in FAMILY_RANGE.items())
        which = f", and the family is {family}" if family else ""
        raise DataError(f"labels span {low:g}..{high:g}{which}; wanted {wanted}: rescale them")
    if empty := [s for s in SPLITS if s not in set(rows["split"])]:
        raise DataError(f"no clip in split {' and '.join(empty)}; train, valid and test all need clips")
    return family or fitting[0]
