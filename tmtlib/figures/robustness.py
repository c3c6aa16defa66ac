"""Trained models on corrupted test data: degradation curves, and bars by the modalities that are present."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.style import (
    MODALITY_COLOURS,
    bands_note,
    by_dataset,
    draw_bars,
    draw_curve,
    legend,
    method_lines,
    method_look,
    method_patches,
    metric_label,
    panels,
    slots,
    styled,
    whiskers_note,
)

LEVEL_LABELS = {  # of x axes, by kind of corruption
    "noise": "SNR (dB)",
    "missing_frames": "rate of missing frames",
    "missing_block": "share of frames in the block",
    "shift": "delay (frames)",
    "words_dropped": "rate of dropped words",
    "words_substituted": "rate of substituted words",
}


@styled
def degradation(rows: pd.DataFrame, metric: str = "mae") -> Figure:
    """A metric against the level of one kind of corruption: a panel a data set, training regime and modality.

    rows: of `robustness.sweep`, all of one kind; means over masks first. Decibels stand at equal distances, clean
    first; rates, shares and frames at their values.
    """
    kind, columns = rows["kind"].iloc[0], ["dataset", "source", "regime", "modality"]
    levels = sorted(rows["level"].unique(), reverse=kind == "noise")
    place = {level: i if kind == "noise" else level for i, level in enumerate(levels)}
    seeds = rows.groupby([*columns, "method", "seed", "level"], sort=False)[metric].mean().reset_index()
    seeds["x"] = seeds["level"].map(place)
    cells = dict(iter(seeds.groupby(columns, sort=False)))
    across = min(4, len(cells))
    figure, axes = panels(-(-len(cells) // across), across, height=1.6, extra=1.0, sharex=True)
    for ax, (key, here) in zip(axes.flat, cells.items(), strict=False):
        for method, some in here.groupby("method", sort=False):
            draw_curve(ax, some, "x", metric, marker="o", **method_look(method))
        ax.set_title(_panel_title(kind, *key), fontsize=7)
        ax.set_xticks(list(place.values()), [_level_label(level) for level in levels])
        ax.tick_params(axis="x", rotation=90 if len(levels) > 6 else 0)
    _share_heights(dict(zip(cells, axes.flat, strict=False)))
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel(metric_label(metric))
    for ax in axes.flat[max(0, len(cells) - across) : len(cells)]:
        ax.set_xlabel(LEVEL_LABELS[kind])
        ax.tick_params(labelbottom=True)
    legend(figure, method_lines(seeds), bands_note(seeds))
    return figure


def _share_heights(panels_by_key: dict[tuple, Axes]) -> None:
    """One scale for all panels of a data set."""
    of_dataset: dict[tuple, list[Axes]] = {}
    for key, ax in panels_by_key.items():
        of_dataset.setdefault(key[:2], []).append(ax)
    for group in of_dataset.values():
        low, high = zip(*(ax.get_ylim() for ax in group), strict=True)
        for ax in group:
            ax.set_ylim(min(low), max(high))


def _panel_title(kind: str, dataset: str, source: str, regime: str, modality: str) -> str:
    where = {"noise": "noise in {}", "shift": "{} late"}.get(kind, "{}").format(modality)
    parts = [where] if kind in ("noise", "shift") or modality != "all" else []
    parts += [f"trained {regime}"] if regime != "clean" or not parts else []
    return f"{dataset_title(dataset, source)}\n{', '.join(parts)}"


def _level_label(level: float) -> str:
    return "clean" if np.isinf(level) else f"{level:g}".replace("-", "−")


@styled
def missing_bars(frame: pd.DataFrame, metric: str = "mae") -> Figure:
    """A metric by the modalities that are present: bars by method, whiskers of one sd; dots show who is present.

    frame: rows of `robustness.sweep` of kind "missing_modalities", whose `modality` names those present. A column a
    data set.
    """
    frame = frame.assign(present=frame["modality"].replace("all", "+".join(MODALITIES)))
    datasets, methods = by_dataset(frame), list(frame["method"].unique())
    subsets = sorted(frame["present"].unique(), key=_subset_rank)
    figure, axes = panels(2, len(datasets), height=1.2, sharex=True, height_ratios=(1, 0.32))
    for column, (key, here) in zip(axes.T, datasets.items(), strict=True):
        for method, x, width in slots(methods, len(subsets)):
            values = here[here["method"] == method].groupby("present")[metric].agg(["mean", "std"]).reindex(subsets)
            draw_bars(column[0], x, values["mean"], values["std"], method, width)
        column[0].set_title(dataset_title(*key))
        column[0].tick_params(bottom=False)
        _draw_presence(column[1], subsets)
    for ax in axes[1, 1:]:
        ax.set_yticks([])
    axes[0, 0].set_ylabel(metric_label(metric))
    seeds = frame.groupby(["dataset", "source", "method", "present"])["seed"].nunique()
    legend(figure, method_patches(methods), whiskers_note(seeds))
    return figure


def _subset_rank(present: str) -> tuple:
    """More modalities first, then in the order of MODALITIES."""
    parts = present.split("+")
    return -len(parts), [MODALITIES.index(m) for m in parts]


def _draw_presence(ax: Axes, subsets: Sequence[str]) -> None:
    for i, m in enumerate(MODALITIES):
        there = [m in s.split("+") for s in subsets]
        colours = [MODALITY_COLOURS[m] if yes else "#E0E0E0" for yes in there]
        ax.scatter(range(len(subsets)), [i] * len(subsets), s=16, c=colours)
    ax.set(yticks=range(3), yticklabels=MODALITIES, ylim=(2.6, -0.6), xticks=[], xlabel="modalities present")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)
