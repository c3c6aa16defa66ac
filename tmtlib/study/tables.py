"""Tables from rows of runs: pure functions of DataFrames.

`rows` below means what `ensure` and `floors.rows` return: one row a run (or floor) with dataset, source, alignment,
method and a column for each metric that is defined for the data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import PAPER_METRICS, printed
from tmtlib.paper.verdicts import CONFIDENCE
from tmtlib.stats import metrics
from tmtlib.stats.statistics import adjusted_p, paired_p, t_interval
from tmtlib.study.methods import method_title, method_titles

METRICS = tuple(metrics.LABELS)
KEYS = ["dataset", "source", "alignment", "method"]
TABLE1_COLUMNS = [*KEYS, "metric", "mean", "sd", "n", "low", "high", "p_adjusted", "paper"]
BASELINE = "tmt"  # what p_adjusted compares with


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 in long form: one row a data set, method and metric, in `TABLE1_COLUMNS`.

    mean and sd (ddof 1; NaN for one run) over n runs; low and high: the 95 % t interval of the mean. Accuracies, F1 and
    Corr are fractions, MAE is in label units. p_adjusted: of the paired t test against TMT on the same seeds,
    Benjamini-Hochberg over all cells of the table that are compared; NaN for TMT itself, for what has no seeds or
    others than TMT, and where differences have no spread. A metric that is not defined in some run (Corr of a constant)
    has no row; a MAE that is NaN, because a training failed, keeps its row and shows. paper: what the paper prints for
    the data set of that name, else NaN.
    """
    values = rows.assign(pair=_pairs(rows)).melt([*KEYS, "pair"], [m for m in METRICS if m in rows], "metric", "value")
    cells = {cell: some.set_index("pair")["value"] for cell, some in values.groupby([*KEYS, "metric"], sort=False)}
    found = [(*cell, *_spread(runs), _p(runs, cells, cell)) for cell, runs in cells.items()]
    table = pd.DataFrame(found, columns=[*KEYS, "metric", "mean", "sd", "n", "low", "high", "p"])
    table = table[table["mean"].notna() | (table["metric"] == "mae")]
    order = {key: list(dict.fromkeys(rows[key])) for key in ("dataset", "method")}
    position = {key: table[key].map(names.index) for key, names in order.items()}
    table = table.assign(**position).sort_values(["dataset", "method"], kind="stable")
    table = table.assign(**{key: [names[i] for i in table[key]] for key, names in order.items()})
    table["p_adjusted"] = adjusted_p(table["p"])
    table["paper"] = [printed(*cell) for cell in zip(table["dataset"], table["method"], table["metric"], strict=True)]
    return table[TABLE1_COLUMNS].reset_index(drop=True)


def _pairs(rows: pd.DataFrame) -> pd.Series:
    """What pairs runs of different methods: their seed, or without such a column their order."""
    return rows["seed"] if "seed" in rows else rows.groupby(KEYS, sort=False).cumcount()


def _spread(runs: pd.Series) -> tuple[float, float, int, float, float]:
    """mean, sd, n, low, high; mean, low and high are NaN where one of the runs is."""
    mean, sd, n = runs.mean(skipna=False), runs.std(ddof=1), len(runs)
    low, high = (math.nan, math.nan) if math.isnan(mean) else t_interval(runs, CONFIDENCE)[1:3]
    return mean, sd, n, low, high


def _p(runs: pd.Series, cells: dict[tuple, pd.Series], cell: tuple) -> float:
    """p of the paired t test of one cell against TMT's, or NaN."""
    dataset, source, alignment, method, metric = cell
    before = cells.get((dataset, source, alignment, BASELINE, metric))
    if method == BASELINE or before is None or len(runs) < 2 or set(runs.index) != set(before.index):
        return math.nan
    if runs.index.has_duplicates or before.index.has_duplicates or runs.isna().any() or before.isna().any():
        return math.nan
    return paired_p(runs, before[runs.index])


SHOWN = ("acc5", "f1_5class", "mae", "corr")


