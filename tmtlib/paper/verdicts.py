"""Rules that turn evidence from runs into verdicts; `tmtlib.paper.ledger` has a verdict for each claim of the paper.

Rules are fixed before the runs they judge: whoever changes a rule or threshold raises `facts.RULES_VERSION`, sets its
date, and makes new runs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from tmtlib.data.schema import dataset_title
from tmtlib.paper import audit, facts
from tmtlib.paper.facts import RULES
from tmtlib.stats import statistics
from tmtlib.stats.metrics import LABELS

CONFIDENCE = 0.95  # of the t interval of paired seed differences
ALPHA = 0.05  # for the Benjamini-Hochberg adjusted p over all (data set, metric) cells
LEAST = 0.01  # of a weight, or of a normalised entropy: a smaller change counts as none
PRINTED_SHARE = 0.5  # of the printed change: an interval below it counts as no gain of the claimed size
PRACTICAL = {"acc5": 0.01, "f1": 0.01, "mae": 0.02}  # by the paper's name; an interval within +- this matters to no use
PRACTICAL_MAE = 0.01  # where labels do not reach from -3 to 3 (`CMU`)
CMU = ("mosi", "mosei")  # data sets whose names begin so have labels from -3 to 3
CONTROLS = {"tmt_uniform": "uniform weights", "tmt_random": "random weights"}  # weights that are not learned

CELL_COLUMNS = "dataset source metric better difference sd n margin practical".split()
GAIN_COLUMNS = (
    "dataset source metric difference low high n p p_adjusted p_below sd d_z mde seeds_needed margin practical verdict"
    " rules"
).split()
OUR_METRICS = {"acc5": "acc5", "f1": "f1_5class", "mae": "mae"}  # by the paper's name
MUTUAL_BLOCKS = ("specific_from_shared", "shared_from_specific")  # the attention that the paper calls sharper


def margin(dataset: str, metric: str) -> float:
    """`PRINTED_SHARE` times the change in Table 1; for data sets without one, the smallest of that metric's three."""
    changes = {d: abs(audit.improvement(d, metric)) for d in facts.DATASETS}  # fractions; mae as printed
    return PRINTED_SHARE * changes.get(dataset, min(changes.values()))


def practical_margin(dataset: str, metric: str) -> float:
    """The smallest difference that matters, fixed in advance: `PRACTICAL`, for other scales than CMU's less of MAE."""
    return PRACTICAL_MAE if metric == "mae" and not dataset.startswith(CMU) else PRACTICAL[metric]


def interval_verdict(
    low: float,
    high: float,
    better: int = 1,
    p_adjusted: float = 0.0,
    least: float = 0.0,
    practical: float = 0.0,
    p_below: float = 0.0,
) -> str:
    """The verdict of a 95 % interval of a paired difference; `better`, +1 or -1, is the claimed direction.

    The first that holds, in the claimed direction:
        cannot tell              NaN, or no width: few equal differences, as counts of test utterances can be, do not
                                 show their spread
        not supported            the interval lies below `least` (half the printed gain; a loss does too), and `p_below`
                                 < `ALPHA`
        supported                it lies above 0, and `p_adjusted` < `ALPHA`
        no practical difference  it lies within +- `practical`
        cannot tell              else

    A sure gain that may be of the printed size is what the paper claims: supported, even where it is too small to
    matter, as all printed gains are. `p_below`, against a gain of `least`, is adjusted as `p_adjusted`, against 0, is:
    else one cell of many that chance puts below the margin would refute a claim of all of them.
    """
    low, high = sorted((better * low, better * high))
    if not _has_width(low, high):
        return "cannot tell"
    if high < least and p_below < ALPHA:
        return "not supported"
    if low > 0 and p_adjusted < ALPHA:
        return "supported"
    return "no practical difference" if -practical < low < high < practical else "cannot tell"


def _has_width(low: float, high: float) -> bool:
    return low < high and not math.isclose(low, high, rel_tol=1e-9)


def combined_verdict(verdicts: Iterable[str]) -> str:
    """Over cells that a claim names together: the first of these that one has; supported needs all, none is open.

    not supported, no practical difference, withheld, cannot tell, supported.
    """
    distinct = set(verdicts) or {"cannot tell"}
    order = "not supported", "no practical difference", "withheld", "cannot tell", "supported"
    return next(v for v in order if v in distinct)


