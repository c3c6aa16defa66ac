"""What all figures share: page widths, colours, titles, panels, legends, curves over seeds, and how one is saved."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tmtlib import common
from tmtlib.stats import metrics
from tmtlib.study.methods import METHODS, method_title

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9  # inches
MODALITY_COLOURS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73"}
ACCENT, NEUTRAL = METHODS["tmt_amw"].colour, "#777777"
AXIS_LABELS = {
    "acc5": "Acc-5 (fraction)",
    "f1_5class": "F1, 5-class (fraction)",
    "train_loss": "training loss",
    "wa_mean": "weighted accuracy, mean over emotions (fraction)",
    "f1_mean": "F1, mean over emotions (fraction)",
}
NO_SPREAD = "n = 1 seed: no spread is known"


@contextmanager
def study_style() -> Iterator[None]:
    """Applies study.mplstyle on matplotlib's defaults, whatever the caller has set; restores the caller's settings."""
    with plt.style.context(common.FIGURE_STYLE, after_reset=True):
        yield


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: draws under `study_style`, settles the layout there, and leaves no figure open in pyplot."""

    @wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with study_style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made lazily: they must be made in this style
        plt.close(figure)
        return figure

    return wrapper


def method_colour(method: str) -> str | tuple[float, float, float]:
    """A method's colour; one without a fixed colour gets a hue from its name, the same in every figure."""
    known = METHODS.get(method)
    if method == "constant":
        return "#000000"
    return (known and known.colour) or colorsys.hls_to_rgb(crc32(method.encode()) % 360 / 360, 0.42, 0.6)


def method_look(method: str) -> dict:
    """A method's line: colour, dashes and label."""
    return {
        "color": method_colour(method),
        "linestyle": METHODS[method].dash if method in METHODS else ":",
        "label": method_title(method),
    }


def metric_label(metric: str) -> str:
    """Axis label of a metric, with its unit; `valid_...` is the metric on validation."""
    if metric in AXIS_LABELS:
        return AXIS_LABELS[metric]
    if metric.startswith("valid_"):
        return f"validation {metric_label(metric.removeprefix('valid_'))}"
    return metrics.LABELS.get(metric, metric)


def by_dataset(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows of each (dataset, source), in the order of appearance."""
    return dict(iter(frame.groupby(["dataset", "source"], sort=False)))


def panels(rows: int, columns: int, height: float = 1.7, extra: float = 0.7, **options) -> tuple[Figure, np.ndarray]:
    """A grid of axes in one column of a page, or in two; `height` a row and `extra` for all, in inches."""
    size = ONE_COLUMN if columns == 1 else TWO_COLUMNS, extra + height * rows
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def draw_curve(ax: Axes, rows: pd.DataFrame, x: str, y: str, marker: str | None = None, **look) -> None:
    """The mean over seeds as far as every seed goes, a band of one sd, and thin lines of seeds that go farther."""
    seeds = rows.pivot(index=x, columns="seed", values=y)
    common = seeds.dropna()
    mean, sd = common.mean(axis=1), common.std(axis=1, ddof=1)
    ax.plot(mean.index, mean, marker=marker, markersize=2.5, **look)
    if seeds.shape[1] > 1:
        ax.fill_between(mean.index, mean - sd, mean + sd, color=look["color"], alpha=0.16, linewidth=0)
    if len(common) < len(seeds):
        ax.plot(seeds.index, seeds, **(look | {"linewidth": 0.4, "alpha": 0.6, "label": None}))


def whiskers_note(numbers: pd.Series) -> str:
    """What whiskers show, given the numbers of seeds behind them."""
    if numbers.max() < 2:
        return NO_SPREAD
    return f"whiskers: ± 1 sd over seeds, {counted(numbers)}" + ("; none where n = 1" if numbers.min() < 2 else "")


def bands_note(frame: pd.DataFrame) -> str:
    """What the lines, bands and thin lines of `draw_curve` show."""
    numbers = frame.groupby(["dataset", "source", "method"])["seed"].nunique()
    if numbers.max() < 2:
        return NO_SPREAD
    steps = frame.groupby(["dataset", "source", "method", "seed"]).size()
    ragged = steps.groupby(level=[0, 1, 2]).nunique().max() > 1
    thin = "; thin: single seeds, as not all went on as long" if ragged else ""
    return f"lines: mean over seeds, {counted(numbers)}; bands: ± 1 sd{thin}"


def counted(numbers: pd.Series) -> str:
    """The numbers of seeds in words: n = 3, or n = 3 to 10."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def legend(figure: Figure, handles: Sequence, note: str) -> None:
    """One legend below all panels, in as many columns as fit, under a line that says what the spread is."""
    inches, labels, columns = figure.get_figwidth(), [h.get_label() for h in handles], 1
    for columns in range(len(labels), 0, -1):
        filled = np.array_split(labels, columns)  # as matplotlib fills them
        if sum(0.45 + 0.052 * max(map(len, column)) for column in filled) < inches:
            break
    note = textwrap.fill(note, int(inches / 0.05))
    lines = -(-len(labels) // columns) + note.count("\n")
    figure.set_figheight(figure.get_figheight() + 0.14 * (lines - 1))  # the panels keep their height
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, title=note)


def slots(methods: Sequence[str], groups: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Each method's bar positions, one a group at 0, 1, .., and the width of a bar."""
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        yield method, np.arange(groups) + (i - (len(methods) - 1) / 2) * width, width


def draw_bars(ax: Axes, x, mean, sd, method: str, width: float) -> None:
    whisker = {"elinewidth": 0.7, "capthick": 0.7}
    colour = method_colour(method)
    ax.bar(x, mean, 0.92 * width, yerr=sd, color=colour, label=method_title(method), error_kw=whisker)


def method_lines(frame: pd.DataFrame) -> list[Line2D]:
    return [Line2D([], [], **method_look(m)) for m in frame["method"].unique()]


def method_patches(methods: Sequence[str]) -> list[Patch]:
    return [Patch(color=method_colour(m), label=method_title(m)) for m in methods]
