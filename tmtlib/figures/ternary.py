"""Weights of single utterances in the triangle of the three modalities."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import MODALITY_COLOURS, NEUTRAL, legend, method_title, panels, styled

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # text, audio, vision
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # between lines of equal weight
NAMED = {"none": "#BBBBBB", **MODALITY_COLOURS, "several": "#000000"}


@styled
def ternary(frame: pd.DataFrame) -> Figure:
    """Each utterance at its weights, zoomed to where they are: a column a method; coloured by its error above, and by
    which modality is unreliable below (synthetic data only).

    frame: `weights.by_utterance` of one data set and one seed. Lines of equal weight are labelled in the modality's
    colour; three of them meet at 1/3 each.
    """
    methods, known = list(frame["method"].unique()), frame["unreliable"].iloc[0] != "unknown"
    figure, axes = panels(2 if known else 1, max(2, len(methods)), height=2.3, extra=0.5)
    most = float(frame["error"].quantile(0.95))
    for column, method in zip(axes.T, methods, strict=False):
        some = frame[frame["method"] == method].sort_values("error")
        points = some[list(MODALITIES)].to_numpy() @ CORNERS
        dots = column[0].scatter(*points.T, c=some["error"], cmap="viridis", vmin=0, vmax=most, s=5, linewidth=0)
        title = f"{method_title(method)}\n{dataset_title(some['dataset'].iloc[0], some['source'].iloc[0])}"
        column[0].set_title(title, fontsize=7)
        if known:
            who = some["unreliable"].where(~some["unreliable"].str.contains("+", regex=False), "several")
            for name, colour in NAMED.items():
                column[1].scatter(*points[(who == name).to_numpy()].T, color=colour, s=5, linewidth=0)
        for ax in column:
            _triangle(ax, points)
    for ax in axes[:, len(methods) :].flat:
        ax.set_visible(False)
    figure.colorbar(dots, ax=axes[0, : len(methods)].tolist(), label="error (label units)", shrink=0.7)
    labels = {"none": "all three reliable", "several": "several unreliable"}
    handles = [
        Line2D([], [], color=c, marker="o", linestyle="", markersize=3.5, label=labels.get(n, f"{n} unreliable"))
        for n, c in NAMED.items()
    ]
    note = f"one dot a test utterance, n = {frame['utterance'].nunique()}, one seed; lines: equal weights of a modality"
    legend(figure, handles if known else [], note)
    return figure


def _triangle(ax: Axes, points: np.ndarray) -> None:
    """The view around the points, with lines of equal weight of each modality."""
    centre = (points.max(0) + points.min(0)) / 2
    half = max(0.005, 0.55 * float(np.ptp(points, axis=0).max()))
    ax.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half), aspect="equal")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    step = next((s for s in STEPS if 2 * half / s < 7), STEPS[-1])
    for i, m in enumerate(MODALITIES):
        for weight in np.arange(0, 1 + step / 2, step):
            _line_of_equal_weight(ax, i, weight, MODALITY_COLOURS[m])
    third = np.full(3, 1 / 3) @ CORNERS
    ax.plot(*third, "+", color=NEUTRAL, markersize=7)


def _line_of_equal_weight(ax: Axes, i: int, weight: float, colour: str) -> None:
    a, b = ((1 - weight) * CORNERS[k] + weight * CORNERS[i] for k in range(3) if k != i)
    ax.plot(*np.stack([a, b]).T, color=colour, linewidth=0.4, alpha=0.7, zorder=0)
    along = a + np.linspace(0, 1, 2001)[:, None] * (b - a)
    view = np.array([ax.get_xlim(), ax.get_ylim()])
    side = np.ptp(view, axis=1)[0]
    seen = along[(np.abs(along - view.mean(1)) < 0.46 * side).all(1)]
    if len(seen):  # text is labelled at its upper end, audio at its lower, vision at the left: they keep apart
        axis, sign = ((1, -1), (1, 1), (0, 1))[i]
        at = seen[(sign * seen[:, axis]).argmin()]
        if abs(at[axis] - view[axis, 0 if sign > 0 else 1]) > 0.06 * side:  # it leaves by another side
            return
        ax.text(*at, f"{weight:.3g}", color=colour, fontsize=5, ha="center", va="center", clip_on=True)
