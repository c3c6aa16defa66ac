"""The AMW paper as data: its Table 1, settings and claims, and the rules that turn evidence into verdicts.

Source: W. Yan, "Adaptive Modality Weighting For Multimodal Emotion Recognition In Token-disentangling Mutual
Transformer", AMIES 2025, AIPCP25-CF-AMIES2025-00058. Quotes are exact; `place` is the section they stand in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tmtlib.paper.claims import ANALYSIS, COMPARISON, TRAINING
from tmtlib.paper.claims import CLAIMS as CLAIMS
from tmtlib.paper.claims import Claim as Claim

DATASETS = ("sims", "mosi", "mosei")  # the order of the paper's Table 1
METHODS = ("tmt", "tmt_amw")
METRICS = ("acc5", "f1", "mae")
BETTER = {"acc5": 1, "f1": 1, "mae": -1}  # the sign of an improvement
VERDICTS = ("supported", "not supported", "cannot tell", "impossible as written")

# Train, valid, test utterances in the MMSA feature files (thuiar/MMSA README); the paper's text states none.
SPLIT_SIZES = {"sims": (1368, 456, 457), "mosi": (1284, 229, 686), "mosei": (16326, 1871, 4659)}
TEST_SIZES = {name: sizes[2] for name, sizes in SPLIT_SIZES.items()}

# What counts as evidence. Fixed before the runs that are judged by it; a change calls for new runs.
CONFIDENCE = 0.95  # of the t interval of paired seed differences
ALPHA = 0.05  # a difference counts where its Benjamini-Hochberg adjusted p, over all (data set, metric) cells, is below
EQUIVALENCE = 0.5  # an interval within +- this share of the printed change has no gain as large as half of it
CONTROLS = {  # weightings without learning: what they gain too is no merit of learned weights
    "tmt_uniform": "uniform weights",
    "tmt_random": "random weights",
}


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
    """One setting of the paper's training; value None and quote "" where the text leaves it open."""

    name: str
    value: str | None
    quote: str = ""
    place: str = TRAINING


_ROWS = (
    ("sims", "tmt", "0.4726", "0.5156", "0.4726"),
    ("sims", "tmt_amw", "0.477", "0.5173", "0.477"),
    ("mosi", "tmt", "0.43", "0.489", "0.52"),
    ("mosi", "tmt_amw", "0.435", "0.492", "0.517"),
    ("mosei", "tmt", "0.53", "0.56", "0.46"),
    ("mosei", "tmt_amw", "0.537", "0.565", "0.455"),
)
TABLE1: tuple[Cell, ...] = tuple(
    Cell(dataset, method, metric, float(text), text)
    for dataset, method, *printed in _ROWS
    for metric, text in zip(METRICS, printed, strict=True)
)

# The text prints the same accuracies again with other numbers of digits.
_AGAIN = (
    (ANALYSIS, (("sims", "0.4726", "0.477"), ("mosi", "0.430", "0.435"), ("mosei", "0.530", "0.537"))),
    (COMPARISON, (("sims", "0.4726", "0.4770"), ("mosi", "0.4300", "0.4350"), ("mosei", "0.5300", "0.5370"))),
)
REPRINTED: tuple[Cell, ...] = tuple(
    Cell(dataset, method, "acc5", float(text), text, place)
    for place, rows in _AGAIN
    for dataset, *printed in rows
    for method, text in zip(METHODS, printed, strict=True)
)

# fmt: off
_STATED = (
    Setting("width", "128", "embedding dimension set to 128"),
    Setting("layers", "4", "four Transformer layers"),
    Setting("heads", "8", "eight attention heads per layer"),
    Setting("learning rate", "1e-4", "an initial learning rate of 1×10^{-4}"),
    Setting("batch size", "64", "a batch size of 64"),
    Setting("optimiser, epochs", "Adam, 30", "trained the model using the Adam optimizer for 30 epochs"),
    Setting("stopping", "validation accuracy", "an early-stopping strategy based on validation set accuracy"),
    Setting("checkpoint", "best on validation", "The model checkpoint with the best validation performance"),
    Setting("hardware", "RTX 3060 laptop", "a NVIDIA GeForce RTX 3060 laptop GPU"),
    Setting("text features", "768-d BERT-base", "a 768-dimensional representation from the BERT -base model"),
    Setting("audio features", "74-d COVAREP", "a 74-dimensional audio vector per frame"),
    Setting("vision features", "VGG-16 or ViT", "visual models such as VGG-16 or Vision Transformer (ViT)"),
)
_OPEN = (
    "seeds and number of runs", "patience of early stopping", "dropout", "learning-rate schedule",
    "weights of the loss terms", "task: five classes or regression", "unit of MAE",
    "Acc-5 on CMU-MOSI and CMU-MOSEI", "averaging and classes of F1", "split sizes",
    "initial value and learning rate of the weight matrix", "head width and feed-forward width",
    "size of the baseline", "code and software versions",
)
# fmt: on
SETTINGS: tuple[Setting, ...] = _STATED + tuple(Setting(name, None) for name in _OPEN)


