"""Figures 1 to 3: schematics read off built models while one real batch passes through, so they cannot disagree.

Shapes come from forward hooks, token counts from the trace, layers, heads and parameters from the modules. A `Stage` is
a step of a computation; it is drawn as a box, which is an axes of its own, placed by `subplot_mosaic` or a grid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.weights import heat_map, mean_labels, weight_colourbar, weight_norm
from tmtlib.models.amw import AMW
from tmtlib.models.base import Batch, Model, Trace, count_parameters
from tmtlib.models.tmt import GROUPS, MUTUAL, TMT

SIZE = 6.5  # points, of the words in boxes; smaller where a box is too narrow
PITCH = 1.22  # from line to line, in sizes
COLOURS = {"shared": "#5B5B8C", **style.MODALITY_COLOURS}  # of token groups
PLACEMENTS = {
    "R1": r"$S$′$_m = A_m \odot S_m$",
    "R1M": r"$S$′$_m = M\,A_m \odot S_m$",
    "R2": r"$S$′$ = \Sigma_m\,A_m \odot S_m$",
    "R3": r"$X$′$_m = A_m \odot X_m$",
}


class Probe(NamedTuple):
    """What one batch showed of a model: the shapes each module was given and gave, by its name, and the trace."""

    inputs: dict[str, list[tuple[int, ...]]]  # of each tensor given by position
    outputs: dict[str, tuple[int, ...]]  # in the order of the computation
    trace: Trace


class Stage(NamedTuple):
    """One step of a model's computation, as a box shows it."""

    name: str
    lines: tuple[str, ...]
    parameters: int = 0

    @property
    def text(self) -> tuple[str, ...]:
        count = (f"{self.parameters:,} parameters",) if self.parameters else ()
        return (self.name, *self.lines, *count)


def probe(model: Model, batch: Batch) -> Probe:
    """Passes the batch through the model in evaluation mode, without gradients; leaves the model as it was."""
    names, inputs, outputs = {module: name for name, module in model.named_modules()}, {}, {}

    def note(module: nn.Module, args: tuple, output) -> None:
        if (name := names.get(module)) is not None:
            inputs[name] = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
            outputs[name] = tuple((output[0] if isinstance(output, tuple) else output).shape)

    training = model.training
    try:
        with torch.no_grad(), register_module_forward_hook(note):
            _, trace = model.eval()(batch)
    finally:
        model.train(training)
    return Probe(inputs, outputs, trace)


def stages(model: Model, batch: Batch) -> list[Stage]:
    """The model's steps in order; their parameters add up to the model's. TMT's are told in full, another model's by
    its top modules in the order in which they were called."""
    seen = probe(model, batch)
    if isinstance(model, TMT):
        return _tmt_stages(model, batch, seen)
    called = list(dict.fromkeys(name.split(".")[0] for name in seen.outputs))
    children = {name: module for name, module in model.named_children() if count_parameters(module)}
    steps = [Stage("features", _shapes({m: batch.features[m].shape for m in MODALITIES}))]
    for name in sorted(children, key=lambda n: called.index(n) if n in called else len(called)):
        last = [f"out {shape}" for key, shape in seen.outputs.items() if key.split(".")[0] == name][-1:]
        steps.append(Stage(name, (type(children[name]).__name__, *last), count_parameters(children[name])))
    rest = count_parameters(model) - sum(s.parameters for s in steps)
    return steps + ([Stage("own parameters", (), rest)] if rest else [])


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def _layers(blocks: nn.ModuleList) -> str:
    return f"{len(blocks)} layers, {blocks[0].attention.heads} heads"


def _weighs_inputs(model: TMT) -> bool:
    """Placement R3, before the encoder."""
    return model.weighting is not None and model.config.placement == "R3"


