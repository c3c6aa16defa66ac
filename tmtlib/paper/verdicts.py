"""A verdict for each claim of the paper, from its own text or from runs: pure functions of DataFrames."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper import audit, facts
from tmtlib.stats import significance
from tmtlib.stats.metrics import LABELS
from tmtlib.stats.statistics import Interval, paired_interval

COLUMNS = ["claim", "quote", "place", "verdict", "evidence", "source"]
GAIN_COLUMNS = "dataset source metric difference low high n p p_adjusted d_z mde margin verdict".split()
OUR_METRICS = {"acc5": "acc5", "f1": "f1_5class", "mae": "mae"}  # by the paper's name
TEXT_RULES = ("arithmetic", "weights_static")
MUTUAL = ("specific_from_shared", "shared_from_specific")  # the attention that the paper calls sharper


def claims(
    rows: pd.DataFrame,
    areas: pd.DataFrame,
    extra_parameters: int,
    extra_time: Interval,
    attention: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """All claims with verdict and evidence; source: "paper" (read or computed from it), "synthetic" or "real" data.

    Args:
        rows: one row a run of "tmt", "tmt_amw" and, where they ran, `facts.CONTROLS`, as `ensure` returns them.
        areas: area under the noise curves of the same runs, see `robustness.area_under_curve`.
        extra_parameters, extra_time: of TMT+AMW beyond TMT, see `tmtlib.analysis.costs`.
        attention: attention entropy of the same runs, see `attention.table`; without it that claim cannot be told.
    """
    source = rows["source"].iloc[0]
    read = audit.arithmetic_verdicts().set_index("claim")
    judged = gain_verdicts(rows) | noise_verdicts(areas)
    sharp = sharpness_verdict(attention)
    judged |= {c.key: sharp for c in facts.CLAIMS if c.rule == "sharpness"}
    found = []
    for claim in facts.CLAIMS:
        if claim.rule in TEXT_RULES:
            verdict, evidence, where = *read.loc[claim.key, ["verdict", "evidence"]], "paper"
        else:
            known = judged.get(claim.key)
            verdict, evidence = _overhead(extra_parameters, extra_time) if known is None else known
            where = source
        found.append((claim.key, claim.quote, claim.place, verdict, evidence, where))
    return pd.DataFrame(found, columns=COLUMNS)


def gain_verdicts(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Verdict and evidence of each claim with an "amw_gain" or "learned_gain" rule, by its key."""
    cells = gain_cells(rows)
    return {c.key: (judged(cells[c.key], c.rule), _evidence(cells[c.key])) for c in facts.CLAIMS if c.key in cells}


