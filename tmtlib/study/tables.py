"""Tables from `rows`: one row a run (`runs.ensure`) or trivial baseline (`trivial_baselines.rows`), with dataset,
source, alignment, method and a column for each metric of the data set."""

import math

import pandas as pd

from tmtlib.data.schema import dataset_title
from tmtlib.paper.facts import PAPER_METRICS, printed
from tmtlib.stats import metrics
from tmtlib.stats.statistics import adjusted_p, over_seeds, paired_p
from tmtlib.study.methods import method_title, method_titles

METRICS = tuple(metrics.LABELS)
COLUMN_TITLES = {**metrics.LABELS, "f1_5class": "F1 (5-class)", "f1_macro": "F1 (3-class, macro)", "mae": "MAE"}
KEYS = ["dataset", "source", "alignment", "method"]
TABLE1_COLUMNS = [*KEYS, "metric", "mean", "sd", "n", "low", "high", "p_adjusted", "paper"]
BASELINE = "tmt"  # what p_adjusted compares with


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 in long form: one row a data set, method and metric, in `TABLE1_COLUMNS`.

    mean, sd (ddof 1; NaN for one run), low, high (95 % t interval of the mean): over n runs; accuracies, F1 and Corr
    are fractions, MAE is in label units. p_adjusted: paired t test against TMT on the seeds of both, Benjamini-Hochberg
    over the table; NaN for TMT, fewer than two such seeds, and differences without spread. paper: the printed value for
    the data set of that name, or NaN. A metric undefined in some run has no row, but a NaN MAE (failed training) has.
    """
    cell, pair = [*KEYS, "metric"], rows["seed"] if "seed" in rows else rows.groupby(KEYS).cumcount()
    values = rows.assign(pair=pair).melt([*KEYS, "pair"], [m for m in METRICS if m in rows], "metric", "value")
    runs = {names: group.set_index("pair")["value"] for names, group in values.groupby(cell, sort=False)}
    table = over_seeds(values, cell, "value", skipna=False)
    table["sd"] = [group.std() for group in runs.values()]
    table["p"] = [_p(group, runs.get((*names[:3], BASELINE, names[4]))) for names, group in runs.items()]
    table = table[table["mean"].notna() | (table["metric"] == "mae")]
    places = {key: {name: i for i, name in enumerate(rows[key].unique())} for key in ("dataset", "method")}
    table = table.sort_values([*places], key=lambda names: names.map(places[names.name]), kind="stable")
    table["p_adjusted"] = adjusted_p(table["p"])
    table["paper"] = [printed(*names) for names in table[["dataset", "method", "metric"]].itertuples(index=False)]
    return table[TABLE1_COLUMNS].reset_index(drop=True)


def _p(after: pd.Series, before: pd.Series | None) -> float:
    """p of the paired t test of the runs that share an index, which is unique, or NaN."""
    if before is None or not after.index.is_unique or not before.index.is_unique:
        return math.nan
    after, before = after.align(before, join="inner")
    return math.nan if len(after) < 2 or after.isna().any() or before.isna().any() else paired_p(after, before)


SHOWN = ("acc5", "f1_5class", "mae", "corr")
SHOWN_OF_THREE = ("acc3", "f1_macro")  # first, in a table with labels of three values


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


def latex(table: pd.DataFrame) -> str:
    """Table 1 for LaTeX's booktabs: a row a method, "mean [low, high]" of each data set and metric, the best in bold.
    The oracle, which knows the truth, is best at nothing."""
    of_three = SHOWN_OF_THREE if "f1_macro" in set(table["metric"]) else ()
    cells = table[table["metric"].isin((*of_three, *SHOWN))]
    score = cells["mean"].where(~cells["metric"].isin(metrics.LOWER_IS_BETTER), -cells["mean"])
    score = score.mask(cells["method"] == "oracle")
    best = score == score.groupby([cells["dataset"], cells["metric"]]).transform("max")
    text = intervals(cells, "mean")
    shown = titled(cells).replace({"metric": COLUMN_TITLES})
    shown["text"] = text.mask(best, "\\textbf{" + text + "}")
    wide = shown.pivot(index="method", columns=["dataset", "metric"], values="text").reindex(shown["method"].unique())
    style = wide.fillna("").rename_axis(index=None, columns=(None, None)).style
    for axis in (0, 1):
        style = style.format_index(escape="latex", axis=axis)
    return style.to_latex(hrules=True, multicol_align="c")


def _wide(table: pd.DataFrame, wanted: tuple[str, ...]) -> pd.DataFrame:
    """A row a data set and method: of each metric `text`, the paper's number, and `judgement` if there is any."""
    if "f1_macro" in set(table["metric"]):
        wanted = (*SHOWN_OF_THREE, *wanted)
    cells = table[table["metric"].isin(wanted)]
    printed_cells = cells["paper"].where(cells["metric"].isin(PAPER_METRICS))
    cells = cells.assign(paper=printed_cells.map("{:.4g}".format, na_action="ignore"))
    keys, titles = ["dataset", "source", "method"], {"text": "", "paper": ", paper (real data)"}
    titles |= {"judgement": " better than TMT?"}
    n = cells.groupby(keys, sort=False)["n"].max()
    wide = cells.pivot(index=keys, columns="metric", values=[*titles]).reindex(n.index)
    columns = {
        "data": [dataset_title(*names[:2]) for names in n.index],
        "method": [method_title(m) for *_, m in n.index],
    }
    for metric in wanted:
        for value, title in titles.items():
            if (value, metric) in wide and wide[value, metric].notna().any():
                columns[COLUMN_TITLES[metric] + title] = wide[value, metric].astype(object).fillna("").to_numpy()
    return pd.DataFrame(columns | {"n": n.to_numpy()})


def intervals(frame: pd.DataFrame, mean: str, form: str = ".3f", low: str = "low", high: str = "high") -> pd.Series:
    """ "mean [low, high]" of each row; the mean alone where there is no interval, nothing where there is no mean."""
    texts = [
        "" if pd.isna(m) else f"{m:{form}}" + ("" if pd.isna(a) else f" [{a:{form}}, {b:{form}}]")
        for m, a, b in frame[[mean, low, high]].itertuples(index=False)
    ]
    return pd.Series(texts, index=frame.index, dtype=object)


def titled(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with titles of data sets and methods, without the column `source`."""
    names = [dataset_title(*pair) for pair in zip(frame["dataset"], frame["source"], strict=True)]
    named = frame.assign(dataset=names).drop(columns="source")
    return named.replace({"method": method_titles()}) if "method" in named else named
