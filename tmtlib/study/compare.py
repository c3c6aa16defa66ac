"""Compares two studies' CSV tables: rows in any order, words exactly, numbers to `TOLERANCE`."""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from tmtlib import common
from tmtlib.study.provenance import commit

TOLERANCE = 1e-5  # relative, and absolute below 1
KEYS = (  # columns that identify a row; all others are compared
    *("dataset", "source", "alignment", "method", "regime", "when", "seed", "epoch", "kind", "what", "level"),
    *("modality", "metric", "emotion", "measure", "statistic", "before", "after", "claim", "block", "order", "pair"),
    *("scene", "replaced_by", "effect", "learning_rate", "batch_size", "protocol", "trial", "frames", "select_by"),
)
# Not compared: differs from run to run, or repeats numbers of other columns
LEFT_OUT = (
    *("seconds", "peak_memory_mb", "device", "torch", "commit", "run_id", "time", "trained", "extra_time", "evidence"),
)
RATIOS = re.compile(r"p|p_.*|d_z|share.*|seeds_needed")


class Difference(NamedTuple):
    """A cell that differs; column "row" or "file" where one side lacks it."""

    file: str
    row: str
    column: str
    before: str
    after: str


def tables_in(folder: Path) -> dict[str, str]:
    """CSV text of a folder by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.csv"))}


def read_tables(folder: Path) -> dict[str, str]:
    """`tables_in` a folder. Raises FileNotFoundError where there is none."""
    files = tables_in(folder)
    if not files:
        raise FileNotFoundError(f"no tables (*.csv) in {folder}")
    return files


def reference_tables(folder: Path, data: set[str]) -> dict[str, str]:
    """CSV text by file name to compare a results folder with: the committed tables of the same profile (the folder's
    name) on data of these SHA-256, or none; outside a checkout of this repository, the folder's present files."""
    if commit() == "unknown":
        return tables_in(folder)
    done = subprocess.run(["git", "archive", "HEAD", "results"], cwd=common.ROOT, capture_output=True)
    if done.returncode != 0:
        return {}
    studies: dict[PurePosixPath, dict[str, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.parent.name == folder.name and path.suffix in (".csv", ".json"):
                studies.setdefault(path.parent, {})[path.name] = tar.extractfile(member).read().decode()
    return next((files for files in studies.values() if data_hashes(files.pop("provenance.json", "")) == data), {})


def data_hashes(provenance: str) -> set[str]:
    """SHA-256 of the data that a `provenance.json` names; empty for invalid text."""
    try:
        return {card["sha256"] for card in json.loads(provenance)["data"]}
    except (ValueError, KeyError, TypeError):
        return set()


def compare(
    before: Mapping[str, str],
    after: Mapping[str, str],
    left_out: Collection[str] = LEFT_OUT,
    tolerance: float = TOLERANCE,
    of_ratios: float = TOLERANCE,
) -> tuple[list[Difference], int]:
    """Differences of two sets of tables (CSV text by file name), and the number of equal rows. Columns `left_out` are
    not compared; `of_ratios` is the tolerance of `RATIOS`, which rounding of what they are made from moves most."""
    differences, equal = [], 0
    for file in sorted(before.keys() | after.keys()):
        if file not in before or file not in after:
            sides = ["there" if file in files else "missing" for files in (before, after)]
            differences.append(Difference(file, "", "file", *sides))
            continue
        old, new = _rows(before[file], left_out), _rows(after[file], left_out)
        for key in dict.fromkeys([*old, *new]):
            cells = _cells(old.get(key), new.get(key), tolerance, of_ratios)
            differences += [Difference(file, " ".join(filter(None, key)), *cell) for cell in cells]
            equal += not cells
    return differences, equal


def _rows(text: str, left_out: Collection[str]) -> dict[tuple, dict[str, str]]:
    """Compared cells by column, for each row key; repeated keys are numbered."""
    if not text.strip():
        return {}
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    left_out = [*left_out, *(("low", "high") if "extra_time" in table else ())]
    table = table.drop(columns=[name for name in left_out if name in table])
    keys = [name for name in KEYS if name in table] or list(table.columns[:1])
    repeats = table.groupby(keys, sort=False).cumcount().map(lambda n: f"({n + 1})" if n else "")
    index = zip(*(table[name] for name in keys), repeats, strict=True)
    return dict(zip(index, table.drop(columns=keys).to_dict("records"), strict=True))


def _cells(old: dict[str, str] | None, new: dict[str, str] | None, *tolerances: float) -> list[tuple[str, str, str]]:
    """Column, old and new value of each cell that differs between two rows; None for a missing row."""
    if old is None or new is None:
        return [("row", "missing" if old is None else "there", "missing" if new is None else "there")]
    pairs = [(name, old.get(name, "no column"), new.get(name, "no column")) for name in dict.fromkeys([*old, *new])]
    return [(name, a, b) for name, a, b in pairs if not same(a, b, tolerances[bool(RATIOS.fullmatch(name))])]


def same(a: str, b: str, tolerance: float = TOLERANCE) -> bool:
    """Whether two cells are the same text, or numbers that differ by no more than `tolerance`."""
    try:
        return a == b or abs(float(a) - float(b)) <= tolerance * max(1.0, abs(float(a)), abs(float(b)))
    except ValueError:  # not numbers
        return False


def summary(differences: list[Difference], equal: int, name: str = "the committed tables") -> str:
    """One line where all rows agree; else a line a file: how many cells differ, and the first of them."""
    if not differences:
        return f"All {equal} rows agree with {name} (numbers to {TOLERANCE:g})."
    files = [d.file for d in differences]
    lines = [f"{len(files)} differences from {name} in {len({*files})} files (by {TOLERANCE:g}); {equal} rows agree:"]
    for file in dict.fromkeys(files):
        _, row, column, *values = differences[files.index(file)]
        lines.append(f"  {files.count(file):>5} {file}: {row + ', ' if row else ''}{column} {' -> '.join(values)}")
    return "\n".join(lines)
