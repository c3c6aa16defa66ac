"""The weights A that models learn: by epoch, by feature, by utterance, and against the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.style import styled

EVEN = 1 / len(MODALITIES)  # the weight of each modality when all weigh the same
EVEN_LOOK = {"color": "black", "linestyle": "--", "linewidth": 0.7}
DIAGONAL = {"color": "#888888", "linestyle": "-", "linewidth": 0.7}
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # of the triangle: text, audio, vision
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # between lines of equal weight
UNRELIABLE = {"none": "#BBBBBB", **style.MODALITY_COLOURS, "several": "#000000"}


@styled
def weight_trajectories(frame: pd.DataFrame) -> Figure:
    """A's mean over features by epoch (0: before training), a line a modality; a row a data set, a column a method.

    Columns: dataset, source, method, seed, epoch, modality, weight, low, high (least and greatest over features).
    """
    grid = style.facets(style.titled(frame), "method", "title", height=1.4, sharey="row")
    for ax, rows in style.panel_rows(grid):
        for m, of_modality in rows.groupby("modality"):
            span = of_modality.groupby("epoch").agg(low=("low", "min"), high=("high", "max"))
            ax.fill_between(span.index, span["low"], span["high"], color=style.MODALITY_COLOURS[m], alpha=0.1, lw=0)
        style.draw_curves(ax, rows, "epoch", "weight", "modality", style.MODALITY_COLOURS)
        ax.axhline(EVEN, **EVEN_LOOK)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.label_axes(grid, "epoch", "weight, mean of A")
    for ax, method in zip(grid.axes[0], grid.col_names, strict=True):
        ax.set_title(style.method_title(method))
    handles = [*style.modality_entries(marker=None, linestyle="-"), _even_entry()]
    style.legend(grid.figure, handles, f"{style.bands_note(frame)}; light bands: range over features")
    return grid.figure


@styled
def weight_heatmap(weights: np.ndarray | Mapping[str, np.ndarray], sort: bool = False) -> Figure:
    """A, (M, d), or several by title, as heat maps on one colour scale centred at 1/M.

    sort: order the features by the first modality's weight, greatest first.
    """
    maps = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    same = len({np.shape(a)[1] for a in maps.values()}) == 1
    figure, axes = style.panels(len(maps), 1, height=0.62 if same else 0.75, extra=0.5, sharex=same)
    norm = weight_norm(list(maps.values()))
    for ax, (title, a) in zip(axes[:, 0], maps.items(), strict=True):
        a = np.asarray(a)
        a = a[:, np.argsort(-a[0], kind="stable")] if sort else a
        image = heat_map(ax, a, norm, mean_labels(a))
        ax.set_title(title, loc="left", fontsize=7)
    ax.set_xlabel("feature" + (f", sorted by the weight of {MODALITIES[0]}" if sort else " (index)"))
    weight_colourbar(figure, image, ax=axes[:, 0], aspect=8 * len(maps))
    return figure


def weight_norm(arrays: Sequence[np.ndarray]) -> CenteredNorm:
    """The colour scale of A: centred at 1/M and as wide as the farthest weight; at least 0.001, as all may be equal."""
    centre = 1 / len(arrays[0])
    return CenteredNorm(centre, max(1e-3, *(float(np.abs(np.asarray(a) - centre).max()) for a in arrays)))


def weight_colourbar(figure: Figure, image: QuadMesh, **place) -> None:
    """A colour bar with the centre written as 1/M and both ends as numbers; `place` as of `Figure.colorbar`."""
    bar, norm = figure.colorbar(image, **place), image.norm
    ticks = [max(0.0, norm.vcenter - norm.halfrange), norm.vcenter, norm.vcenter + norm.halfrange]
    bar.set_ticks(ticks, labels=[f"{ticks[0]:.3f}", f"1/{round(1 / norm.vcenter)}", f"{ticks[2]:.3f}"])
    bar.set_label("weight A", labelpad=1)
    bar.outline.set_visible(False)


def heat_map(ax: Axes, values: np.ndarray, norm: CenteredNorm, labels: Sequence[str]) -> QuadMesh:
    """(M, d) values as a heat map with a label a row; features count from 0."""
    sns.heatmap(values, norm=norm, cmap="PuOr_r", cbar=False, xticklabels=False, yticklabels=labels, ax=ax)
    places = MaxNLocator(8, integer=True).tick_values(0, values.shape[1] - 1)
    places = places[(places >= 0) & (places < values.shape[1])].astype(int)
    ax.set_xticks(places + 0.5, places)
    ax.tick_params(length=0, rotation=0)
    return ax.collections[0]


def mean_labels(a: np.ndarray) -> list[str]:
    """Each modality with the mean of its weights."""
    return [f"{m} {w:.3f}" for m, w in zip(MODALITIES, a.mean(1), strict=True)]


def _even_entry():
    return style.entry(f"1/{len(MODALITIES)}", marker=None, **EVEN_LOOK)


@styled
def weights_against_truth(frame: pd.DataFrame) -> Figure:
    """Learned weight against true importance, a point a seed and modality, a panel a method.

    Columns: dataset, source, method, seed, modality, weight, truth (shares that sum to 1 over modalities).
    """
    frame = style.titled(frame)
    markers = dict(zip(frame["title"].unique(), "osD^v", strict=False))
    top = 1.08 * max(frame["weight"].max(), frame["truth"].max(), 0.5)
    grid = style.facets(frame, "method", height=2.6 if frame["method"].nunique() == 1 else 2.3)
    for ax, rows in style.panel_rows(grid):
        ax.plot([0, top], [0, top], **DIAGONAL)
        ax.axhline(EVEN, **EVEN_LOOK)
        look = {"palette": style.MODALITY_COLOURS, "markers": markers, "s": 16, "alpha": 0.7, "linewidth": 0}
        sns.scatterplot(rows, x="truth", y="weight", hue="modality", style="title", legend=False, ax=ax, **look)
        ax.set(title=style.method_title(rows["method"].iloc[0]), xlim=(0, top), ylim=(0, top), aspect="equal")
    style.label_axes(grid, "true importance (share)", "learned weight, mean of A")
    handles = style.modality_entries(marker="s") + [
        style.entry(title, marker=marker) for title, marker in markers.items()
    ]
    handles += [style.entry("weight = importance", marker=None, **DIAGONAL), _even_entry()]
    style.legend(grid.figure, handles, "one point a seed and modality")
    return grid.figure


@styled
def ternary(frame: pd.DataFrame) -> Figure:
    """Each utterance at its weights, zoomed to where they are: a column a method; coloured by its error above, and by
    which modality is unreliable below (synthetic data only).

    frame: `weights.by_utterance` of one data set and one seed. Lines of equal weight are labelled in the modality's
    colour; three of them meet at 1/3 each.
    """
    places = (frame[list(MODALITIES)].to_numpy() @ CORNERS).T
    frame = style.titled(frame).assign(x=places[0], y=places[1]).sort_values("error", kind="stable")
    several = frame["unreliable"].str.contains("+", regex=False)
    frame = frame.assign(unreliable=frame["unreliable"].mask(several, "several"))
    methods, with_truth = list(frame["method"].unique()), frame["unreliable"].iloc[0] != "unknown"
    figure, axes = style.panels(2 if with_truth else 1, max(2, len(methods)), height=2.3, extra=0.5)
    most = float(frame["error"].quantile(0.95))
    look = {"x": "x", "y": "y", "s": 5, "linewidth": 0, "legend": False}
    for column, method in zip(axes.T, methods, strict=False):
        rows = frame[frame["method"] == method]
        sns.scatterplot(rows, hue="error", palette="viridis", hue_norm=(0, most), ax=column[0], **look)
        column[0].set_title(f"{style.method_title(method)}\n{rows['title'].iloc[0]}", fontsize=7)
        if with_truth:
            order = {"hue": "unreliable", "palette": UNRELIABLE, "hue_order": list(UNRELIABLE)}
            sns.scatterplot(rows, ax=column[1], **order, **look)
        for ax in column:
            _draw_triangle(ax, rows)
    for ax in axes[:, len(methods) :].flat:
        ax.set_visible(False)
    scale = ScalarMappable(Normalize(0, most), "viridis")
    figure.colorbar(scale, ax=axes[0, : len(methods)].tolist(), label="error (label units)", shrink=0.7)
    labels = {"none": "all three reliable", "several": "several unreliable"}
    handles = [style.entry(labels.get(name, f"{name} unreliable"), colour) for name, colour in UNRELIABLE.items()]
    note = f"one dot a test utterance, n = {frame['utterance'].nunique()}, one seed; lines: equal weights of a modality"
    style.legend(figure, handles if with_truth else [], note)
    return figure


def _draw_triangle(ax: Axes, rows: pd.DataFrame) -> None:
    """The view around the points, with lines of equal weight of each modality and a cross where all are equal."""
    low, high = rows[["x", "y"]].min().to_numpy(), rows[["x", "y"]].max().to_numpy()
    half = max(0.005, 0.55 * float((high - low).max()))
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[], xlabel="", ylabel="")
    ax.grid(False)
    x, y = np.meshgrid(np.linspace(left, right, 50), np.linspace(bottom, top, 50))
    vision = y / CORNERS[2, 1]
    audio = x - vision / 2
    step = next((s for s in STEPS if 2 * half / s < 7), STEPS[-1])
    for m, weight in zip(MODALITIES, (1 - audio - vision, audio, vision), strict=True):
        inside = np.where((audio >= 0) & (vision >= 0) & (audio + vision <= 1), weight, np.nan)
        look = {"colors": style.MODALITY_COLOURS[m], "linewidths": 0.4, "alpha": 0.7, "zorder": 0}
        lines = ax.contour(x, y, inside, levels=np.arange(0, 1 + step / 2, step), **look)
        ax.clabel(lines, fmt="%.3g", fontsize=5, inline_spacing=1)
    ax.plot(*np.full(3, EVEN) @ CORNERS, "+", color=style.NEUTRAL, markersize=7)
