"""Whether weights adapt: against corruption, between reliable and unreliable utterances, and what predictions are worth
under noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES, check_choice
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    MODALITY_COLOURS,
    bands_note,
    by_dataset,
    counted,
    draw_curve,
    legend,
    method_look,
    method_title,
    panels,
    styled,
)

WHEN = {"test": "at test time", "training": "in training too"}
TITLES = {"noise": "noise in {}", "missing_frames": "{} frames missing"}
X_LABELS = {"noise": "SNR (dB)", "missing_frames": "rate of missing frames"}
Y_LABELS = {"weight": "weight on it", "gain": "MAE − uniform's"}
UNIFORM = "tmt_uniform"
LEAST_SPAN = 0.01  # a y axis of weights is at least so high: a smaller change counts as none
ZERO = {"color": "black", "linestyle": "--", "linewidth": 0.7}


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
    frame = _against_uniform(frame)
    found = set(zip(frame["when"], frame["modality"], strict=True))
    columns = [(when, m) for when in WHEN for m in MODALITIES if (when, m) in found]
    rows = [(key, what) for key in by_dataset(frame) for what in Y_LABELS]
    figure, axes = panels(len(rows), len(columns), height=1.35, extra=0.9, sharex="col", sharey="row")
    for row, (key, what) in zip(axes, rows, strict=True):
        for ax, column in zip(row, columns, strict=True):
            here = frame[(frame[["dataset", "source", "when", "modality"]] == [*key, *column]).all(axis=1)]
            _draw_levels(ax, here, what, kind)
        if what == "weight":
            _at_least(row[0], LEAST_SPAN)
        row[0].set_ylabel(f"{dataset_title(*key)}\n{Y_LABELS[what]}")
    for ax, (when, modality) in zip(axes[0], columns, strict=True):
        ax.set_title(f"{TITLES[kind].format(modality)}\n{WHEN[when]}")
    for ax in axes[-1]:
        ax.set_xlabel(X_LABELS[kind])
    handles = [Line2D([], [], **method_look(m)) for m in frame["method"].unique()]
    legend(figure, handles, f"{bands_note(frame)}; weights: mean of A over features and utterances; MAE in label units")
    return figure


def _against_uniform(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `gain`: MAE minus that of uniform weights with the same seed and level; NaN if not run."""
    keys = ["dataset", "source", "when", "seed", "modality", "level"]
    uniform = frame[frame["method"] == UNIFORM][[*keys, "mae"]].rename(columns={"mae": "even"})
    frame = frame.merge(uniform, on=keys, how="left")
    return frame.assign(gain=frame["mae"] - frame["even"])


def _draw_levels(ax: Axes, rows: pd.DataFrame, what: str, kind: str) -> None:
    """Lines of a panel, a method each."""
    levels = sorted(rows["level"].unique(), reverse=kind == "noise")
    rows = rows.assign(at=rows["level"].map(levels.index)).dropna(subset=what)
    for method, some in rows.groupby("method", sort=False):
        draw_curve(ax, some, "at", what, marker="o", **method_look(method))
    if what == "gain":
        ax.axhline(0, **ZERO)
    ticks = ["clean" if level in (np.inf, 0) and i == 0 else f"{level:g}" for i, level in enumerate(levels)]
    ax.set_xticks(range(len(levels)), [t.replace("-", "−") for t in ticks], rotation=90)
    ax.set_xlim(-0.3, len(levels) - 0.7)


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
    datasets, methods = by_dataset(table), list(table["method"].unique())
    figure, axes = panels(len(datasets), len(MODALITIES), height=0.5 + 0.19 * len(methods), sharey=True)
    y = np.arange(len(methods))
    for row, (key, here) in zip(axes, datasets.items(), strict=True):
        for ax, m in zip(row, MODALITIES, strict=True):
            some = here[here["modality"] == m].set_index("method").reindex(methods)
            spread = [some["high"] - some["difference"], some["difference"] - some["low"]]
            look = {"color": MODALITY_COLOURS[m], "fmt": "o", "markersize": 4}
            ax.errorbar(some["unreliable"], y + 0.16, xerr=spread, markerfacecolor="white", linewidth=0.8, **look)
            ax.errorbar(some["reliable"], y - 0.16, **look)
            _at_least(ax, LEAST_SPAN, "x")
            ax.grid(True, axis="x")
            ax.grid(False, axis="y")
        row[0].set_ylabel(dataset_title(*key))
    axes[0, 0].set_yticks(y, [method_title(m) for m in methods])
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    for ax, m in zip(axes[0], MODALITIES, strict=True):
        ax.set_title(f"weight on {m}")
    for ax in axes[-1]:
        ax.set_xlabel("mean of A")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    grey = {"color": "#666666", "marker": "o", "linestyle": ""}
    handles = [Line2D([], [], label="where it is reliable", **grey)]
    handles.append(Line2D([], [], label="where it is not", markerfacecolor="white", **grey))
    legend(figure, handles, f"whiskers: 95 % t interval of the difference over seeds, {counted(table['n'])}")
    return figure


@styled
def reliability_diagram(rows: pd.DataFrame) -> Figure:
    """Mean label against mean prediction in bins of about equal numbers, a panel a noise level, a row a data set.

    rows: `reliability.diagram`. On the diagonal a prediction can be taken at its word; a flatter line says too much.
    """
    datasets, levels = by_dataset(rows), sorted(rows["level"].unique(), reverse=True)
    figure, axes = panels(len(datasets), len(levels), height=1.75, sharex="row", sharey="row")
    for row, (key, here) in zip(axes, datasets.items(), strict=True):
        ends = here[["prediction", "label"]].to_numpy()
        for ax, level in zip(row, levels, strict=True):
            ax.plot([ends.min(), ends.max()], [ends.min(), ends.max()], color="#888888", linewidth=0.7)
            for method, some in here[here["level"] == level].groupby("method", sort=False):
                _draw_bins(ax, some, method)
        row[0].set_ylabel(f"{dataset_title(*key)}\nmean label")
    for ax, level in zip(axes[0], levels, strict=True):
        ax.set_title("clean" if np.isinf(level) else f"noise, {level:g} dB".replace("-", "−"))
    for ax in axes[-1]:
        ax.set_xlabel("mean prediction")
    handles = [Line2D([], [], **method_look(m)) for m in rows["method"].unique()]
    handles.append(Line2D([], [], color="#888888", linewidth=0.7, label="label = prediction"))
    seeds = rows.groupby(["dataset", "source", "method"])["seed"].nunique()
    low, high = rows["n"].min(), rows["n"].max()
    sizes = f"{low}" if low == high else f"{low} to {high}"
    note = f"points: means over seeds, {counted(seeds)}, bins of {sizes} utterances, label units"
    note += "; whiskers: ± 1 sd over seeds"
    legend(figure, handles, f"{note}; noise in all three modalities")
    return figure


def _draw_bins(ax: Axes, some: pd.DataFrame, method: str) -> None:
    bins = some.groupby("bin").agg(x=("prediction", "mean"), y=("label", "mean"), sd=("label", "std"))
    look = {"linewidth": 0.9, "elinewidth": 0.5, "markersize": 2.5, "capsize": 0}
    ax.errorbar(bins["x"], bins["y"], yerr=bins["sd"].fillna(0), marker="o", **look, **method_look(method))
