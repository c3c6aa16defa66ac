"""What the AMW paper's text settles without training. Accuracies are fractions, "_pp" columns percentage points."""

from fractions import Fraction
from itertools import product
from math import ceil, exp, floor
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from tmtlib.paper import facts
from tmtlib.paper.facts import DATASETS, METHODS, METRICS, TEST_SIZES, published_pairs, table1_value
from tmtlib.stats.statistics import mcnemar_p


class AdamBound(NamedTuple):
    """Largest move of a weight from 0, and the softmax range over modalities that this allows."""

    move: float
    lowest_weight: float
    highest_weight: float


def counts(printed: str, n: int, truncated: bool = False) -> tuple[int, int] | None:
    """Smallest and largest k whose k/n prints as `printed` (ties either way), or None: GRIM (Brown & Heathers 2017)."""
    value, unit = Fraction(printed), Fraction(1, 10 ** len(printed.partition(".")[2]))
    low = ceil((value if truncated else value - unit / 2) * n)
    high = ceil((value + unit) * n) - 1 if truncated else floor((value + unit / 2) * n)
    return (low, high) if low <= high else None


def accuracy_cells() -> list[facts.Cell]:
    """The accuracies of Table 1 and those in the text, with other digits."""
    return [c for c in facts.TABLE1 if c.metric == "acc5"] + list(facts.REPRINTED)


def whole_utterances() -> pd.DataFrame:
    """Whether each printed accuracy is k/n of the test utterances, rounded or truncated.

    Columns: dataset, method, place, printed, n, low and high (smallest and largest k), truncated_low, truncated_high,
    runs (smallest number of runs whose mean can print these digits), grim. The final zeros of the text may be padding.
    """
    rows = []
    for cell in accuracy_cells():
        n = TEST_SIZES[cell.dataset]
        low, high = counts(cell.printed, n) or (None, None)
        ends = low, high, *(counts(cell.printed, n, truncated=True) or (None, None))
        runs = next(r for r in range(1, 1000) if counts(cell.printed, r * n))
        grim = f"cannot be k/{n}" if low is None else "unique" if low == high else "possible"
        rows.append((cell.dataset, cell.method, cell.place, cell.printed, n, *ends, runs, grim))
    ends = ["low", "high", "truncated_low", "truncated_high"]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "place", "printed", "n", *ends, "runs", "grim"])
    return frame.astype(dict.fromkeys(ends, "Int64"))


def utterance_gains() -> pd.DataFrame:
    """The accuracy gain TMT -> TMT+AMW in test utterances for each printing: dataset, place, n, gain_low, gain_high.

    Where no k/n prints as given, k is the two whole numbers around the printed value.
    """
    ranges = {}
    for cell in accuracy_cells():
        n = TEST_SIZES[cell.dataset]
        exact = Fraction(cell.printed) * n
        around = counts(cell.printed, n) or (floor(exact), ceil(exact))
        ranges.setdefault((cell.dataset, cell.place, n), []).append(around)
    rows = [(*key, after[0] - before[1], after[1] - before[0]) for key, (before, after) in ranges.items()]
    return pd.DataFrame(rows, columns=["dataset", "place", "n", "gain_low", "gain_high"])


