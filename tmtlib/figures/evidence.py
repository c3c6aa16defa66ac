"""Evidence at a glance: paired differences with their intervals, and how far learned weights moved."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tmtlib.data.corruption import TITLES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    NEUTRAL,
    ONE_COLUMN,
    by_dataset,
    counted,
    legend,
    method_colour,
    method_title,
    metric_label,
    panels,
    styled,
)

SMALLER_IS_BETTER = ("mae",)


@styled
def forest(differences: pd.DataFrame) -> Figure:
    """Paired differences and their 95 % intervals: a panel a metric, a line a data set and comparison.

    Columns: dataset, source, metric, after, before (methods; the difference is after minus before), difference, low,
    high, n. Points right of zero are higher, which is better for all metrics but MAE: the axes say which way.
    """
    metrics = list(differences["metric"].unique())
    datasets, pairs = by_dataset(differences), differences[["after", "before"]].drop_duplicates()
    figure, axes = panels(1, len(metrics), height=0.16 * len(pairs) * len(datasets), extra=1.1, sharey=True)
    labels = []
    for d, here in enumerate(datasets.values()):
        for p, pair in enumerate(pairs.itertuples(index=False)):
            y = -(d * (len(pairs) + 1) + p)
            some = here[(here["after"] == pair.after) & (here["before"] == pair.before)].set_index("metric")
            for ax, metric in zip(axes[0], metrics, strict=True):
                if metric in some.index:
                    row = some.loc[metric]
                    ax.plot([row["low"], row["high"]], [y, y], color=method_colour(pair.before), linewidth=1.2)
                    ax.plot(row["difference"], y, "o", color=method_colour(pair.before), markersize=3)
        labels.append(-(d * (len(pairs) + 1) + (len(pairs) - 1) / 2))
    for ax, metric in zip(axes[0], metrics, strict=True):
        ax.axvline(0, color=NEUTRAL, linewidth=0.7)
        better = "← better" if metric in SMALLER_IS_BETTER else "better →"
        ax.set_xlabel(f"difference in {metric_label(metric)}\n{better}")
    axes[0, 0].set_yticks(labels, [dataset_title(*key) for key in datasets])
    handles = [
        Line2D(
            [],
            [],
            color=method_colour(p.before),
            marker="o",
            markersize=3,
            label=f"{method_title(p.after)} minus {method_title(p.before)}",
        )
        for p in pairs.itertuples(index=False)
    ]
    legend(figure, handles, f"lines: 95 % t intervals over paired seeds, {counted(differences['n'])}")
    return figure


@styled
def weight_reach(moved: pd.DataFrame) -> Figure:
    """The greatest |W| after training against how far Adam can move a parameter (learning rate times steps), log-log.

    moved: `weights.reach`. The line is the bound; a point on it has moved all steps in one direction.
    """
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.9), layout="constrained")
    markers = dict(zip(dict.fromkeys(moved["dataset"]), "os^Dv", strict=False))
    for row in moved.itertuples():
        colour = method_colour(row.method)
        axes.loglog(row.move_bound, row.w_max, markers[row.dataset], color=colour, markersize=5, alpha=0.8)
    span = np.array([moved["move_bound"].min() / 2, moved["move_bound"].max() * 2])
    axes.plot(span, span, color=NEUTRAL, linewidth=0.8)
    axes.set_xlabel("bound: learning rate × steps")
    axes.set_ylabel("greatest |W| at the tested epoch")
    handles = [
        Line2D([], [], color=method_colour(m), marker="o", linestyle="", label=method_title(m))
        for m in dict.fromkeys(moved["method"])
    ]
    titles = {row.dataset: dataset_title(row.dataset, row.source) for row in moved.itertuples()}
    handles += [Line2D([], [], color=NEUTRAL, marker=markers[d], linestyle="", label=t) for d, t in titles.items()]
    legend(figure, handles, "line: the bound; points: the greatest over features and seeds")
    return figure


@styled
def auilc(table: pd.DataFrame, metric: str = "mae") -> Figure:
    """The normalised area under each degradation curve, a line a method: a row a data set, a column a kind.

    table: `robustness.auilc`; only corruptions of all modalities are drawn. Filled: trained on clean data; open:
    trained with frames missing. Small grey marks: the metric on clean data.
    """
    table = table[(table["metric"] == metric) & (table["modality"] == "all")]
    datasets, kinds = by_dataset(table), list(table["kind"].unique())
    heights = [some["method"].nunique() for some in datasets.values()]
    options = {"height_ratios": heights, "sharex": False, "sharey": "row"}
    figure, axes = panels(len(datasets), len(kinds), 0.14 * np.mean(heights) + 0.35, 0.9, **options)
    for row, (key, here) in zip(axes, datasets.items(), strict=True):
        methods = list(here["method"].unique())
        for ax, kind in zip(row, kinds, strict=True):
            ax.set_visible(kind in set(here["kind"]))
            for cell in here[here["kind"] == kind].itertuples():
                masked = cell.regime != "clean"
                y, colour = methods.index(cell.method) + 0.3 * masked, method_colour(cell.method)
                ax.plot([cell.low, cell.high], [y, y], color=colour, linewidth=1)
                ax.plot(cell.auilc_normalised, y, "o", color=colour, markersize=3.5, mfc="white" if masked else colour)
                ax.plot(cell.clean, y, "|", color=NEUTRAL, markersize=5)
            ax.set_xlabel(f"mean {metric_label(metric)}")
            ax.set_title(f"{dataset_title(*key)}\n{TITLES[kind]}", fontsize=7)
        row[0].set_yticks(range(len(methods)), [method_title(m) for m in methods])
        row[0].set_ylim(len(methods) - 0.3, -0.6)
    handles = [
        Line2D([], [], color=NEUTRAL, marker="o", markersize=3.5, label="trained on clean data"),
        Line2D([], [], color=NEUTRAL, marker="o", markersize=3.5, mfc="white", label="trained with frames missing"),
        Line2D([], [], color=NEUTRAL, marker="|", linestyle="", label="clean test data"),
    ]
    legend(figure, handles, f"lines: 95 % t intervals over seeds, {counted(table['n'])}; none where n = 1")
    return figure
