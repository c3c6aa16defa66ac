"""CSV and TSV tables of features as MMSA's arrays: a row an utterance, features named by modality, no other columns."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tmtlib.data.guard import Room
from tmtlib.data.layouts import SPLIT_NAMES
from tmtlib.data.mmsa_split import UNIMODAL, Note
from tmtlib.data.schema import SPLITS, DataError

PREFIXES = {"text": ("text_",), "audio": ("audio_", "acoustic_"), "vision": ("vision_", "visual_")}
MOST_COLUMNS = 5_000
NO_FEATURE = ("_id", "_label", "_length", "_lengths", "_path")  # ends of names
TEXTS = {"mode": "split", "text": "raw_text", "transcript": "raw_text", "annotation": "annotations"}
TEXTS |= {name: name for name in ("id", "split", "raw_text", "emotion")}
NUMBERS = {"label": "regression_labels"} | {f"label_{key[-1]}": key for key in UNIMODAL.values()}
WANTED = "wanted id, split, label, transcript and features named text_..., audio_... and vision_..., a row an utterance"


def read(path: Path, file: BinaryIO) -> pd.DataFrame | None:
    """The table of a text file; None where the first line names no columns. Raises DataError for a broken table."""
    first = file.readline(1 << 20).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")
    file.seek(0)
    separator = max(",;\t", key=first.count)
    if separator not in first or first[0] in "<{[" or not first.replace("\t", "").isprintable():
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    columns = [line.count(separator.encode()) + 1 for line in file]
    file.seek(0)
    if max(columns) > MOST_COLUMNS:
        raise DataError(f"{path} has {max(columns)} columns; wanted at most {MOST_COLUMNS}")
    Room(size).take(8 * columns[0] * len(columns))
    how = {"sep": separator, "dtype": dict.fromkeys(TEXTS, str), "low_memory": False, "encoding": "utf-8-sig"}
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # of cells that would be lost
            return pd.read_csv(file, index_col=False, **how)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path} is no whole table ({error}); save it as CSV in UTF-8") from None


def as_arrays(table: pd.DataFrame, note: Note) -> dict[str, object]:
    """Arrays by MMSA's names, in a dict for each split where the table has them. Raises DataError for columns of no
    certain meaning, and for several rows of an utterance."""
    table = table.drop(columns="Unnamed: 0", errors="ignore").rename(columns=TEXTS | NUMBERS)
    if "split" in table:
        table = table.assign(split=table["split"].fillna("").str.strip().str.lower())
    features = {m: [c for c in table if c.startswith(p) and not c.endswith(NO_FEATURE)] for m, p in PREFIXES.items()}
    features = {m: names for m, names in features.items() if names}
    _check(table, sum(features.values(), []))
    read_as = ", ".join(f"{names[0]} to {names[-1]} ({len(names)}) as {m}" for m, names in features.items())
    note("a table, each row taken as an utterance", len(table), f"read {read_as}", True)

    def arrays(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        known = {name: rows[name].to_numpy() for name in (TEXTS | NUMBERS).values() if name in rows}
        return known | {m: rows[names].to_numpy(np.float32) for m, names in features.items()}

    return {s: arrays(rows) for s, rows in table.groupby("split")} if "split" in table else arrays(table)


def _check(table: pd.DataFrame, features: list[str]) -> None:
    """Raises DataError for what `as_arrays` cannot read."""
    if not features and "path" in table:
        raise DataError("this is a table of clips: tmt features FILE --out features.pkl first")
    known = {*features, *TEXTS.values(), *NUMBERS.values()}
    unknown = [name for name in table if name not in known] + [*table.columns[table.columns.duplicated()]]
    if unknown or not features:
        found = f"columns of no certain meaning, {', '.join(unknown):.80}" if unknown else "no features"
        raise DataError(f"a table with {found}; {WANTED}: rename or remove columns")
    for name in table[[*features, *({*NUMBERS.values()} & {*table})]].select_dtypes(exclude="number"):
        cells = table[name].dropna().astype(str)
        bad = cells[pd.to_numeric(cells, errors="coerce").isna()]
        raise DataError(f"{name} is {bad.iloc[0]!r} in {len(bad)} of {len(table)} rows; wanted numbers such as 0.5")
    if "split" in table and len(bad := table[~table["split"].isin((*SPLITS, *SPLIT_NAMES))]):
        raise DataError(f"split is {bad['split'].iloc[0]!r} in {len(bad)} rows; wanted train, valid, test")
    if "id" in table and len(bad := table[table.duplicated([*({"id", "split"} & {*table})])]):
        mend = "for frames save arrays (N, T, D) in a pickle or .npz"
        raise DataError(f"id {bad['id'].iloc[0]!r} has several rows; wanted one an utterance: {mend}")
