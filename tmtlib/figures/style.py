"""What all figures share: widths, colours, titles, grids of panels, curves, intervals and legends."""

import colorsys
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from math import ceil
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tmtlib import common
from tmtlib.data.schema import dataset_title
from tmtlib.paper import facts
from tmtlib.stats import metrics
from tmtlib.study.methods import METHODS, method_title

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9  # inches
MODALITY_COLOURS = {"text": "#0072B2", "audio": "#E69F00", "vision": "#009E73"}
GROUP_COLOURS = {"shared": "#5B5B8C", **MODALITY_COLOURS}  # of token groups
ACCENT, NEUTRAL = METHODS["tmt_amw"].colour, "#777777"
CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC")  # fonts
DASHES = {"-": "", "--": (4, 1.5), "-.": (3, 1.25, 1.5, 1.25), ":": (1, 1)}  # seaborn's, by matplotlib's name
LABELS = metrics.LABELS | {"acc5": "Acc-5 (fraction)", "f1_5class": "F1, 5-class (fraction)"}
LABELS |= {"train_loss": "training loss", "wa_mean": "weighted accuracy, mean over emotions (fraction)"}
LABELS |= {"f1_mean": "F1, mean over emotions (fraction)"}
NO_SPREAD = "n = 1 seed: no spread is known"
DIAGONAL = {"color": "#888888", "linestyle": "-", "linewidth": 0.7, "marker": None}
DASHED = {"color": "black", "linestyle": "--", "linewidth": 0.7, "marker": None}
PRINTED = {"color": "black", "linestyle": "dotted", "linewidth": 1.2}
INTERVAL = {"estimator": "median", "errorbar": ("pi", 100)}  # for seaborn: of the rows of `interval_rows`
WHISKERS = {"linewidth": 0.8, "color": "black"}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: draws in the style of study.mplstyle on matplotlib's defaults, whatever the caller has set, settles
    the layout there, leaves no figure open in pyplot, and restores the caller's settings.

    The figure's label is its alternative text: the first sentence of the function that draws it, and its titles. A
    notebook keeps it with the picture, where nbconvert's template "classic" finds it."""

    @wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with plt.style.context(common.FIGURE_STYLE, after_reset=True):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made lazily: they must be made in this style
        plt.close(figure)
        seen = dict.fromkeys(ax.get_title() or ax.get_title("left") for ax in figure.axes)
        sentence = " ".join(re.split(r"\.\s", draw.__doc__)[0].strip("`.").split())
        figure.set_label(" ".join(f"{sentence}. {'; '.join(filter(None, seen))}".split()))
        figure._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": figure.get_label()}})
        return figure

    return wrapper


def method_colour(method: str) -> str | tuple[float, float, float]:
    """A method's colour; one without a fixed colour gets a hue from its name, the same in every figure."""
    if method == "constant":
        return "#000000"
    colour = METHODS[method].colour if method in METHODS else None
    return colour or colorsys.hls_to_rgb(crc32(method.encode()) % 360 / 360, 0.42, 0.6)


def tint(colour: str) -> list[float]:
    """A light background of that colour."""
    return [1 - 0.15 * (1 - c) for c in to_rgb(colour)]


def method_colours(methods: Iterable[str]) -> dict:
    """seaborn's `palette` of methods."""
    return {method: method_colour(method) for method in methods}


def method_dash(method: str) -> str:
    """matplotlib's name of a method's line style."""
    return METHODS[method].dash if method in METHODS else ":"


def metric_label(metric: str) -> str:
    """Axis label of a metric, with its unit; `valid_...` is the metric on validation."""
    if metric.startswith("valid_"):
        return f"validation {metric_label(metric.removeprefix('valid_'))}"
    return LABELS.get(metric, metric)


def number_label(value: float) -> str:
    """A level of corruption on an axis: "clean" for an infinite signal-to-noise ratio, else the number."""
    return "clean" if np.isinf(value) else f"{value:g}".replace("-", "−")