def table1_value(dataset: str, method: str, metric: str) -> float | None:
    """Table 1's value (fraction; mae as printed), or None where the table has no such cell."""
    wanted = (dataset, method, metric)
    return next((c.value for c in TABLE1 if (c.dataset, c.method, c.metric) == wanted), None)


def margin(dataset: str, metric: str) -> float:
    """The largest difference that counts as none: `EQUIVALENCE` of the change that Table 1 prints, better or worse.

    For a data set that the paper does not have, the smallest of that metric's three.
    """
    changes = {
        d: abs(table1_value(d, "tmt_amw", metric) - table1_value(d, "tmt", metric)) for d in DATASETS
    }  # fractions; mae as printed
    return EQUIVALENCE * changes.get(dataset, min(changes.values()))


def gain_cells(rule: str) -> tuple[tuple[str, str], ...]:
    """The (dataset, metric) pairs that an "amw_gain:..." or "learned_gain:..." rule names; () for any other rule."""
    kind, _, named = rule.partition(":")
    if kind not in ("amw_gain", "learned_gain"):
        return ()
    datasets, metrics = (
        known if part == "all" else tuple(part.split(","))
        for part, known in zip(named.split(":"), (DATASETS, METRICS), strict=True)
    )
    return tuple((d, m) for d in datasets for m in metrics)


def interval_verdict(
    low: float, high: float, better: int = 1, p_adjusted: float = 0.0, equivalence: float = 0.0
) -> str:
    """The verdict of a 95 % interval of a paired difference; `better`, +1 or -1, is the claimed direction.

    Within +- `equivalence`: not supported, for a gain of the claimed size is excluded, however surely there is some.
    Else, where it excludes zero and `p_adjusted` is below `ALPHA`: supported in the claimed direction, not supported in
    the other. Else: cannot tell. So is an interval of no width: a few equal differences, as counts of test utterances
    can be, do not show their spread; and a p of NaN.
    """
    low, high = sorted((better * low, better * high))
    if math.isnan(low) or math.isnan(high) or math.isclose(low, high, rel_tol=1e-9):
        return "cannot tell"
    if within_margin(low, high, equivalence):
        return "not supported"
    if low <= 0 <= high or not p_adjusted < ALPHA:
        return "cannot tell"
    return "supported" if low > 0 else "not supported"


def within_margin(low: float, high: float, equivalence: float) -> bool:
    """Whether an interval has a width and lies wholly within +- `equivalence`; False where an end is NaN."""
    return -equivalence < low < high < equivalence and not math.isclose(low, high, rel_tol=1e-9)


def combined_verdict(verdicts: Iterable[str]) -> str:
    """One verdict for a claim over several cells: all must be supported, one not supported settles it."""
    found = tuple(verdicts)
    if "not supported" in found:
        return "not supported"
    return "supported" if found and set(found) == {"supported"} else "cannot tell"


# The paper's F1 has neither averaging nor classes stated; its size fits a 5-class F1, of which there are two.
PAPER_METRICS = {"acc5": "acc5", "f1_5class": "f1", "f1_5class_swapped": "f1", "mae": "mae"}


PAPER_METHODS = {"tmt": "tmt", "tmt_amw": "tmt_amw", "tmt_5class": "tmt", "tmt_amw_5class": "tmt_amw"}


def printed(dataset: str, method: str, metric: str) -> float:
    """What the paper's Table 1 prints for a cell, or NaN."""
    if method not in PAPER_METHODS or metric not in PAPER_METRICS:
        return float("nan")
    value = table1_value(dataset, PAPER_METHODS[method], PAPER_METRICS[metric])
    return float("nan") if value is None else value
