"""The AMW paper as data: its Table 1, settings and claims, and the rules that turn evidence into verdicts.

Source: W. Yan, "Adaptive Modality Weighting For Multimodal Emotion Recognition In Token-disentangling Mutual
Transformer", AMIES 2025, AIPCP25-CF-AMIES2025-00058. Quotes are exact; `place` is the section they stand in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

DATASETS = ("sims", "mosi", "mosei")  # the order of the paper's Table 1
METHODS = ("tmt", "tmt_amw")
METRICS = ("acc5", "f1", "mae")
BETTER = {"acc5": 1, "f1": 1, "mae": -1}  # the sign of an improvement
VERDICTS = ("supported", "not supported", "cannot tell", "impossible as written")

# Train, valid, test utterances in the MMSA feature files (thuiar/MMSA README); the paper's text states none.
SPLIT_SIZES = {"sims": (1368, 456, 457), "mosi": (1284, 229, 686), "mosei": (16326, 1871, 4659)}
TEST_SIZES = {name: sizes[2] for name, sizes in SPLIT_SIZES.items()}

COMPARISON = "Performance Comparison with Baseline TMT"
ANALYSIS = "Detailed Analysis on Each Dataset"
DISCUSSION = "Discussion of Experimental Findings"
TRAINING = "Implementation Details and Training Protocols"
FUSION = "Enhancement of Cross-modal Feature Fusion"
WEIGHTS = "Adaptive Modality Weight Calculation"


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


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what would count for and against it.

    rule: "arithmetic" (decidable without training), "amw_gain:<dataset>:<metric>" (paired seed differences,
    TMT+AMW minus TMT; either part may be "all"), "noise" (robustness curves), "weights_static" (the weights
    are a parameter, without input) or "parameters" (measured size and time).
    kind: "result", "mechanism", "explanation" or "cost".
    """

    key: str
    quote: str
    place: str
    kind: str
    rule: str
    supports: str
    contradicts: str


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


def _gain(key: str, quote: str, place: str, cells: str) -> Claim:
    supports = "In every cell the 95 % t interval of the paired seed differences excludes zero: better."
    contradicts = "In at least one cell that interval excludes zero: worse. Else: cannot tell."
    return Claim(key, quote, place, "result", f"amw_gain:{cells}", supports, contradicts)


def _static(key: str, quote: str, place: str) -> Claim:
    supports = "A definition in which the weights take the utterance as input."
    contradicts = "The weights are a softmax of a learned matrix alone: the same for every utterance."
    return Claim(key, quote, place, "mechanism", "weights_static", supports, contradicts)