def legible(text: str) -> tuple[str, list[str]]:
    """The text, with characters that no font here has as \\uXXXX, and the fonts to draw it in."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in ("DejaVu Sans", *CHINESE) if name in installed]
    faces = [font_manager.get_font(font_manager.findfont(name)) for name in fonts]
    known = {c for c in set(text) if c.isspace() or any(face.get_char_index(ord(c)) for face in faces)}
    return "".join(c if c in known else c.encode("unicode_escape").decode() for c in text), fonts


def paper_order(dataset: str) -> int:
    """The place of a data set in the paper's tables; others come after."""
    return facts.DATASETS.index(dataset) if dataset in facts.DATASETS else len(facts.DATASETS)


def titled(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, by data set in the paper's order, with a column `title`: of each row's data set and source."""
    frame = frame.sort_values("dataset", key=lambda names: names.map(paper_order), kind="stable")
    return frame.assign(title=[*map(dataset_title, frame["dataset"], frame["source"])])


def panels(rows: int, columns: int, height: float = 1.7, extra: float = 0.7, **options) -> tuple[Figure, np.ndarray]:
    """A grid of axes in one column of a page, or in two; `height` a row and `extra` for all, in inches."""
    size = ONE_COLUMN if columns == 1 else TWO_COLUMNS, extra + height * rows
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def facets(
    frame: pd.DataFrame, column: str, row: str | None = None, height=1.7, extra=0.7, titles=str, **options
) -> sns.FacetGrid:
    """`panels` by the values of `column` (and `row`) of a frame, titled `titles(value)`; options: of FacetGrid."""
    grid = sns.FacetGrid(frame, col=column, row=row, despine=False, **options)
    columns = options.get("col_wrap") or len(grid.col_names)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    grid.figure.set_size_inches(width, extra + height * ceil(grid.axes.size / columns))
    grid.figure.set_layout_engine("constrained")
    grid.set_titles("")
    for ax, value in zip(grid.axes.flat, grid.col_names, strict=False):
        ax.set_title(titles(value))
    for ax in (grid.facet_axis(i, j) for (i, j, _), rows in grid.facet_data() if rows.empty):
        ax.set_axis_off()
        ax.annotate("not run", (0.5, 0.5), xycoords="axes fraction", ha="center")
    return grid


def panel_rows(grid: sns.FacetGrid) -> Iterator[tuple[Axes, pd.DataFrame]]:
    """Each panel of a grid that has rows of the frame, with them."""
    return ((grid.facet_axis(i, j), rows) for (i, j, _), rows in grid.facet_data() if len(rows))


def label_axes(grid: sns.FacetGrid, x: str, y: str = "") -> None:
    """Labels the outer axes of drawn panels; a row's name stands above its y label."""
    grid.set_axis_labels(x, y)
    for i, name in enumerate(grid.row_names):
        grid.axes[i, 0].set_ylabel(f"{name}\n{y}".strip())


def draw_curves(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, hue: str = "method", palette: Mapping | None = None, **options
) -> None:
    """A line a hue: the mean over seeds as far as every seed goes, a band of one sd (ddof = 1), and thin lines of
    seeds that go farther. options: of `seaborn.lineplot`; lines of methods have their own dashes unless it says so."""
    counts, most = (rows.groupby(keys)["seed"].transform("nunique") for keys in ([hue, x], hue))
    farther = rows[rows[hue].isin(rows.loc[counts < most, hue])]
    if palette is None:
        palette = method_colours(rows[hue].unique())
        options = {"style": hue, "dashes": {method: DASHES[method_dash(method)] for method in palette}} | options
    shared = {"x": x, "y": y, "hue": hue, "palette": palette, "legend": False, "ax": ax} | options
    bars = options.get("err_style") == "bars"
    spread = {"elinewidth": 0.5, "capsize": 0} if bars else {"alpha": 0.16, "linewidth": 0}
    sns.lineplot(rows[counts == most], errorbar="sd", markersize=2.5, markeredgewidth=0, err_kws=spread, **shared)
    if len(farther):
        sns.lineplot(farther, units="seed", estimator=None, linewidth=0.4, alpha=0.6, **shared)


def spread_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows with columns mean and sd, each three times with the values mean and mean ± sd in the column `name`, whose
    mean and sd (ddof = 1) those are; once where n is 1."""
    parts = [table.assign(**{name: table["mean"] + k * table["sd"], "seed": k}) for k in (-1, 1)]
    return pd.concat([table.assign(**{name: table["mean"], "seed": 0}), *parts]).dropna(subset=name)


def interval_rows(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Each row that has a value three times, with its value, `low` and `high` as `value`: seaborn's INTERVAL of these
    is the value with a whisker from low to high, and none where they are NaN."""
    frame = frame.dropna(subset=value)
    return pd.concat([frame.assign(**{value: frame[end]}) for end in (value, "low", "high")]).dropna(subset=value)


def draw_intervals(ax: Axes, frame: pd.DataFrame, value: str, y: str, hue: str, palette: Mapping, **options) -> None:
    """A dot a row at its `value` with a line from `low` to `high`: a line of the y axis a category, a colour a hue."""
    hues = [name for name in palette if name in set(frame[hue])]
    dots = {"markersize": 2.5, "err_kws": {"linewidth": 0.9}, "linestyle": "none", "legend": False, "palette": palette}
    dots |= {"dodge": 0.2 * (len(hues) - 1) if len(hues) > 1 else False} | INTERVAL | options
    sns.pointplot(interval_rows(frame, value), x=value, y=y, hue=hue, hue_order=hues, ax=ax, **dots)
    ax.set_ylabel("")


def counted(numbers: pd.Series) -> str:
    """The numbers of seeds in words: n = 3, or n = 3 to 10."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def whiskers_note(numbers: pd.Series, extent: str = "± 1 sd") -> str:
    """What whiskers show, given the numbers of seeds behind them."""
    if numbers.max() < 2:
        return NO_SPREAD
    return f"whiskers: {extent} over seeds, {counted(numbers)}" + ("; none where n = 1" if numbers.min() < 2 else "")


def bands_note(frame: pd.DataFrame) -> str:
    """What the lines, bands and thin lines of `draw_curves` show."""
    keys = ["dataset", "source", "method"]
    numbers = frame.groupby(keys)["n"].max() if "n" in frame else frame.groupby(keys)["seed"].nunique()
    if numbers.max() < 2:
        return NO_SPREAD
    ragged = frame.groupby([*keys, "seed"]).size().groupby(keys).nunique().max() > 1
    thin = "; thin: single seeds, as not all went on as long" if ragged else ""
    lacking = frame.groupby("method")["dataset"].nunique().nunique() > 1
    thin += "; where a method is not drawn it was not run" if lacking else ""
    return f"lines: mean over seeds, {counted(numbers)}; bands: ± 1 sd{thin}"


def entry(label: str, color=NEUTRAL, marker: str | None = "o", linestyle: str = "", **options) -> Line2D:
    """A legend's entry; by default a grey dot."""
    return Line2D([], [], label=label, color=color, marker=marker, linestyle=linestyle, **options)


def method_entries(methods: Iterable[str], **options) -> list[Line2D]:
    """An entry a method: its line, or what `options` make of it."""
    lines = {m: {"marker": None, "linestyle": method_dash(m)} | options for m in methods}
    return [entry(method_title(m), method_colour(m), **line) for m, line in lines.items()]


def modality_entries(**options) -> list[Line2D]:
    return [entry(m, colour, **options) for m, colour in MODALITY_COLOURS.items()]


def marker_entries(titles: Iterable[str]) -> tuple[dict[str, str], list[Line2D]]:
    """A marker a title, and their entries."""
    markers = dict(zip(titles, "osD^v", strict=False))
    return markers, [entry(title, marker=marker) for title, marker in markers.items()]


def legend(figure: Figure, handles: Sequence, note: str) -> Figure:
    """The figure with a legend below all panels, in as many columns as fit, under a line that says what the spread is.

    At the legend's 7 points a letter is about 0.052 inches wide, a handle with its spaces 0.45, a line 0.14 high.
    """
    inches, labels = figure.get_figwidth(), [handle.get_label() for handle in handles]

    def width(columns: int) -> float:
        return sum(0.45 + 0.052 * max(map(len, column)) for column in np.array_split(labels, columns))

    columns = next((n for n in range(len(labels), 0, -1) if width(n) < inches), 1)
    rows, note = max(1, ceil(len(labels) / columns)), textwrap.fill(note, int(inches / 0.05))
    columns = max(1, ceil(len(labels) / rows))  # rows of about the same length
    figure.set_figheight(figure.get_figheight() + 0.14 * (rows + note.count("\n") - 1))  # the panels keep their height
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, title=note)
    return figure
