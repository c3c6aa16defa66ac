"""What modalities and frames are worth to a model by each measure: beside ground truths, by how faithful it is, and in
one utterance."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.weights import EVEN, against_truth
from tmtlib.models.tmt import GROUPS

REMOVED = ("absent", "mean", "permuted")  # what stands in a removed modality's place
TITLES = {"weight": "weight A", "weighted_size": "size |A S|"}  # in the order they are shown
TITLES |= {f"shapley_{how}": f"Shapley, {how}" for how in REMOVED} | {f"mae_{how}": f"of MAE, {how}" for how in REMOVED}
TITLES |= {"occlusion": "occlusion", "gradient_input": "gradient × input"}
TITLES |= {"integrated_gradients": "integrated gradients", "rollout": "attention roll-out"}
TITLES |= {"random": "random order", "truth": "true importance"}
MEASURES = tuple(m for m in TITLES if m not in ("mae_mean", "mae_permuted", "truth"))  # of data sets, not of worlds
LINES = {  # of curves: colours, none of them a method's, and seaborn's dashes; by frames in solid lines
    "integrated_gradients": ("#4477AA", ""),
    "gradient_input": ("#66CCEE", ""),
    "rollout": ("#EE8866", ""),
    "weighted_size": ("#7A4B00", (4, 1.5)),
    "random": ("#777777", (1, 1)),
}
ORDERS = {"deletion": "taken away", "insertion": "put back"}
AGREES = {  # kinds of agreement: title, value by chance, least and greatest possible (t intervals are cut there)
    "spearman": ("Spearman correlation", 0.0, -1, 1),
    "auc": ("AUC of reliability", 0.5, 0, 1),
}
MANY = 26  # more words than that are labelled by every second


@style.styled
def importance(table: pd.DataFrame) -> Figure:
    """Shares of importance by measure with 95 % intervals, a panel a data set and method; dashed: the ground truth.

    table: `importance.table`; of its measures those in MEASURES.
    """
    table = _named(table, MEASURES)
    height = 0.25 * table["measure"].nunique() + 0.2
    grid = style.facets(_cases(table), "case", height=height, extra=0.6, xlim=(0, 1))
    for ax, rows in style.panel_rows(grid):
        _draw_measures(ax, rows)
        for m, share in rows.dropna(subset="truth").groupby("modality")["truth"].first().items():
            ax.axvline(share, color=style.MODALITY_COLOURS[m], linestyle="--", linewidth=0.8, zorder=1)
    style.label_axes(grid, "share of importance")
    note = style.whiskers_note(table["n"], "95 % t intervals, cut at 0 and 1,")
    note += "; dashed: ground truth" if table["truth"].notna().any() else ""
    return style.legend(grid.figure, style.modality_entries(), note)


@style.styled
def importance_by_data(table: pd.DataFrame) -> Figure:
    """Shares of importance by modality with 95 % intervals: a row a data set, a panel a method; dashed: equal.

    table: `importance.importance_table`. Data sets stand by the modality of the greatest Shapley share, text first.
    """
    table = style.titled(_named(table))
    first = table[(table["method"] == table["method"].iloc[0]) & (table["measure"] == TITLES["shapley_absent"])]
    wide = first.pivot(index="title", columns="modality", values="mean").reindex(columns=MODALITIES).fillna(0)
    order = wide.assign(top=wide.to_numpy().argmax(1)).sort_values(["top", "text"], ascending=[True, False]).index
    table["title"] = pd.Categorical(table["title"], order)
    grid = style.facets(table, "method", "measure", height=0.17 * len(order) + 0.4, titles=style.method_title)
    for ax, rows in style.panel_rows(grid):
        style.draw_intervals(ax, rows, "mean", "title", "modality", style.MODALITY_COLOURS)
        there = rows.groupby("title", observed=False)["modality"].nunique()
        for place, count in enumerate(there):
            ax.plot(2 * [1 / max(1, count)], [place - 0.45, place + 0.45], **style.DASHED)
        ax.grid(False, axis="y")
        ax.set(xlim=(-0.02, 1.02), xticks=(0, 0.5, 1))
    style.label_axes(grid, "share")
    note = style.whiskers_note(table["n"], "95 % t intervals")
    note += "; dashed: equal shares of the modalities that are there"
    return style.legend(grid.figure, style.modality_entries(), note)


@style.styled
def agreement(table: pd.DataFrame) -> Figure:
    """How measures follow the ground truth from utterance to utterance, with 95 % intervals; dashed: by chance.

    A row a kind of agreement, a panel a data set and method. table: `importance.agreement`. One that is equal in all
    utterances is called constant.
    """
    table = _named(table, MEASURES)
    kinds = [kind for kind in AGREES if kind in set(table["what"])]
    font = {"va": "center", "ha": "right", "fontsize": 6}
    height = 0.24 * table["measure"].nunique() + 0.4
    grid = style.facets(_cases(table), "case", "what", height=height, row_order=kinds, sharex="row")
    for ax, rows in style.panel_rows(grid):
        title, chance, *_ = AGREES[rows["what"].iloc[0]]
        _draw_measures(ax, rows)
        ax.axvline(chance, color="black", linestyle="--", linewidth=0.7, zorder=1)
        ax.set_xlabel(title)
        for place in np.flatnonzero(rows.groupby("measure", observed=False)["n"].max() == 0):
            ax.text(0.98, place, "constant", transform=ax.get_yaxis_transform(), color="#666666", **font)
    for ax, rows in style.panel_rows(grid):  # when all are drawn: a row has one axis
        ax.set_xlim(np.clip(ax.get_xlim(), *AGREES[rows["what"].iloc[0]][2:]))
    note = style.whiskers_note(table.loc[table["n"] > 0, "n"], "95 % t intervals, cut where no value can be,")
    note += "; correlation with the true importance, and chance that a reliable modality has the larger share"
    note += "; dashed: by chance; constant: equal in all utterances"
    return style.legend(grid.figure, style.modality_entries(), note)


@style.styled
def faithfulness(curves: pd.DataFrame) -> Figure:
    """Deletion and insertion curves, a line a measure with a band of one sd over seeds; a panel a data set and method.

    curves: `faithfulness.table`. In the upper row frames are taken away, most important first, and a faithful measure
    lies high; in the lower they are put back, and it lies low.
    """
    shown = [m for m in LINES if m in set(curves["measure"])]
    palette, dashes = ({m: LINES[m][i] for m in shown} for i in (0, 1))
    grid = style.facets(_cases(curves), "case", "order", height=1.5, row_order=list(ORDERS), sharey="col")
    for ax, rows in style.panel_rows(grid):
        lines = {"hue": "measure", "hue_order": shown, "style": "measure", "palette": palette, "dashes": dashes}
        style.draw_curves(ax, rows, "fraction", "change", **lines)
        ax.set(xlim=(0, 1), ylim=(0, None), xticks=(0, 0.5, 1))
        ax.tick_params(labelbottom=True)
    style.label_axes(grid, "fraction", "|change| (label units)")
    for (order, _), ax in grid.axes_dict.items():
        ax.set_xlabel(f"fraction {ORDERS[order]}", visible=True)
    first = curves[(curves[["measure", "order"]] == curves[["measure", "order"]].iloc[0]).all(axis=1)]
    note = f"{style.bands_note(first)}; of an utterance's valid frames, the mean over utterances"
    styles = {m: (0, dashes[m]) if dashes[m] else "-" for m in shown}
    handles = [style.entry(TITLES[m], palette[m], marker=None, linestyle=styles[m]) for m in shown]
    return style.legend(grid.figure, handles, note)


@style.styled
def worlds(table: pd.DataFrame, agreement: pd.DataFrame | None = None) -> Figure:
    """Share of importance by each measure against the synthetic share: a panel a measure, a point a world and modality.

    table: `importance_table` of one method in synthetic worlds. agreement: `truth.worlds_agreement` of it, whose rank
    correlations, with their intervals, then stand in the panels. Raises ValueError for several methods.
    """
    if table["method"].nunique() != 1:
        raise ValueError(f"methods are {', '.join(table['method'].unique())}; wanted one")
    table = _named(table)
    count, top = table["measure"].nunique(), 1.05 * max(table["mean"].max(), table["truth"].max())
    grid = style.facets(table, "measure", height=1.75, col_wrap=min(count, 3 if count <= 9 else 4))
    for ax, rows in style.panel_rows(grid):
        against_truth(ax, rows, "mean", top, s=9, alpha=0.8)
    style.label_axes(grid, "synthetic share", "share by measure")
    n, method = table["dataset"].nunique(), style.method_title(table["method"].iloc[0])
    note = f"{method}: one point a world and modality, n = {n} synthetic worlds"
    if agreement is not None:
        note += "; ρ: rank correlation, 95 % bootstrap interval over worlds"
        correlations = _named(agreement[agreement["statistic"] == "spearman"]).set_index("measure")
        for measure, ax in grid.axes_dict.items():
            rho, low, high = correlations.loc[measure, ["value", "low", "high"]]
            words = "ρ undefined" if np.isnan(rho) else f"ρ = {rho:.2f}"
            words += "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            ax.text(0.04, 0.96, words, transform=ax.transAxes, va="top", fontsize=6)
    handles = [*style.modality_entries(), style.entry("share = truth", **style.DIAGONAL)]
    return style.legend(grid.figure, handles, note)


@style.styled
def unimodal(table: pd.DataFrame) -> Figure:
    """How often each measure names the modality that carried an utterance: dots with 95 % intervals by data set.

    table: `truth.unimodal_agreement`; one colour a method. Dashed: naming the commonest modality; dotted: at random.
    """
    table, methods = style.titled(_named(table)), list(table["method"].unique())
    palette, height = style.method_colours(methods), 0.26 * table["measure"].nunique() + 0.4
    grid = style.facets(table, "title", height=height, extra=0.9, sharex=False)
    for ax, rows in style.panel_rows(grid):
        style.draw_intervals(ax, rows, "agreement", "measure", "method", palette, markersize=3)
        ax.axvline(rows["chance"].iloc[0], color=style.NEUTRAL, linestyle="--", linewidth=0.8)
        ax.axvline(EVEN, color=style.NEUTRAL, linestyle=":", linewidth=0.8)
        ax.set_title(f"{rows['title'].iloc[0]}, n = {rows['n'].iloc[0]}")
    style.label_axes(grid, "share of utterances")
    handles = style.method_entries(methods, marker="o", linestyle="-")
    handles.append(style.entry("always the commonest", marker=None, linestyle="--"))
    handles.append(style.entry("at random (1/3)", marker=None, linestyle=":"))
    note = f"lines: 95 % bootstrap over utterances and seeds; seeds: {style.counted(table['seeds'])}"
    return style.legend(grid.figure, handles, note)


def _named(table: pd.DataFrame, measures=tuple(TITLES)) -> pd.DataFrame:
    """The rows of some measures, these by their titles and in the order of TITLES."""
    table = table[table["measure"].isin(measures)]
    names = [title for measure, title in TITLES.items() if measure in set(table["measure"])]
    return table.assign(measure=pd.Categorical(table["measure"].map(TITLES), names))


def _cases(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a column `case`, the title of its panel: the data set, and the method where there are several."""
    frame = style.titled(frame)
    if "method" not in frame or frame["method"].nunique() == 1:
        return frame.assign(case=frame["title"])
    return frame.assign(case=frame["title"] + "\n" + frame["method"].map(style.method_title))


