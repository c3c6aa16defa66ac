"""The AMW paper as data: Table 1, settings and claims, and published numbers to compare with.

W. Yan, "Adaptive Modality Weighting For Multimodal Emotion Recognition In Token-disentangling Mutual Transformer",
AMIES 2025, AIPCP25-CF-AMIES2025-00058. Quotes are exact; `place` is their section.
"""

import tomllib
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from tmtlib.stats.metrics import LOWER_IS_BETTER

FOLDER = Path(__file__).parent
ANALYSIS = "Detailed Analysis on Each Dataset"
TRAINING = "Implementation Details and Training Protocols"

DATASETS = ("sims", "mosi", "mosei")  # the order of the paper's Table 1
METHODS = ("tmt", "tmt_amw")
METRICS = ("acc5", "f1", "mae")
BETTER = {m: -1 if m in LOWER_IS_BETTER else 1 for m in METRICS}  # the sign of an improvement
RULES_VERSION = 3  # of the rules that give verdicts (paper/verdicts.py)
RULES_DATE = "2026-11-26"  # of the last change of a rule or threshold
RULES = f"v{RULES_VERSION}, {RULES_DATE}"  # as tables of verdicts state it
VERDICTS = "supported,not supported,no practical difference,cannot tell,withheld,impossible as written".split(",")

# The paper's names of our metrics. Its F1 is not defined; by its size it is one of the two 5-class F1
PAPER_METRICS = {"acc5": "acc5", "f1_5class": "f1", "f1_5class_swapped": "f1", "mae": "mae"}

# Train, valid, test utterances in the MMSA feature files (thuiar/MMSA README); the paper's text states none.
SPLIT_SIZES = {"sims": (1368, 456, 457), "mosi": (1284, 229, 686), "mosei": (16326, 1871, 4659)}
# Facts of the three corpora that a source at hand states (column `source`); what none states is left out
CORPORA = pd.read_csv(FOLDER / "corpora.csv", dtype=str)
TEST_SIZES = {name: sizes[2] for name, sizes in SPLIT_SIZES.items()}


@dataclass(frozen=True)
class Cell:
    """One printed result: acc5 and f1 as fractions, mae without a stated unit; `printed` keeps the digits."""

    dataset: str
    method: str
    metric: str
    value: float
    printed: str
    place: str = "Table 1"


@dataclass(frozen=True)
class Setting:
    """One training setting; value None and quote "" where the paper does not state it."""

    name: str
    value: str | None
    quote: str = ""
    place: str = TRAINING


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, with criteria for and against; kinds, rules and measured tables: see claims.toml."""

    key: str
    quote: str
    place: str
    kind: str
    rule: str
    supports: str
    contradicts: str
    measured: tuple[str, ...] = ()


def read_toml(name: str) -> dict:
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))


_ROWS = pd.read_csv(FOLDER / "table1.csv", dtype=str).to_dict("records")
_CELLS = [Cell(value=float(row["printed"]), **row) for row in _ROWS]
TABLE1 = tuple(c for c in _CELLS if c.place == "Table 1")
REPRINTED = tuple(c for c in _CELLS if c.place != "Table 1")  # the same accuracies, in the text, with other digits
_VALUES = {(c.dataset, c.method, c.metric): c.value for c in TABLE1}

_CRITERIA = read_toml("claims.toml")["criteria"]  # by rule, for claims that do not state their own
_CLAIMS = [c | {"measured": tuple(c.get("measured", ()))} for c in read_toml("claims.toml")["claim"]]
CLAIMS = tuple(Claim(**_CRITERIA.get(c["rule"].split(":")[0], {}) | c) for c in _CLAIMS)
SETTINGS = tuple(Setting(**s) for s in read_toml("settings.toml")["setting"])
SETTINGS += tuple(Setting(name, None) for name in read_toml("settings.toml")["not_stated"])


def table1_value(dataset: str, method: str, metric: str) -> float | None:
    """Table 1's value (fraction; mae as printed), or None."""
    return _VALUES.get((dataset, method, metric))


def printed(dataset: str, method: str, metric: str) -> float:
    """Table 1's value for our method (its five-class twin, "..._5class", counts as the method) and metric, or NaN."""
    return _VALUES.get((dataset, method.removesuffix("_5class"), PAPER_METRICS.get(metric, "")), float("nan"))


def gain_cells(rule: str) -> tuple[tuple[str, str], ...]:
    """The (dataset, metric) pairs of an "amw_gain:..." or "learned_gain:..." rule; () for another."""
    kind, _, cells = rule.partition(":")
    if kind not in ("amw_gain", "learned_gain"):
        return ()
    parts = zip(cells.split(":"), (DATASETS, METRICS), strict=True)
    return tuple(product(*(every if part == "all" else part.split(",") for part, every in parts)))


def published_pairs() -> pd.DataFrame:
    """Published (Acc-5, MAE) pairs. Columns: dataset, model, acc5 (fraction), mae (label units), constant."""
    pairs = pd.read_csv(FOLDER / "published.csv", comment="#")
    return pairs.assign(acc5=pairs["acc5_percent"] / 100)[["dataset", "model", "acc5", "mae", "constant"]]
