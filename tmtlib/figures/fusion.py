"""Figure 1: ways to fuse three modalities."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.models.base import Batch, count_parameters

FRAMES = (("text", "t"), ("audio", "a"), ("vision", "v"))
TOKENS = (("$I$", "s"), (r"$S_\mathrm{text}$", "t"), (r"$S_\mathrm{audio}$", "a"), (r"$S_\mathrm{vision}$", "v"))
SCALED = (("$I$", "s"), *((r"$A_m \odot S_m$", letter) for letter in "tav"))
DISENTANGLED = ((("label tokens", "s"), *FRAMES), (("one encoder", "tavs"),), TOKENS)
MUTUALLY = (("$I$ asks $S$", "tavs"), ("$S$ asks $I$", "tavs"))
# Ways to fuse by method: rows of boxes from the frames to the prediction, each box with what flows through it (s: what
# the modalities share). Arrows lead to a box from those above with which it has something in common
FUSIONS = {
    "early fusion": (FRAMES, (("frames joined", "tav"),), (("one network", "tav"),)),
    "late_fusion": (FRAMES, tuple(("network", m) for m in "tav"), (("outputs joined", "tav"),)),
    "mult": (FRAMES, tuple((f"{m} asks", "tav") for m, _ in FRAMES), (("six sequences joined", "tav"),)),
    "misa": (FRAMES, (*(("private", m) for m in "tav"), ("shared", "tav")), (("one transformer", "tav"),)),
    "tmt": (*DISENTANGLED, MUTUALLY),
    "tmt_amw": (*DISENTANGLED, SCALED, MUTUALLY),
}


@style.styled
def figure1_fusion(models: Mapping[str, nn.Module], batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 1: TMT and TMT+AMW beside existing ways to fuse text, audio and vision.

    A panel for each of FUSIONS; the models of these methods, by name or title, give the numbers of parameters, and the
    batch gives the widths of the features.
    """
    figure, axes = style.panels(2, 3, height=2.1, extra=0.3)
    for ax, (method, rows) in zip(axes.flat, FUSIONS.items(), strict=True):
        name = style.method_title(method)
        model = models.get(method, models.get(name))
        ax.set_title(name if model is None else f"{name}, {count_parameters(model):,} parameters", fontsize=7)
        ax.set_axis_off()
        _draw_flow(ax, [*rows, (("prediction", "tavs"),)])
    widths = ", ".join(f"{m} {batch.features[m].shape[2]}" for m in MODALITIES)
    figure.suptitle(f"{title}, features a frame: {widths}".removeprefix(", "), fontsize=7.5)
    note = "asks: the queries of an attention to the other; purple: what the modalities share; pink: scaled by AMW"
    figure.supxlabel(note, fontsize=6.5)
    return figure


def _draw_flow(ax: Axes, rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Rows of boxes from the top, with arrows from row to row."""
    colours = style.GROUP_COLOURS | dict(zip("stav", style.GROUP_COLOURS.values(), strict=True))
    for r, row in enumerate(rows):
        for i, (words, flow) in enumerate(row):
            x, y = (i + 0.5) / len(row), 1 - (r + 0.5) / len(rows)
            colour = style.ACCENT if "odot" in words else colours.get(words) or colours.get(flow, style.NEUTRAL)
            box = {"boxstyle": "round,pad=0.25", "facecolor": style.tint(colour), "edgecolor": colour, "linewidth": 0.8}
            ax.text(x, y, words, ha="center", va="center", fontsize=6.5, bbox=box)
            above = rows[r - 1] if r else ()
            for j, (_, other) in enumerate(above):
                if set(flow) & set(other):
                    start = (j + 0.5) / len(above), y + 1 / len(rows) - 0.055
                    arrow = {"arrowstyle": "-|>", "mutation_scale": 5, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
                    ax.annotate("", (x, y + 0.055), start, arrowprops=arrow | {"color": colours.get(other, "black")})