def _tmt_stages(model: TMT, batch: Batch, seen: Probe) -> list[Stage]:
    tables, k = [model.token_positions, *model.positions.values()], model.tokens.shape[1]
    given, out = seen.inputs["encoder.0"][0], seen.outputs[f"encoder.{len(model.encoder) - 1}"]
    tokens = f"label tokens {tuple(model.tokens.shape)}", f"positions {sum(t.shape[1] for t in tables)} × d"
    encoder = _layers(model.encoder), f"{k} tokens + {given[1] - k} frames", f"in {given}", f"out {out}"
    halves = [getattr(model, name) for name in MUTUAL]
    mutual = _layers(halves[0].layers), *(f"{name}: {seen.outputs[name]}" for name in MUTUAL)
    head = "means over tokens, added", ", ".join(type(m).__name__ for m in model.head), f"prediction {seen.outputs['']}"
    projected = _shapes({m: seen.outputs[f"project.{m}"] for m in MODALITIES})
    steps = [
        Stage("features", _shapes({m: batch.features[m].shape for m in MODALITIES})),
        Stage("project", projected, count_parameters(model.project)),
        Stage("tokens, positions", tokens, sum(p.numel() for p in (model.tokens, *tables))),
        Stage("encoder", encoder, count_parameters(model.encoder)),
        Stage("mutual transformer", mutual, sum(map(count_parameters, halves))),
        Stage("head", head, count_parameters(model.head)),
    ]
    steps.insert(2 if _weighs_inputs(model) else 4, _weighting_stage(model, seen))
    if model.bert is not None:
        steps.insert(1, Stage("bert", (f"text {seen.outputs['bert']}",), count_parameters(model.bert)))
    return steps


def _weighting_stage(model: TMT, seen: Probe) -> Stage:
    """What the weighting is, where it acts and on what; or that there is none."""
    if model.weighting is None:
        return Stage("no weighting", (r"$S$′$_m = S_m$",))
    learned = [f"{name} {tuple(p.shape)}, learnable" for name, p in model.weighting.named_parameters()]
    if len(learned) > 2:
        learned = [f"{len(learned)} learnable tensors"]
    weights = f"A {tuple(seen.trace.weights.shape)}"
    lines = (type(model.weighting).__name__, *(learned or ["nothing to learn"]), weights)
    return Stage("weighting", (*lines, PLACEMENTS[model.config.placement]), count_parameters(model.weighting))


def draw_box(ax: Axes, lines: Sequence[str], colour: str, dashed: bool = False) -> None:
    """A box in a tint of its colour with its lines in the middle, the first in bold."""
    ax.set(xticks=[], yticks=[], facecolor=[1 - 0.15 * (1 - c) for c in to_rgb(colour)])
    ax.spines[:].set(visible=True, color=colour, linestyle="--" if dashed else "-", linewidth=0.8)
    parts = [(part, i) for i, line in enumerate(lines) for part in line.split("\n")]
    for j, (part, i) in enumerate(parts):
        lift = ((len(parts) - 1) / 2 - j) * PITCH * SIZE
        look = {"ha": "center", "va": "center", "fontsize": SIZE, "fontweight": "normal" if i else "bold"}
        ax.annotate(part, (0.5, 0.5), (0, lift), xycoords="axes fraction", textcoords="offset points", **look)


