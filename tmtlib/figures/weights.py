"""The weights A that models learn: by epoch, by feature, and against the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    MODALITY_COLOURS,
    bands_note,
    by_dataset,
    draw_curve,
    legend,
    method_title,
    panels,
    styled,
)

EVEN = 1 / len(MODALITIES)  # the weight of each modality when all weigh the same
EVEN_LOOK = {"color": "black", "linestyle": "--", "linewidth": 0.7}


@styled
def weight_trajectories(frame: pd.DataFrame) -> Figure:
    """A's mean over features by epoch (0: before training), a line a modality; a row a data set, a column a method.

    Columns: dataset, source, method, seed, epoch, modality, weight, low, high (least and greatest over features).
    """
    datasets, methods = by_dataset(frame), list(frame["method"].unique())
    figure, axes = panels(len(datasets), len(methods), height=1.4, sharex=True, sharey="row")
    for row, (key, here) in zip(axes, datasets.items(), strict=True):
        for ax, method in zip(row, methods, strict=True):
            for m in MODALITIES:
                rows = here[(here["method"] == method) & (here["modality"] == m)]
                span = rows.groupby("epoch").agg(low=("low", "min"), high=("high", "max"))
                ax.fill_between(span.index, span["low"], span["high"], color=MODALITY_COLOURS[m], alpha=0.1, lw=0)
                draw_curve(ax, rows, "epoch", "weight", color=MODALITY_COLOURS[m])
            ax.axhline(EVEN, **EVEN_LOOK)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        row[0].set_ylabel(f"{dataset_title(*key)}\nweight, mean of A")
    for ax, method in zip(axes[0], methods, strict=True):
        ax.set_title(method_title(method))
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    handles = [Line2D([], [], color=MODALITY_COLOURS[m], label=m) for m in MODALITIES]
    legend(figure, [*handles, _even_handle()], f"{bands_note(frame)}; light bands: range over features")
    return figure


@styled
def weight_heatmap(weights: np.ndarray | Mapping[str, np.ndarray], sort: bool = False) -> Figure:
    """A, (M, d), or several by title, as heat maps on one colour scale centred at 1/M.

    sort: order the features by the first modality's weight, greatest first.
    """
    maps = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    same = len({np.shape(a)[1] for a in maps.values()}) == 1
    figure, axes = panels(len(maps), 1, height=0.62 if same else 0.75, extra=0.5, sharex=same)
    norm = weight_norm(list(maps.values()))
    for ax, (title, a) in zip(axes[:, 0], maps.items(), strict=True):
        a = np.asarray(a)
        a = a[:, np.argsort(-a[0], kind="stable")] if sort else a
        image = heat_map(ax, a, norm, mean_labels(a))
        ax.set_title(title, loc="left", fontsize=7)
    ax.set_xlabel("feature" + (f", sorted by the weight of {MODALITIES[0]}" if sort else " (index)"))
    weight_colourbar(figure, image, ax=axes[:, 0], aspect=8 * len(maps))
    return figure


@styled
def weights_against_truth(frame: pd.DataFrame) -> Figure:
    """Learned weight against true importance, a point a seed and modality, a panel a method.

    Columns: dataset, source, method, seed, modality, weight, truth (shares that sum to 1 over modalities).
    """
    datasets, methods = by_dataset(frame), list(frame["method"].unique())
    markers = dict(zip(datasets, "osD^v", strict=False))
    figure, axes = panels(1, len(methods), height=2.6 if len(methods) == 1 else 2.3, sharex=True, sharey=True)
    top = 1.08 * max(frame["weight"].max(), frame["truth"].max(), 0.5)
    for ax, method in zip(axes[0], methods, strict=True):
        ax.plot([0, top], [0, top], color="#888888", linewidth=0.7)
        ax.axhline(EVEN, **EVEN_LOOK)
        for key, rows in frame[frame["method"] == method].groupby(["dataset", "source", "modality"], sort=False):
            look = {"marker": markers[key[:2]], "color": MODALITY_COLOURS[key[2]]}
            ax.scatter(rows["truth"], rows["weight"], s=16, alpha=0.7, linewidths=0, label=" ".join(key), **look)
        ax.set(title=method_title(method), xlim=(0, top), ylim=(0, top), aspect="equal")
        ax.set_xlabel("true importance (share)")
    axes[0, 0].set_ylabel("learned weight, mean of A")
    grey = {"color": "#666666", "linestyle": ""}
    handles = [Patch(color=MODALITY_COLOURS[m], label=m) for m in MODALITIES]
    handles += [Line2D([], [], marker=markers[d], label=dataset_title(*d), **grey) for d in datasets]
    handles.append(Line2D([], [], color="#888888", linewidth=0.7, label="weight = importance"))
    legend(figure, [*handles, _even_handle()], "one point a seed and modality")
    return figure


def weight_norm(arrays: Sequence[np.ndarray]) -> CenteredNorm:
    """The colour scale of A: centred at 1/M and as wide as the farthest weight; at least 0.001, as all may be equal."""
    centre = 1 / len(arrays[0])
    return CenteredNorm(centre, max(1e-3, *(float(np.abs(np.asarray(a) - centre).max()) for a in arrays)))


def weight_colourbar(figure: Figure, image: AxesImage, **place) -> None:
    """A colour bar with the centre written as 1/M and both ends as numbers; `place` as of `Figure.colorbar`."""
    bar, norm = figure.colorbar(image, **place), image.norm
    ticks = [max(0.0, norm.vcenter - norm.halfrange), norm.vcenter, norm.vcenter + norm.halfrange]
    bar.set_ticks(ticks, labels=[f"{ticks[0]:.3f}", f"1/{round(1 / norm.vcenter)}", f"{ticks[2]:.3f}"])
    bar.set_label("weight A", labelpad=1)
    bar.outline.set_visible(False)


def heat_map(ax: Axes, values: np.ndarray, norm: CenteredNorm, labels: Sequence[str]) -> AxesImage:
    """(M, d) values as an image with a label a row, without grid, frame or tick marks."""
    image = ax.imshow(values, aspect="auto", interpolation="nearest", cmap="PuOr_r", norm=norm)
    ax.set_yticks(range(len(values)), labels)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return image


def mean_labels(a: np.ndarray) -> list[str]:
    """Each modality with the mean of its weights."""
    return [f"{m} {w:.3f}" for m, w in zip(MODALITIES, a.mean(1), strict=True)]


def _even_handle() -> Line2D:
    return Line2D([], [], label=f"1/{len(MODALITIES)}", **EVEN_LOOK)
