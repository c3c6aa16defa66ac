"""Rules that turn evidence into verdicts, and a verdict for each claim of the paper.

Rules are fixed before the runs they judge: whoever changes a rule or threshold raises
`facts.RULES_VERSION`, sets its date, and makes new runs.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper import audit, facts
from tmtlib.paper.facts import RULES
from tmtlib.stats import statistics
from tmtlib.stats.metrics import LABELS
from tmtlib.stats.statistics import UNDEFINED, Interval, t_interval

CONFIDENCE = 0.95  # of the t interval of paired seed differences
ALPHA = 0.05  # for the Benjamini-Hochberg adjusted p over all (data set, metric) cells
LEAST = 0.01  # of a weight, or of a normalised entropy: a smaller change counts as none
EQUIVALENCE = 0.5  # an interval within +- this share of the printed change counts as no gain
CONTROLS = {"tmt_uniform": "uniform weights", "tmt_random": "random weights"}  # weights that are not learned

COLUMNS = ["claim", "quote", "place", "verdict", "evidence", "source", "rules"]
GAIN_COLUMNS = "dataset source metric difference low high n p p_adjusted d_z mde margin verdict rules".split()
OUR_METRICS = {"acc5": "acc5", "f1": "f1_5class", "mae": "mae"}  # by the paper's name
MUTUAL_BLOCKS = ("specific_from_shared", "shared_from_specific")  # the attention that the paper calls sharper


def margin(dataset: str, metric: str) -> float:
    """`EQUIVALENCE` times the change in Table 1; for data sets without one, the smallest of that metric's three."""
    changes = {d: abs(audit.improvement(d, metric)) for d in facts.DATASETS}  # fractions; mae as printed
    return EQUIVALENCE * changes.get(dataset, min(changes.values()))


def interval_verdict(
    low: float, high: float, better: int = 1, p_adjusted: float = 0.0, equivalence: float = 0.0
) -> str:
    """The verdict of a 95 % interval of a paired difference; `better`, +1 or -1, is the claimed direction.

    Within +- `equivalence`: not supported. Else, if it excludes zero and `p_adjusted` < `ALPHA`: supported in the
    claimed direction, not supported in the other. Else cannot tell; also for NaN and for an interval without width (few
    equal differences, as counts of test utterances can be, do not show their spread).
    """
    low, high = sorted((better * low, better * high))
    if within_margin(low, high, equivalence):
        return "not supported"
    if not _has_width(low, high) or low <= 0 <= high or not p_adjusted < ALPHA:
        return "cannot tell"
    return "supported" if low > 0 else "not supported"


def within_margin(low: float, high: float, equivalence: float) -> bool:
    """Whether an interval has a width and lies within +- `equivalence`; False for NaN."""
    return _has_width(low, high) and -equivalence < low < high < equivalence


def _has_width(low: float, high: float) -> bool:
    return low < high and not math.isclose(low, high, rel_tol=1e-9)


def combined_verdict(verdicts: Iterable[str]) -> str:
    """Over several cells: supported if all are, not supported if any is not, else cannot tell."""
    distinct = set(verdicts)
    if "not supported" in distinct:
        return "not supported"
    return "supported" if distinct == {"supported"} else "cannot tell"


