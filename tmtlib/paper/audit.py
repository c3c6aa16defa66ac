"""What the AMW paper's printed numbers and sentences settle by arithmetic and reading, without training.

Every function is pure; tables are DataFrames, accuracies are fractions, "_pp" columns percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, exp
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from tmtlib.paper import facts
from tmtlib.paper.facts import DATASETS, METHODS, METRICS, TEST_SIZES, table1_value
from tmtlib.paper.grim import accuracy_cells as accuracy_cells
from tmtlib.paper.grim import counts as counts
from tmtlib.paper.grim import mcnemar_bound
from tmtlib.paper.grim import most_discordant as most_discordant
from tmtlib.paper.grim import smallest_p as smallest_p
from tmtlib.paper.grim import utterance_gains as utterance_gains
from tmtlib.paper.grim import whole_utterances as whole_utterances
from tmtlib.paper.published import CONSTANT_ROWS as CONSTANT_ROWS
from tmtlib.paper.published import SEED_NOISE, published_pairs
from tmtlib.paper.published import TMT_SWEEP as TMT_SWEEP
from tmtlib.paper.readings import READINGS, TEXT_CHECKS


class AdamBound(NamedTuple):
    """How far a weight gets from 0, and the softmax range over modalities that this allows."""

    move: float
    lowest_weight: float
    highest_weight: float


def improvement(dataset: str, metric: str) -> float:
    """Table 1's change from TMT to TMT+AMW, positive for better (fractions; mae as printed)."""
    before, after = (table1_value(dataset, method, metric) for method in METHODS)
    return facts.BETTER[metric] * (after - before)


def column_coincidence() -> pd.DataFrame:
    """Per row of Table 1, whether MAE and Acc-5 are printed with the same digits."""
    printed = {(c.dataset, c.method, c.metric): c.printed for c in facts.TABLE1}
    rows = [(d, m, printed[d, m, "acc5"], printed[d, m, "mae"]) for d in DATASETS for m in METHODS]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "acc5", "mae"])
    return frame.assign(coincide=frame["acc5"] == frame["mae"])


def sampling_noise() -> pd.DataFrame:
    """95 % half-width (normal approximation, percentage points) of TMT's printed Acc-5 on one test set."""
    frame = pd.DataFrame({"dataset": DATASETS, "n": [TEST_SIZES[d] for d in DATASETS]})
    frame["acc5"] = [table1_value(d, "tmt", "acc5") for d in DATASETS]
    frame["gain_pp"] = [100 * improvement(d, "acc5") for d in DATASETS]
    error = np.sqrt(frame["acc5"] * (1 - frame["acc5"]) / frame["n"])
    return frame.assign(half_width_pp=100 * norm.ppf(0.975) * error)


def mae_line(drop_constant: bool = True) -> pd.DataFrame:
    """MAE predicted at the paper's Acc-5 by the least-squares line through MMSA's (Acc-5, MAE) pairs.

    residual_sd has n - 2 degrees of freedom; z = (mae - predicted) / residual_sd; z_prediction adds the
    line's own uncertainty; `inside`: the Acc-5 lies within the published range. All in label units: a MAE on
    class indices or rescaled labels would not be comparable, and the paper names no unit.
    """
    pairs, rows = published_pairs(), []
    for dataset in DATASETS:
        some = pairs[(pairs["dataset"] == dataset) & ~(pairs["constant"] & drop_constant)]
        x, y = some["acc5"].to_numpy(), some["mae"].to_numpy()
        slope, intercept = np.polyfit(x, y, 1)
        sd = np.sqrt(np.sum((y - intercept - slope * x) ** 2) / (len(x) - 2))
        for method in METHODS:
            at, mae = (table1_value(dataset, method, metric) for metric in ("acc5", "mae"))
            widening = np.sqrt(1 + 1 / len(x) + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
            z = (mae - intercept - slope * at) / sd
            fit = (len(x), intercept, slope, np.corrcoef(x, y)[0, 1], sd)
            here = (at, mae, intercept + slope * at, z, z / widening, x.min() <= at <= x.max())
            rows.append((dataset, method, *fit, *here))
    columns = "dataset method models intercept slope r residual_sd acc5 mae predicted z z_prediction inside"
    return pd.DataFrame(rows, columns=columns.split())


def f1_above_accuracy() -> pd.DataFrame:
    """F1 - Acc-5 per row (pp), and what F1 would be had the arguments of a weighted F1 been exchanged.

    On one set of predictions weighted F1(true, predicted) + F1(predicted, true) = 2 accuracy, so
    f1_if_swapped = 2 Acc-5 - F1. The released TMT (cug-ygh/TMT at e0c6a2b) exchanges them, as did MMSA before
    its issue 17; which order the paper used is not stated.
    """
    rows = [(d, m, table1_value(d, m, "acc5"), table1_value(d, m, "f1")) for d in DATASETS for m in METHODS]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "acc5", "f1"])
    excess = 100 * (frame["f1"] - frame["acc5"])
    return frame.assign(excess_pp=excess, f1_if_swapped=2 * frame["acc5"] - frame["f1"])