def draw_arrow(a: Axes, b: Axes, start=(1, 0.5), end=(0, 0.5), colour="black", dashed: bool = False) -> None:
    """From one box to another; start and end in fractions of them."""
    look = {"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    look |= {"color": colour, "linestyle": (0, (3, 1.5)) if dashed else "-"}
    a.figure.add_artist(ConnectionPatch(start, end, "axes fraction", "axes fraction", axesA=a, axesB=b, **look))


def _finished(figure: Figure, boxes: Iterable[Axes], title: str, facts: str, note: str) -> Figure:
    """The figure with a title, facts beside it and a note, and with the words of all boxes in the greatest size, up to
    SIZE, at which every box holds its own."""
    inch, boxes, factor = 0.1 / figure.get_figheight(), list(boxes), 1.0
    figure.suptitle(": ".join(filter(None, (title, facts))), fontsize=7.5, y=1 - inch, va="center")
    figure.text(0.5, inch, note, ha="center", va="center", fontsize=SIZE)
    for ax in boxes:
        width, height = ax.get_window_extent().size / figure.dpi - (0.06, 0.02)  # inches
        wide = max(text.get_window_extent().width for text in ax.texts) / figure.dpi
        high = len(ax.texts) * PITCH * SIZE / 72
        factor = min(factor, width / wide, height / high)
    for text in (text for ax in boxes for text in ax.texts):
        text.set_fontsize(factor * SIZE)
        text.xyann = (0, factor * text.xyann[1])
    return figure


@style.styled
def figure1_fusion(models: Mapping[str, Model], batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 1: how the given models fuse, a column a model, by title or method name.

    A step is highlighted when not all models have it with the same text; it is grey when they do.
    """
    columns = {name: stages(model, batch) for name, model in models.items()}
    common = set.intersection(*map(set, columns.values()))
    heights = [[1 + len(step.text) for step in steps] for steps in columns.values()]
    if len({len(h) for h in heights}) == 1:  # columns of equally many steps have them in the same places
        heights = [[max(row) for row in zip(*heights, strict=True)]] * len(columns)
    inches = 0.9 + max(0.12 * sum(h) + 0.14 * len(h) for h in heights)
    figure = plt.figure(figsize=(style.ONE_COLUMN if len(columns) == 1 else style.TWO_COLUMNS, inches))
    sides = figure.add_gridspec(1, len(columns), left=0.02, right=0.98, bottom=0.24 / inches, top=1 - 0.6 / inches)
    boxes = []
    for side, (name, steps), ratios in zip(sides, columns.items(), heights, strict=True):
        grid = side.subgridspec(len(steps), 1, height_ratios=ratios, hspace=0.14 * len(ratios) / (0.12 * sum(ratios)))
        axes = grid.subplots()
        for ax, step in zip(axes, steps, strict=True):
            draw_box(ax, step.text, style.NEUTRAL if step in common else style.ACCENT, dashed=not step.parameters)
        for a, b in pairwise(axes):
            draw_arrow(a, b, (0.5, 0), (0.5, 1))
        axes[0].set_title(f"{style.method_title(name)}\n{count_parameters(models[name]):,} parameters", fontsize=7)
        boxes += [*axes]
    note = "coloured: not the same in all models; grey: the same; " if len(columns) > 1 else ""
    return _finished(figure, boxes, title, "", note + "dashed: nothing to learn")


@style.styled
def figure2_tmt(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 2: the framework of one TMT, with or without a weighting, left to right."""
    target, source = MUTUAL  # halves whose targets and sources are the specific tokens
    columns = [  # width, and the boxes from top to bottom: shared, text, audio, vision
        (0.78, ("tokens", *MODALITIES)),
        (0.84, ("tokens", *(f"project.{m}" for m in MODALITIES))),
        (0.98, ("encoder",) * 4),
        (0.74, ("S_shared", *(f"S_{m}" for m in MODALITIES))),
        (0.12, (".",) * 4),  # for the crossing arrows
        (0.96, (source, source, target, target)),
        (0.84, ("head",) * 4),
    ]
    if model.weighting is not None:
        at = 2 if _weighs_inputs(model) else 4
        columns.insert(at, (0.92, (columns[at - 1][1][0], *("weighting",) * 3)))
    widths, names = zip(*columns, strict=True)
    rows = [*zip(*names, strict=True)]
    place = {"left": 0.006, "right": 0.994, "bottom": 0.1, "top": 0.91, "wspace": 0.17, "hspace": 0.25}
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 3.3))
    boxes = figure.subplot_mosaic(rows, width_ratios=widths, gridspec_kw=place)
    for name, (lines, colour) in _framework(model, batch).items():
        draw_box(boxes[name], lines, colour)
    for group, row in zip(GROUPS, rows, strict=True):
        boxes[f"S_{group}"].texts[-1].set_color(COLOURS[group])
        _connect(boxes, group, [*dict.fromkeys(name for name in row[:-2] if name != ".")])
    draw_arrow(boxes[target], boxes["head"], (1, 0.5), (0, 0.25))
    draw_arrow(boxes[source], boxes["head"], (1, 0.5), (0, 0.75))
    facts = f"{count_parameters(model):,} parameters; shapes as seen on a batch of B = {len(batch.lengths['text'])}"
    note = "solid into the mutual transformer: target (queries); dashed: source (keys, values)"
    return _finished(figure, boxes.values(), title, facts, note)


