"""What modalities and frames are worth to a model by each measure: beside ground truths, and by how faithful it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tmtlib.figures import style
from tmtlib.figures.style import styled
from tmtlib.figures.weights import EVEN

MEASURES = {  # in the order they are shown
    "weight": "weight A",
    "weighted_size": "size |A S|",
    "shapley_absent": "Shapley, absent",
    "shapley_mean": "Shapley, mean",
    "shapley_permuted": "Shapley, permuted",
    "mae_absent": "of MAE, absent",
    "occlusion": "occlusion",
    "gradient_input": "gradient × input",
    "integrated_gradients": "integrated gradients",
    "rollout": "attention roll-out",
    "random": "random order",
}
TITLES = MEASURES | {"mae_mean": "of MAE, mean", "mae_permuted": "of MAE, permuted", "truth": "true importance"}
LINES = {  # of curves, seaborn's dashes: Paul Tol's bright colours, by frames in solid lines
    "integrated_gradients": ("#4477AA", ""),
    "gradient_input": ("#66CCEE", ""),
    "rollout": ("#228833", ""),
    "weighted_size": ("#AA3377", (4, 1.5)),
    "random": ("#777777", (1, 1)),
}
ORDERS = {"deletion": "taken away", "insertion": "put back"}
AGREES = {  # kinds of agreement: title, value by chance, least and greatest possible (t intervals are cut there)
    "spearman": ("Spearman correlation", 0.0, -1, 1),
    "auc": ("AUC of reliability", 0.5, 0, 1),
}


@styled
def importance(table: pd.DataFrame) -> Figure:
    """Shares of importance by measure with 95 % intervals, a panel a data set and method; dashed: the ground truth.

    table: `importance.table`; of its measures those in MEASURES.
    """
    table = table[table["measure"].isin(MEASURES)]
    shown = _shown(table)
    grid = style.facets(_cases(table), "case", height=0.25 * len(shown) + 0.2, extra=0.6, sharex=False)
    for ax, rows in style.panel_rows(grid):
        _draw_measures(ax, rows, shown)
        for m, share in rows.dropna(subset="truth").groupby("modality")["truth"].first().items():
            ax.axvline(share, color=style.MODALITY_COLOURS[m], linestyle="--", linewidth=0.8, zorder=1)
        ax.set_xlim(0, min(1, ax.get_xlim()[1]))
    style.label_axes(grid, "share of importance")
    note = "; dashed: ground truth" if table["truth"].notna().any() else ""
    return style.legend(grid.figure, style.modality_entries(), _whiskers(table) + note)


@styled
def agreement(table: pd.DataFrame) -> Figure:
    """How measures follow the ground truth from utterance to utterance, with 95 % intervals; dashed: by chance.

    A row a kind of agreement, a panel a data set and method. table: `importance.agreement`. One that is equal in all
    utterances is called constant.
    """
    table = table[table["measure"].isin(MEASURES)]
    shown, kinds = _shown(table), [kind for kind in AGREES if kind in set(table["what"])]
    height = 0.24 * len(shown) + 0.4
    grid = style.facets(_cases(table), "case", "what", height=height, row_order=kinds, sharex="row")
    for ax, rows in style.panel_rows(grid):
        title, chance, least, greatest = AGREES[rows["what"].iloc[0]]
        _draw_measures(ax, rows, shown)
        ax.axvline(chance, color="black", linestyle="--", linewidth=0.7, zorder=1)
        low, high = ax.get_xlim()
        ax.set(xlabel=title, xlim=(max(low, least), min(high, greatest)))
        for measure, numbers in rows.groupby("measure")["n"]:
            if not numbers.any():
                look = {"transform": ax.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 6}
                ax.text(0.98, shown.index(measure), "constant", color="#666666", **look)
    note = "; correlation with the true importance, and chance that a reliable modality has the larger share"
    note += "; dashed: by chance; constant: equal in all utterances"
    return style.legend(grid.figure, style.modality_entries(), _whiskers(table[table["n"] > 0]) + note)


@styled
def faithfulness(curves: pd.DataFrame) -> Figure:
    """Deletion and insertion curves, a line a measure with a band of one sd over seeds; a panel a data set and method.

    curves: `faithfulness.table`. In the upper row frames are taken away, most important first, and a faithful measure
    lies high; in the lower they are put back, and it lies low.
    """
    shown = [m for m in LINES if m in set(curves["measure"])]
    palette, dashes = ({m: LINES[m][i] for m in shown} for i in (0, 1))
    grid = style.facets(_cases(curves), "case", "order", height=1.5, row_order=list(ORDERS), sharey="col")
    for ax, rows in style.panel_rows(grid):
        lines = {"hue": "measure", "hue_order": shown, "style": "measure", "palette": palette, "dashes": dashes}
        style.draw_curves(ax, rows, "fraction", "change", **lines)
        ax.set(xlim=(0, 1), ylim=(0, None), xticks=(0, 0.5, 1))
        ax.tick_params(labelbottom=True)
    style.label_axes(grid, "fraction", "|change| (label units)")
    for row, verb in zip(grid.axes, ORDERS.values(), strict=True):
        for ax in row:
            ax.set_xlabel(f"fraction {verb}", visible=True)
    keys = ["measure", "order"]
    first = curves[(curves[keys] == curves[keys].iloc[0]).all(axis=1)]
    note = f"{style.bands_note(first)}; of an utterance's valid frames, the mean over utterances"
    styles = {m: (0, dashes[m]) if dashes[m] else "-" for m in shown}
    handles = [style.entry(MEASURES[m], palette[m], marker=None, linestyle=styles[m]) for m in shown]
    return style.legend(grid.figure, handles, note)


@styled
def worlds(table: pd.DataFrame, agreement: pd.DataFrame | None = None) -> Figure:
    """Share of importance by each measure against the synthetic share: a panel a measure, a point a world and modality.

    table: `importance_table` of one method in synthetic worlds. agreement: `truth.worlds_agreement` of it, whose rank
    correlations, with their intervals, then stand in the panels. Raises ValueError for several methods.
    """
    if table["method"].nunique() != 1:
        raise ValueError(f"methods are {', '.join(table['method'].unique())}; wanted one")
    shown = _shown(table)
    columns = min(len(shown), 3 if len(shown) <= 9 else 4)
    grid = style.facets(table, "measure", height=1.75, col_order=shown, col_wrap=columns, titles=_measure_title)
    top = 1.05 * max(table["mean"].max(), table["truth"].max())
    look = {"palette": style.MODALITY_COLOURS, "s": 9, "alpha": 0.8, "linewidth": 0, "legend": False}
    for ax, rows in style.panel_rows(grid):
        ax.plot([0, top], [0, top], **style.DIAGONAL)
        sns.scatterplot(rows, x="truth", y="mean", hue="modality", ax=ax, **look)
        ax.set(xlim=(0, top), ylim=(0, top))
        if agreement is not None:
            ax.text(
                0.04,
                0.96,
                _correlation(agreement, rows["measure"].iloc[0]),
                transform=ax.transAxes,
                va="top",
                fontsize=6,
            )
    style.label_axes(grid, "synthetic share", "share by measure")
    handles = [*style.modality_entries(), style.entry("share = truth", marker=None, **style.DIAGONAL)]
    n, method = table["dataset"].nunique(), style.method_title(table["method"].iloc[0])
    note = f"{method}: one point a world and modality, n = {n} synthetic worlds"
    brackets = "; ρ: rank correlation, 95 % bootstrap interval over worlds" if agreement is not None else ""
    return style.legend(grid.figure, handles, note + brackets)


def _correlation(agreement: pd.DataFrame, measure: str) -> str:
    row = agreement[(agreement["measure"] == measure) & (agreement["statistic"] == "spearman")].iloc[0]
    if np.isnan(row["value"]):
        return "ρ undefined"
    return f"ρ = {row['value']:.2f}" + ("" if np.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]")


@styled
def unimodal(table: pd.DataFrame) -> Figure:
    """How often each measure names the modality that carried an utterance: dots with 95 % intervals by data set.

    table: `truth.unimodal_agreement`; one colour a method. Dashed: naming the commonest modality; dotted: at random.
    """
    methods, shown = list(table["method"].unique()), _shown(table)
    grid = style.facets(style.titled(table), "title", height=0.26 * len(shown) + 0.4, extra=0.9, sharex=False)
    for ax, rows in style.panel_rows(grid):
        palette = style.method_colours(methods)
        style.draw_intervals(ax, rows, "agreement", "measure", "method", palette, order=shown, markersize=3)
        ax.axvline(rows["chance"].iloc[0], color=style.NEUTRAL, linestyle="--", linewidth=0.8)
        ax.axvline(EVEN, color=style.NEUTRAL, linestyle=":", linewidth=0.8)
        ax.set_title(f"{rows['title'].iloc[0]}, n = {rows['n'].iloc[0]}")
        ax.set_yticks(range(len(shown)), map(_measure_title, shown))
    style.label_axes(grid, "share of utterances")
    handles = style.method_entries(methods, marker="o", linestyle="-")
    handles.append(style.entry("always the commonest", marker=None, linestyle="--"))
    handles.append(style.entry("at random (1/3)", marker=None, linestyle=":"))
    note = f"lines: 95 % bootstrap over utterances and seeds; seeds: {style.counted(table['seeds'])}"
    return style.legend(grid.figure, handles, note)


def _cases(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a column `case`, the title of its panel: the data set, and the method where there are several."""
    frame = style.titled(frame)
    if "method" not in frame or frame["method"].nunique() == 1:
        return frame.assign(case=frame["title"])
    return frame.assign(case=frame["title"] + "\n" + frame["method"].map(style.method_title))


def _shown(table: pd.DataFrame) -> list[str]:
    """The measures of a table in the order of TITLES, one kind ("shapley", "mae", ..) after another."""
    measures = set(table["measure"])
    shown = [m for m in TITLES if m in measures] + sorted(measures - set(TITLES))
    kinds = list(dict.fromkeys(m.split("_")[0] for m in shown))
    return sorted(shown, key=lambda m: kinds.index(m.split("_")[0]))


def _draw_measures(ax: Axes, rows: pd.DataFrame, shown: list[str]) -> None:
    """A row a measure, from the top, and a dot with its interval a modality."""
    style.draw_intervals(ax, rows, "mean", "measure", "modality", style.MODALITY_COLOURS, order=shown)
    ax.set_yticks(range(len(shown)), map(_measure_title, shown))
    ax.grid(False, axis="y")


def _measure_title(measure: str) -> str:
    return TITLES.get(measure, measure)


def _whiskers(table: pd.DataFrame) -> str:
    several = f"whiskers: 95 % t intervals over seeds, {style.counted(table['n'])}"
    return several if table["n"].max() > 1 else style.NO_SPREAD
