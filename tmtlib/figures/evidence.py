"""Evidence at a glance: paired differences with their intervals, areas under degradation curves, and how far learned
weights moved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tmtlib.data.corruption import TITLES
from tmtlib.figures import style
from tmtlib.figures.style import styled

SMALLER_IS_BETTER = ("mae",)


@styled
def forest(differences: pd.DataFrame) -> Figure:
    """Paired differences and their 95 % intervals: a panel a metric, a line a data set and comparison.

    Columns: dataset, source, metric, after, before (methods; the difference is after minus before), difference, low,
    high, n. Points right of zero are higher, which is better for all metrics but MAE: the axes say which way.
    """
    after, before = (differences[column].map(style.method_title) for column in ("after", "before"))
    frame = style.titled(differences).assign(pair=after + " minus " + before)
    palette = dict(zip(frame["pair"], map(style.method_colour, frame["before"]), strict=True))
    datasets = frame["title"].unique()
    grid = style.facets(frame, "metric", height=0.16 * len(palette) * len(datasets), extra=1.1, sharex=False)
    for ax, rows in style.panel_rows(grid):
        style.draw_intervals(ax, rows, "difference", "title", "pair", palette, order=datasets, markersize=3)
        ax.axvline(0, color=style.NEUTRAL, linewidth=0.7, zorder=0)
        metric = rows["metric"].iloc[0]
        better = "← better" if metric in SMALLER_IS_BETTER else "better →"
        ax.set(title="", xlabel=f"difference in {style.metric_label(metric)}\n{better}")
    handles = [style.entry(name, colour, linestyle="-") for name, colour in palette.items()]
    return style.legend(
        grid.figure, handles, f"lines: 95 % t intervals over paired seeds, {style.counted(differences['n'])}"
    )


@styled
def weight_reach(moved: pd.DataFrame) -> Figure:
    """The greatest |W| after training against how far Adam can move a parameter (learning rate times steps), log-log.

    moved: `weights.reach`. The line is the bound; a point on it has moved all steps in one direction.
    """
    moved = style.titled(moved)
    methods, markers = moved["method"].unique(), dict(zip(moved["title"].unique(), "os^Dv", strict=False))
    figure, axes = style.panels(1, 1, height=2.2)
    ax = axes[0, 0]
    look = {"palette": style.method_colours(methods), "markers": markers, "s": 25, "alpha": 0.8, "linewidth": 0}
    sns.scatterplot(moved, x="move_bound", y="w_max", hue="method", style="title", legend=False, ax=ax, **look)
    span = np.array([moved["move_bound"].min() / 2, moved["move_bound"].max() * 2])
    ax.plot(span, span, color=style.NEUTRAL, linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="bound: learning rate × steps", ylabel="greatest |W| at the tested epoch")
    handles = style.method_entries(methods, marker="o", linestyle="")
    handles += [style.entry(title, marker=marker) for title, marker in markers.items()]
    return style.legend(figure, handles, "line: the bound; points: the greatest over features and seeds")


@styled
def auilc(table: pd.DataFrame, metric: str = "mae") -> Figure:
    """The normalised area under each degradation curve, a line a method: a row a data set, a column a kind.

    table: `robustness.auilc`; only corruptions of all modalities are drawn. Filled: trained on clean data; open:
    trained with frames missing. Small grey marks: the metric on clean data.
    """
    table = style.titled(table[(table["metric"] == metric) & (table["modality"] == "all")])
    lines = table.groupby("title", sort=False)["method"].nunique()
    options = {"gridspec_kws": {"height_ratios": list(lines)}, "sharex": False, "sharey": "row"}
    grid = style.facets(table, "kind", "title", 0.14 * lines.mean() + 0.35, 0.9, **options)
    grid.set(visible=False)  # but for the kinds that a data set has
    for ax, rows in style.panel_rows(grid):
        ax.set_visible(True)
        title, masked = rows["title"].iloc[0], rows["regime"] != "clean"
        methods = list(table.loc[table["title"] == title, "method"].unique())
        y, colours = rows["method"].map(methods.index) + 0.3 * masked, rows["method"].map(style.method_colour)
        ax.hlines(y, rows["low"], rows["high"], colors=colours, linewidth=1)
        ax.scatter(rows["auilc_normalised"], y, s=12, c=colours.mask(masked, "white"), edgecolors=colours, zorder=3)
        ax.scatter(rows["clean"], y, s=25, marker="|", color=style.NEUTRAL, linewidth=1)
        ax.set_title(f"{title}\n{TITLES[rows['kind'].iloc[0]]}", fontsize=7)
        ax.set(xlabel=f"mean {style.metric_label(metric)}", ylim=(len(methods) - 0.3, -0.6))
        ax.set_yticks(range(len(methods)), map(style.method_title, methods))
    handles = [
        style.entry("trained on clean data", linestyle="-"),
        style.entry("trained with frames missing", linestyle="-", markerfacecolor="white"),
        style.entry("clean test data", marker="|"),
    ]
    return style.legend(
        grid.figure, handles, f"lines: 95 % t intervals over seeds, {style.counted(table['n'])}; none where n = 1"
    )
