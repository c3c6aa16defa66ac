"""One utterance: attention to its words and frames, what each modality adds to the prediction, and its weights."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES
from tmtlib.figures.style import MODALITY_COLOURS, NEUTRAL, TWO_COLUMNS, styled

GROUP_TITLES = ("shared", *MODALITIES)
MANY = 26  # more words than that are labelled by every second


@styled
def utterance(seen) -> Figure:
    """`explorer.look` as a figure: attention of the token groups to each frame (with the words on the text's axis), the
    contributions of the modalities to the prediction beside the synthetic ones, and the weights."""
    figure = plt.figure(figsize=(TWO_COLUMNS, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    maps = top.subplots(1, 3, width_ratios=[max(3, seen.attention[m].shape[1]) ** 0.5 for m in MODALITIES])
    most = max((float(a.max()) for a in seen.attention.values() if a.size), default=1.0)
    for ax, m in zip(maps, MODALITIES, strict=True):
        image = _draw_attention(ax, seen, m, most)
    maps[0].set_yticks(range(4), [f"{g} tokens" for g in GROUP_TITLES])
    if image is not None:
        top.colorbar(image, ax=list(maps), label="attention", shrink=0.8)
    left, right = bottom.subplots(1, 2)
    _draw_contributions(left, seen)
    _draw_weights(right, seen)
    said = textwrap.shorten(f'{seen.name}: "{seen.transcript}"', 100, placeholder=" …")
    figure.suptitle(f"{said}\nlabel {seen.label:+.2f}, prediction {seen.prediction:+.2f}", fontsize=8, parse_math=False)
    return figure


def _draw_attention(ax: Axes, seen, modality: str, most: float):
    a = seen.attention[modality]
    ax.set_title(modality, color=MODALITY_COLOURS[modality])
    ax.set_yticks([])
    ax.grid(False)
    if not a.size:
        ax.text(0.5, 0.5, "absent", ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([])
        return None
    frames = a.shape[1]
    extent = (0.5, frames + 0.5, 3.5, -0.5)  # frames count from 1
    image = ax.imshow(a, aspect="auto", cmap="Greys", vmin=0, vmax=most, interpolation="nearest", extent=extent)
    if modality == "text":
        step = 1 if len(seen.words) <= MANY else 2
        places = range(0, min(len(seen.words), frames), step)
        ax.set_xticks(
            [k + 1 for k in places], [seen.words[k] for k in places], rotation=90, fontsize=6, parse_math=False
        )
    else:
        ax.set_xlabel("frame")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return image


def _draw_contributions(ax: Axes, seen) -> None:
    """Bars of Shapley values, hollow ones of the synthetic parts; names of unreliable modalities say so."""
    x = np.arange(3)
    colours = [MODALITY_COLOURS[m] for m in MODALITIES]
    ax.bar(x, [seen.contribution[m] for m in MODALITIES], 0.35, color=colours)
    _around_zero(ax, seen.contribution.values())
    handles = [Patch(color=NEUTRAL, label="the model's (Shapley values)")]
    if seen.truth is not None:  # of a latent variable: its unit is not the label's
        other = ax.twinx()
        other.bar(x + 0.4, [seen.truth[m] for m in MODALITIES], 0.35, fill=False, edgecolor=colours)
        _around_zero(other, seen.truth.values())
        other.set_ylabel("synthetic part (sd of y)")
        other.grid(False)
        handles.append(Patch(fill=False, edgecolor=NEUTRAL, label="synthetic"))
    names = [m if seen.reliable is None or seen.reliable[m] else f"{m}\n(unreliable)" for m in MODALITIES]
    ax.set_xticks(x + (0.2 if seen.truth is not None else 0), names)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(ylabel="added (label units)", title="what each modality adds")
    ax.legend(handles=handles, fontsize=6, loc="best")


def _around_zero(ax: Axes, values) -> None:
    """A y axis with zero in the middle, so that two of them share it."""
    most = 1.25 * max((abs(v) for v in values), default=1.0) or 1.0
    ax.set_ylim(-most, most)


def _draw_weights(ax: Axes, seen) -> None:
    ax.set_title("weights A, mean over features")
    if seen.weights is None:
        ax.text(0.5, 0.5, "this model has none", ha="center", va="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
        return
    ax.bar(range(3), [seen.weights[m] for m in MODALITIES], 0.5, color=[MODALITY_COLOURS[m] for m in MODALITIES])
    ax.axhline(1 / 3, color="black", linestyle="--", linewidth=0.7)
    ax.set_xticks(range(3), MODALITIES)
    ax.set(ylim=(0, max(0.5, *seen.weights.values())), ylabel="weight")