def most_discordant(gain: int, alpha: float = 0.05) -> int | None:
    """Largest number of discordant pairs at which a net gain has exact McNemar p < alpha; None if none."""
    pairs, best = gain, None
    while gain > 0 and mcnemar_p((pairs + gain) // 2, (pairs - gain) // 2) < alpha:
        pairs, best = pairs + 2, pairs  # p grows with the number of discordant pairs
    return best


def mcnemar_bound() -> pd.DataFrame:
    """Whether the printed gains could reach p < .05 in an exact McNemar test of two single runs.

    Columns of `utterance_gains`, smallest_p (two-sided p of gain_high if all discordant pairs favour it; 1 for a loss),
    discordant_low and discordant_high (largest numbers of discordant pairs at which gain_low and gain_high are
    significant), share (discordant_high / n).
    """
    frame = utterance_gains()
    frame["smallest_p"] = [mcnemar_p(max(gain, 0), 0) for gain in frame["gain_high"]]
    for end in ("low", "high"):
        frame[f"discordant_{end}"] = pd.array([most_discordant(g) for g in frame[f"gain_{end}"]], "Int64")
    return frame.assign(share=frame["discordant_high"].astype("Float64") / frame["n"])


def improvement(dataset: str, metric: str) -> float:
    """Table 1's change from TMT to TMT+AMW, positive for better (fractions; mae as printed)."""
    before, after = (table1_value(dataset, method, metric) for method in METHODS)
    return facts.BETTER[metric] * (after - before)


def column_coincidence() -> pd.DataFrame:
    """Per row of Table 1: dataset, method, acc5, mae, and whether the two are printed alike (coincide)."""
    table = pd.DataFrame(facts.TABLE1).pivot(index=["dataset", "method"], columns="metric", values="printed")
    frame = table.loc[list(product(DATASETS, METHODS)), ["acc5", "mae"]].rename_axis(columns=None).reset_index()
    return frame.assign(coincide=frame["acc5"] == frame["mae"])


def sampling_noise() -> pd.DataFrame:
    """95 % half-width (normal approximation, percentage points) of TMT's printed Acc-5 on one test set."""
    rows = [(d, TEST_SIZES[d], table1_value(d, "tmt", "acc5"), 100 * improvement(d, "acc5")) for d in DATASETS]
    frame = pd.DataFrame(rows, columns=["dataset", "n", "acc5", "gain_pp"])
    error = np.sqrt(frame["acc5"] * (1 - frame["acc5"]) / frame["n"])
    return frame.assign(half_width_pp=100 * norm.ppf(0.975) * error)


def mae_line(drop_constant: bool = True) -> pd.DataFrame:
    """MAE predicted at the paper's Acc-5 by the least-squares line through MMSA's (Acc-5, MAE) pairs.

    residual_sd has n - 2 degrees of freedom; z = (mae - predicted) / residual_sd; z_prediction adds the line's
    uncertainty; `inside`: the Acc-5 lies within the published range. In label units; the paper names no unit of MAE.
    """
    pairs, lines = published_pairs(), []
    for dataset in DATASETS:
        points = pairs[(pairs["dataset"] == dataset) & ~(pairs["constant"] & drop_constant)]
        x, y = points["acc5"].to_numpy(), points["mae"].to_numpy()
        slope, intercept = np.polyfit(x, y, 1)
        sd = np.sqrt(np.sum((y - intercept - slope * x) ** 2) / (len(x) - 2))
        line = {"models": len(x), "intercept": intercept, "slope": slope, "r": np.corrcoef(x, y)[0, 1]}
        frame = pd.DataFrame({"dataset": dataset, "method": METHODS, **line, "residual_sd": sd})
        for metric in ("acc5", "mae"):
            frame[metric] = [table1_value(dataset, method, metric) for method in METHODS]
        widening = np.sqrt(1 + 1 / len(x) + (frame["acc5"] - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
        frame["predicted"] = intercept + slope * frame["acc5"]
        frame["z"] = (frame["mae"] - frame["predicted"]) / sd
        lines.append(frame.assign(z_prediction=frame["z"] / widening, inside=frame["acc5"].between(x.min(), x.max())))
    return pd.concat(lines, ignore_index=True)


def f1_above_accuracy() -> pd.DataFrame:
    """F1 - Acc-5 per row (excess_pp), and F1 with the arguments of a weighted F1 swapped: 2 Acc-5 - F1 (f1_if_swapped).

    For the identity see `metrics.f1`. The released TMT (cug-ygh/TMT at e0c6a2b) swaps them; the paper does not say.
    """
    rows = [(d, m, table1_value(d, m, "acc5"), table1_value(d, m, "f1")) for d in DATASETS for m in METHODS]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "acc5", "f1"])
    excess = 100 * (frame["f1"] - frame["acc5"])
    return frame.assign(excess_pp=excess, f1_if_swapped=2 * frame["acc5"] - frame["f1"])


def adam_bound(learning_rate: float, steps: int, modalities: int = 3) -> AdamBound:
    """How far Adam moves a weight from 0 in `steps` steps, and the resulting softmax range over modalities.

    With gradients of one sign and size each step is the learning rate (Kingma & Ba 2015, section 2.1; their bound for
    sparse gradients is 3.2 times as much). At the extremes one weight is at one end of [-move, move], all others at the
    other.
    """
    move = learning_rate * steps
    return AdamBound(move, *(1 / (1 + (modalities - 1) * exp(gap)) for gap in (2 * move, -2 * move)))


def weight_budget() -> pd.DataFrame:
    """`adam_bound` for each data set at the paper's budget, all epochs and the last small batch included."""
    batch, epochs, rate = 64, 30, 1e-4
    frame = pd.DataFrame([(d, sizes[0]) for d, sizes in facts.SPLIT_SIZES.items()], columns=["dataset", "train_size"])
    frame["steps"] = [ceil(size / batch) * epochs for size in frame["train_size"]]
    return frame.join(pd.DataFrame([adam_bound(rate, steps) for steps in frame["steps"]]))


def seeds_needed(sd: float, delta: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds per method for a difference delta at seed noise sd: 15.7 sd^2 / delta^2 by default (independent groups)."""
    return ceil(2 * ((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * sd / delta) ** 2)


def seed_budget() -> pd.DataFrame:
    """Seeds per method that the paper's gains need at published seed noise; units as in Table 1."""
    rows = []
    for noise in facts.read_toml("seed_noise.toml")["noise"]:
        sd = noise["sd"] if "sd" in noise else float(np.std(noise["percent"], ddof=1)) / 100
        gain = improvement(noise["dataset"], noise["metric"])
        rows.append((noise["dataset"], noise["metric"], gain, sd, seeds_needed(sd, gain), noise["source"]))
    return pd.DataFrame(rows, columns=["dataset", "metric", "gain", "seed_sd", "seeds", "source"])


def text_checks() -> pd.DataFrame:
    """Statements settled by reading. Columns: quote, check, outcome."""
    return pd.DataFrame(facts.read_toml("readings.toml")["check"], columns=["quote", "check", "outcome"])


def arithmetic_verdicts() -> pd.DataFrame:
    """Verdicts on claims that need no training. Columns: claim, quote, place, verdict, evidence, rules."""
    read = {key: (v["verdict"], v["evidence"]) for key, v in facts.read_toml("readings.toml")["verdict"].items()}
    static = "impossible as written", "The weights are the softmax of a parameter: the same for every input."
    judged = read | _computed() | {c.key: static for c in facts.CLAIMS if c.rule == "weights_static"}
    rows = [(c.key, c.quote, c.place, *judged[c.key], facts.RULES) for c in facts.CLAIMS if c.key in judged]
    return pd.DataFrame(rows, columns=["claim", "quote", "place", "verdict", "evidence", "rules"])


def _computed() -> dict[str, tuple[str, str]]:
    """Verdict and evidence of the "arithmetic" claims that follow from Table 1 and published numbers."""
    better = {(d, m): improvement(d, m) for d in DATASETS for m in METRICS}
    worse = [f"{d} {m}" for (d, m), change in better.items() if change <= 0]
    largest = all(better["mosei", m] == max(better[d, m] for d in DATASETS) for m in METRICS)
    bound = mcnemar_bound()
    beyond = bound[(bound["place"] == facts.ANALYSIS) & (bound["smallest_p"] >= 0.05)]
    p = ", ".join(f"{row.dataset} {row.smallest_p:.3f}" for row in beyond.itertuples()) or "none"
    same = column_coincidence().query("dataset == 'sims'")["coincide"].all()
    alike = f"CH-SIMS MAE and Acc-5 printed alike: {'yes' if same else 'no'}."
    reach = (f"{b.dataset} {b.lowest_weight:.2f} to {b.highest_weight:.2f}" for b in weight_budget().itertuples())
    weights = "No learned weight is printed. From 1/3, at the rate stated for training, Adam reaches "
    judged = {  # whether a claim is supported (None: cannot tell) and the evidence
        "all_metrics": (not worse, f"Printed as not improving: {', '.join(worse) or 'none'}."),
        "significant": (beyond.empty, f"No pairing reaches p < .05 (exact McNemar, one run, three digits): {p}."),
        "largest_on_mosei": (largest, "Printed changes of Acc-5, F1 and MAE, compared by data set."),
        "sims_mae": (None if same else better["sims", "mae"] < 0, alike),
        "sims_mae_rise": (None, alike),
        "earlier_methods": _earlier_methods(),
        "emphasis": (None, f"{weights}{', '.join(reach)}."),
    }
    verdicts = {True: "supported", False: "not supported", None: "cannot tell"}
    return {key: (verdicts[supported], evidence) for key, (supported, evidence) in judged.items()}


def _earlier_methods() -> tuple[bool, str]:
    """TMT's printed Acc-5 against published means of other models, whose text features differ."""
    pairs = published_pairs()
    higher = pairs["acc5"] > [table1_value(d, "tmt", "acc5") for d in pairs["dataset"]]
    tally = higher.groupby(pairs["dataset"]).agg(["sum", "size"])
    counted = ", ".join(f"{d} {tally.at[d, 'sum']} of {tally.at[d, 'size']}" for d in DATASETS)
    return not higher.any(), f"Models in MMSA's list with a higher Acc-5: {counted}."
