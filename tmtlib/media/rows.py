"""A CSV file of a user's as a frame."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tmtlib.data.guard import reading
from tmtlib.data.schema import DataError

MOST_COLUMNS = 100


def read_rows(path: str | Path, kinds: Mapping[str, type] | type, **cells) -> pd.DataFrame:
    """The rows of a CSV file, in UTF-8; `kinds` by column. Raises FileNotFoundError, DataError for another file."""
    with reading(path, "a table: CSV with commas, in UTF-8"):
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            columns, first = next(lines, []), next(lines, [])
        if not len(first) <= len(columns) <= MOST_COLUMNS:
            found = f"{path} has {len(columns)} columns and {len(first)} values in its first row"
            raise DataError(f"{found}; wanted a value a column, of at most {MOST_COLUMNS}")
        return pd.read_csv(path, dtype=kinds, encoding="utf-8-sig", **cells)
