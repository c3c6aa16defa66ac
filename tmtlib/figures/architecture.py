"""Figures 1 to 3: schematics read off built models while one real batch passes through, so they cannot disagree.

Shapes come from forward hooks, token counts from the trace, layers, heads and parameters from the modules. A `Stage` is
a step of a computation; it is drawn as a box, which is an axes of its own, placed by `subplot_mosaic` or a grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.style import styled
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


@dataclass(frozen=True)
class Probe:
    """What one batch showed of a model: the shapes each module was given and gave, by its name, and the trace."""

    inputs: dict[str, list[tuple[int, ...]]]  # of each tensor given by position
    outputs: dict[str, tuple[int, ...]]  # in the order of the computation
    trace: Trace


@dataclass(frozen=True)
class Stage:
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
    inputs, outputs = {}, {}

    def hook(name: str):
        def note(module: nn.Module, args: tuple, output) -> None:
            first = output[0] if isinstance(output, tuple) else output
            inputs[name] = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
            outputs[name] = tuple(first.shape)

        return note

    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    training = model.training
    try:
        with torch.no_grad():
            _, trace = model.eval()(batch)
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return Probe(inputs, outputs, trace)


def stages(model: Model, batch: Batch) -> list[Stage]:
    """The model's steps in order; their parameters add up to the model's. TMT's are told in full, another model's by
    its top modules in the order in which they were called."""
    seen = probe(model, batch)
    if isinstance(model, TMT):
        by_name = tmt_stages(model, batch, seen)
        order = ["features", "bert", "project", "tokens, positions", "encoder", "mutual transformer", "head"]
        order.insert(3 if weighs_inputs(model) else 5, "weighting")
        return [by_name[name] for name in order if name in by_name]
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


def weighs_inputs(model: TMT) -> bool:
    return model.weighting is not None and model.config.placement == "R3"


def tmt_stages(model: TMT, batch: Batch, seen: Probe) -> dict[str, Stage]:
    """TMT's steps by name, in no order; the mutual transformer both as one step and as its halves."""
    tables = [model.token_positions, *model.positions.values()]
    k, last, given = model.tokens.shape[1], len(model.encoder) - 1, seen.inputs["encoder.0"][0]
    encoder = (f"{last + 1} layers, {model.encoder[0].attention.heads} heads", f"{k} tokens + {given[1] - k} frames")
    halves = []
    for name in MUTUAL:
        half, (target, source) = getattr(model, name), seen.inputs[name]
        layers = f"{len(half.layers)} layers, {half.layers[0].attention.heads} heads"
        halves.append(Stage(name, (layers, f"target {target}", f"source {source}"), count_parameters(half)))
    outputs = tuple(f"{name}: {seen.outputs[name]}" for name in MUTUAL)
    projected = _shapes({m: seen.outputs[f"project.{m}"] for m in MODALITIES})
    head = ("means over tokens, added", ", ".join(type(m).__name__ for m in model.head))
    steps = [
        Stage("features", _shapes({m: batch.features[m].shape for m in MODALITIES})),
        Stage("project", projected, count_parameters(model.project)),
        Stage(
            "tokens, positions",
            (f"label tokens {tuple(model.tokens.shape)}", f"positions {sum(t.shape[1] for t in tables)} × d"),
            sum(p.numel() for p in (model.tokens, *tables)),
        ),
        Stage(
            "encoder",
            (*encoder, f"in {given}", f"out {seen.outputs[f'encoder.{last}']}"),
            count_parameters(model.encoder),
        ),
        *halves,
        Stage("mutual transformer", (halves[0].lines[0], *outputs), sum(h.parameters for h in halves)),
        Stage("head", (*head, f"prediction {seen.outputs['']}"), count_parameters(model.head)),
    ]
    if model.bert is not None:
        steps.append(Stage("bert", (f"text {seen.outputs['bert']}",), count_parameters(model.bert)))
    return {step.name: step for step in steps} | {"weighting": _weighting_stage(model, seen)}


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


def fit_words(boxes: Sequence[Axes]) -> None:
    """Gives the words of all boxes the greatest size, up to SIZE, at which every box holds its own."""
    factor = 1.0
    for ax in boxes:
        place, words = ax.get_window_extent(), [text.get_window_extent() for text in ax.texts]
        inches = place.width / ax.figure.dpi - 0.06, place.height / ax.figure.dpi - 0.02
        wide, high = max(w.width for w in words) / ax.figure.dpi, len(words) * PITCH * SIZE / 72
        factor = min(factor, inches[0] / wide, inches[1] / high)
    for text in (text for ax in boxes for text in ax.texts):
        text.set_fontsize(factor * SIZE)
        text.xyann = (0, factor * text.xyann[1])


