"""What modalities and frames are worth to a model by each measure: beside the truth, and by how faithful it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    MODALITY_COLOURS,
    NO_SPREAD,
    bands_note,
    counted,
    draw_curve,
    legend,
    method_title,
    panels,
    styled,
)

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
LOOKS = {  # of curves: Paul Tol's bright colours, by frames in solid lines
    "integrated_gradients": {"color": "#4477AA"},
    "gradient_input": {"color": "#66CCEE"},
    "rollout": {"color": "#228833"},
    "weighted_size": {"color": "#AA3377", "linestyle": "--"},
    "random": {"color": "#777777", "linestyle": ":"},
}
ORDERS = {"deletion": "taken away", "insertion": "put back"}
CHANCE = {"spearman": 0.0, "auc": 0.5}
POSSIBLE = {"spearman": (-1, 1), "auc": (0, 1)}  # t intervals of few seeds go beyond: cut there
AGREES = {"spearman": "Spearman correlation", "auc": "AUC of reliability"}


@styled
def importance(table: pd.DataFrame) -> Figure:
    """Shares of importance by measure with 95 % intervals, a panel a data set and method; dashed: the ground truth.

    table: `importance.table`. Measures without a value are left out.
    """
    cases, shown = _cases(table), _shown(table)
    figure, axes = panels(1, len(cases), height=0.25 * len(shown) + 0.2, extra=0.6, sharey=True)
    for ax, here in zip(axes[0], cases.values(), strict=True):
        _dots(ax, here, shown)
        for m, share in here.dropna(subset="truth").groupby("modality")["truth"].first().items():
            ax.axvline(share, color=MODALITY_COLOURS[m], linestyle="--", linewidth=0.8, zorder=1)
        ax.set_xlabel("share of importance")
        ax.set_xlim(0, min(1, ax.get_xlim()[1]))
    _finish(figure, axes, cases, table, "; dashed: ground truth" if table["truth"].notna().any() else "")
    return figure


@styled
def agreement(table: pd.DataFrame) -> Figure:
    """How measures follow the ground truth from utterance to utterance, with 95 % intervals; dashed: by chance.

    A row a kind of agreement, a panel a data set and method. table: `importance.agreement`. One that is equal in all
    utterances is called constant.
    """
    cases, shown = _cases(table), _shown(table)
    kinds = [k for k in AGREES if k in set(table["what"])]
    figure, axes = panels(len(kinds), len(cases), height=0.24 * len(shown) + 0.4, sharey=True, sharex="row")
    for row, kind in zip(axes, kinds, strict=True):
        for ax, here in zip(row, cases.values(), strict=True):
            some = here[here["what"] == kind]
            _dots(ax, some, shown)
            ax.axvline(CHANCE[kind], color="black", linestyle="--", linewidth=0.7, zorder=1)
            ax.set_xlabel(AGREES[kind])
            low, high = ax.get_xlim()
            ax.set_xlim(max(low, POSSIBLE[kind][0]), min(high, POSSIBLE[kind][1]))
            for i, measure in enumerate(shown):
                values = some.loc[some["measure"] == measure, "n"]
                if len(values) and not values.any():
                    place = {"transform": ax.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 6}
                    ax.text(0.98, i, "constant", color="#666666", **place)
    what = "; correlation with the true importance, and chance that a reliable modality has the larger share"
    _finish(figure, axes, cases, table[table["n"] > 0], f"{what}; dashed: by chance; constant: equal in all utterances")
    return figure


@styled
def faithfulness(curves: pd.DataFrame) -> Figure:
    """Deletion and insertion curves, a line a measure with a band of one sd over seeds; a panel a data set and method.

    curves: `faithfulness.table`. In the upper row frames are taken away, most important first, and a faithful measure
    lies high; in the lower they are put back, and it lies low.
    """
    cases = _cases(curves)
    shown = [m for m in LOOKS if m in set(curves["measure"])]
    figure, axes = panels(len(ORDERS), len(cases), height=1.5, sharex=True, sharey="col")
    for row, (order, verb) in zip(axes, ORDERS.items(), strict=True):
        for ax, here in zip(row, cases.values(), strict=True):
            for measure in shown:
                some = here[(here["order"] == order) & (here["measure"] == measure)]
                if len(some):
                    draw_curve(ax, some, "fraction", "change", **_look(measure))
            ax.set(xlim=(0, 1), ylim=(0, None), xticks=(0, 0.5, 1), xlabel=f"fraction {verb}")
            ax.tick_params(labelbottom=True)
        row[0].set_ylabel(f"{order}: |change|\n(label units)")
    for ax, title in zip(axes[0], _titles(cases), strict=True):
        ax.set_title(title)
    one = curves[(curves["measure"] == curves["measure"].iloc[0]) & (curves["order"] == curves["order"].iloc[0])]
    note = f"{bands_note(one)}; of an utterance's valid frames, the mean over utterances"
    legend(figure, [Line2D([], [], **_look(m)) for m in shown], note)
    return figure


def _look(measure: str) -> dict:
    return {"linestyle": "-", "label": MEASURES[measure]} | LOOKS[measure]


def _cases(frame: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """The rows of each panel: by data set, source and method, in the order of appearance."""
    if "method" not in frame:
        frame = frame.assign(method="")
    return dict(iter(frame.groupby(["dataset", "source", "method"], sort=False)))


def _titles(cases: dict) -> list[str]:
    """The data set, and the method where there are several."""
    several = len({method for _, _, method in cases}) > 1
    return [dataset_title(*key[:2]) + (f"\n{method_title(key[2])}" if several else "") for key in cases]


def _shown(table: pd.DataFrame) -> list[str]:
    return [m for m in MEASURES if m in set(table["measure"])]


def _dots(ax: Axes, table: pd.DataFrame, shown: list[str]) -> None:
    """A row a measure, from the top, and a dot with its interval a modality."""
    for i, modality in enumerate(MODALITIES):
        some = table[table["modality"] == modality].set_index("measure").reindex(shown)
        y, colour = np.arange(len(shown)) + 0.22 * (i - 1), MODALITY_COLOURS[modality]
        spread = [some["mean"] - some["low"], some["high"] - some["mean"]]
        ax.errorbar(some["mean"], y, xerr=spread, fmt="o", color=colour, markersize=2.5, linewidth=0.8)
    ax.set_yticks(range(len(shown)), [MEASURES[m] for m in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(False, axis="y")


def _finish(figure: Figure, axes: np.ndarray, cases: dict, table: pd.DataFrame, more: str) -> None:
    for ax, title in zip(axes[0], _titles(cases), strict=True):
        ax.set_title(title)
    handles = [Line2D([], [], color=MODALITY_COLOURS[m], marker="o", linestyle="", label=m) for m in MODALITIES]
    spread = f"whiskers: 95 % t intervals over seeds, {counted(table['n'])}" if table["n"].max() > 1 else NO_SPREAD
    legend(figure, handles, spread + more)
