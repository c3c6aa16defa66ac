"""Whether weights adapt: against corruption, between reliable and unreliable utterances, and what predictions are worth
under noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES, check_choice
from tmtlib.figures import style
from tmtlib.figures.style import styled

WHEN = {"test": "at test time", "training": "in training too"}
TITLES = {"noise": "noise in {}", "missing_frames": "{} frames missing"}
X_LABELS = {"noise": "SNR (dB)", "missing_frames": "rate of missing frames"}
Y_LABELS = {"weight": "weight on it", "gain": "MAE − uniform's"}
UNIFORM = "tmt_uniform"
LEAST_SPAN = 0.01  # an axis of weights is at least so long: a smaller change counts as none


@styled
def adaptation(frame: pd.DataFrame, kind: str = "noise") -> Figure:
    """The falsification panel: the weight on the corrupted modality (upper row of a data set) and MAE minus that of
    uniform weights (lower row, label units) against how strongly it is corrupted, clean first, at equal distances.

    A column a modality at test time (models trained on clean data), then a column a modality in training too.

    frame: rows of `adaptation.at_test_time` and, where there are any, `adaptation.at_training_time`. Raises ValueError
    for another kind of corruption than "noise" and "missing_frames", or no row of it.
    """
    check_choice("kind", kind, tuple(X_LABELS))
    frame = frame[(frame["kind"] == kind) & frame["regime"].isin(("clean", "noisy"))]
    if frame.empty:
        raise ValueError(f"no rows of {kind} with models trained clean; wanted those of `adaptation.at_test_time`")
    levels = sorted(frame["level"].unique(), reverse=kind == "noise")
    frame = style.titled(_against_uniform(frame)).assign(x=frame["level"].map(levels.index).to_numpy())
    long = frame.melt([c for c in frame if c not in Y_LABELS], list(Y_LABELS), "measure").dropna(subset="value")
    long["row"] = long["title"] + "\n" + long["measure"].map(Y_LABELS)
    names = {(w, m): f"{TITLES[kind].format(m)}\n{text}" for w, text in WHEN.items() for m in MODALITIES}
    long["column"] = [names[key] for key in zip(long["when"], long["modality"], strict=True)]
    order = {
        "col_order": [name for name in names.values() if name in set(long["column"])],
        "row_order": [f"{title}\n{label}" for title in frame["title"].unique() for label in Y_LABELS.values()],
    }
    grid = style.facets(long, "column", "row", height=1.35, extra=0.9, sharex="col", sharey="row", **order)
    for ax, rows in style.panel_rows(grid):
        style.draw_curves(ax, rows, "x", "value", marker="o")
        ax.set_xticks(range(len(levels)), ["clean", *map(style.number_label, levels[1:])], rotation=90)
        ax.set_xlim(-0.3, len(levels) - 0.7)
        if rows["measure"].iloc[0] == "gain":
            ax.axhline(0, **style.DASHED)
        else:
            _at_least(ax, LEAST_SPAN)
    style.label_axes(grid, X_LABELS[kind])
    note = f"{style.bands_note(frame)}; weights: mean of A over features and utterances; MAE in label units"
    return style.legend(grid.figure, style.method_entries(frame["method"].unique()), note)


def _against_uniform(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `gain`: MAE minus that of uniform weights with the same seed and level; NaN if not run."""
    keys = ["dataset", "source", "when", "seed", "modality", "level"]
    uniform = frame[frame["method"] == UNIFORM][[*keys, "mae"]].rename(columns={"mae": "even"})
    frame = frame.merge(uniform, on=keys, how="left")
    return frame.assign(gain=frame["mae"] - frame["even"])


def _at_least(ax: Axes, span: float, axis: str = "y") -> None:
    """Widens an axis about its middle to a span."""
    low, high = getattr(ax, f"get_{axis}lim")()
    spare = max(0.0, span - (high - low)) / 2
    getattr(ax, f"set_{axis}lim")(low - spare, high + spare)


@styled
def reliability_weights(table: pd.DataFrame) -> Figure:
    """The weight on a modality where it is reliable (filled) and where it is not (hollow), by method; a row a data set,
    a column a modality. Whiskers: the 95 % t interval of the difference, about the hollow mark.

    table: `reliability.by_reliability`.
    """
    methods = list(table["method"].unique())
    table = style.titled(table)
    table = table.assign(row=table["title"].str.replace(" (", "\n("))
    options = {"col_order": MODALITIES, "sharex": False, "titles": "weight on {}".format}
    grid = style.facets(table, "modality", "row", height=0.5 + 0.19 * len(methods), **options)
    for ax, rows in style.panel_rows(grid):
        y = rows["method"].map(methods.index)
        spread = [rows["high"] - rows["difference"], rows["difference"] - rows["low"]]
        look = {"color": style.MODALITY_COLOURS[rows["modality"].iloc[0]], "fmt": "o", "markersize": 4}
        ax.errorbar(rows["unreliable"], y + 0.16, xerr=spread, markerfacecolor="white", linewidth=0.8, **look)
        ax.errorbar(rows["reliable"], y - 0.16, **look)
        _at_least(ax, LEAST_SPAN, "x")
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    grid.set(
        yticks=range(len(methods)), yticklabels=[*map(style.method_title, methods)], ylim=(len(methods) - 0.4, -0.6)
    )
    style.label_axes(grid, "mean of A")
    handles = [style.entry("where it is reliable"), style.entry("where it is not", markerfacecolor="white")]
    return style.legend(
        grid.figure, handles, f"whiskers: 95 % t interval of the difference over seeds, {style.counted(table['n'])}"
    )


@styled
def reliability_diagram(rows: pd.DataFrame) -> Figure:
    """Mean label against mean prediction in bins of about equal numbers, a panel a noise level, a row a data set.

    rows: `reliability.diagram`. On the diagonal a prediction can be taken at its word; a flatter line says too much.
    """
    cells = rows.groupby(["dataset", "source", "level", "method", "bin"])["prediction"]
    frame, levels = style.titled(rows.assign(x=cells.transform("mean"))), sorted(rows["level"].unique(), reverse=True)
    options = {"col_order": levels, "sharex": "row", "sharey": "row", "titles": _noise_title}
    grid = style.facets(frame, "level", "title", height=1.75, **options)
    for ax, panel in style.panel_rows(grid):
        ends = frame.loc[frame["title"] == panel["title"].iloc[0], ["prediction", "label"]].to_numpy()
        ax.plot([ends.min(), ends.max()], [ends.min(), ends.max()], **style.DIAGONAL)
        style.draw_curves(ax, panel, "x", "label", marker="o", err_style="bars", linewidth=0.9)
    style.label_axes(grid, "mean prediction", "mean label")
    handles = [
        *style.method_entries(rows["method"].unique()),
        style.entry("label = prediction", marker=None, **style.DIAGONAL),
    ]
    seeds, n = rows.groupby(["dataset", "source", "method"])["seed"].nunique(), rows["n"]
    sizes = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    note = f"points: means over seeds, {style.counted(seeds)}, bins of {sizes} utterances, label units"
    return style.legend(grid.figure, handles, f"{note}; whiskers: ± 1 sd over seeds; noise in all three modalities")


def _noise_title(level: float) -> str:
    return "clean" if np.isinf(level) else f"noise, {style.number_label(level)} dB"