# fmt: off
CLAIMS: tuple[Claim, ...] = (
    _gain("gain_everywhere", "approach consistently enhances emotion recognition accuracy and F1-score "
          "while reducing mean absolute error compared to the baseline TMT model", "Abstract", "all:all"),
    _gain("gain_sims", "TMT +AMW improves Acc-5 from 0.4726 to 0.4770", COMPARISON, "sims:acc5"),
    _gain("gain_mosi", "Acc-5 improves from 0.430 to 0.435, F1-score from 0.489 to 0.492, and MAE decreases "
          "from 0.520 to 0.517", ANALYSIS, "mosi:all"),
    _gain("gain_mosei", "Acc-5 increases from 0.530 to 0.537, F1-score from 0.560 to 0.565, and MAE drops "
          "from 0.460 to 0.455", ANALYSIS, "mosei:all"),
    Claim("all_metrics", "demonstrated consistent performance improvements across all metrics", "Conclusion",
          "result", "arithmetic",
          "In Table 1 all nine pairs of cells move towards better.",
          "At least one pair of cells moves towards worse."),
    Claim("significant",
          "AMW-enhanced TMT significantly improves emotion recognition accuracy and robustness",
          "Introduction", "result", "arithmetic",
          "On each data set the printed accuracy gain could reach p < .05 in an exact McNemar test.",
          "On at least one data set no pairing of the predictions could reach it."),
    Claim("largest_on_mosei", "The most notable improvements are observed on the CMU-MOSEI dataset", ANALYSIS,
          "result", "arithmetic",
          "In Table 1 each metric improves most on CMU-MOSEI.",
          "Some metric improves more on another data set."),
    Claim("sims_mae_rise", "This marginal increase in error may be attributed to the relatively balanced "
          "nature of the CH-SIMS modalities", ANALYSIS, "explanation", "arithmetic",
          "The CH-SIMS MAE column differs from all others, and a measured modality balance explains it.",
          "A measured CH-SIMS MAE that falls under AMW, with a 95 % interval that excludes zero."),
    Claim("corr_omitted", "Since the datasets used for testing are identical to those used for training, "
          "correlation measures may not reflect the true generalization performance of the models", ANALYSIS,
          "explanation", "arithmetic",
          "A reason that holds for Corr and not for Acc-5, F1 and MAE of the same predictions.",
          "The reason holds for all four metrics alike."),
    Claim("sum_to_one", "for each feature dimension, the weights across all modalities sum to one", WEIGHTS,
          "mechanism", "arithmetic",
          "The normalisation named is a softmax over the modality axis.",
          "The softmax runs over another axis."),
    Claim("sharper_attention",
          "AMW leads to sharper and more focused attention distributions across modalities", FUSION,
          "mechanism", "arithmetic",
          "A number or figure with lower attention entropy with AMW than without.",
          "A number or figure with the opposite order."),
    _static("input_based", "dynamically learns modality importance based on input data and task context",
            "Overview of the AMW Mechanism"),
    _static("across_samples", "revealing the relative importance of each modality across samples",
            "Introduction"),
    _static("audio_anecdote", "AMW correctly assigned higher weights to the audio stream", DISCUSSION),
    Claim("noise_robust", "AMW enhanced classification accuracy, robustness to modality noise, and "
          "interpretability through explicit weight visualization", "Conclusion", "result", "noise",
          "The 95 % t interval of paired differences in area under noise curves excludes zero: AMW better.",
          "That interval excludes zero: AMW worse. Else: cannot tell."),
    Claim("overhead", "introduces additional parameters, which may slightly increase computational overhead",
          "Conclusion", "cost", "parameters",
          "AMW adds parameters, and the 95 % interval of its extra time per step lies above zero.",
          "AMW adds none, or that interval lies below zero. Else: cannot tell."),
)
# fmt: on


def table1_value(dataset: str, method: str, metric: str) -> float | None:
    """Table 1's value (fraction; mae as printed), or None where the table has no such cell."""
    wanted = (dataset, method, metric)
    return next((c.value for c in TABLE1 if (c.dataset, c.method, c.metric) == wanted), None)


def gain_cells(rule: str) -> tuple[tuple[str, str], ...]:
    """The (dataset, metric) pairs that an "amw_gain:<dataset>:<metric>" rule names; () for any other rule."""
    if not rule.startswith("amw_gain:"):
        return ()
    dataset, metric = rule.split(":")[1:]
    datasets = DATASETS if dataset == "all" else (dataset,)
    metrics = METRICS if metric == "all" else (metric,)
    return tuple((d, m) for d in datasets for m in metrics)


def interval_verdict(low: float, high: float, better: int = 1) -> str:
    """The verdict of a 95 % interval of a paired difference; `better`, +1 or -1, is the claimed direction.

    Excludes zero in that direction: supported; in the other: not supported; includes zero: cannot tell. So does an
    interval of no width: a few equal differences, as counts of test utterances can be, do not show their spread.
    """
    low, high = sorted((better * low, better * high))
    if math.isnan(low) or math.isnan(high) or low <= 0 <= high or math.isclose(low, high, rel_tol=1e-9):
        return "cannot tell"
    return "supported" if low > 0 else "not supported"


def combined_verdict(verdicts: Iterable[str]) -> str:
    """One verdict for a claim over several cells: all must be supported, one not supported settles it."""
    found = tuple(verdicts)
    if "not supported" in found:
        return "not supported"
    return "supported" if found and set(found) == {"supported"} else "cannot tell"
