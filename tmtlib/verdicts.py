"""A verdict for each claim of the paper, from its own text or from runs: pure functions of DataFrames."""

from __future__ import annotations

import math

import pandas as pd

from tmtlib import audit, paper
from tmtlib.data.schema import dataset_title
from tmtlib.metrics import LABELS
from tmtlib.statistics import Interval, paired_interval

COLUMNS = ["claim", "quote", "place", "verdict", "evidence", "source"]
OUR_METRICS = {"acc5": "acc5", "f1": "f1_5class", "mae": "mae"}  # by the paper's name
TEXT_RULES = ("arithmetic", "weights_static")


def claims(rows: pd.DataFrame, areas: pd.DataFrame, extra_parameters: int, extra_time: Interval) -> pd.DataFrame:
    """All claims with verdict and evidence; source: "paper" (read or computed from it), "planted" or "real" data.

    Args:
        rows: one row a run of "tmt" and "tmt_amw", as `ensure` returns them.
        areas: area under the noise curves of the same runs, see `robustness.area_under_curve`.
        extra_parameters, extra_time: of TMT+AMW beyond TMT, see `tmtlib.costs`.
    """
    source = rows["source"].iloc[0]
    read = audit.arithmetic_verdicts().set_index("claim")
    found = []
    for claim in paper.CLAIMS:
        if claim.rule in TEXT_RULES:
            verdict, evidence, where = *read.loc[claim.key, ["verdict", "evidence"]], "paper"
        else:
            if claim.rule == "noise":
                verdict, evidence = _judged(noise_gains(areas))
            elif claim.rule == "parameters":
                verdict, evidence = _overhead(extra_parameters, extra_time)
            else:
                verdict, evidence = _judged(gains(rows, claim.rule))
            where = source
        found.append((claim.key, claim.quote, claim.place, verdict, evidence, where))
    return pd.DataFrame(found, columns=COLUMNS)


def gains(rows: pd.DataFrame, rule: str = "amw_gain:all:all", before: str = "tmt", after: str = "tmt_amw"):
    """Paired differences `after` minus `before` over seeds for the cells that a rule names.

    "all" data sets means those in `rows`. Columns: dataset, source, metric, difference, low, high (95 % t interval
    over seeds), n, verdict (of "better").
    """
    metric_names = dict.fromkeys(m for _, m in paper.gain_cells(rule))
    named = rule.split(":")[1]
    found = []
    for (dataset, source), some in rows.groupby(["dataset", "source"], sort=False):
        if named not in ("all", dataset):
            continue
        for name in metric_names:
            difference = _paired(some, OUR_METRICS[name], before, after)
            found.append((dataset, source, OUR_METRICS[name], *difference, _verdict(difference, paper.BETTER[name])))
    return pd.DataFrame(found, columns=["dataset", "source", "metric", "difference", "low", "high", "n", "verdict"])


def noise_gains(areas: pd.DataFrame, before: str = "tmt", after: str = "tmt_amw") -> pd.DataFrame:
    """The same for the area under the MAE curve with noise on all modalities; columns as `gains`."""
    found = []
    for (dataset, source), some in areas[areas["modality"] == "all"].groupby(["dataset", "source"], sort=False):
        difference = _paired(some, "area", before, after)
        found.append((dataset, source, "mae", *difference, _verdict(difference, better=-1)))
    return pd.DataFrame(found, columns=["dataset", "source", "metric", "difference", "low", "high", "n", "verdict"])


def _paired(rows: pd.DataFrame, metric: str, before: str, after: str) -> Interval:
    """The paired difference over seeds; NaN, so no verdict, where a seed is missing or its training failed."""
    by_seed = rows[rows["method"].isin((before, after))].pivot(index="seed", columns="method", values=metric)
    if by_seed.isna().any(axis=None):
        return Interval(math.nan, math.nan, math.nan, len(by_seed))
    return paired_interval(by_seed[after], by_seed[before])


def _verdict(difference: Interval, better: int) -> str:
    return paper.interval_verdict(difference.low, difference.high, better)


def _judged(cells: pd.DataFrame) -> tuple[str, str]:
    """One verdict over cells, and the evidence in words: every cell's difference with its interval."""
    if cells.empty:
        return "cannot tell", "The data at hand do not include this data set."
    parts = []
    for (dataset, source), some in cells.groupby(["dataset", "source"], sort=False):
        changes = [
            f"{LABELS[c.metric].split(',')[0].split(' (')[0]} {c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"
            for c in some.itertuples()
        ]
        parts.append(f"{dataset_title(dataset, source)} {', '.join(changes)}")
    source, real = cells["source"].iloc[0], set(cells["dataset"]) <= set(paper.DATASETS)
    whose = "Planted data. " if source == "planted" else "" if real else "Other data than the paper's. "
    evidence = f"{whose}AMW minus TMT, n = {cells['n'].min()} seeds: {'; '.join(parts)}."
    return paper.combined_verdict(cells["verdict"]), evidence


def _overhead(parameters: int, extra: Interval) -> tuple[str, str]:
    verdict = _verdict(extra, better=1) if parameters > 0 else "not supported"
    evidence = (
        f"{parameters} more parameters; {100 * extra.mean:+.1f} % [{100 * extra.low:+.1f}, {100 * extra.high:+.1f}] "
        f"time per training step, over {extra.n} interleaved rounds."
    )
    return verdict, evidence
