"""Trained models on corrupted test data: their scores, whether weights adapt, and how far to trust predictions."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tmtlib.common import MODALITIES, check_choice
from tmtlib.data import corruption
from tmtlib.figures import style

LEVEL_LABELS = {"noise": "SNR (dB)", "missing_frames": "rate of missing frames"}  # of x axes, by kind of corruption
LEVEL_LABELS |= {"missing_block": "share of frames in the block", "shift": "delay (frames)"}
LEVEL_LABELS |= {f"words_{done}": f"rate of {done} words" for done in ("dropped", "substituted")}
WHEN = {"test": "at test time", "training": "in training too"}
ADAPTING = {"noise": "noise in {}", "missing_frames": "{} frames missing"}  # titles of `adaptation` by kind
Y_LABELS = {"weight": "weight on the\ncorrupted modality", "gain": "MAE minus that\nof uniform weights"}
LEAST_SPAN = 0.01  # an axis of weights is at least so long: a smaller change counts as none


@style.styled
def degradation(table: pd.DataFrame, kind: str, metric: str = "mae") -> Figure:
    """A metric against the level of one kind of corruption: a panel a data set, training regime and modality.

    table: `robustness.summary`, means and sd over seeds. Decibels stand at equal distances, clean first; rates, shares
    and frames at their values.
    """
    rows = style.spread_rows(table[(table["kind"] == kind) & (table["metric"] == metric)], metric)
    levels = sorted(rows["level"].unique(), reverse=kind == "noise")
    places = range(len(levels)) if kind == "noise" else levels
    seeds = style.titled(rows)
    seeds = seeds.assign(x=seeds["level"].map(dict(zip(levels, places, strict=True))))
    cases = zip(seeds["title"], seeds["regime"], seeds["modality"], strict=True)
    seeds["panel"] = [f"{title}\n{_conditions(kind, regime, modality)}" for title, regime, modality in cases]
    across = min(4, seeds["panel"].nunique())
    grid = style.facets(seeds, "panel", height=1.6, extra=1.0, col_wrap=across, sharey=False)
    first: dict = {}  # panel of each data set: all its panels have one scale
    for ax, panel in style.panel_rows(grid):
        if first.setdefault(panel["title"].iloc[0], ax) is not ax:
            ax.sharey(first[panel["title"].iloc[0]])
        style.draw_curves(ax, panel, "x", metric, marker="o")
        ax.set_title(ax.get_title(), fontsize=7)
        ax.set_xticks(places, map(style.number_label, levels))
        ax.tick_params(axis="x", rotation=90 if len(levels) > 6 else 0)
    style.label_axes(grid, LEVEL_LABELS[kind], style.metric_label(metric))
    return style.legend(grid.figure, style.method_entries(seeds["method"].unique()), style.bands_note(seeds))


def _conditions(kind: str, regime: str, modality: str) -> str:
    where = {"noise": f"noise in {modality}", "shift": f"{modality} late"}.get(kind, modality.removeprefix("all"))
    trained = f"trained {regime}" if regime != "clean" or not where else ""
    return ", ".join(filter(None, (where, trained)))


@style.styled
def missing_bars(table: pd.DataFrame, metric: str = "mae") -> Figure:
    """A metric by the modalities that are present: bars by method, whiskers of one sd; dots show who is present.

    table: `robustness.summary`; in the rows of kind "missing_modalities", `modality` names those present. A column a
    data set.
    """
    frame = style.spread_rows(table[(table["kind"] == "missing_modalities") & (table["metric"] == metric)], metric)
    frame = style.titled(frame.assign(present=frame["modality"].replace("all", "+".join(MODALITIES))))
    methods, names = list(frame["method"].unique()), set(frame["present"])
    subsets = [name for name in map("+".join, corruption.SUBSETS) if name in names]
    figure, axes = style.panels(2, frame["title"].nunique(), height=1.2, sharex="col", height_ratios=(1, 0.32))
    options = {"palette": style.method_colours(methods), "saturation": 1, "err_kws": style.WHISKERS, "capsize": 0.1}
    options |= {"order": subsets, "hue": "method", "hue_order": methods, "legend": False}
    for (bars, dots), (title, rows) in zip(axes.T, frame.groupby("title", sort=False), strict=True):
        sns.barplot(rows, x="present", y=metric, errorbar="sd", ax=bars, **options)
        bars.set(title=title, ylabel=style.metric_label(metric) if bars is axes[0, 0] else "")
        bars.tick_params(bottom=False)
        for i, m in enumerate(MODALITIES):
            colours = [style.MODALITY_COLOURS[m] if m in subset.split("+") else "#E0E0E0" for subset in subsets]
            dots.scatter(range(len(subsets)), [i] * len(subsets), s=16, c=colours)
        names = MODALITIES if dots is axes[1, 0] else [""] * 3
        dots.set(yticks=range(3), yticklabels=names, ylim=(2.6, -0.6), xticks=[], xlabel="modalities present")
        dots.tick_params(length=0)
        dots.spines[:].set_visible(False)
        dots.grid(False)
    seeds = frame["n"]
    return style.legend(figure, style.method_entries(methods, marker="s", linestyle=""), style.whiskers_note(seeds))


@style.styled
def auilc(table: pd.DataFrame, metric: str = "mae") -> Figure:
    """The normalised area under each degradation curve, a line a method: a row a data set, a column a kind.

    table: `degradation.auilc`; only corruptions of all modalities are drawn. Filled: trained on clean data; open:
    trained with frames missing. Small grey marks: the metric on clean data.
    """
    table = style.titled(table[(table["metric"] == metric) & (table["modality"] == "all")])
    methods = {title: list(rows["method"].unique()) for title, rows in table.groupby("title", sort=False)}
    lines = [len(names) for names in methods.values()]
    options = {
        "gridspec_kws": {"height_ratios": lines},
        "sharex": False,
        "sharey": "row",
        "titles": corruption.TITLES.get,
    }
    grid = style.facets(table, "kind", "title", 0.14 * np.mean(lines) + 0.35, 0.9, **options)
    for ax, rows in style.panel_rows(grid):
        title, masked = rows["title"].iloc[0], rows["regime"] != "clean"
        y, colours = rows["method"].map(methods[title].index), rows["method"].map(style.method_colour)
        y += np.where(masked, 0.18, -0.18)
        ax.hlines(y, rows["low"], rows["high"], colors=colours, linewidth=1)
        ax.scatter(rows["auilc_normalised"], y, s=12, c=colours.mask(masked, "white"), edgecolors=colours, zorder=3)
        ax.scatter(rows["clean"], y, s=25, marker="|", color=style.NEUTRAL, linewidth=1)
        ax.set_title(f"{title}\n{corruption.TITLES[rows['kind'].iloc[0]]}", fontsize=7)
        ax.set(xlabel=f"mean {style.metric_label(metric)}", ylim=(len(methods[title]) - 0.5, -0.5))
        ax.set_yticks(range(len(methods[title])), map(style.method_title, methods[title]))
    handles = [style.entry("trained on clean data", linestyle="-")]
    handles.append(style.entry("trained with frames missing", linestyle="-", markerfacecolor="white"))
    handles.append(style.entry("clean test data", marker="|"))
    return style.legend(grid.figure, handles, style.whiskers_note(table["n"], "95 % t intervals"))


@style.styled
def adaptation(frame: pd.DataFrame, kind: str = "noise") -> Figure:
    """The falsification panel: the weight on the corrupted modality (upper row of a data set) and MAE minus that of
    uniform weights (lower row, label units) against how strongly it is corrupted, clean first, at equal distances.

    A column a modality at test time (models trained on clean data), then a column a modality in training too.

    frame: rows of `adaptation.at_test_time` and, where there are any, `adaptation.at_training_time`. Raises ValueError
    for another kind of corruption than "noise" and "missing_frames", or no row of it.
    """
    check_choice("kind", kind, tuple(ADAPTING))
    frame = frame[(frame["kind"] == kind) & frame["regime"].isin(("clean", "noisy"))]
    if frame.empty:
        raise ValueError(f"no rows of {kind} with models trained clean; wanted those of `adaptation.at_test_time`")
    levels = sorted(frame["level"].unique(), reverse=kind == "noise")
    keys = ["dataset", "source", "when", "seed", "modality", "level"]
    uniform = frame[frame["method"] == "tmt_uniform"].set_index(keys)["mae"].rename("uniform")
    frame = style.titled(frame.join(uniform, on=keys))  # of the same seed and level; NaN if it was not run
    frame = frame.assign(gain=frame["mae"] - frame["uniform"], x=frame["level"].map(levels.index))
    long = frame.melt([c for c in frame if c not in Y_LABELS], list(Y_LABELS), "measure").dropna(subset="value")
    long["row"] = long["title"] + "\n" + long["measure"].map(Y_LABELS)
    long["column"] = long["modality"].map(ADAPTING[kind].format) + "\n" + long["when"].map(WHEN)
    names = [f"{ADAPTING[kind].format(m)}\n{when}" for when in WHEN.values() for m in MODALITIES]
    order = {"col_order": [name for name in names if name in set(long["column"])]}
    order["row_order"] = [f"{title}\n{label}" for title in frame["title"].unique() for label in Y_LABELS.values()]
    grid = style.facets(long, "column", "row", height=1.35, extra=0.9, sharex="col", sharey="row", **order)
    for ax, rows in style.panel_rows(grid):
        style.draw_curves(ax, rows, "x", "value", marker="o")
        ax.set_xticks(range(len(levels)), ["clean", *map(style.number_label, levels[1:])], rotation=90)
        ax.set_xlim(-0.3, len(levels) - 0.7)
        if rows["measure"].iloc[0] == "gain":
            ax.axhline(0, **style.DASHED)
    for ax, rows in style.panel_rows(grid):  # when all are drawn: a row has one axis
        ax.set_ylim(_widened(*ax.get_ylim()) if rows["measure"].iloc[0] == "weight" else None)
    style.label_axes(grid, LEVEL_LABELS[kind])
    note = f"{style.bands_note(frame)}; weights: mean of A over features and utterances; MAE in label units"
    return style.legend(grid.figure, style.method_entries(frame["method"].unique()), note)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits that are LEAST_SPAN apart or more."""
    spare = max(0.0, LEAST_SPAN - (high - low)) / 2
    return low - spare, high + spare