def _framework(model: TMT, batch: Batch) -> dict[str, tuple[Sequence[str], str]]:
    """The boxes of figure 2 by name: lines and colour."""
    seen = probe(model, batch)
    texts = {step.name: step.text for step in _tmt_stages(model, batch, seen)}
    boxes = {
        "tokens": (texts["tokens, positions"], COLOURS["shared"]),
        "encoder": (texts["encoder"], style.NEUTRAL),
        "head": ([re.sub(r", (?=[a-zA-Z])", ",\n", line) for line in texts["head"]], style.NEUTRAL),
    }
    for m in MODALITIES:
        linear, shape = model.project[m], f"{seen.outputs[f'project.{m}']}"
        lines = (
            f"{type(linear).__name__} {linear.in_features} → {linear.out_features}",
            f"{seen.outputs[f'project.{m}']}",
        )
        boxes[f"project.{m}"] = Stage(f"project.{m}", lines, count_parameters(linear)).text, COLOURS[m]
        boxes[m] = (m, f"{tuple(batch.features[m].shape)}"), COLOURS[m]
    if model.bert is not None:
        lines = (f"text_bert {tuple(batch.text_bert.shape)}", f"bert {seen.outputs['bert']}")
        boxes["text"] = Stage("text", lines, count_parameters(model.bert)).text, COLOURS["text"]
    for group in GROUPS:
        symbol, shape = "$I$" if group == "shared" else _symbol("S", group), tuple(seen.trace.tokens[group].shape)
        boxes[f"S_{group}"] = (symbol, group, f"{shape}", "■" * shape[1]), COLOURS[group]
    for name, colour in zip(MUTUAL, (style.NEUTRAL, COLOURS["shared"]), strict=True):
        half, (target, source) = getattr(model, name), seen.inputs[name]
        lines = _layers(half.layers), f"target {target}", f"source {source}"
        text = Stage(name.replace("from_", "from_\n"), lines, count_parameters(half)).text
        boxes[name] = (*text, f"out {seen.outputs[name]}"), colour
    if model.weighting is not None:
        boxes["weighting"] = texts["weighting"], style.ACCENT
    return boxes


def _symbol(letter: str, modality: str) -> str:
    return rf"${letter}_{{\mathrm{{{modality}}}}}$"


def _connect(boxes: Mapping[str, Axes], group: str, path: Sequence[str]) -> None:
    """The arrows of figure 2 for a group of tokens: at the height of its row along a path of boxes, then into the
    halves of the mutual transformer, as a target (solid) and as a source (dashed)."""

    def height(name: str) -> float:
        """The middle of the group's row as a fraction of a box."""
        box, row = boxes[name].get_position(), boxes[f"S_{group}"].get_position()
        return ((row.y0 + row.y1) / 2 - box.y0) / box.height

    for a, b in pairwise(path):
        draw_arrow(boxes[a], boxes[b], (1, height(a)), (0, height(b)), COLOURS[group])
    target, source = MUTUAL
    last, colour = boxes[path[-1]], style.ACCENT if path[-1] == "weighting" else COLOURS[group]
    if group == "shared":
        draw_arrow(last, boxes[source], (1, 0.5), (0, height(source)), colour)
        draw_arrow(last, boxes[target], (1, 0.3), (0, 0.8), colour, dashed=True)
    elif path[-1] != "weighting" or group == "audio":  # what the weighting gives is one thing
        draw_arrow(last, boxes[target], (1, 0.5), (0, 0.5), colour)
        draw_arrow(last, boxes[source], (1, 0.5), (0, 0.3), colour, dashed=True)