def adam_bound(learning_rate: float, steps: int, modalities: int = 3) -> AdamBound:
    """How far Adam moves a weight from 0 in `steps` steps, and the softmax range over modalities then.

    With gradients of one sign and size each step is the learning rate (Kingma & Ba 2015, section 2.1; their
    bound for sparse gradients, (1 - beta1) / sqrt(1 - beta2), is 3.2 times as much). The extremes have one
    modality's weight at one end of [-move, move] and all others at the other end.
    """
    move = learning_rate * steps
    return AdamBound(move, *(1 / (1 + (modalities - 1) * exp(sign * 2 * move)) for sign in (1, -1)))


def weight_budget(
    train_sizes: Mapping[str, int] | None = None, batch: int = 64, epochs: int = 30, lr: float = 1e-4
) -> pd.DataFrame:
    """`adam_bound` at the paper's budget for each data set, all epochs run and the last small batch kept."""
    sizes = train_sizes or {name: split[0] for name, split in facts.SPLIT_SIZES.items()}
    steps = {name: ceil(size / batch) * epochs for name, size in sizes.items()}
    rows = [(name, size, steps[name], *adam_bound(lr, steps[name])) for name, size in sizes.items()]
    return pd.DataFrame(rows, columns=["dataset", "train_size", "steps", *AdamBound._fields])


def seeds_needed(sd: float, delta: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds per method to find a mean difference delta at seed noise sd: n = 15.7 sd^2 / delta^2 by default.

    Two-sided normal approximation for two independent groups; pairing by seed needs fewer if seeds correlate.
    """
    return ceil(2 * ((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * sd / delta) ** 2)


def seed_budget() -> pd.DataFrame:
    """Seeds per method that the paper's gains would need at published seed noise; units as in Table 1."""
    rows = [
        (
            dataset,
            metric,
            improvement(dataset, metric),
            sd,
            seeds_needed(sd, improvement(dataset, metric)),
            source,
        )
        for dataset, metric, sd, source in SEED_NOISE
    ]
    return pd.DataFrame(rows, columns=["dataset", "metric", "gain", "seed_sd", "seeds", "source"])


def text_checks() -> pd.DataFrame:
    """Statements that reading alone settles: an exact quote, what it was compared with, and the outcome."""
    return pd.DataFrame(TEXT_CHECKS, columns=["quote", "check", "outcome"])


def _readings() -> dict[str, tuple[str, str]]:
    """Verdict and evidence for each claim with rule "arithmetic"."""
    better = {(d, m): improvement(d, m) for d in DATASETS for m in METRICS}
    worse = [f"{d} {m}" for (d, m), change in better.items() if change <= 0]
    largest = all(better["mosei", m] == max(better[d, m] for d in DATASETS) for m in METRICS)
    bound = mcnemar_bound()
    beyond = bound[(bound["place"] == facts.ANALYSIS) & (bound["smallest_p"] >= 0.05)]
    p = ", ".join(f"{row.dataset} {row.smallest_p:.3f}" for row in beyond.itertuples())
    same = column_coincidence().query("dataset == 'sims'")["coincide"].all()
    alike = f"CH-SIMS MAE and Acc-5 printed alike: {'yes' if same else 'no'}."
    yes = {True: "supported", False: "not supported"}
    # fmt: off
    return READINGS | {
        "all_metrics": (yes[not worse], f"Printed as not improving: {', '.join(worse) or 'none'}."),
        "significant": (yes[beyond.empty],
                        f"No pairing reaches p < .05 (exact McNemar, one run, three digits): {p or 'none'}."),
        "largest_on_mosei": (yes[largest], "Printed changes of Acc-5, F1 and MAE, compared by data set."),
        "sims_mae": ("cannot tell" if same else yes[better["sims", "mae"] < 0], alike),
        "sims_mae_rise": ("cannot tell", alike),
        "earlier_methods": _earlier_methods(),
        "emphasis": _reach(),
    }
    # fmt: on


def _earlier_methods() -> tuple[str, str]:
    """TMT's printed Acc-5 beside other models' published means; their text features are not all the same."""
    pairs = published_pairs()
    above = {
        d: int((pairs.loc[pairs["dataset"] == d, "acc5"] > table1_value(d, "tmt", "acc5")).sum()) for d in DATASETS
    }
    sizes = pairs.groupby("dataset").size()
    counted = ", ".join(f"{d} {above[d]} of {sizes[d]}" for d in DATASETS)
    return "not supported" if any(
        above.values()
    ) else "supported", f"Models in MMSA's list with a higher Acc-5: {counted}."


def _reach() -> tuple[str, str]:
    """How far the weights can get at the paper's rate, were it theirs: no evidence for or against an order."""
    rows = weight_budget().itertuples()
    reach = ", ".join(f"{row.dataset} {row.lowest_weight:.2f} to {row.highest_weight:.2f}" for row in rows)
    return (
        "cannot tell",
        f"No learned weight is printed. From 1/3, at the rate stated for training, Adam reaches {reach}.",
    )


def arithmetic_verdicts() -> pd.DataFrame:
    """Verdicts on the claims that need no training: those with rule "arithmetic" or "weights_static"."""
    readings = _readings()
    static = (
        "impossible as written",
        "The weights are the softmax of a parameter: the same for every input.",
    )
    rows = [
        (c.key, c.quote, c.place, *(static if c.rule == "weights_static" else readings[c.key]))
        for c in facts.CLAIMS
        if c.rule in ("arithmetic", "weights_static")
    ]
    return pd.DataFrame(rows, columns=["claim", "quote", "place", "verdict", "evidence"])
