"""Scores of trained models: figure 5, MAE against accuracy, and learning."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    NEUTRAL,
    bands_note,
    by_dataset,
    draw_bars,
    draw_curve,
    legend,
    method_colour,
    method_lines,
    method_look,
    method_patches,
    method_title,
    metric_label,
    panels,
    slots,
    styled,
    whiskers_note,
)

COMPARED = ("acc5", "f1_5class", "mae")  # the panels of figure 5
DIAMOND = {"marker": "D", "linestyle": "", "color": "white", "markeredgecolor": "black", "markeredgewidth": 0.7}


@styled
def figure5_comparison(table: pd.DataFrame, compared: Sequence[str] = ("tmt", "tmt_amw")) -> Figure:
    """Counterpart of the paper's Figure 5: bars by data set and method, a panel a metric, and the paper's values.

    Columns: dataset, source, alignment, method, metric, mean, sd (NaN when n = 1), n, paper (NaN when unknown).
    Bars start at 0; whiskers are one sd. Of the methods in the table, those in `compared` are drawn.
    """
    table = table[table["method"].isin(compared)]
    group = ["dataset", "source", "alignment"]
    groups = list(table[group].drop_duplicates().itertuples(index=False, name=None))
    methods = list(table["method"].unique())
    shown = [m for m in COMPARED if m in set(table["metric"])]
    figure, axes = panels(len(shown), 1, height=1.25, extra=0.85, sharex=True)
    for ax, metric in zip(axes[:, 0], shown, strict=True):
        for method, x, width in slots(methods, len(groups)):
            rows = table[(table["metric"] == metric) & (table["method"] == method)].set_index(group).reindex(groups)
            draw_bars(ax, x, rows["mean"], rows["sd"], method, width)
            ax.plot(x, rows["paper"], zorder=4, **DIAMOND)
        ax.set(ylabel=metric_label(metric), ylim=(0, None))
    names = [f"{dataset_title(d, s)}\n{a}".replace(" (", "\n(") for d, s, a in groups]
    side = 0.6 if len(groups) > 1 else 1.0  # a single group does not fill the panel
    ax.set_xlim(-side, len(groups) - 1 + side)
    ax.set_xticks(range(len(groups)), names)
    figure.align_ylabels(axes[:, 0])
    handles = method_patches(methods)
    if table["paper"].notna().any():
        handles.append(Line2D([], [], label="the paper's Table 1 (real data)", **DIAMOND))
    legend(figure, handles, whiskers_note(table["n"]))
    return figure


@styled
def mae_against_accuracy(pairs: pd.DataFrame, line: pd.DataFrame) -> Figure:
    """Printed MAE against printed Acc-5, a panel a data set: published models, their line, and the paper's two rows.

    pairs: `audit.published_pairs()`; line: `audit.mae_line()`. The band is two residual standard deviations wide on
    each side; constant predictors are hollow, as the line leaves them out.
    """
    datasets = list(pairs["dataset"].unique())
    figure, axes = panels(1, len(datasets))
    for ax, name in zip(axes[0], datasets, strict=True):
        here, ours = pairs[pairs["dataset"] == name], line[line["dataset"] == name]
        for constant, face in ((False, NEUTRAL), (True, "white")):
            some = here[here["constant"] == constant]
            ax.scatter(some["acc5"], some["mae"], s=12, facecolor=face, edgecolor=NEUTRAL, linewidth=0.7)
        span = pd.concat([here["acc5"], ours["acc5"]])
        x = np.array([span.min() - 0.01, span.max() + 0.01])
        y, sd = ours["intercept"].iloc[0] + ours["slope"].iloc[0] * x, ours["residual_sd"].iloc[0]
        ax.plot(x, y, color=NEUTRAL, linewidth=0.8)
        ax.fill_between(x, y - 2 * sd, y + 2 * sd, color=NEUTRAL, alpha=0.15, linewidth=0)
        for row in ours.itertuples():
            ax.plot(row.acc5, row.mae, "D", color=method_colour(row.method), markersize=4.5)
        ax.set(title=dataset_title(name, "real"), xlabel=metric_label("acc5"))
    axes[0, 0].set_ylabel(metric_label("mae"))
    grey = {"color": NEUTRAL, "marker": "o", "linestyle": ""}
    handles = [Line2D([], [], label="published models", **grey)]
    handles.append(Line2D([], [], label="constant predictor", markerfacecolor="white", **grey))
    handles += [
        Line2D([], [], color=method_colour(m), marker="D", linestyle="", label=f"the paper's {method_title(m)}")
        for m in line["method"].unique()
    ]
    legend(figure, handles, "line: least squares through the published models; band: ± 2 residual sd")
    return figure


@styled
def learning_curves(history: pd.DataFrame, metric: str = "valid_loss") -> Figure:
    """A metric over epochs, a panel a data set: each method's mean over seeds with a band of one sd.

    Columns: dataset, source, method, seed, epoch and the metric. Seeds may stop at different epochs.
    """
    datasets = by_dataset(history)
    figure, axes = panels(1, len(datasets))
    for ax, (key, here) in zip(axes[0], datasets.items(), strict=True):
        for method, rows in here.groupby("method", sort=False):
            draw_curve(ax, rows, "epoch", metric, **method_look(method))
        ax.set(title=dataset_title(*key), xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0, 0].set_ylabel(metric_label(metric))
    legend(figure, method_lines(history), bands_note(history))
    return figure


@styled
def family_curves(
    history: pd.DataFrame, metric: str = "valid_loss", reference: str = "tmt", columns: int = 4
) -> Figure:
    """A metric over epochs on one data set, a panel a method, each beside the reference: for more methods than one
    panel can hold. Columns and curves as for `learning_curves`. Raises ValueError for several data sets, for no method
    beside the reference, and for none of the reference."""
    titles = [dataset_title(*key) for key in by_dataset(history)]
    parts = dict(iter(history.groupby("method", sort=False)))
    methods = [m for m in parts if m != reference]
    if len(titles) != 1 or not methods or reference not in parts:
        found = f"{len(titles)} data sets and methods {', '.join(parts)}"
        raise ValueError(f"{found}; wanted one data set, {reference} and at least one other method")
    columns = min(columns, len(methods))
    figure, axes = panels(-(-len(methods) // columns), columns, height=1.2, sharex=True, sharey=True)
    for ax, method in zip(axes.flat, methods, strict=False):
        for name in (reference, method):
            draw_curve(ax, parts[name], "epoch", metric, **method_look(name) | {"linestyle": "-"})
        ax.set_title(textwrap.fill(method_title(method), 24), fontsize=7, color=method_colour(method))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in axes.flat[len(methods) :]:
        ax.set_visible(False)
    for ax in axes.flat[max(0, len(methods) - columns) : len(methods)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("epoch")
    figure.suptitle(titles[0], fontsize="medium")
    figure.supylabel(metric_label(metric), fontsize="medium")
    legend(figure, [Line2D([], [], **method_look(reference))], f"{bands_note(history)}; coloured: the panel's method")
    return figure
