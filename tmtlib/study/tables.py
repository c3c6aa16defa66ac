"""Tables from `rows`: one row a run (`runs.ensure`) or trivial baseline (`trivial_baselines.rows`), with dataset,
source, alignment, method and a column for each metric of the data set."""

from __future__ import annotations

import math

import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import PAPER_METRICS, printed
from tmtlib.stats import metrics
from tmtlib.stats.statistics import adjusted_p, interval_or_nan, paired_p
from tmtlib.study.methods import method_title, method_titles

METRICS = tuple(metrics.LABELS)
KEYS = ["dataset", "source", "alignment", "method"]
TABLE1_COLUMNS = [*KEYS, "metric", "mean", "sd", "n", "low", "high", "p_adjusted", "paper"]
BASELINE = "tmt"  # what p_adjusted compares with


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 in long form: one row a data set, method and metric, in `TABLE1_COLUMNS`.

    mean, sd (ddof 1; NaN for one run), low, high (95 % t interval of the mean): over n runs; accuracies, F1 and Corr
    are fractions, MAE is in label units. p_adjusted: paired t test against TMT on the same seeds, Benjamini-Hochberg
    over the table; NaN for TMT, other or no seeds, and differences without spread. paper: the printed value for the
    data set of that name, or NaN. A metric undefined in some run has no row, but a NaN MAE (failed training) has.
    """
    values = rows.assign(pair=_pairs(rows)).melt([*KEYS, "pair"], [m for m in METRICS if m in rows], "metric", "value")
    cells = {cell: group.set_index("pair")["value"] for cell, group in values.groupby([*KEYS, "metric"], sort=False)}
    records = []
    for cell, runs in cells.items():
        interval = interval_or_nan(runs, skipna=False)
        spread = (interval.mean, runs.std(ddof=1), interval.n, interval.low, interval.high)
        records.append((*cell, *spread, _p(runs, cells, cell)))
    table = pd.DataFrame(records, columns=[*KEYS, "metric", "mean", "sd", "n", "low", "high", "p"])
    table = table[table["mean"].notna() | (table["metric"] == "mae")]
    order = {key: pd.Categorical(table[key], rows[key].unique()) for key in ("dataset", "method")}
    table = table.assign(**order).sort_values(["dataset", "method"], kind="stable")
    table = table.astype(rows.dtypes[["dataset", "method"]].to_dict())
    table["p_adjusted"] = adjusted_p(table["p"])
    table["paper"] = [printed(*cell) for cell in zip(table["dataset"], table["method"], table["metric"], strict=True)]
    return table[TABLE1_COLUMNS].reset_index(drop=True)


def _pairs(rows: pd.DataFrame) -> pd.Series:
    """What pairs runs of two methods: their seed, or without that column their order."""
    return rows["seed"] if "seed" in rows else rows.groupby(KEYS, sort=False).cumcount()


def _p(runs: pd.Series, cells: dict[tuple, pd.Series], cell: tuple) -> float:
    """p of the paired t test of a cell against TMT's, or NaN."""
    dataset, source, alignment, method, metric = cell
    before = cells.get((dataset, source, alignment, BASELINE, metric))
    if method == BASELINE or before is None or len(runs) < 2 or set(runs.index) != set(before.index):
        return math.nan
    if runs.index.has_duplicates or before.index.has_duplicates or runs.isna().any() or before.isna().any():
        return math.nan
    return paired_p(runs, before[runs.index])


SHOWN = ("acc5", "f1_5class", "mae", "corr")


def shown(table: pd.DataFrame, wanted: tuple[str, ...] = SHOWN) -> pd.DataFrame:
    """Table 1 for display: a row a data set and method; "mean ± sd" a metric, n, and the paper's numbers."""
    spread = [f"{m:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.3f}") for m, sd in table[["mean", "sd"]].to_numpy()]
    return _wide(table.assign(text=spread, judgement=None), wanted)


def judged(table: pd.DataFrame, differences: pd.DataFrame, wanted: tuple[str, ...] = SHOWN) -> pd.DataFrame:
    """Table 1 with "mean [low, high]" a metric, the paper's number, and whether the method is better than TMT: verdict
    and p_adjusted of `differences`, which are `verdicts.gains` over TMT with a column `method`."""
    keys = ["dataset", "source", "method", "metric"]
    evidence = differences["p_adjusted"].map(", p = {:.2g}".format, na_action="ignore").astype(object).fillna("")
    judgements = differences[keys].assign(judgement=differences["verdict"] + evidence)
    text = intervals(table, "mean").replace("", "nan")  # a failed training shows
    return _wide(table.assign(text=text).merge(judgements, on=keys, how="left"), wanted)


def _wide(table: pd.DataFrame, wanted: tuple[str, ...]) -> pd.DataFrame:
    """A row a data set and method: of each metric `text`, the paper's number, and `judgement` if there is any."""
    cells = table[table["metric"].isin(wanted)]
    printed_cells = cells["paper"].where(cells["metric"].isin(PAPER_METRICS))
    cells = cells.assign(paper=printed_cells.map("{:.4g}".format, na_action="ignore"))
    keys = ["dataset", "source", "method"]
    wide = cells.pivot(index=keys, columns="metric", values=["text", "paper", "judgement"])
    n = cells.groupby(keys, sort=False)["n"].max()
    wide = wide.reindex(n.index)
    columns = {
        "data": [dataset_title(dataset, source) for dataset, source, _ in n.index],
        "method": [method_title(method) for *_, method in n.index],
    }
    titles = {"text": "{}", "paper": "{}, paper (real data)", "judgement": "{} better than TMT?"}
    for metric in wanted:
        for value, title in titles.items():
            if (value, metric) in wide and wide[value, metric].notna().any():
                columns[title.format(short_label(metric))] = wide[value, metric].astype(object).fillna("").to_numpy()
    return pd.DataFrame(columns | {"n": n.to_numpy()})


def intervals(frame: pd.DataFrame, mean: str, form: str = ".3f", low: str = "low", high: str = "high") -> pd.Series:
    """ "mean [low, high]" of each row; the mean alone where there is no interval, nothing where there is no mean."""
    texts = [
        "" if pd.isna(m) else f"{m:{form}}" + ("" if pd.isna(a) else f" [{a:{form}}, {b:{form}}]")
        for m, a, b in frame[[mean, low, high]].itertuples(index=False)
    ]
    return pd.Series(texts, index=frame.index, dtype=object)


def short_label(metric: str) -> str:
    """A metric's name as a column title."""
    return {"f1_5class": "F1 (5-class)", "mae": "MAE"}.get(metric, metrics.LABELS[metric])


def titled(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with titles of data sets and methods, without the column `source`."""
    names = [dataset_title(*pair) for pair in zip(frame["dataset"], frame["source"], strict=True)]
    named = frame.assign(dataset=names).drop(columns="source")
    return named.replace({"method": method_titles()}) if "method" in named else named