def gain_cells(rows: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The cells of `gains` that each such claim is about, by its key and by what TMT+AMW is compared with."""
    compared = {before: gains(rows, before=before) for before in ("tmt", *facts.CONTROLS)}
    return {
        claim.key: {before: _within(frame, claim.rule) for before, frame in compared.items()}
        for claim in facts.CLAIMS
        if facts.gain_cells(claim.rule)
    }


def noise_verdicts(areas: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The same for the claims with a "noise" or "learned_noise" rule, from areas under noise curves."""
    compared = {before: noise_gains(areas, before=before) for before in ("tmt", *facts.CONTROLS)}
    ruled = (c for c in facts.CLAIMS if c.rule in ("noise", "learned_noise"))
    return {c.key: (judged(compared, c.rule), _evidence(compared)) for c in ruled}


def sharpness_verdict(attention: pd.DataFrame | None) -> tuple[str, str]:
    """Verdict and evidence on sharper attention, from `attention.table`: with AMW in both halves of the mutual
    transformer on every data set, or not; "cannot tell" where nothing was measured, where a control with weights that
    are not learned is as sharp or was not run, and where there is one data set."""
    if attention is None or not len(attention):
        return "cannot tell", "No attention distribution, entropy or map is printed, and none was measured here."
    measured = attention[
        attention["block"].isin(MUTUAL) & (attention["regime"] == "clean") & attention["difference"].notna()
    ]
    cells, uniform, random = (measured[measured["method"] == m] for m in ("tmt_amw", "tmt_uniform", "tmt_random"))
    if cells.empty:
        return "cannot tell", "Attention was measured, but not both with and without AMW."
    parts = []
    for (dataset, source), some in cells.groupby(["dataset", "source"], sort=False):
        halves = (f"{c.block.replace('_', ' ')} {_with_interval(c)}" for c in some.itertuples())
        parts.append(f"{dataset_title(dataset, source)} {', '.join(halves)}")
    evidence = f"Normalised attention entropy, AMW minus TMT, n = {cells['n'].min()} seeds: {'; '.join(parts)}."
    found = list(cells["verdict"])
    for title, control in (("Uniform", uniform), ("Random", random)):
        if len(control):
            sharper = (control["verdict"] == "supported").sum()
            evidence += f" {title} weights: sharper than TMT in {sharper} of {len(control)}."
            # What weights bring that are not learned is not owed to AMW
            found += ["cannot tell"] * int(sharper)
        else:
            found.append("cannot tell")
    if cells["dataset"].nunique() < 2:
        found.append("cannot tell")  # one data set cannot support what is said of several
    return facts.combined_verdict(found), evidence


def _with_interval(cell) -> str:
    interval = "" if math.isnan(cell.low) else f" [{cell.low:+.3f}, {cell.high:+.3f}]"
    return f"{cell.difference:+.3f}{interval}"


def judged(compared: Mapping[str, pd.DataFrame], rule: str) -> str:
    """One verdict over all cells of a comparison with TMT.

    What learned weights are said to bring ("learned_..." rules) has to show over each control too; a control that was
    not run leaves that open.
    """
    found = list(compared["tmt"]["verdict"])
    for control in facts.CONTROLS if rule.startswith("learned") else ():
        verdicts = list(compared[control]["verdict"])
        found += verdicts if len(verdicts) == len(compared["tmt"]) else [*verdicts, "cannot tell"]
    if ":all:" in rule and compared["tmt"]["dataset"].nunique() < 2:
        found.append("cannot tell")  # one data set cannot support what is said of several
    return facts.combined_verdict(found)


def gains(rows: pd.DataFrame, rule: str = "amw_gain:all:all", before: str = "tmt", after: str = "tmt_amw"):
    """Paired differences `after` minus `before` over seeds for the cells that a rule names.

    "all" data sets means those in `rows`; a data set without runs of both methods has no cells. Columns: dataset,
    source, metric, difference, low, high (95 % t interval over seeds), n, p (paired t test), p_adjusted
    (Benjamini-Hochberg over all data sets of `rows` and the paper's metrics, whatever the rule names), d_z (difference
    over the sd of differences), mde (smallest difference that n such seeds find with power .8), margin (below which a
    difference counts as none, see `facts.margin`) and verdict (of "better").
    """
    frame = _compared(rows, {ours: (ours, name) for name, ours in OUR_METRICS.items()}, before, after)
    return _within(frame, rule)


def noise_gains(areas: pd.DataFrame, before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """The same for the area under the MAE curve with noise on all modalities; columns as `gains`.

    The family is the data sets. An area is a mean MAE, so the margin is that of MAE.
    """
    return _compared(areas[areas["modality"] == "all"], {"area": ("mae", "mae")}, before, after)


def _compared(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]], before: str, after: str) -> pd.DataFrame:
    """All cells of one comparison: for each column of `rows` its (name in the result, paper's name)."""
    found = []
    both = rows[rows["method"].isin((before, after))]
    for (dataset, source), some in both.groupby(["dataset", "source"], sort=False):
        if set(some["method"]) == {before, after}:
            by_seed = some.pivot(index="seed", columns="method", values=list(columns))
            for column, (shown, name) in columns.items():
                pair = (by_seed[column, method].to_numpy(np.float64) for method in (after, before))
                found.append((dataset, source, shown, *_paired(*pair), facts.margin(dataset, name)))
    frame = pd.DataFrame(found, columns=[c for c in GAIN_COLUMNS if c not in ("p_adjusted", "verdict")])
    frame["p_adjusted"] = significance.adjusted_p(frame["p"])
    better = {shown: facts.BETTER[name] for shown, name in columns.values()}
    named = zip(*(frame[c] for c in ("low", "high", "metric", "p_adjusted", "margin")), strict=True)
    frame["verdict"] = [facts.interval_verdict(low, high, better[m], p, margin) for low, high, m, p, margin in named]
    return frame[GAIN_COLUMNS]


