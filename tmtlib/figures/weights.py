"""The weights A that models learn: by epoch, by feature, by utterance, and against the ground truth."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES
from tmtlib.figures import style

EVEN = 1 / len(MODALITIES)  # the weight of each modality when all weigh the same
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # of the triangle: text, audio, vision
LABELS_AT = {"text": (0, 4), "audio": (0, -4), "vision": (2, 0)}  # points beyond the end of a line of equal weight
UNRELIABLE = {"none": "#BBBBBB", **style.MODALITY_COLOURS, "several": "#000000"}


@style.styled
def weight_trajectories(frame: pd.DataFrame) -> Figure:
    """A's mean over features by epoch (0: before training), a line a modality; a row a data set, a column a method.

    Columns: dataset, source, method, seed, epoch, modality, weight, low, high (least and greatest over features).
    """
    grid = style.facets(style.titled(frame), "method", "title", height=1.4, titles=style.method_title)
    for ax, rows in style.panel_rows(grid):
        for m, of_modality in rows.groupby("modality"):
            span = of_modality.groupby("epoch").agg(low=("low", "min"), high=("high", "max"))
            ax.fill_between(span.index, span["low"], span["high"], color=style.MODALITY_COLOURS[m], alpha=0.1, lw=0)
        style.draw_curves(ax, rows, "epoch", "weight", "modality", style.MODALITY_COLOURS)
        ax.axhline(EVEN, **style.DASHED)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.tick_params(labelbottom=True)
    style.label_axes(grid, "epoch", "weight, mean of A")
    handles = [*style.modality_entries(marker=None, linestyle="-"), style.entry("1/3", **style.DASHED)]
    return style.legend(grid.figure, handles, f"{style.bands_note(frame)}; light bands: range over features")


@style.styled
def weight_heatmap(weights: np.ndarray | Mapping[str, np.ndarray], sort: bool = False) -> Figure:
    """A, (M, d), or several by title, as heat maps on one colour scale from 0 to 1.

    sort: order the features by the first modality's weight, greatest first.
    """
    maps = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    same = len({np.shape(a)[1] for a in maps.values()}) == 1
    figure, axes = style.panels(len(maps), 1, height=0.62 if same else 0.75, extra=0.5, sharex=same)
    for ax, (title, a) in zip(axes[:, 0], maps.items(), strict=True):
        a = np.asarray(a)
        a = a[:, np.argsort(-a[0], kind="stable")] if sort else a
        image = heat_map(ax, a, mean_labels(a))
        ax.set_title(f"{title}: {np.nanmin(a):.3f} to {np.nanmax(a):.3f}".removeprefix(": "), loc="left", fontsize=7)
    ax.set_xlabel("feature" + (f", sorted by the weight of {MODALITIES[0]}" if sort else " (index)"))
    weight_colourbar(figure, image, ax=axes[:, 0], aspect=8 * len(maps))
    return figure


def weight_colourbar(figure: Figure, image: QuadMesh, **place) -> None:
    """A colour bar with both ends as numbers and the centre as 0 (of W) or 1/M (of A); `place` as of `colorbar`."""
    norm, bar = image.norm, figure.colorbar(image, **place)
    labels = ["0", f"1/{len(MODALITIES)}", "1"] if norm.vcenter else [f"−{norm.vmax:.3f}", "0", f"{norm.vmax:.3f}"]
    bar.set_ticks([norm.vmin, norm.vcenter, norm.vmax], labels=labels)
    bar.outline.set_visible(False)


def heat_map(ax: Axes, values: np.ndarray, labels: Sequence[str], norm: Normalize | None = None) -> QuadMesh:
    """(M, d) values as a heat map with a label a row; features count from 0. The default norm is A's, from 0 over 1/M
    in white to 1: not stretched, so weights that are nearly equal look so."""
    norm = norm or TwoSlopeNorm(EVEN, 0, 1)
    every = -(-values.shape[1] // 8)
    sns.heatmap(values, norm=norm, cmap="PuOr_r", cbar=False, xticklabels=every, yticklabels=labels, ax=ax)
    ax.tick_params(length=0, rotation=0)
    return ax.collections[0]


def mean_labels(a: np.ndarray) -> list[str]:
    """Each modality with the mean of its weights; NaN: absent."""
    return [f"{m} absent" if np.isnan(w) else f"{m} {w:.3f}" for m, w in zip(MODALITIES, a.mean(1), strict=True)]


@style.styled
def weights_against_truth(frame: pd.DataFrame) -> Figure:
    """Learned weight against true importance, a point a seed and modality, a panel a method.

    Columns: dataset, source, method, seed, modality, weight, truth (shares that sum to 1 over modalities).
    """
    frame = style.titled(frame)
    markers, titles = style.marker_entries(frame["title"].unique())
    top = 1.08 * max(frame["weight"].max(), frame["truth"].max(), 0.5)
    height = 2.6 if frame["method"].nunique() == 1 else 2.3
    grid = style.facets(frame, "method", height=height, titles=style.method_title)
    for ax, rows in style.panel_rows(grid):
        against_truth(ax, rows, "weight", top, style="title", markers=markers, s=16, alpha=0.7)
        ax.axhline(EVEN, **style.DASHED)
        ax.set_aspect("equal")
    style.label_axes(grid, "true importance (share)", "learned weight, mean of A")
    lines = [style.entry("weight = importance", **style.DIAGONAL), style.entry("1/3", **style.DASHED)]
    handles = [*style.modality_entries(marker="s"), *titles, *lines]
    return style.legend(grid.figure, handles, "one point a seed and modality")


def against_truth(ax: Axes, rows: pd.DataFrame, value: str, top: float, **options) -> None:
    """A point a row at its `truth` and a value, coloured by modality, with the diagonal; both axes from 0 to top."""
    ax.plot([0, top], [0, top], **style.DIAGONAL)
    options = {"hue": "modality", "palette": style.MODALITY_COLOURS, "linewidth": 0, "legend": False} | options
    sns.scatterplot(rows, x="truth", y=value, ax=ax, **options)
    ax.set(xlim=(0, top), ylim=(0, top))


@style.styled
def weight_reach(moved: pd.DataFrame) -> Figure:
    """The greatest |W| after training against how far Adam can move a parameter (learning rate times steps), log-log.

    moved: `weights.reach`. The line is the bound; a point on it has moved all steps in one direction.
    """
    moved = style.titled(moved)
    methods, (markers, titles) = moved["method"].unique(), style.marker_entries(moved["title"].unique())
    figure, axes = style.panels(1, 1, height=2.2)
    ax = axes[0, 0]
    dots = {"palette": style.method_colours(methods), "markers": markers, "s": 25, "alpha": 0.8, "linewidth": 0}
    sns.scatterplot(moved, x="move_bound", y="w_max", hue="method", style="title", legend=False, ax=ax, **dots)
    span = np.array([moved["move_bound"].min() / 2, moved["move_bound"].max() * 2])
    ax.plot(span, span, color=style.NEUTRAL, linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="bound: learning rate × steps", ylabel="greatest |W| at the tested epoch")
    handles = [*style.method_entries(methods, marker="o", linestyle=""), *titles]
    return style.legend(figure, handles, "line: the bound; points: the greatest over features and seeds")


@style.styled
def ternary(frame: pd.DataFrame) -> Figure:
    """Each utterance at its weights, zoomed to where all are: a column a method; coloured by its error above, and by
    which modality is unreliable below (synthetic data only).

    frame: `weights.by_utterance` of one data set and one seed. Lines of equal weight have the modality's colour; three
    of them meet at 1/3 each.
    """
    a = frame[list(MODALITIES)].fillna(0).to_numpy()  # an absent modality's corner is empty
    methods, (x, y) = frame["method"].unique(), (a / a.sum(1, keepdims=True) @ CORNERS).T
    unreliable = frame["unreliable"].mask(frame["unreliable"].str.contains("+", regex=False), "several")
    frame = style.titled(frame).assign(x=x, y=y, unreliable=unreliable).sort_values("error", kind="stable")
    scale = Normalize(0, float(frame["error"].quantile(0.95)))
    options = {"error": {"palette": "viridis", "hue_norm": scale}}
    options["unreliable"] = {"palette": UNRELIABLE, "hue_order": list(UNRELIABLE)}
    labels = {name: f"{name} unreliable" for name in UNRELIABLE} | {"none": "all three reliable"}
    handles = [style.entry(labels[name], colour) for name, colour in UNRELIABLE.items()]
    if "unknown" in set(unreliable):
        handles, options = [], {"error": options["error"]}
    figure, axes = style.panels(len(options), len(methods), height=2.3, extra=0.5)
    for column, method in zip(axes.T, methods, strict=True):
        rows = frame[frame["method"] == method]
        for ax, (hue, colours) in zip(column, options.items(), strict=True):
            sns.scatterplot(rows, x="x", y="y", hue=hue, s=5, linewidth=0, legend=False, ax=ax, **colours)
            _draw_triangle(ax, frame)
        least, most = np.nanquantile(rows[list(MODALITIES)], (0, 1))
        column[0].set_title(f"{style.method_title(method)}\n{least:.3f} to {most:.3f}", fontsize=7, pad=10)
    figure.suptitle(rows["title"].iloc[0], fontsize="medium")
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes[0].tolist(), label="error (label units)", shrink=0.7)
    note = f"one dot a test utterance, n = {frame['utterance'].nunique()}, one seed; lines: equal weights of a modality"
    note += "; more weight on text: to the lower left, on audio: to the lower right, on vision: upwards"
    return style.legend(figure, handles, note)


def _draw_triangle(ax: Axes, rows: pd.DataFrame) -> None:
    """The view around the points, with labelled lines of equal weight and a cross where all are equal."""
    low, high = rows[["x", "y"]].min(), rows[["x", "y"]].max()
    half = max(0.005, 0.55 * (high - low).max())
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[], xlabel="", ylabel="")
    ax.grid(False)
    x, y = np.meshgrid(np.linspace(left, right, 50), np.linspace(bottom, top, 50))
    weights = np.stack([1 - x - y / 3**0.5, x - y / 3**0.5, 2 * y / 3**0.5])  # of text, audio and vision
    weights[:, (weights < 0).any(0)] = np.nan  # outside the triangle
    step = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, 2 * half)[1]
    options = {"levels": np.arange(0, 1 + step / 2, step), "linewidths": 0.4, "alpha": 0.7, "zorder": 0}
    for weight, (m, colour) in zip(weights, style.MODALITY_COLOURS.items(), strict=True):
        lines = ax.contour(x, y, weight, colors=colour, **options)
        font = {"color": colour, "fontsize": 6, "ha": "left" if m == "vision" else "center", "va": "center"}
        for level, segments in zip(lines.levels, lines.allsegs, strict=True):
            ends = [line[np.argmax(line @ LABELS_AT[m])] for line in segments if len(line)]
            for end in (end for end in ends if m == "vision" or left + step / 9 < end[0] < right):
                ax.annotate(f"{level:.3g}", end, LABELS_AT[m], textcoords="offset points", **font)
    ax.plot(*np.full(3, EVEN) @ CORNERS, "+", color=style.NEUTRAL, markersize=7)
