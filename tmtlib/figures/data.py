"""Figure 4: the data sets."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES
from tmtlib.data.check import BIN_WIDTH, alignment
from tmtlib.data.schema import SPLITS, TITLES, Dataset, split_name
from tmtlib.figures import style
from tmtlib.paper import facts

SPLIT_COLOURS = {"train": "#BBBBBB", "valid": "#777777", "test": "#000000"}


@style.styled
def figure4_datasets(datasets: Sequence[Dataset]) -> Figure:
    """Counterpart of the paper's Figure 4: the published corpora beside the data sets that are loaded, a row each.

    In the paper's order: facts of the corpus, from `facts.CORPORA`; then of the loaded data utterances per split,
    shares of labels in each split, in equal bins, and, over all splits, the distribution of valid frames per modality,
    with the longest T and width D.
    """
    figure, axes = style.panels(len(datasets), 4, height=1.4, extra=0.4, width_ratios=(1.15, 0.75, 1, 1.3))
    for row, data in zip(axes, sorted(datasets, key=lambda d: style.paper_order(d.card.name)), strict=True):
        _write_facts(row[0], data)
        _draw_sizes(row[1], data)
        _draw_labels(row[2], data)
        _draw_lengths(row[3], data)
    handles = [style.entry("train", SPLIT_COLOURS["train"], "s", alpha=0.6)]
    handles += [style.entry(s, SPLIT_COLOURS[s], None, linestyle) for s, linestyle in (("valid", "--"), ("test", "-"))]
    return style.legend(figure, handles, "left: as published (sources: tmtlib/paper/corpora.csv); right: as loaded")


def _write_facts(ax: Axes, data: Dataset) -> None:
    """What is published of the corpus, if it is one of the paper's."""
    name = split_name(data.card.name)[0]
    rows = facts.CORPORA[facts.CORPORA["dataset"] == name]
    lines = [f"{row.fact}: {row.value}" for row in rows.itertuples()] or ["no published facts are kept"]
    if name in facts.SPLIT_SIZES:
        lines.insert(3, "splits: " + ", ".join(f"{n:,}" for n in facts.SPLIT_SIZES[name]))
    ax.set_axis_off()
    ax.set_title(TITLES.get(name, name), loc="left")
    ax.text(0, 1, "\n".join(lines), va="top", fontsize=6.5, linespacing=1.35, transform=ax.transAxes, parse_math=False)


def _draw_sizes(ax: Axes, data: Dataset) -> None:
    sizes = [len(data[s]) for s in SPLITS]
    bars = ax.barh(SPLITS, sizes, color=[SPLIT_COLOURS[s] for s in SPLITS], height=0.65)
    ax.bar_label(bars, [f"{n:,}" for n in sizes], padding=2, fontsize=6.5)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.6 * max(sizes)), xlabel="utterances")
    ax.set_title(f"{data.card.title}, {alignment(data)}", loc="left")
    ax.grid(False)
    ax.xaxis.set_major_locator(MaxNLocator(2, integer=True))


def _draw_labels(ax: Axes, data: Dataset) -> None:
    (low, high), step = data.card.label_range, BIN_WIDTH[data.family]
    edges = np.arange(low, high + 1.5 * step, step) - step / 2
    for s in SPLITS:
        share = np.histogram(np.clip(data[s].labels, low, high), edges)[0] / len(data[s])
        options = {"fill": True, "alpha": 0.6} if s == "train" else {"linestyle": "--" if s == "valid" else "-"}
        ax.stairs(share, edges, color=SPLIT_COLOURS[s], label=s, linewidth=1, **options)
    ax.set(xlabel=f"label (bins of {step:g})", ylabel="share of split", ylim=(0, None))


def _draw_lengths(ax: Axes, data: Dataset) -> None:
    """A histogram a modality, one above the other; the axis is log(1 + frames) where the modalities' T differ much."""
    longest = {m: t for m, (t, _) in data.shapes.items()}
    wide = max(longest.values()) > 4 * min(longest.values())
    if wide:
        ax.set_xscale("function", functions=(np.log1p, np.expm1))
    top, ticks = max(longest.values()), []
    edges = np.geomspace(1, top + 2, 36) - 1 if wide else np.linspace(0, top + 1, min(top + 2, 31))
    edges = np.unique(np.round(edges)) - 0.5  # the last is top + 0.5
    for i, m in enumerate(reversed(MODALITIES)):
        lengths = np.concatenate([data[s].lengths[m] for s in SPLITS])
        density = np.histogram(lengths, edges)[0] / np.diff(np.log1p(edges + 0.5) if wide else edges)
        ax.stairs(i + 0.85 * density / density.max(), edges, baseline=i, fill=True, color=style.MODALITY_COLOURS[m])
        extent = f"T ≤ {longest[m]}" if lengths.any() else "absent"
        ticks.append(f"{m}\n{extent}, D = {data.shapes[m][1]}")
    ax.set(yticks=np.arange(3) + 0.4, yticklabels=ticks, ylim=(0, 3), xlim=(-0.5, top + 0.5))
    ax.set_xlabel("valid frames" + (" (log scale)" if wide else ""))
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    if wide:
        ax.set_xticks([t for t in (0, 1, 3, 10, 30, 100, 300, 1000, 3000) if t <= top], minor=False)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
