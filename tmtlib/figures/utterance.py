"""One utterance: attention to its words and frames, what each modality adds to the prediction, and its weights."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.style import styled
from tmtlib.models.tmt import GROUPS

MANY = 26  # more words than that are labelled by every second
COLOURS = list(style.MODALITY_COLOURS.values())


@styled
def utterance(seen) -> Figure:
    """`analysis.utterance.look` as a figure: attention of the token groups to each frame (with the words on the text's
    axis), the contributions of the modalities to the prediction beside the synthetic ones, and the weights."""
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    maps = top.subplots(1, 3, width_ratios=[max(3, seen.attention[m].shape[1]) ** 0.5 for m in MODALITIES])
    most = max((float(a.max()) for a in seen.attention.values() if a.size), default=1.0)
    for ax, m in zip(maps, MODALITIES, strict=True):
        _draw_attention(ax, seen, m, most)
    maps[0].set_yticks([0.5, 1.5, 2.5, 3.5], [f"{group} tokens" for group in GROUPS], rotation=0)
    images = [image for ax in maps for image in ax.collections]
    if images:
        top.colorbar(images[0], ax=list(maps), label="attention", shrink=0.8)
    left, right = bottom.subplots(1, 2)
    _draw_contributions(left, seen)
    _draw_weights(right, seen)
    words = textwrap.shorten(f'{seen.name}: "{seen.transcript}"', 100, placeholder=" …")
    title = f"{words}\nlabel {seen.label:+.2f}, prediction {seen.prediction:+.2f}"
    figure.suptitle(title, fontsize=8, parse_math=False)
    return figure


def _draw_attention(ax: Axes, seen, modality: str, most: float) -> None:
    """(4, T) attention of one modality's frames; frames count from 1."""
    a = seen.attention[modality]
    ax.set_title(modality, color=style.MODALITY_COLOURS[modality])
    ax.set(xticks=[], yticks=[])
    if not a.size:
        ax.text(0.5, 0.5, "absent", ha="center", va="center", transform=ax.transAxes)
        return
    sns.heatmap(a, vmin=0, vmax=most, cmap="Greys", cbar=False, xticklabels=False, yticklabels=False, ax=ax)
    if modality == "text":
        places = range(0, min(len(seen.words), a.shape[1]), 1 if len(seen.words) <= MANY else 2)
        words = [seen.words[k] for k in places]
        ax.set_xticks([k + 0.5 for k in places], words, rotation=90, fontsize=6, parse_math=False)
    else:
        frames = a.shape[1]
        numbers = range(1, frames + 1, max(1, -(-frames // 6)))
        ax.set_xticks([k - 0.5 for k in numbers], numbers)
        ax.set_xlabel("frame")


def _draw_contributions(ax: Axes, seen) -> None:
    """Bars of Shapley values, hollow ones of the synthetic parts; names of unreliable modalities say so."""
    ax.bar(range(3), [seen.contribution[m] for m in MODALITIES], 0.35, color=COLOURS)
    _around_zero(ax, seen.contribution.values())
    handles = [Patch(color=style.NEUTRAL, label="the model's (Shapley values)")]
    if seen.truth is not None:  # of a latent variable: its unit is not the label's
        other = ax.twinx()
        other.bar([0.4, 1.4, 2.4], [seen.truth[m] for m in MODALITIES], 0.35, fill=False, edgecolor=COLOURS)
        _around_zero(other, seen.truth.values())
        other.set_ylabel("synthetic part (sd of y)")
        other.grid(False)
        handles.append(Patch(fill=False, edgecolor=style.NEUTRAL, label="synthetic"))
    names = [m if seen.reliable is None or seen.reliable[m] else f"{m}\n(unreliable)" for m in MODALITIES]
    ax.set_xticks([0, 1, 2] if seen.truth is None else [0.2, 1.2, 2.2], names)
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
    ax.bar(MODALITIES, [seen.weights[m] for m in MODALITIES], 0.5, color=COLOURS)
    ax.axhline(1 / 3, color="black", linestyle="--", linewidth=0.7)
    ax.set(ylim=(0, max(0.5, *seen.weights.values())), ylabel="weight")