def unlearned(against: pd.DataFrame) -> frozenset[str]:
    """Data sets on which TMT does not surely beat the training median: of `analysis.trivial_baselines.against_constant`
    rows with dataset, method and verdict, those of "tmt" that are not "beats"."""
    return frozenset(against.loc[(against["method"] == "tmt") & (against["verdict"] != "beats"), "dataset"])


def withhold(cells: pd.DataFrame, datasets: Collection[str]) -> pd.DataFrame:
    """Cells with dataset and verdict; any verdict on one of these (`unlearned`) data sets becomes "withheld"."""
    hidden = cells["dataset"].isin(datasets) & (cells["verdict"] != "")
    return cells.assign(verdict=cells["verdict"].mask(hidden, "withheld"))


def with_power(judged: pd.DataFrame, measure: str = "") -> pd.DataFrame:
    """Rows that a 95 % t interval over n seeds judged, with `mde` beside: the smallest difference from 0 that so many
    seeds find with power .8, in the unit of the interval; NaN for one seed. measure: as in "change_low"; "": "low"."""
    low, high = (judged[f"{measure}_{end}".lstrip("_")] for end in ("low", "high"))
    sd = (high - low) / 2 * np.sqrt(judged["n"]) / t.ppf((1 + CONFIDENCE) / 2, judged["n"] - 1)
    pairs = zip(judged["n"], sd, strict=True)
    return judged.assign(mde=[statistics.minimum_detectable_effect(n, x, alpha=ALPHA) for n, x in pairs])


def gain_verdicts(
    rows: pd.DataFrame,
    swap: pd.DataFrame | None = None,
    withheld: Collection[str] = (),
    sampled: pd.DataFrame | None = None,
) -> dict[str, tuple[str, str]]:
    """Verdict and evidence of each "amw_gain" or "learned_gain" claim about data sets of `rows`, by key; see
    `gain_cells`."""
    at_hand = {key: cells for key, cells in gain_cells(rows, swap, withheld, sampled).items() if len(cells["tmt"])}
    rules = {claim.key: claim.rule for claim in facts.CLAIMS}
    return {key: (judged(cells, rules[key]), _evidence(cells)) for key, cells in at_hand.items()}


def gain_cells(
    rows: pd.DataFrame,
    swap: pd.DataFrame | None = None,
    withheld: Collection[str] = (),
    sampled: pd.DataFrame | None = None,
) -> dict[str, dict[str, pd.DataFrame]]:
    """The cells of `gains` of each such claim, by key and by the method that TMT+AMW is compared with; "swap": itself
    with uniform weights (of `swap`, see `analysis.swap.summary`). withheld: `unlearned` data sets; sampled: as for
    `gains`, with a column before."""
    compared = {}
    for before in ("tmt", *CONTROLS):
        there = None if sampled is None else sampled[sampled["before"] == before]
        compared[before] = gains(rows, before=before, sampled=there)
    if swap is not None and len(swap):
        ours = (swap["method"] == "tmt_amw") & (swap["replaced_by"] == "uniform") & (swap["regime"] == "clean")
        compared["swap"] = swap[ours]
    compared = {before: withhold(frame, withheld) for before, frame in compared.items()}
    rules = {claim.rule for claim in facts.CLAIMS if facts.gain_cells(claim.rule)}
    by_rule = {rule: {before: _within(frame, rule) for before, frame in compared.items()} for rule in rules}
    return {claim.key: by_rule[claim.rule] for claim in facts.CLAIMS if claim.rule in rules}