@style.styled
def figure3_amw(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 3: how the model's weighting makes A, what A multiplies, and where it sits.

    W is shown when the weighting has one; A is the model's own, averaged over the batch where it differs by utterance.
    Raises ValueError for a model without a weighting.
    """
    if getattr(model, "weighting", None) is None:
        raise ValueError("the model has no weighting, so there is no mechanism to show; give one with a weighting")
    seen, steps = probe(model, batch), stages(model, batch)
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 3.2))
    boxes = [*_draw_softmax(figure, model, seen), *_draw_products(figure, model, seen)]
    row = figure.subplots(1, len(steps), gridspec_kw={"left": 0.02, "right": 0.98, "bottom": 0.075, "top": 0.205})
    for ax, step in zip(row, steps, strict=True):
        colour = style.ACCENT if step.name == "weighting" else style.NEUTRAL
        draw_box(ax, Stage(step.name.replace(" ", "\n"), (), step.parameters).text, colour)
    for a, b in pairwise(row):
        draw_arrow(a, b)
    weighting, total = count_parameters(model.weighting), count_parameters(model)
    facts = f"{type(model.weighting).__name__}, {weighting:,} of {total:,} parameters"
    return _finished(figure, [*boxes, *row], title, facts, "bottom row: where it sits")


def _draw_softmax(figure: Figure, model: TMT, seen: Probe) -> list[Axes]:
    """W and A as heat maps with an arrow between; returns the box that stands for W where there is none."""
    place = {"left": 0.08, "right": 0.9, "bottom": 0.655, "top": 0.86, "wspace": 0.05}
    widths = {"W": 1.85, "W_bar": 0.07, "between": 1.77, "A": 1.75, "A_bar": 0.07}
    axes = figure.subplot_mosaic([list(widths)], width_ratios=list(widths.values()), gridspec_kw=place)
    axes["between"].set_axis_off()
    draw_arrow(axes["between"], axes["between"], (0.3, 0.5), (0.6, 0.5))

    def draw_map(name: str, values: np.ndarray, norm: CenteredNorm, labels: Sequence[str], title: str) -> None:
        ax = axes[name]
        weight_colourbar(figure, heat_map(ax, values, norm, labels), cax=axes[f"{name}_bar"])
        for label, colour in zip(ax.get_yticklabels(), style.MODALITY_COLOURS.values(), strict=True):
            label.set_color(colour)
        ax.set_xticks([])
        ax.set_xlabel("feature", fontsize=SIZE, labelpad=1)
        ax.set_title(title, fontsize=7)

    weights = seen.trace.weights
    a, which = weights.float().mean(0).numpy(force=True), "mean over the batch"
    if len(weights) == 1:
        which = "the same for every utterance"
    draw_map("A", a, weight_norm([a]), mean_labels(a), f"A {tuple(weights.shape)}, {which}")
    if not hasattr(model.weighting, "W"):
        axes["W_bar"].set_axis_off()
        first, *lines, _, _ = _weighting_stage(model, seen).lines
        draw_box(axes["W"], (first, "no W", *lines), style.ACCENT, dashed=not count_parameters(model.weighting))
        return [axes["W"]]
    w, how = model.weighting.W.numpy(force=True), type(model.weighting).__name__
    draw_map("W", w, CenteredNorm(0, max(1e-3, np.abs(w).max())), MODALITIES, f"W {w.shape}, learnable")
    if isinstance(model.weighting, AMW):
        how = f"softmax over\nM modalities,\ntemperature {model.weighting.temperature:g}"
    axes["between"].text(0.45, 0.58, how, ha="center", va="bottom", fontsize=SIZE)
    return []


def _draw_products(figure: Figure, model: TMT, seen: Probe) -> list[Axes]:
    """What is weighted, by what, and the equation of the placement; returns the boxes."""
    letter, shapes = "S", {m: tuple(seen.trace.tokens[m].shape) for m in MODALITIES}
    goal = f"into the mutual transformer {seen.inputs[MUTUAL[0]][0]}"
    if _weighs_inputs(model):
        letter, shapes = "X", {m: seen.outputs[f"project.{m}"] for m in MODALITIES}
        goal = f"into the encoder {seen.inputs['encoder.0'][0]}, with label tokens"
    place = {"left": 0.02, "right": 0.98, "bottom": 0.29, "top": 0.55, "wspace": 0.08, "hspace": 0.8}
    boxes = figure.subplot_mosaic([MODALITIES, ["sum"] * 3], height_ratios=(1.4, 1), gridspec_kw=place)
    draw_box(boxes["sum"], (f"{PLACEMENTS[model.config.placement]},  {goal}",), style.NEUTRAL)
    bar, weights = boxes["sum"].get_position(), tuple(seen.trace.weights[:, 0].shape)
    for m, colour in style.MODALITY_COLOURS.items():
        product = rf"{_symbol(letter, m)} $\odot$ {_symbol('A', m)}"
        draw_box(boxes[m], (product, rf"{shapes[m]} $\odot$ {weights}"), colour)
        x = (boxes[m].get_position().intervalx.mean() - bar.x0) / bar.width
        draw_arrow(boxes[m], boxes["sum"], (0.5, 0), (x, 1), colour)
    return list(boxes.values())
