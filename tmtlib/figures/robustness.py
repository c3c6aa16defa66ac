"""Trained models on corrupted test data: degradation curves, and bars by the modalities that are present."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.style import styled

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
    kind = rows["kind"].iloc[0]
    levels = sorted(rows["level"].unique(), reverse=kind == "noise")
    place = {level: i if kind == "noise" else level for i, level in enumerate(levels)}
    columns = ["dataset", "source", "regime", "modality", "method", "seed", "level"]
    seeds = style.titled(rows.groupby(columns, sort=False)[metric].mean().reset_index())
    keys = zip(seeds["title"], seeds["regime"], seeds["modality"], strict=True)
    seeds = seeds.assign(x=seeds["level"].map(place), panel=[_panel_title(kind, *key) for key in keys])
    across = min(4, seeds["panel"].nunique())
    grid = style.facets(seeds, "panel", height=1.6, extra=1.0, col_wrap=across, sharey=False)
    first: dict = {}  # panel of each data set: all its panels have one scale
    for ax, panel in style.panel_rows(grid):
        if first.setdefault(panel["title"].iloc[0], ax) is not ax:
            ax.sharey(first[panel["title"].iloc[0]])
        style.draw_curves(ax, panel, "x", metric, marker="o")
        ax.set_title(ax.get_title(), fontsize=7)
        ax.set_xticks(list(place.values()), [style.number_label(level) for level in levels])
        ax.tick_params(axis="x", rotation=90 if len(levels) > 6 else 0)
    style.label_axes(grid, LEVEL_LABELS[kind], style.metric_label(metric))
    return style.legend(grid.figure, style.method_entries(seeds["method"].unique()), style.bands_note(seeds))


def _panel_title(kind: str, title: str, regime: str, modality: str) -> str:
    where = {"noise": "noise in {}", "shift": "{} late"}.get(kind, "{}").format(modality)
    parts = [where] if kind in ("noise", "shift") or modality != "all" else []
    parts += [f"trained {regime}"] if regime != "clean" or not parts else []
    return f"{title}\n{', '.join(parts)}"


@styled
def missing_bars(frame: pd.DataFrame, metric: str = "mae") -> Figure:
    """A metric by the modalities that are present: bars by method, whiskers of one sd; dots show who is present.

    frame: rows of `robustness.sweep` of kind "missing_modalities", whose `modality` names those present. A column a
    data set.
    """
    frame = style.titled(frame.assign(present=frame["modality"].replace("all", "+".join(MODALITIES))))
    methods, subsets = list(frame["method"].unique()), sorted(frame["present"].unique(), key=_subset_rank)
    figure, axes = style.panels(2, frame["title"].nunique(), height=1.2, sharex="col", height_ratios=(1, 0.32))
    for (bars, dots), (title, rows) in zip(axes.T, frame.groupby("title", sort=False), strict=True):
        look = {"palette": style.method_colours(methods), "saturation": 1, "err_kws": style.WHISKERS, "capsize": 0.1}
        order = {"order": subsets, "hue": "method", "hue_order": methods, "legend": False}
        sns.barplot(rows, x="present", y=metric, errorbar="sd", ax=bars, **order, **look)
        bars.set(title=title, ylabel=style.metric_label(metric) if bars is axes[0, 0] else "")
        bars.tick_params(bottom=False)
        _draw_presence(dots, subsets)
    for ax in axes[1, 1:]:
        ax.set_yticks([])
    seeds = frame.groupby(["dataset", "source", "method", "present"])["seed"].nunique()
    return style.legend(figure, style.method_entries(methods, marker="s", linestyle=""), style.whiskers_note(seeds))


def _subset_rank(present: str) -> tuple:
    """More modalities first, then in the order of MODALITIES."""
    parts = present.split("+")
    return -len(parts), [MODALITIES.index(m) for m in parts]


def _draw_presence(ax: Axes, subsets: Sequence[str]) -> None:
    for i, m in enumerate(MODALITIES):
        colours = [style.MODALITY_COLOURS[m] if m in subset.split("+") else "#E0E0E0" for subset in subsets]
        ax.scatter(range(len(subsets)), [i] * len(subsets), s=16, c=colours)
    ax.set(yticks=range(3), yticklabels=MODALITIES, ylim=(2.6, -0.6), xticks=[], xlabel="modalities present")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)