def draw_arrow(a: Axes, b: Axes, start=(1, 0.5), end=(0, 0.5), colour="black", dashed: bool = False) -> None:
    """From one box to another; start and end in fractions of them."""
    look = {"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    look |= {"color": colour, "linestyle": (0, (3, 1.5)) if dashed else "-"}
    a.figure.add_artist(ConnectionPatch(start, end, "axes fraction", "axes fraction", axesA=a, axesB=b, **look))


@styled
def figure1_fusion(models: Mapping[str, Model], batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 1: how the given models fuse, a column a model, by title or method name.

    A step is highlighted when not all models have it with the same text; it is grey when they do.
    """
    columns = {name: stages(model, batch) for name, model in models.items()}
    common = set.intersection(*(set(steps) for steps in columns.values()))
    heights = [[1 + len(step.text) for step in steps] for steps in columns.values()]
    if len({len(h) for h in heights}) == 1:  # columns of equally many steps have them in the same places
        heights = [[max(row) for row in zip(*heights, strict=True)]] * len(columns)
    inches = 0.9 + max(0.12 * sum(h) + 0.14 * len(h) for h in heights)
    figure = plt.figure(figsize=(style.ONE_COLUMN if len(columns) == 1 else style.TWO_COLUMNS, inches))
    figure.suptitle(title, fontsize=8, y=1 - 0.1 / inches, va="center")
    sides = figure.add_gridspec(1, len(columns), left=0.02, right=0.98, bottom=0.24 / inches, top=1 - 0.6 / inches)
    boxes = []
    for side, (name, steps), ratios in zip(sides, columns.items(), heights, strict=True):
        grid = side.subgridspec(len(steps), 1, height_ratios=ratios, hspace=0.14 * len(ratios) / (0.12 * sum(ratios)))
        axes = [figure.add_subplot(place) for place in grid]
        for ax, step in zip(axes, steps, strict=True):
            draw_box(ax, step.text, style.NEUTRAL if step in common else style.ACCENT, dashed=not step.parameters)
        for a, b in pairwise(axes):
            draw_arrow(a, b, (0.5, 0), (0.5, 1))
        axes[0].set_title(f"{style.method_title(name)}\n{count_parameters(models[name]):,} parameters", fontsize=7)
        boxes += axes
    note = "coloured: not the same in all models; grey: the same; " if len(columns) > 1 else ""
    figure.text(0.5, 0.1 / inches, note + "dashed: nothing to learn", ha="center", va="center", fontsize=SIZE)
    fit_words(boxes)
    return figure


@styled
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
        at = 2 if weighs_inputs(model) else 4
        columns.insert(at, (0.92, (columns[at - 1][1][0], *("weighting",) * 3)))
    widths, names = zip(*columns, strict=True)
    place = {"left": 0.006, "right": 0.994, "bottom": 0.1, "top": 0.91, "wspace": 0.17, "hspace": 0.25}
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 3.3))
    boxes = figure.subplot_mosaic([*zip(*names, strict=True)], width_ratios=widths, gridspec_kw=place)
    for name, (lines, colour) in _framework(model, batch).items():
        draw_box(boxes[name], lines, colour)
    for group, colour in COLOURS.items():
        boxes[f"S_{group}"].texts[-1].set_color(colour)
    flow = [dict.fromkeys(name for name in row if name != ".") for row in zip(*names, strict=True)]
    _connect(boxes, dict(zip(COLOURS, flow, strict=True)))
    facts = f"{count_parameters(model):,} parameters; shapes as seen on a batch of B = {len(batch.lengths['text'])}"
    figure.suptitle(f"{title}: {facts}" if title else facts, fontsize=7.5, y=0.97, va="center")
    note = "solid into the mutual transformer: target (queries); dashed: source (keys, values)"
    figure.text(0.5, 0.04, note, ha="center", va="center", fontsize=SIZE)
    fit_words(list(boxes.values()))
    return figure


def _framework(model: TMT, batch: Batch) -> dict[str, tuple[Sequence[str], str]]:
    """The boxes of figure 2 by name: lines and colour."""
    seen = probe(model, batch)
    by_name = tmt_stages(model, batch, seen)
    boxes = {
        "tokens": (by_name["tokens, positions"].text, COLOURS["shared"]),
        "encoder": (by_name["encoder"].text, style.NEUTRAL),
        "head": ([re.sub(r", (?=[a-zA-Z])", ",\n", line) for line in by_name["head"].text], style.NEUTRAL),
    }
    for m in MODALITIES:
        linear, shape = model.project[m], f"{seen.outputs[f'project.{m}']}"
        lines = (f"{type(linear).__name__} {linear.in_features} → {linear.out_features}", shape)
        boxes[f"project.{m}"] = Stage(f"project.{m}", lines, count_parameters(linear)).text, COLOURS[m]
        boxes[m] = (m, f"{tuple(batch.features[m].shape)}"), COLOURS[m]
    if model.bert is not None:
        lines = (f"text_bert {tuple(batch.text_bert.shape)}", f"bert {seen.outputs['bert']}")
        boxes["text"] = Stage("text", lines, count_parameters(model.bert)).text, COLOURS["text"]
    for group in GROUPS:
        symbol, shape = "$I$" if group == "shared" else _symbol("S", group), tuple(seen.trace.tokens[group].shape)
        boxes[f"S_{group}"] = (symbol, group, f"{shape}", "■" * shape[1]), COLOURS[group]
    for name, colour in zip(MUTUAL, (style.NEUTRAL, COLOURS["shared"]), strict=True):
        first, *lines = by_name[name].text
        boxes[name] = (first.replace("from_", "from_\n"), *lines, f"out {seen.outputs[name]}"), colour
    if model.weighting is not None:
        boxes["weighting"] = by_name["weighting"].text, style.ACCENT
    return boxes


def _symbol(letter: str, modality: str) -> str:
    return rf"${letter}_{{\mathrm{{{modality}}}}}$"


def _connect(boxes: Mapping[str, Axes], flow: Mapping[str, Sequence[str]]) -> None:
    """The arrows of figure 2: a group of tokens keeps its height up to the mutual transformer, into whose halves it
    goes as a target (solid) and as a source (dashed). flow: the boxes in each group's row, left to right."""

    def height(name: str, group: str) -> float:
        """The middle of a group's row as a fraction of a box."""
        box, row = boxes[name].get_position(), boxes[f"S_{group}"].get_position()
        return ((row.y0 + row.y1) / 2 - box.y0) / box.height

    target, source = MUTUAL
    for group, row in flow.items():
        *path, _, _ = row
        colour = style.ACCENT if path[-1] == "weighting" else COLOURS[group]
        for a, b in pairwise(path):
            draw_arrow(boxes[a], boxes[b], (1, height(a, group)), (0, height(b, group)), COLOURS[group])
        if group == "shared":
            draw_arrow(boxes[path[-1]], boxes[source], (1, 0.5), (0, height(source, group)), colour)
            draw_arrow(boxes[path[-1]], boxes[target], (1, 0.3), (0, 0.8), colour, dashed=True)
        elif path[-1] != "weighting" or group == "audio":  # what the weighting gives is one thing
            draw_arrow(boxes[path[-1]], boxes[target], (1, 0.5), (0, 0.5), colour)
            draw_arrow(boxes[path[-1]], boxes[source], (1, 0.5), (0, 0.3), colour, dashed=True)
    for name, level in ((target, 0.25), (source, 0.75)):
        draw_arrow(boxes[name], boxes["head"], (1, 0.5), (0, level))


@styled
def figure3_amw(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 3: how the model's weighting makes A, what A multiplies, and where it sits.

    W is shown when the weighting has one; A is the model's own, averaged over the batch where it differs by utterance.
    Raises ValueError for a model without a weighting.
    """
    if getattr(model, "weighting", None) is None:
        raise ValueError("the model has no weighting, so there is no mechanism to show; give one with a weighting")
    seen, steps = probe(model, batch), stages(model, batch)
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 3.2))
    weighting, total = count_parameters(model.weighting), count_parameters(model)
    facts = f"{type(model.weighting).__name__}, {weighting:,} of {total:,} parameters"
    figure.suptitle(f"{title}: {facts}" if title else facts, fontsize=7.5, y=0.97, va="center")
    boxes = [*_draw_softmax(figure, model, seen), *_draw_products(figure, model, seen)]
    row = figure.subplots(1, len(steps), gridspec_kw={"left": 0.02, "right": 0.98, "bottom": 0.04, "top": 0.17})
    for ax, step in zip(row, steps, strict=True):
        colour = style.ACCENT if step.name == "weighting" else style.NEUTRAL
        draw_box(ax, (step.name.replace(" ", "\n"), *step.text[1 + len(step.lines) :]), colour)
    for a, b in pairwise(row):
        draw_arrow(a, b)
    figure.text(0.5, 0.215, "where it sits", ha="center", va="center", fontsize=SIZE)
    fit_words([*boxes, *row])
    return figure


def _draw_softmax(figure: Figure, model: TMT, seen: Probe) -> list[Axes]:
    """W and A as heat maps with an arrow between; returns the box that stands for W where there is none."""
    place = {"left": 0.08, "right": 0.9, "bottom": 0.655, "top": 0.86, "wspace": 0.05}
    widths = {"W": 1.85, "W_bar": 0.07, "between": 1.77, "A": 1.75, "A_bar": 0.07}
    axes = figure.subplot_mosaic([list(widths)], width_ratios=list(widths.values()), gridspec_kw=place)
    axes["between"].set_axis_off()
    draw_arrow(axes["between"], axes["between"], (0.3, 0.5), (0.6, 0.5))
    weights = seen.trace.weights
    a, which = weights.float().mean(0).numpy(force=True), "mean over the batch"
    if len(weights) == 1:
        which = "the same for every utterance"
    _draw_map(axes["A"], a, weight_norm([a]), mean_labels(a), f"A {tuple(weights.shape)}, {which}")
    weight_colourbar(figure, axes["A"].collections[0], cax=axes["A_bar"])
    if not hasattr(model.weighting, "W"):
        axes["W_bar"].set_axis_off()
        first, *lines, _, _ = _weighting_stage(model, seen).lines
        draw_box(axes["W"], (first, "no W", *lines), style.ACCENT, dashed=not count_parameters(model.weighting))
        return [axes["W"]]
    w, how = model.weighting.W.detach().numpy(force=True), type(model.weighting).__name__
    limit = max(1e-3, float(np.abs(w).max()))
    _draw_map(axes["W"], w, CenteredNorm(0, limit), MODALITIES, f"W {w.shape}, learnable")
    weight_colourbar(figure, axes["W"].collections[0], cax=axes["W_bar"])
    if isinstance(model.weighting, AMW):
        how = f"softmax over\nM modalities,\ntemperature {model.weighting.temperature:g}"
    axes["between"].text(0.45, 0.58, how, ha="center", va="bottom", fontsize=SIZE)
    return []


def _draw_map(ax: Axes, values: np.ndarray, norm: CenteredNorm, labels: Sequence[str], title: str) -> None:
    heat_map(ax, values, norm, labels)
    for label, colour in zip(ax.get_yticklabels(), style.MODALITY_COLOURS.values(), strict=True):
        label.set_color(colour)
    ax.set_xticks([])
    ax.set_xlabel("feature", fontsize=SIZE, labelpad=1)
    ax.set_title(title, fontsize=7)


def _draw_products(figure: Figure, model: TMT, seen: Probe) -> list[Axes]:
    """What is weighted, by what, and the equation of the placement; returns the boxes."""
    inputs, weights = weighs_inputs(model), seen.trace.weights
    letter, goal = "S", f"into the mutual transformer {seen.inputs[MUTUAL[0]][0]}"
    if inputs:
        letter, goal = "X", f"into the encoder {seen.inputs['encoder.0'][0]}, with label tokens"
    lanes = [name for m in MODALITIES for name in (f"X_{m}", f"times_{m}", f"A_{m}", ".")][:-1]
    ratios = {"width_ratios": ([1, 0.2, 0.85, 0.3] * 3)[:-1], "height_ratios": [1.4, 1]}
    place = {"left": 0.02, "right": 0.98, "bottom": 0.29, "top": 0.55, "wspace": 0, "hspace": 0.8}
    boxes = figure.subplot_mosaic([lanes, ["sum"] * len(lanes)], gridspec_kw=place, **ratios)
    bar = boxes["sum"].get_position()
    draw_box(boxes["sum"], (f"{PLACEMENTS[model.config.placement]},  {goal}",), style.NEUTRAL)
    for i, (m, colour) in enumerate(style.MODALITY_COLOURS.items()):
        shape = seen.outputs[f"project.{m}"] if inputs else tuple(seen.trace.tokens[m].shape)
        draw_box(boxes[f"X_{m}"], (_symbol(letter, m), f"{shape}"), colour)
        draw_box(boxes[f"A_{m}"], (_symbol("A", m), f"{tuple(weights[:, i].shape)}"), style.ACCENT)
        times = boxes.pop(f"times_{m}")
        times.set_axis_off()
        times.text(0.5, 0.5, r"$\odot$", ha="center", va="center")
        x = (times.get_position().intervalx.mean() - bar.x0) / bar.width
        draw_arrow(times, boxes["sum"], (0.5, 0.2), (x, 1), colour)
    return list(boxes.values())
