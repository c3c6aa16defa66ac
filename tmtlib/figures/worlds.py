"""Measures of importance against truths: synthetic ones over many worlds, and people's labels of each modality."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tmtlib.common import MODALITIES
from tmtlib.data.schema import dataset_title
from tmtlib.figures.measures import MEASURES
from tmtlib.figures.style import (
    MODALITY_COLOURS,
    NEUTRAL,
    by_dataset,
    counted,
    legend,
    method_look,
    method_title,
    panels,
    styled,
)
from tmtlib.figures.weights import EVEN

TITLES = MEASURES | {"mae_mean": "of MAE, mean", "mae_permuted": "of MAE, permuted", "truth": "true importance"}


@styled
def worlds(table: pd.DataFrame, agreement: pd.DataFrame | None = None) -> Figure:
    """Share of importance by each measure against the synthetic share: a panel a measure, a point a world and modality.

    table: `importance.table` of one method in synthetic worlds. agreement: `many_worlds.agreement` of it, whose rank
    correlations, with their intervals, then stand in the panels. Raises ValueError for several methods.
    """
    if table["method"].nunique() != 1:
        raise ValueError(f"methods are {', '.join(table['method'].unique())}; wanted one")
    shown = _measures(table)
    columns = min(len(shown), 3 if len(shown) <= 9 else 4)
    figure, axes = panels(-(-len(shown) // columns), columns, height=1.75, sharex=True, sharey=True)
    top = 1.05 * max(table["mean"].max(), table["truth"].max())
    for ax, measure in zip(axes.flat, shown, strict=False):
        ax.plot([0, top], [0, top], color="#888888", linewidth=0.7)
        some = table[table["measure"] == measure]
        for m in MODALITIES:
            of = some[some["modality"] == m]
            ax.scatter(of["truth"], of["mean"], s=9, color=MODALITY_COLOURS[m], alpha=0.8, linewidths=0)
        ax.set(title=TITLES.get(measure, measure), xlim=(0, top), ylim=(0, top))
        if agreement is not None:
            ax.text(0.04, 0.96, _correlation(agreement, measure), transform=ax.transAxes, va="top", fontsize=6)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for i, ax in enumerate(axes.flat[: len(shown)]):
        if i + columns >= len(shown):
            ax.set_xlabel("synthetic share")
            ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("share by measure")
    handles = [Line2D([], [], color=MODALITY_COLOURS[m], marker="o", linestyle="", label=m) for m in MODALITIES]
    handles.append(Line2D([], [], color="#888888", linewidth=0.7, label="share = truth"))
    n, method = table["dataset"].nunique(), method_title(table["method"].iloc[0])
    note = f"{method}: one point a world and modality, n = {n} synthetic worlds"
    brackets = "; ρ: rank correlation, 95 % bootstrap interval over worlds" if agreement is not None else ""
    legend(figure, handles, note + brackets)
    return figure


def _measures(table: pd.DataFrame) -> list[str]:
    """The measures of a table in the order of `TITLES`, one kind ("shapley", "mae", ..) after another."""
    found = set(table["measure"])
    shown = [m for m in TITLES if m in found] + sorted(found - set(TITLES))
    kinds = list(dict.fromkeys(m.split("_")[0] for m in shown))
    return sorted(shown, key=lambda m: kinds.index(m.split("_")[0]))


def _correlation(agreement: pd.DataFrame, measure: str) -> str:
    found = agreement[(agreement["measure"] == measure) & (agreement["statistic"] == "spearman")].iloc[0]
    if np.isnan(found["value"]):
        return "ρ undefined"
    return f"ρ = {found['value']:.2f}" + (
        "" if np.isnan(found["low"]) else f" [{found['low']:.2f}, {found['high']:.2f}]"
    )


@styled
def unimodal(table: pd.DataFrame) -> Figure:
    """How often each measure names the modality that carried an utterance: dots with 95 % intervals by data set.

    table: `unimodal.agreement`; one colour a method. Dashed: always naming the commonest modality; dotted: at random.
    """
    datasets, methods, shown = by_dataset(table), list(table["method"].unique()), _measures(table)
    figure, axes = panels(1, len(datasets), height=0.26 * len(shown) + 0.4, extra=0.9, sharey=True)
    step = 0.6 / max(1, len(methods) - 1)
    for ax, (key, here) in zip(axes[0], datasets.items(), strict=True):
        for i, method in enumerate(methods):
            some = here[here["method"] == method].set_index("measure").reindex(shown)
            y = np.arange(len(shown)) + step * (i - (len(methods) - 1) / 2)
            spread = [some["agreement"] - some["low"], some["high"] - some["agreement"]]
            colour = method_look(method)["color"]
            ax.errorbar(some["agreement"], y, xerr=spread, fmt="o", color=colour, markersize=3, linewidth=0.9)
        ax.axvline(here["chance"].iloc[0], color=NEUTRAL, linestyle="--", linewidth=0.8)
        ax.axvline(EVEN, color=NEUTRAL, linestyle=":", linewidth=0.8)
        ax.set(title=f"{dataset_title(*key)}, n = {here['n'].iloc[0]}", xlabel="share of utterances")
        ax.set_yticks(range(len(shown)), [TITLES.get(m, m) for m in shown])
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], color=method_look(m)["color"], marker="o", label=method_title(m)) for m in methods]
    handles.append(Line2D([], [], color=NEUTRAL, linestyle="--", label="always the commonest"))
    handles.append(Line2D([], [], color=NEUTRAL, linestyle=":", label="at random (1/3)"))
    legend(figure, handles, f"lines: 95 % bootstrap over utterances and seeds; seeds: {counted(table['seeds'])}")
    return figure
