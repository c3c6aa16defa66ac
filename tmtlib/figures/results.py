"""Scores of trained models: figure 5, MAE against accuracy, learning, and paired differences."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.data.schema import dataset_title
from tmtlib.figures import style
from tmtlib.stats.metrics import LOWER_IS_BETTER

COMPARED = ("acc5", "f1_5class", "mae")  # the panels of figure 5


@style.styled
def figure5_comparison(table: pd.DataFrame, compared: Sequence[str] = ("tmt", "tmt_amw")) -> Figure:
    """Counterpart of the paper's Figure 5: bars by data set and method, a row a metric; left measured here, with 95 %
    intervals, right as printed in the paper, for real data.

    Columns: dataset, source, alignment, method, metric, mean, low, high (NaN when n = 1), n, paper (NaN when unknown).
    Bars start at 0. Of the methods in the table, those in `compared` are drawn.
    """
    table = style.titled(table[table["method"].isin(compared) & table["metric"].isin(COMPARED)])
    group = table["title"].str.replace(" (", "\n(") + "\n" + table["alignment"]
    table = table.assign(column="measured here", group=group)
    printed = table.assign(mean=table["paper"], low=np.nan, high=np.nan, column="printed in the paper (real data)")
    printed["group"] = printed["dataset"].map(lambda name: dataset_title(name, "real"))
    both, methods = pd.concat([table, printed]).dropna(subset="mean"), list(table["method"].unique())
    shown = [m for m in COMPARED if m in set(table["metric"])]
    grid = style.facets(both, "column", "metric", height=1.25, extra=0.85, row_order=shown, sharex="col", sharey="row")
    bars = {"palette": style.method_colours(methods), "saturation": 1, "err_kws": style.WHISKERS, "capsize": 0.08}
    bars |= {"x": "group", "hue": "method", "hue_order": methods, "legend": False} | style.INTERVAL
    for ax, rows in style.panel_rows(grid):
        metric, order = rows["metric"].iloc[0], rows["group"].unique()
        sns.barplot(style.interval_rows(rows, "mean"), y="mean", order=order, ax=ax, **bars)
        label = f"{style.metric_label(metric)}\n{'↓' if metric in LOWER_IS_BETTER else '↑'} better"
        ax.set(ylabel=label if ax in grid.axes[:, 0] else "", xlabel="")
    grid.figure.align_ylabels()
    handles = style.method_entries(methods, marker="s", linestyle="")
    note = "; the paper prints no spread" if table["paper"].notna().any() else ""
    return style.legend(grid.figure, handles, style.whiskers_note(table["n"], "95 % intervals") + note)


@style.styled
def mae_against_accuracy(pairs: pd.DataFrame, line: pd.DataFrame) -> Figure:
    """Printed MAE against printed Acc-5, a panel a data set: published models, their line, and the paper's two rows.

    pairs: `audit.published_pairs()`; line: `audit.mae_line()`. The band is two residual standard deviations wide on
    each side; constant predictors are hollow, as the line leaves them out.
    """
    grid = style.facets(style.titled(pairs.assign(source="real")), "title", sharex=False, sharey=False)
    for ax, rows in style.panel_rows(grid):
        printed = line[line["dataset"] == rows["dataset"].iloc[0]]
        faces = rows["constant"].map({False: style.NEUTRAL, True: "white"})
        ax.scatter(rows["acc5"], rows["mae"], s=12, facecolor=faces, edgecolor=style.NEUTRAL, linewidth=0.7)
        span = pd.concat([rows["acc5"], printed["acc5"]])
        x = np.array([span.min() - 0.01, span.max() + 0.01])
        y, sd = printed["intercept"].iloc[0] + printed["slope"].iloc[0] * x, printed["residual_sd"].iloc[0]
        ax.plot(x, y, color=style.NEUTRAL, linewidth=0.8)
        ax.fill_between(x, y - 2 * sd, y + 2 * sd, color=style.NEUTRAL, alpha=0.15, linewidth=0)
        ax.scatter(printed["acc5"], printed["mae"], s=20, marker="D", c=[*map(style.method_colour, printed["method"])])
    style.label_axes(grid, style.metric_label("acc5"), style.metric_label("mae"))
    handles = [style.entry("published models"), style.entry("constant predictor", markerfacecolor="white")]
    methods = line["method"].unique()
    handles += [
        style.entry(f"the paper's {style.method_title(m)}", style.method_colour(m), marker="D") for m in methods
    ]
    return style.legend(grid.figure, handles, "line: least squares through the published models; band: ± 2 residual sd")


@style.styled
def learning_curves(history: pd.DataFrame, metric: str = "valid_loss") -> Figure:
    """A metric over epochs, a panel a data set: each method's mean over seeds with a band of one sd.

    Columns: dataset, source, method, seed, epoch and the metric. Seeds may stop at different epochs.
    """
    grid = style.facets(style.titled(history), "title", sharex=False, sharey=False)
    for ax, rows in style.panel_rows(grid):
        style.draw_curves(ax, rows, "epoch", metric)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.label_axes(grid, "epoch", style.metric_label(metric))
    return style.legend(grid.figure, style.method_entries(history["method"].unique()), style.bands_note(history))


@style.styled
def family_curves(history: pd.DataFrame, metric="valid_loss", reference="tmt", columns: int = 4) -> Figure:
    """A metric over epochs on one data set, a panel a method, each beside the reference: for more methods than one
    panel can hold. Columns and curves as for `learning_curves`. Raises ValueError for several data sets, for no method
    beside the reference, and for none of the reference."""
    titles, names = style.titled(history)["title"].unique(), list(history["method"].unique())
    methods = [m for m in names if m != reference]
    if len(titles) != 1 or not methods or reference not in names:
        got = f"{len(titles)} data sets and methods {', '.join(names)}"
        raise ValueError(f"{got}; wanted one data set, {reference} and at least one other method")
    is_reference = history["method"] == reference
    grid = style.facets(history[~is_reference], "method", height=1.2, col_wrap=min(columns, len(methods)))
    for (ax, rows), method in zip(style.panel_rows(grid), methods, strict=True):
        style.draw_curves(ax, pd.concat([history[is_reference], rows]), "epoch", metric, dashes=False)
        ax.set_title(textwrap.fill(style.method_title(method), 24), fontsize=7, color=style.method_colour(method))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    style.label_axes(grid, "epoch")
    grid.figure.suptitle(f"{titles[0]}: each method beside {style.method_title(reference)}", fontsize="medium")
    grid.figure.supylabel(style.metric_label(metric), fontsize="medium")
    note = f"{style.bands_note(history)}; coloured: the panel's method"
    return style.legend(grid.figure, style.method_entries([reference]), note)


@style.styled
def forest(differences: pd.DataFrame) -> Figure:
    """Paired differences and their 95 % intervals: a panel a metric, a line a data set and comparison.

    Columns: dataset, source, metric, after, before (methods; the difference is after minus before), difference, low,
    high, n and, for a line at the printed gain, margin (half of it). Points right of zero are higher, which is better
    for all metrics but MAE: the axes say which way.
    """
    after, before = (differences[column].map(style.method_title) for column in ("after", "before"))
    frame = style.titled(differences.assign(pair=after + " minus " + before))
    frame = frame.assign(margin=frame.get("margin", np.nan))
    palette = dict(zip(frame["pair"], map(style.method_colour, frame["before"]), strict=True))
    datasets = frame["title"].unique()
    grid = style.facets(frame, "metric", height=0.16 * len(palette) * len(datasets), extra=1.1, sharex=False)
    for ax, rows in style.panel_rows(grid):
        style.draw_intervals(ax, rows, "difference", "title", "pair", palette, order=datasets, markersize=3)
        ax.axvline(0, color=style.NEUTRAL, linewidth=0.7, zorder=0)
        ax.locator_params(axis="x", nbins=5)
        better = "← better" if (metric := rows["metric"].iloc[0]) in LOWER_IS_BETTER else "better →"
        gains = (-2 if metric in LOWER_IS_BETTER else 2) * rows.groupby("title")["margin"].first().reindex(datasets)
        ax.vlines(gains, np.arange(len(gains)) - 0.4, np.arange(len(gains)) + 0.4, **style.PRINTED)
        ax.set(title="", xlabel=f"difference in {style.metric_label(metric)}\n{better}")
    handles = [style.entry(name, colour, linestyle="-") for name, colour in palette.items()]
    if frame["margin"].notna().any():
        handles.append(style.entry("gain that the paper prints", marker=None, **style.PRINTED))
    note = f"lines: 95 % intervals over paired seeds, {style.counted(differences['n'])}"
    return style.legend(grid.figure, handles, note)


@style.styled
def reached(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Gain reached against gain possible: a panel a world, a line a method, with its 95 % interval over draws.

    table: `analysis.misled.reached`; titles: of the worlds. The dashed line is what can be gained: TMT that is told
    which modality misleads and hides it. Methods that are told are drawn as squares, others as points.
    """
    worlds = [w for w in titles if w in set(table["world"])]
    methods = [m for m in table["method"].unique() if m != "tmt"]
    figure, axes = style.panels(1, len(worlds), height=0.17 * len(methods), extra=1.0, sharey=True, sharex=True)
    for ax, world in zip(axes.flat, worlds, strict=True):
        rows = table[table["world"] == world].set_index("method").reindex(methods)
        for y, (method, row) in enumerate(rows.iterrows()):
            colour, marker = style.method_colour(method), "s" if "oracle" in method else "o"
            ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1)
            ax.plot(row["gain"], y, marker, color=colour, markersize=4)
        ax.axvline(0, color=style.NEUTRAL, linewidth=0.7, zorder=0)
        ax.axvline(rows.loc["tmt_oracle", "gain"], **style.DASHED, zorder=0)
        ax.set_yticks(range(len(methods)), [style.method_title(m) for m in methods])
        no_test = "" if rows["test"].iloc[0] else "\n(no test: nothing can surely be gained)"
        ax.set(title=titles[world] + no_test, xlabel="MAE gained over TMT\nbetter →", ylim=(len(methods) - 0.5, -0.5))
    handles = [style.entry("learned", style.NEUTRAL), style.entry("told the truth", style.NEUTRAL, marker="s")]
    handles.append(style.entry("what can be gained", "black", linestyle="--", marker=""))
    draws, seeds = (style.counted(table[name]) for name in ("n", "seeds"))
    note = (
        f"lines: 95 % intervals over draws of the data, {draws}, of {seeds.removeprefix('n = ')} seeds each; synthetic"
    )
    return style.legend(figure, handles, note)