@style.styled
def reliability_weights(table: pd.DataFrame) -> Figure:
    """The weight on a modality where it is reliable (filled) and where it is not (hollow), by method; a row a data set,
    a column a modality. Whiskers: the 95 % t interval of the difference, about the hollow mark.

    table: `reliability.by_reliability`.
    """
    table, methods = style.titled(table), list(table["method"].unique())
    table["row"] = table["title"].str.replace(" (", "\n(")
    options = {"col_order": MODALITIES, "titles": "weight on {}".format}
    grid = style.facets(table, "modality", "row", height=0.5 + 0.19 * len(methods), **options)
    for ax, rows in style.panel_rows(grid):
        y = rows["method"].map(methods.index)
        spread = [rows["high"] - rows["difference"], rows["difference"] - rows["low"]]
        dots = {"color": style.MODALITY_COLOURS[rows["modality"].iloc[0]], "fmt": "o", "markersize": 4}
        ax.errorbar(rows["unreliable"], y + 0.16, xerr=spread, markerfacecolor="white", linewidth=0.8, **dots)
        ax.errorbar(rows["reliable"], y - 0.16, **dots)
        ax.set_ylim(len(methods) - 0.4, -0.6)
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_yticks(range(len(methods)), map(style.method_title, methods))
    grid.set(xlim=_widened(*grid.axes[0, 0].get_xlim()))
    style.label_axes(grid, "mean of A")
    handles = [style.entry("where it is reliable"), style.entry("where it is not", markerfacecolor="white")]
    note = style.whiskers_note(table["n"], "95 % t interval of the difference (unseen: within the mark)")
    return style.legend(grid.figure, handles, note)