def shown(table: pd.DataFrame, wanted: tuple[str, ...] = SHOWN) -> pd.DataFrame:
    """Table 1 for people: a row a data set and method, "mean +- sd" a metric, n, and the paper's numbers beside."""
    return _wide(table, wanted, with_spread, {})


def judged(table: pd.DataFrame, differences: pd.DataFrame, wanted: tuple[str, ...] = SHOWN) -> pd.DataFrame:
    """Table 1 with its evidence: "mean [low, high]" a metric, the paper's number, and whether it is better than TMT's.

    Args:
        table: `table1`, whose low and high are 95 % t intervals of the means.
        differences: `verdicts.gains` over TMT of any methods, each with its `method`. Their verdicts and the adjusted
            p that they rest on are shown; what was not compared, such as TMT itself, has neither.
    """
    words = {
        (r.dataset, r.source, r.method, r.metric): with_p(r.verdict, r.p_adjusted) for r in differences.itertuples()
    }
    return _wide(table, wanted, with_interval, words)


def _wide(table: pd.DataFrame, wanted: tuple[str, ...], cell: Callable, verdicts: Mapping[tuple, str]) -> pd.DataFrame:
    """A row a data set and method: for each metric what `cell` makes of its row, the paper's number, and a verdict."""
    table = table[table["metric"].isin(wanted)]
    lines = []
    for (dataset, source, method), cells in table.groupby(["dataset", "source", "method"], sort=False):
        line = {"data": dataset_title(dataset, source), "method": method_title(method)}
        cells = cells.set_index("metric")
        for metric in wanted:
            line[short_label(metric)] = cell(cells, metric)
            if metric in PAPER_METRICS and metric in cells.index and pd.notna(cells.loc[metric, "paper"]):
                line[paper_label(metric)] = f"{cells.loc[metric, 'paper']:.4g}"
            if (dataset, source, method, metric) in verdicts:
                line[verdict_label(metric)] = verdicts[dataset, source, method, metric]
        lines.append(line | {"n": int(cells["n"].max())})
    frame = pd.DataFrame(lines)
    names = [x for m in wanted for x in (short_label(m), paper_label(m), verdict_label(m)) if x in frame]
    return frame[["data", "method", *names, "n"]].fillna("")


def with_spread(cells: pd.DataFrame, metric: str) -> str:
    """mean ± sd of one metric; the mean alone where there is one run, nothing where the metric is not defined."""
    if metric not in cells.index:
        return ""
    mean, sd = cells.loc[metric, ["mean", "sd"]]
    return f"{mean:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.3f}")


def with_interval(cells: pd.DataFrame, metric: str) -> str:
    """mean [low, high] of one metric; the mean alone where there is no interval, nothing where it is not defined."""
    if metric not in cells.index:
        return ""
    mean, low, high = cells.loc[metric, ["mean", "low", "high"]]
    return f"{mean:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")


def with_p(verdict: str, p: float) -> str:
    """A verdict and the adjusted p that it rests on, where there is one."""
    return verdict if math.isnan(p) else f"{verdict}, p = {p:.2g}"


def verdict_label(metric: str) -> str:
    """The column title of verdicts on a metric."""
    return f"{short_label(metric)} better than TMT?"


def paper_label(metric: str) -> str:
    """The column title of the paper's printed numbers, which are of real data, whatever stands beside them."""
    return f"{short_label(metric)}, paper (real data)"


def short_label(metric: str) -> str:
    """A metric's name as a column title."""
    return {"f1_5class": "F1 (5-class)", "mae": "MAE"}.get(metric, metrics.LABELS[metric])


def titled(frame: pd.DataFrame) -> pd.DataFrame:
    """A table for people: data sets and methods by title (synthetic data say so), without the column `source`."""
    names = [dataset_title(*pair) for pair in zip(frame["dataset"], frame["source"], strict=True)]
    named = frame.assign(dataset=names).drop(columns="source")
    return named.replace({"method": method_titles()}) if "method" in named else named