def claims(
    rows: pd.DataFrame,
    areas: pd.DataFrame,
    extra_parameters: int,
    extra_time: Interval,
    attention: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """All claims. Columns: claim, quote, place, verdict, evidence, source ("paper", "synthetic" or "real"), rules.

    Args:
        rows: one row a run of "tmt", "tmt_amw" and, where they ran, `CONTROLS`, as `study.runs.ensure` returns them.
        areas: area under the noise curves of the same runs, see `analysis.robustness.area_under_curve`.
        extra_parameters, extra_time: of TMT+AMW beyond TMT, see `analysis.costs`.
        attention: attention entropy of the same runs, see `analysis.attention.table`; None: cannot tell.
    """
    by_rule = {"sharpness": sharpness_verdict(attention), "parameters": _overhead(extra_parameters, extra_time)}
    from_runs = {c.key: by_rule[c.rule] for c in facts.CLAIMS if c.rule in by_rule}
    from_runs |= gain_verdicts(rows) | noise_verdicts(areas)
    judgements = {key: (*judgement, rows["source"].iloc[0]) for key, judgement in from_runs.items()}
    judgements |= {c.claim: (c.verdict, c.evidence, "paper") for c in audit.arithmetic_verdicts().itertuples()}
    table = [(c.key, c.quote, c.place, *judgements[c.key], RULES) for c in facts.CLAIMS]
    return pd.DataFrame(table, columns=COLUMNS)


def gain_verdicts(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Verdict and evidence of each "amw_gain" or "learned_gain" claim, by key."""
    cells = gain_cells(rows)
    return {c.key: (judged(cells[c.key], c.rule), _evidence(cells[c.key])) for c in facts.CLAIMS if c.key in cells}


def gain_cells(rows: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The cells of `gains` of each such claim, by key and by the method that TMT+AMW is compared with."""
    compared = {before: gains(rows, before=before) for before in ("tmt", *CONTROLS)}
    rules = {claim.rule for claim in facts.CLAIMS if facts.gain_cells(claim.rule)}
    by_rule = {rule: {before: _within(frame, rule) for before, frame in compared.items()} for rule in rules}
    return {claim.key: by_rule[claim.rule] for claim in facts.CLAIMS if claim.rule in rules}


def noise_verdicts(areas: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """As `gain_verdicts` for "noise" and "learned_noise" claims, from areas under noise curves."""
    compared = {before: noise_gains(areas, before=before) for before in ("tmt", *CONTROLS)}
    ruled = (c for c in facts.CLAIMS if c.rule in ("noise", "learned_noise"))
    return {c.key: (judged(compared, c.rule), _evidence(compared)) for c in ruled}


def sharpness_verdict(attention: pd.DataFrame | None) -> tuple[str, str]:
    """Verdict and evidence on sharper attention with AMW, in both halves of the mutual transformer on every data set.

    Cannot tell without measurements, where a control is as sharp or was not run, and for a single data set.
    """
    if attention is None or not len(attention):
        return "cannot tell", "No attention distribution, entropy or map is printed, and none was measured here."
    in_mutual = attention["block"].isin(MUTUAL_BLOCKS) & (attention["regime"] == "clean")
    measured = attention[in_mutual & attention["difference"].notna()]
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
    """One verdict over all cells; "learned_..." rules also need a gain over each control (not run: cannot tell)."""
    verdicts = list(compared["tmt"]["verdict"])
    for control in CONTROLS if rule.startswith("learned") else ():
        verdicts += list(compared[control]["verdict"])
        if len(compared[control]) != len(compared["tmt"]):
            verdicts.append("cannot tell")
    if ":all:" in rule and compared["tmt"]["dataset"].nunique() < 2:
        verdicts.append("cannot tell")  # one data set cannot support what is said of several
    return combined_verdict(verdicts)


def gains(
    rows: pd.DataFrame, rule: str = "amw_gain:all:all", before: str = "tmt", after: str = "tmt_amw"
) -> pd.DataFrame:
    """Paired differences `after` minus `before` over seeds for the cells that a rule names ("all": of every data set).

    A data set without runs of both methods has no cells. Columns: dataset, source, metric, difference, low, high (95 %
    t interval over seeds), n, p (paired t test), p_adjusted (Benjamini-Hochberg over all data sets of `rows` and the
    paper's metrics, whatever the rule names), d_z (difference over the sd of differences), mde (smallest difference
    that n such seeds find with power .8), margin (see `margin`), verdict (of "better") and rules (`RULES`).
    """
    return _within(_compared(rows, OUR_METRICS, before, after), rule)


def noise_gains(areas: pd.DataFrame, before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """As `gains`, for the area under the MAE curve (a mean MAE) with noise on all modalities."""
    rows = areas[areas["modality"] == "all"]
    return _compared(rows.assign(mae=rows["area"]), {"mae": "mae"}, before, after)


def _compared(rows: pd.DataFrame, metrics: Mapping[str, str], before: str, after: str) -> pd.DataFrame:
    """All cells of one comparison; metrics: columns of `rows` by the paper's name."""
    cells, keys = [], ["dataset", "source", "method"]
    both = rows.loc[rows["method"].isin((before, after)), [*keys, "seed", *metrics.values()]]
    if both.duplicated([*keys, "seed"]).any():
        raise ValueError(f"two runs of one {', '.join(keys)} and seed; wanted one, to pair {after} with {before}")
    runs = {names: of_method.set_index("seed") for names, of_method in both.groupby(keys, sort=False)}
    for dataset, source in dict.fromkeys(names[:2] for names in runs):
        pair = [runs.get((dataset, source, method)) for method in (after, before)]
        if all(of_method is not None for of_method in pair):
            pair = pair[0].align(pair[1], axis=0)  # NaN where only one of the two has run
            for name, column in metrics.items():
                test = _paired(*(of_method[column].to_numpy(np.float64) for of_method in pair))
                names = {"dataset": dataset, "source": source, "metric": column, "margin": margin(dataset, name)}
                cells.append(names | test)
    frame = pd.DataFrame(cells, columns=GAIN_COLUMNS)
    frame["p_adjusted"] = statistics.adjusted_p(frame["p"])
    better = {column: facts.BETTER[name] for name, column in metrics.items()}
    frame["verdict"] = [
        interval_verdict(c.low, c.high, better[c.metric], c.p_adjusted, c.margin) for c in frame.itertuples()
    ]
    return frame.assign(rules=RULES)


def _paired(after: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """The columns of `gains` that follow from values by seed (n,); NaN where a seed is missing or has failed."""
    change, names = pd.Series(after - before), ("difference", "low", "high", "n", "p", "d_z", "mde")
    if change.isna().any():
        return dict(zip(names, UNDEFINED._replace(n=len(change)), strict=False))
    tests = statistics.paired_p(after, before), statistics.cohen_dz(after, before)
    mde = statistics.minimum_detectable_effect(len(change), change.std(), alpha=ALPHA)
    return dict(zip(names, (*t_interval(change, CONFIDENCE), *tests, mde), strict=True))


def _within(frame: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The cells that a rule names; "all": its metrics on whatever data sets there are."""
    named = {(dataset, OUR_METRICS[metric]) for dataset, metric in facts.gain_cells(rule)}
    if rule.split(":")[1] == "all":
        named = {(dataset, metric) for dataset in frame["dataset"] for _, metric in named}
    kept = [cell in named for cell in zip(frame["dataset"], frame["metric"], strict=True)]
    return frame[np.array(kept, dtype=bool)].reset_index(drop=True)


def _evidence(compared: Mapping[str, pd.DataFrame]) -> str:
    """In words: differences from TMT by cell, gains within the margin, and the comparison with controls."""
    cells = compared["tmt"]
    if cells.empty:
        return "The data at hand do not include this data set."
    source, real = cells["source"].iloc[0], set(cells["dataset"]) <= set(facts.DATASETS)
    whose = "Synthetic data. " if source == "synthetic" else "" if real else "Other data than the paper's. "
    parts = [f"{whose}AMW minus TMT, n = {cells['n'].min()} seeds: {_by_data_set(cells, _change)}."]
    small = [c for c in cells.itertuples() if within_margin(c.low, c.high, c.margin)]
    if small:
        names = ", ".join(f"{dataset_title(c.dataset, c.source)} {_label(c.metric)}" for c in small)
        parts.append(f"No gain as large as half the printed one: {names}.")
    tallies = (_tally(title, compared[method]) for method, title in CONTROLS.items())
    return " ".join([*parts, f"AMW against {', against '.join(tallies)}."])


def _by_data_set(cells: pd.DataFrame, words: Callable[[NamedTuple], str]) -> str:
    """`words` of each cell, by data set."""
    groups = cells.groupby(["dataset", "source"], sort=False)
    return "; ".join(f"{dataset_title(*names)} {', '.join(map(words, of.itertuples()))}" for names, of in groups)


def _change(cell: NamedTuple) -> str:
    p = "" if math.isnan(cell.p_adjusted) else f" p {cell.p_adjusted:.2g}"
    return f"{_label(cell.metric)} {cell.difference:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]{p}"


def _tally(title: str, cells: pd.DataFrame) -> str:
    if cells.empty:
        return f"{title}: not run"
    counts = cells["verdict"].value_counts()
    better, not_better = (counts.get(verdict, 0) for verdict in ("supported", "not supported"))
    return f"{title}: a gain is supported in {better} of {len(cells)}, not supported in {not_better}"


def _label(metric: str) -> str:
    return LABELS[metric].split(",")[0].split(" (")[0]


def _overhead(parameters: int, extra: Interval) -> tuple[str, str]:
    verdict = interval_verdict(extra.low, extra.high) if parameters > 0 else "not supported"
    evidence = (
        f"{parameters} more parameters; {100 * extra.mean:+.1f} % [{100 * extra.low:+.1f}, {100 * extra.high:+.1f}] "
        f"time per training step, over {extra.n} interleaved rounds."
    )
    return verdict, evidence