def noise_verdicts(areas: pd.DataFrame, withheld: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """As `gain_verdicts` for "noise" and "learned_noise" claims, from areas under noise curves."""
    compared = {b: withhold(noise_gains(areas, before=b), withheld) for b in ("tmt", *CONTROLS)}
    ruled = (c for c in facts.CLAIMS if c.rule in ("noise", "learned_noise"))
    return {c.key: (judged(compared, c.rule), _evidence(compared)) for c in ruled}


def sharpness_verdict(attention: pd.DataFrame | None, blocks: tuple[str, ...] = MUTUAL_BLOCKS) -> tuple[str, str]:
    """Verdict and evidence on sharper attention with AMW, in all `blocks` (both halves of the mutual transformer) on
    every data set; attention: as `analysis.attention.table` gives it.

    Cannot tell without measurements, where a control is as sharp or was not run, and for a single data set.
    """
    if attention is None or not len(attention):
        return "cannot tell", "No attention distribution, entropy or map is printed, and none was measured here."
    wanted = attention["block"].isin(blocks) & (attention["regime"] == "clean")
    measured = attention[wanted & attention["difference"].notna()]
    cells = measured[measured["method"] == "tmt_amw"]
    if cells.empty:
        return "cannot tell", "Attention was measured, but not both with and without AMW."
    seeds, verdicts = cells["n"].min(), list(cells["verdict"])
    evidence = f"Normalised attention entropy, AMW minus TMT, n = {seeds} seeds: {_by_data_set(cells, _half)}."
    for method, title in CONTROLS.items():
        control = measured[measured["method"] == method]
        sharper = (control["verdict"] == "supported").sum()
        if len(control):
            evidence += f" {title.capitalize()}: sharper than TMT in {sharper} of {len(control)}."
        if sharper or control.empty:  # an effect of unlearned weights is not AMW's
            verdicts.append("cannot tell")
    if cells["dataset"].nunique() < 2:
        verdicts.append("cannot tell")  # one data set cannot support what is said of several
    return combined_verdict(verdicts), evidence


def _half(cell: NamedTuple) -> str:
    interval = "" if math.isnan(cell.low) else f" [{cell.low:+.3f}, {cell.high:+.3f}]"
    return f"{cell.block.replace('_', ' ')} {cell.difference:+.3f}{interval}"


def judged(compared: Mapping[str, pd.DataFrame], rule: str) -> str:
    """One verdict over all cells; "learned_..." rules also need a gain over each control (not run: cannot tell), and
    are not supported where "swap" shows that the learned values bring none of half the printed size."""
    verdicts = list(compared["tmt"]["verdict"])
    for control in CONTROLS if rule.startswith("learned") else ():
        verdicts += list(compared[control]["verdict"])
        if len(compared[control]) != len(compared["tmt"]):
            verdicts.append("cannot tell")
    if rule.startswith("learned") and "swap" in compared:
        verdicts += [v for v in compared["swap"]["verdict"] if v == "not supported"]
    if ":all:" in rule and compared["tmt"]["dataset"].nunique() < 2:
        verdicts.append("cannot tell")  # one data set cannot support what is said of several
    return combined_verdict(verdicts)


def gains(
    rows: pd.DataFrame,
    rule: str = "amw_gain:all:all",
    before: str = "tmt",
    after: str = "tmt_amw",
    sampled: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Paired differences `after` minus `before` over the seeds of both for the cells that a rule names ("all": of every
    data set).

    A data set without such seeds has no cells, nor has a metric that is not defined there. sampled: bounds of intervals
    that hold the sampling of the test set too, as `analysis.paired.sampled` gives them; low and high are then the
    outermost of both. Columns: dataset, source, metric, difference, low, high (95 % t interval over seeds), n, p
    (paired t test), p_adjusted (Benjamini-Hochberg over all data sets of `rows` and the paper's metrics, whatever the
    rule names), p_below (twice the one-sided p against a gain of `margin`, adjusted likewise), sd (of the differences),
    d_z (difference over sd), mde (smallest difference that n such seeds find with power .8), seeds_needed (with which
    the printed gain would be found so; NaN without spread), margin, practical (see `margin`, `practical_margin`),
    verdict (of "better") and rules (`RULES`).
    """
    return _within(_compared(rows, OUR_METRICS, before, after, sampled), rule)


def family_gains(rows: pd.DataFrame, pairs: Iterable[tuple[str, str]], rule: str = "amw_gain:all:all") -> pd.DataFrame:
    """`gains` for each (after, before) of `pairs`, judged with variances pooled over methods: a row a pair and cell.

    For comparisons of many methods on few seeds. Also columns after, before, p_moderated (moderated t test, variances
    pooled over the pairs of a data set and metric, see `statistics.moderated_error`) and p_moderated_adjusted. All
    adjusted p are over the whole table. low, high and p are the ordinary t's; the verdict is the moderated one's.
    """
    parts = [gains(rows, rule, before, after).assign(after=after, before=before) for after, before in pairs]
    frame = pd.concat(parts, ignore_index=True)
    error, df = np.full((2, len(frame)), np.nan)
    for index in frame.groupby(["dataset", "source", "metric"], sort=False).indices.values():
        error[index], df[index] = statistics.moderated_error(
            frame["sd"].to_numpy()[index], frame["n"].to_numpy()[index]
        )
    names = {ours: facts.BETTER[name] for name, ours in OUR_METRICS.items()}
    moderated = _tested(frame.assign(better=frame["metric"].map(names)), error, df)
    frame["p_adjusted"] = statistics.adjusted_p(frame["p"])
    added = {"p_moderated": moderated["p"], "p_moderated_adjusted": moderated["p_adjusted"]}
    return frame.assign(**added, p_below=moderated["p_below"], verdict=moderated["verdict"])


def beyond(rows: pd.DataFrame, pairs: Iterable[tuple[str, str]], constant: pd.DataFrame) -> pd.DataFrame:
    """`family_gains` in MAE, withheld where TMT has not learned (constant: `against_constant`)."""
    return withhold(family_gains(rows, pairs, "amw_gain:all:mae"), unlearned(constant))


def noise_gains(areas: pd.DataFrame, before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """As `gains`, for the area under the MAE curve (a mean MAE) with noise on all modalities."""
    rows = areas[areas["modality"] == "all"]
    return _compared(rows.assign(mae=rows["area"]), {"mae": "mae"}, before, after)


def _compared(
    rows: pd.DataFrame, metrics: Mapping[str, str], before: str, after: str, sampled: pd.DataFrame | None = None
) -> pd.DataFrame:
    """All cells of one comparison; metrics: columns of `rows` by the paper's name."""
    cells, keys = [], ["dataset", "source", "method"]
    both = rows.loc[rows["method"].isin((before, after)), [*keys, "seed", *metrics.values()]]
    if both.duplicated([*keys, "seed"]).any():
        raise ValueError(f"two runs of one {', '.join(keys)} and seed; wanted one, to pair {after} with {before}")
    runs = {names: of_method.set_index("seed") for names, of_method in both.groupby(keys, sort=False)}
    for dataset, source in dict.fromkeys(names[:2] for names in runs):
        pair = [runs.get((dataset, source, method)) for method in (after, before)]
        if all(of_method is not None for of_method in pair):
            pair = pair[0].align(pair[1], join="inner", axis=0)
            for name, column in metrics.items():
                if all(of_method[column].isna().all() for of_method in pair):
                    continue  # not defined for these labels
                change = (pair[0][column] - pair[1][column]).astype(np.float64)
                moments = change.mean(skipna=False), change.std(skipna=False), len(change)
                margins = margin(dataset, name), practical_margin(dataset, name)
                cells.append((dataset, source, column, facts.BETTER[name], *moments, *margins))
    frame = pd.DataFrame(cells, columns=CELL_COLUMNS)
    frame = _tested(frame, frame["sd"] / np.sqrt(frame["n"].astype(float)), frame["n"] - 1, sampled)
    spread = list(zip(frame["n"], frame["sd"], frame["margin"] / PRINTED_SHARE, strict=True))
    frame["d_z"] = (frame["difference"] / frame["sd"]).where(frame["p"].notna())
    frame["mde"] = [statistics.minimum_detectable_effect(n, sd, alpha=ALPHA) for n, sd, _ in spread]
    frame["seeds_needed"] = [statistics.pairs_needed(printed, sd, alpha=ALPHA) for _, sd, printed in spread]
    return frame.assign(rules=RULES)[GAIN_COLUMNS]


def _tested(
    frame: pd.DataFrame, error: np.ndarray, df: np.ndarray, sampled: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Cells, `CELL_COLUMNS`, with low, high, p, p_adjusted, p_below and verdict at that standard error and df."""
    gain = frame["better"] * frame["difference"] - frame["margin"]
    test, below = (statistics.t_tests(mean, error, df, CONFIDENCE) for mean in (frame["difference"], gain))
    frame = frame.assign(low=test.low, high=test.high, p=test.p, p_adjusted=statistics.adjusted_p(test.p))
    frame["p_below"] = statistics.adjusted_p(np.where(gain >= 0, 1, below.p))
    if sampled is not None:
        keys = ["dataset", "source", "metric"]
        other = frame[keys].merge(sampled[[*keys, "low", "high"]], on=keys, how="left").set_index(frame.index)
        known = frame["low"].notna()
        frame["low"] = np.fmin(frame["low"], other["low"]).where(known)
        frame["high"] = np.fmax(frame["high"], other["high"]).where(known)
    frame["verdict"] = [
        interval_verdict(c.low, c.high, c.better, c.p_adjusted, c.margin, c.practical, c.p_below)
        for c in frame.itertuples()
    ]
    return frame


def _within(frame: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The cells that a rule names; "all": its metrics on whatever data sets there are."""
    named = {(dataset, OUR_METRICS[metric]) for dataset, metric in facts.gain_cells(rule)}
    if rule.split(":")[1] == "all":
        named = {(dataset, metric) for dataset in frame["dataset"] for _, metric in named}
    kept = [cell in named for cell in zip(frame["dataset"], frame["metric"], strict=True)]
    return frame[np.array(kept, dtype=bool)].reset_index(drop=True)


def _evidence(compared: Mapping[str, pd.DataFrame]) -> str:
    """In words: differences from TMT by cell, their power, decided cells, and the comparison with controls."""
    cells = compared["tmt"]
    if cells.empty:
        return "The data at hand have no runs of TMT and TMT+AMW."
    source, real = cells["source"].iloc[0], set(cells["dataset"]) <= set(facts.DATASETS)
    whose = "Synthetic data. " if source == "synthetic" else "" if real else "Other data than the paper's. "
    parts = [f"{whose}AMW minus TMT, n = {cells['n'].min()} seeds: {_by_data_set(cells, _change)}."]
    if cells["mde"].gt(0).any():
        parts.append(f"Found with power .8 (seeds for the printed gain): {_by_data_set(cells, _power)}.")
    titles = {"not supported": "No gain as large as half the printed one"}
    titles |= {"no practical difference": "No practical difference"}
    for verdict, title in titles.items():
        names = [
            f"{dataset_title(c.dataset, c.source)} {_label(c.metric)}"
            for c in cells.itertuples()
            if c.verdict == verdict
        ]
        if names:
            parts.append(f"{title}: {', '.join(names)}.")
    tallies = (_tally(title, compared[method]) for method, title in CONTROLS.items())
    parts.append(f"AMW against {', against '.join(tallies)}.")
    if len(swap := compared.get("swap", cells[:0])):
        parts.append(f"Swap test, learned weights minus 1/3 in the trained model: {_by_data_set(swap, _swapped)}.")
        parts.append(f"{_tally('By it', swap)}.")
    return " ".join(parts)


def _by_data_set(cells: pd.DataFrame, words: Callable[[NamedTuple], str]) -> str:
    """`words` of each cell, by data set."""
    groups = cells.groupby(["dataset", "source"], sort=False)
    return "; ".join(f"{dataset_title(*names)} {', '.join(map(words, of.itertuples()))}" for names, of in groups)


def _change(cell: NamedTuple) -> str:
    p = "" if math.isnan(cell.p_adjusted) else f" p {cell.p_adjusted:.2g}"
    return f"{_label(cell.metric)} {cell.difference:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]{p}"


def _swapped(cell: NamedTuple) -> str:
    return f"{_label(cell.metric)} {cell.difference:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]"


def _power(cell: NamedTuple) -> str:
    if not cell.mde > 0:
        return f"{_label(cell.metric)} unknown"
    return f"{_label(cell.metric)} {cell.mde:.3f} ({cell.seeds_needed:,.0f})"


def _tally(title: str, cells: pd.DataFrame) -> str:
    if cells.empty:
        return f"{title}: not run"
    counts = cells["verdict"].value_counts()
    better, worse, small = (counts.get(v, 0) for v in ("supported", "not supported", "no practical difference"))
    text = f"{title}: a gain is supported in {better} of {len(cells)}, not supported in {worse}"
    return f"{text}, no practical difference in {small}"


def _label(metric: str) -> str:
    return LABELS[metric].split(",")[0].split(" (")[0]
