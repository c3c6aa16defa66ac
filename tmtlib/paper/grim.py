"""The printed accuracies as whole numbers of test utterances, and what exact tests could make of their differences.

`tmtlib.paper.audit` has these functions among its own.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pandas as pd

from tmtlib.paper import facts
from tmtlib.paper.facts import TEST_SIZES
from tmtlib.stats.significance import mcnemar_p


def counts(printed: str, n: int, truncated: bool = False) -> tuple[int, int] | None:
    """Smallest and largest k whose k/n prints as `printed`, or None: the GRIM test (Brown & Heathers 2017).

    Exact fractions; a tie counts as printed both up and down.
    """
    value, unit = Fraction(printed), Fraction(1, 10 ** len(printed.partition(".")[2]))
    if truncated:
        low, high = ceil(value * n), ceil((value + unit) * n) - 1
    else:
        low, high = ceil((value - unit / 2) * n), floor((value + unit / 2) * n)
    return (low, high) if low <= high else None


def accuracy_cells() -> list[facts.Cell]:
    """The accuracies of Table 1 and their second and third printing in the text, with other digits."""
    return [c for c in facts.TABLE1 if c.metric == "acc5"] + list(facts.REPRINTED)


def whole_utterances() -> pd.DataFrame:
    """Whether each printed accuracy is a whole number of test utterances over n, rounded or truncated.

    low and high are the smallest and largest such number; `runs` is the smallest number of runs whose mean
    accuracy can print these digits (1: a single run can). The final zeros of the text may be padding.
    """
    rows = []
    for cell in accuracy_cells():
        n = TEST_SIZES[cell.dataset]
        rounded, cut = (counts(cell.printed, n, truncated) for truncated in (False, True))
        runs = next(r for r in range(1, 1000) if counts(cell.printed, r * n))
        verdict = "possible" if rounded is None or rounded[0] < rounded[1] else "unique"
        row = (cell.dataset, cell.method, cell.place, cell.printed, n, *(rounded or (None, None)))
        rows.append((*row, *(cut or (None, None)), runs, verdict if rounded else f"cannot be k/{n}"))
    columns = "dataset method place printed n low high truncated_low truncated_high runs grim".split()
    return pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in columns[5:9]})


def utterance_gains() -> pd.DataFrame:
    """The accuracy gain TMT -> TMT+AMW in test utterances, smallest and largest, for each printing.

    Where no k/n prints as given, the two whole numbers around the printed value stand in.
    """
    ranges = {}
    for cell in accuracy_cells():
        exact = Fraction(cell.printed) * TEST_SIZES[cell.dataset]
        around = counts(cell.printed, TEST_SIZES[cell.dataset]) or (floor(exact), ceil(exact))
        ranges.setdefault((cell.dataset, cell.place), []).append(around)
    rows = [
        (dataset, place, TEST_SIZES[dataset], after[0] - before[1], after[1] - before[0])
        for (dataset, place), (before, after) in ranges.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "place", "n", "gain_low", "gain_high"])


def smallest_p(gain: int) -> float:
    """Smallest two-sided exact McNemar p of a net gain of utterances: all discordant pairs favour it."""
    return mcnemar_p(gain, 0) if gain > 0 else 1.0


def most_discordant(gain: int, alpha: float = 0.05) -> int | None:
    """Largest number of discordant pairs at which a net gain has exact McNemar p < alpha; None if none."""
    pairs, best = gain, None
    while gain > 0 and mcnemar_p((pairs + gain) // 2, (pairs - gain) // 2) < alpha:
        pairs, best = pairs + 2, pairs  # the p of a fixed net gain only grows with the discordant pairs
    return best


def mcnemar_bound() -> pd.DataFrame:
    """Could the printed accuracy gains reach p < .05 in an exact McNemar test of two single runs?

    smallest_p belongs to gain_high. discordant_low and discordant_high hold the largest number of discordant
    pairs at which gain_low and gain_high are significant; share is discordant_high over n.
    """
    frame = utterance_gains()
    frame["smallest_p"] = [smallest_p(gain) for gain in frame["gain_high"]]
    for end in ("low", "high"):
        frame[f"discordant_{end}"] = pd.array([most_discordant(g) for g in frame[f"gain_{end}"]], "Int64")
    return frame.assign(share=frame["discordant_high"].astype("Float64") / frame["n"])