@style.styled
def reliability_diagram(rows: pd.DataFrame) -> Figure:
    """Mean label against mean prediction in bins of about equal numbers, a panel a noise level, a row a data set.

    rows: `reliability.diagram`. On the diagonal a prediction can be taken at its word; a flatter line says too much.
    """
    cells = rows.groupby(["dataset", "source", "level", "method", "bin"])["prediction"]
    frame, levels = style.titled(rows.assign(x=cells.transform("mean"))), sorted(rows["level"].unique(), reverse=True)
    noise = {level: f"noise, {style.number_label(level)} dB" for level in levels} | {np.inf: "clean"}
    options = {"col_order": levels, "sharex": "row", "sharey": "row", "titles": noise.get}
    grid = style.facets(frame, "level", "title", height=1.75, **options)
    for ax, panel in style.panel_rows(grid):
        values = frame.loc[frame["title"] == panel["title"].iloc[0], ["prediction", "label"]].to_numpy()
        ends = [values.min(), values.max()]
        ax.plot(ends, ends, **style.DIAGONAL)
        style.draw_curves(ax, panel, "x", "label", marker="o", err_style="bars", linewidth=0.9)
    style.label_axes(grid, "mean prediction", "mean label")
    handles = [*style.method_entries(rows["method"].unique()), style.entry("label = prediction", **style.DIAGONAL)]
    seeds = style.counted(rows.groupby(["dataset", "source", "method"])["seed"].nunique())
    sizes = style.counted(rows["n"]).removeprefix("n = ")
    note = f"points: means over seeds, {seeds}, bins of {sizes} utterances, label units"
    return style.legend(grid.figure, handles, f"{note}; whiskers: ± 1 sd over seeds; noise in all three modalities")