def _draw_measures(ax: Axes, rows: pd.DataFrame) -> None:
    """A row a measure, from the top, and a dot with its interval a modality."""
    style.draw_intervals(ax, rows, "mean", "measure", "modality", style.MODALITY_COLOURS)
    ax.grid(False, axis="y")


@style.styled
def utterance(explanation) -> Figure:
    """One utterance, an `analysis.utterance.Explanation`: attention of the token groups to each frame (with the words
    on the text's axis), the contributions of the modalities to the prediction beside the synthetic ones, and the
    weights."""
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    attention = {m: explanation.attention[m] for m in MODALITIES}  # (4, T) each
    maps = top.subplots(1, 3, width_ratios=[max(3, a.shape[1]) ** 0.5 for a in attention.values()])
    words = explanation.words if explanation.truth is None else None  # a synthetic transcript says nothing
    scale = Normalize(0, max((float(a.max()) for a in attention.values() if a.size), default=1.0))
    for ax, (m, a) in zip(maps, attention.items(), strict=True):
        _draw_attention(ax, a, scale, words if m == "text" else None)
        ax.set_title(m, color=style.MODALITY_COLOURS[m])
    maps[0].set_yticks([0.5, 1.5, 2.5, 3.5], [f"{group} tokens" for group in GROUPS], rotation=0)
    top.colorbar(ScalarMappable(scale, "Greys"), ax=list(maps), label="attention", shrink=0.8)
    bars = {"what each modality adds\n(Shapley values)": ("added (label units)", explanation.contribution)}
    if explanation.truth is not None:
        bars["what each modality adds\nto the synthetic label"] = "synthetic part (sd of y)", explanation.truth
    bars["weights A,\nmean over features"] = "weight", explanation.weights
    reliable = explanation.reliable or dict.fromkeys(MODALITIES, True)
    names = [m if reliable[m] else f"{m}\n(unreliable)" for m in MODALITIES]
    for ax, (title, (label, values)) in zip(bottom.subplots(1, len(bars)), bars.items(), strict=True):
        ax.set_title(title)
        if values is None:
            _draw_nothing(ax, "this model has none")
        else:
            ax.bar(names, [values[m] for m in MODALITIES], 0.5, color=style.MODALITY_COLOURS.values())
            ax.axhline(EVEN if label == "weight" else 0, **style.DASHED)
            ax.set_ylabel(label)
            ax.set_ylim((0, 1) if label == "weight" else None)
    said = textwrap.shorten(f'{explanation.name}: "{explanation.transcript}"', 100, placeholder=" …")
    shown, fonts = style.legible(said)
    lines = [textwrap.fill(shown, 110), f"label {explanation.label:+.2f}, prediction {explanation.prediction:+.2f}"]
    lines += ["no font here has all characters: the others are escaped"] if shown != said else []
    figure.suptitle("\n".join(lines), fontsize=8, parse_math=False, fontfamily=fonts)
    return figure


def _draw_attention(ax: Axes, attention: np.ndarray, scale: Normalize, words: Sequence[str] | None) -> None:
    """(4, T) attention of one modality's frames; a frame has its word as label, or its number, from 1."""
    frames = attention.shape[1]
    if not frames:
        return _draw_nothing(ax, "absent")
    ax.pcolormesh(attention, norm=scale, cmap="Greys")  # seaborn's heatmap draws the whole figure each time
    ax.set(ylim=(len(attention), 0), xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)
    if words is None:
        ax.set(xticks=np.arange(0.5, frames, -(-frames // 6)), xlabel="frame")
        ax.set_xticklabels([f"{place + 0.5:g}" for place in ax.get_xticks()])
    else:
        places = range(0, min(len(words), frames), 1 if len(words) <= MANY else 2)
        labels, fonts = style.legible("\n".join(words[place] for place in places))
        options = {"rotation": 90, "fontsize": 6, "parse_math": False, "fontfamily": fonts}
        ax.set_xticks([place + 0.5 for place in places], labels.split("\n"), **options)


def _draw_nothing(ax: Axes, reason: str) -> None:
    ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