def _paired(after: np.ndarray, before: np.ndarray) -> tuple[float, ...]:
    """difference, low, high, n, p, d_z, mde over seeds; NaN, so no verdict, where a seed is missing or has failed."""
    n = len(after)
    if np.isnan(after).any() or np.isnan(before).any():
        return (math.nan,) * 3 + (n,) + (math.nan,) * 3
    interval = paired_interval(after, before, facts.CONFIDENCE)
    sd = float(np.std(after - before, ddof=1)) if n > 1 else math.nan
    p, d_z = significance.paired_p(after, before), significance.cohen_dz(after, before)
    return *interval, p, d_z, significance.minimum_detectable_effect(n, sd, alpha=facts.ALPHA)


def _within(frame: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The cells that a rule names; "all" data sets: its metrics on whatever data sets there are."""
    wanted = {(dataset, OUR_METRICS[metric]) for dataset, metric in facts.gain_cells(rule)}
    metric_names, everywhere = {metric for _, metric in wanted}, rule.split(":")[1] == "all"
    pairs = zip(frame["dataset"], frame["metric"], strict=True)
    kept = [m in metric_names if everywhere else (d, m) in wanted for d, m in pairs]
    return frame.loc[np.array(kept, dtype=bool)].reset_index(drop=True)


def _evidence(compared: Mapping[str, pd.DataFrame]) -> str:
    """In words: every cell's difference from TMT, gains too small to count, and how it goes with the controls."""
    cells = compared["tmt"]
    if cells.empty:
        return "The data at hand do not include this data set."
    source, real = cells["source"].iloc[0], set(cells["dataset"]) <= set(facts.DATASETS)
    whose = "Synthetic data. " if source == "synthetic" else "" if real else "Other data than the paper's. "
    parts = [f"{whose}AMW minus TMT, n = {cells['n'].min()} seeds: {_in_words(cells)}."]
    if small := _without_gain(cells):
        parts.append(f"No gain as large as half the printed one: {small}.")
    tallies = (_tally(title, compared[method]) for method, title in facts.CONTROLS.items())
    return " ".join([*parts, f"AMW against {', against '.join(tallies)}."])


def _in_words(cells: pd.DataFrame) -> str:
    """Every cell's difference with its interval and adjusted p, by data set."""
    parts = []
    for (dataset, source), some in cells.groupby(["dataset", "source"], sort=False):
        changes = [
            f"{_label(c.metric)} {c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
            f"{'' if math.isnan(c.p_adjusted) else f' p {c.p_adjusted:.2g}'}"
            for c in some.itertuples()
        ]
        parts.append(f"{dataset_title(dataset, source)} {', '.join(changes)}")
    return "; ".join(parts)


def _without_gain(cells: pd.DataFrame) -> str:
    """The cells whose interval lies within the margin, as words."""
    small = [c for c in cells.itertuples() if facts.within_margin(c.low, c.high, c.margin)]
    return ", ".join(f"{dataset_title(c.dataset, c.source)} {_label(c.metric)}" for c in small)


def _tally(title: str, cells: pd.DataFrame) -> str:
    if cells.empty:
        return f"{title}: not run"
    counts = cells["verdict"].value_counts()
    better, not_better = counts.get("supported", 0), counts.get("not supported", 0)
    return f"{title}: a gain is supported in {better} of {len(cells)}, not supported in {not_better}"


def _label(metric: str) -> str:
    return LABELS[metric].split(",")[0].split(" (")[0]


def _overhead(parameters: int, extra: Interval) -> tuple[str, str]:
    verdict = facts.interval_verdict(extra.low, extra.high) if parameters > 0 else "not supported"
    evidence = (
        f"{parameters} more parameters; {100 * extra.mean:+.1f} % [{100 * extra.low:+.1f}, {100 * extra.high:+.1f}] "
        f"time per training step, over {extra.n} interleaved rounds."
    )
    return verdict, evidence
