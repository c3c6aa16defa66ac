"""Figures 2 and 3: schematics read off a built TMT while one real batch passes through it, so they cannot disagree.

Shapes come from forward hooks, token counts from the trace, layers, heads and parameters from the modules.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tmtlib.common import MODALITIES
from tmtlib.figures import style
from tmtlib.figures.weights import EVEN, heat_map, mean_labels, weight_colourbar
from tmtlib.models.amw import AMW
from tmtlib.models.base import Batch, Trace, count_parameters
from tmtlib.models.tmt import GROUPS, MUTUAL, TMT

SIZE = 6.5  # points, of the words in boxes; smaller where a box is too narrow
PITCH = 1.22  # from line to line, in sizes
PLACEMENTS = {"R1": r"$S$′$_m = A_m \odot S_m$", "R1M": r"$S$′$_m = M\,A_m \odot S_m$"}
PLACEMENTS |= {"R2": r"$S$′$ = \Sigma_m\,A_m \odot S_m$", "R3": r"$X$′$_m = A_m \odot X_m$"}


class Probe(NamedTuple):
    """What one batch showed of a model: the shapes each module was given and gave, by its name, and the trace."""

    model: TMT
    batch: Batch
    inputs: dict[str, list[tuple[int, ...]]]  # of each tensor given by position
    outputs: dict[str, tuple[int, ...]]
    trace: Trace

    @property
    def weighs_inputs(self) -> bool:
        """Placement R3, before the encoder."""
        return self.model.weighting is not None and self.model.config.placement == "R3"


class Stage(NamedTuple):
    """One step of a model's computation, as a box shows it."""

    name: str
    lines: tuple[str, ...] = ()
    parameters: int = 0

    @property
    def text(self) -> tuple[str, ...]:
        return self.name, *self.lines, *([f"{self.parameters:,} parameters"] if self.parameters else [])


def probe(model: TMT, batch: Batch) -> Probe:
    """Passes the batch through the model in evaluation mode, without gradients; leaves the model as it was. Raises
    TypeError for a model that is no TMT."""
    if not isinstance(model, TMT):
        raise TypeError(f"model is a {type(model).__name__}; wanted a TMT, as figures 2 and 3 show its steps")
    names, inputs, outputs = {module: name for name, module in model.named_modules()}, {}, {}

    def note(module: nn.Module, args: tuple, output) -> None:
        if (name := names.get(module)) is not None:
            inputs[name] = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
            outputs[name] = tuple((output if isinstance(output, torch.Tensor) else output[0]).shape)

    training = model.training
    try:
        with torch.no_grad(), register_module_forward_hook(note):
            _, trace = model.eval()(batch)
    finally:
        model.train(training)
    return Probe(model, batch, inputs, outputs, trace)


def _layers(blocks: nn.ModuleList) -> str:
    return f"{len(blocks)} layers, {blocks[0].attention.heads} heads"


def _weighting_stage(seen: Probe) -> Stage:
    """What the weighting is, what it learns and on what it acts; or that there is none."""
    weighting = seen.model.weighting
    if weighting is None:
        return Stage("no weighting", (r"$S$′$_m = S_m$",))
    learned = [f"{name} {tuple(p.shape)}, learnable" for name, p in weighting.named_parameters()]
    learned = [f"{len(learned)} learnable tensors"] if len(learned) > 2 else learned or ["nothing to learn"]
    lines = type(weighting).__name__, *learned, f"A {tuple(seen.trace.weights.shape)}"
    return Stage("weighting", (*lines, PLACEMENTS[seen.model.config.placement]), count_parameters(weighting))


def draw_box(ax: Axes, stage: Stage, colour: str) -> None:
    """A box in a tint of its colour with the stage's text in the middle, the name in bold."""
    ax.set(xticks=[], yticks=[], facecolor=style.tint(colour))
    ax.spines[:].set(visible=True, color=colour, linewidth=0.8)
    lines = [(line, "normal" if i else "bold") for i, part in enumerate(stage.text) for line in part.split("\n")]
    for j, (line, weight) in enumerate(lines):
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "center"}
        lift = ((len(lines) - 1) / 2 - j) * PITCH * SIZE
        ax.annotate(line, (0.5, 0.5), (0, lift), fontsize=SIZE, fontweight=weight, **place)


def draw_arrow(a: Axes, b: Axes, start=(1, 0.5), end=(0, 0.5), colour="black", dashed: bool = False) -> None:
    """From one box to another; start and end in fractions of them."""
    options = {"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    options |= {"color": colour, "linestyle": (0, (3, 1.5)) if dashed else "-"}
    a.figure.add_artist(ConnectionPatch(start, end, "axes fraction", "axes fraction", axesA=a, axesB=b, **options))


def _finished(figure: Figure, boxes: Iterable[Axes], title: str, note: str) -> Figure:
    """The figure with a title and a note, and with the words of all boxes in the greatest size, up to SIZE, at which
    every box holds its own."""
    inch, factor, words = 0.1 / figure.get_figheight(), 1.0, []
    figure.suptitle(title, fontsize=7.5, y=1 - inch, va="center")
    figure.text(0.5, inch, note, ha="center", va="center", fontsize=SIZE)
    for ax in boxes:
        width, height = ax.get_window_extent().size / figure.dpi - (0.06, 0.02)  # inches
        widest = max(text.get_window_extent().width for text in ax.texts) / figure.dpi
        factor = min(factor, width / widest, height / (len(ax.texts) * PITCH * SIZE / 72))
        words += ax.texts
    for text in words:
        text.set_fontsize(factor * SIZE)
        text.xyann = (0, factor * text.xyann[1])
    return figure


@style.styled
def figure2_tmt(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 2: the framework of one TMT, with or without a weighting, left to right."""
    seen, (target, source) = probe(model, batch), MUTUAL  # halves whose targets and sources are the specific tokens
    columns = [  # width, and the boxes from top to bottom: shared, text, audio, vision
        (1.1, ("tokens", *MODALITIES)),
        (0.98, ("encoder",) * 4),
        (0.74, ("S_shared", *(f"S_{m}" for m in MODALITIES))),
        (0.12, (".",) * 4),  # for the crossing arrows
        (0.96, (source, source, target, target)),
        (0.84, ("head",) * 4),
    ]
    if model.weighting is not None:
        at = 1 if seen.weighs_inputs else 3
        columns.insert(at, (0.92, (columns[at - 1][1][0], *("weighting",) * 3)))
    widths, names = zip(*columns, strict=True)
    rows = [*zip(*names, strict=True)]
    place = {"left": 0.006, "right": 0.994, "bottom": 0.24, "top": 0.92, "wspace": 0.17, "hspace": 0.25}
    figure = plt.figure(figsize=(style.TWO_COLUMNS, 3.8))
    boxes = figure.subplot_mosaic(rows, width_ratios=widths, gridspec_kw=place)
    boxes["loss"], framework = figure.add_axes((0.006, 0.09, 0.988, 0.09)), _framework(seen)
    for name, ax in boxes.items():
        draw_box(ax, *framework[name])
    for name in ("S_vision", "head"):
        x = (np.mean(boxes[name].get_position().intervalx) - 0.006) / 0.988
        draw_arrow(boxes[name], boxes["loss"], (0.5, 0), (x, 1))
    for group, row in zip(GROUPS, rows, strict=True):
        boxes[f"S_{group}"].texts[-1].set_color(style.GROUP_COLOURS[group])
        path = [boxes[name] for name in dict.fromkeys(row[:-2]) if name != "."]
        middle = np.mean(boxes[f"S_{group}"].get_position().intervaly)
        heights = [(middle - ax.get_position().y0) / ax.get_position().height for ax in path]  # in fractions of boxes
        for (a, start), (b, end) in pairwise(zip(path, heights, strict=True)):
            draw_arrow(a, b, (1, start), (0, end), style.GROUP_COLOURS[group])
        colour = style.ACCENT if path[-1] is boxes.get("weighting") else style.GROUP_COLOURS[group]
        solid, dashed, end = (source, target, 0.77) if group == "shared" else (target, source, 0.4)
        if path[-1] is not boxes.get("weighting") or group == "audio":  # one box for three modalities: drawn once
            draw_arrow(path[-1], boxes[solid], end=(0, end), colour=colour)
            draw_arrow(path[-1], boxes[dashed], end=(0, end), colour=colour, dashed=True)
    draw_arrow(boxes[target], boxes["head"], end=(0, 0.25))
    draw_arrow(boxes[source], boxes["head"], end=(0, 0.75))
    facts = f"{count_parameters(model):,} parameters; shapes as seen on a batch of B = {len(batch.lengths['text'])}"
    note = "solid into the mutual transformer: target (queries); dashed: source (keys, values)"
    return _finished(figure, boxes.values(), f"{title}: {facts}".removeprefix(": "), note)


def _framework(seen: Probe) -> dict[str, tuple[Stage, str]]:
    """The boxes of figure 2 by name: stage and colour."""
    model, batch, inputs, out, trace = seen
    c, k, given = model.config, model.tokens.shape[1], inputs["encoder.0"][0]
    tables, last = [model.token_positions, *model.positions.values()], out[f"encoder.{len(model.encoder) - 1}"]
    tokens = f"label tokens {tuple(model.tokens.shape)}", f"positions {sum(t.shape[1] for t in tables)} × d"
    tokens = Stage("tokens, positions", tokens, sum(p.numel() for p in (model.tokens, *tables)))
    encoder = _layers(model.encoder), f"{k} tokens + {given[1] - k} frames", f"in {given}", f"out {last}"
    head = "means over", "tokens, added", *(type(m).__name__ for m in model.head), f"prediction {out['']}"
    loss = f"{c.task_weight:g} {'L1' if c.task == 'regression' else 'cross-entropy'} of the prediction"
    loss += f" + {c.orthogonality:g} overlap of $I$ and the $S_m$ + {c.similarity:g} MMD of $X_m$ and $S_m$"
    boxes = {
        "tokens": (tokens, style.GROUP_COLOURS["shared"]),
        "encoder": (Stage("encoder", encoder, count_parameters(model.encoder)), style.NEUTRAL),
        "weighting": (_weighting_stage(seen), style.ACCENT),
        "head": (Stage("head", head, count_parameters(model.head)), style.NEUTRAL),
        "loss": (Stage("training loss", (loss,)), style.NEUTRAL),
    }
    for m, linear in model.project.items():
        given, parameters = [f"features {tuple(batch.features[m].shape)}"], count_parameters(linear)
        if m == "text" and model.bert is not None:
            given = [f"text_bert {tuple(batch.text_bert.shape)}", f"bert {out['bert']}"]
            parameters += count_parameters(model.bert)
        lines = *given, f"Linear {linear.in_features} → {linear.out_features}", f"out {out[f'project.{m}']}"
        boxes[m] = Stage(m, lines, parameters), style.GROUP_COLOURS[m]
    for group, colour in style.GROUP_COLOURS.items():
        shape, symbol = tuple(trace.tokens[group].shape), "$I$" if group == "shared" else rf"$S_{{\mathrm{{{group}}}}}$"
        boxes[f"S_{group}"] = Stage(symbol, (group, f"{shape}", "■" * shape[1])), colour
    for name, colour in zip(MUTUAL, (style.NEUTRAL, style.GROUP_COLOURS["shared"]), strict=True):
        half, (target, source) = getattr(model, name), inputs[name]
        lines = _layers(half.layers), f"target {target}", f"source {source}", f"out {out[name]}"
        boxes[name] = Stage(name.replace("_from_", " ← "), lines, count_parameters(half)), colour
    return boxes


@style.styled
def figure3_amw(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 3: how the model's weighting makes A, and what A multiplies.

    W is shown when the weighting has one; A is the model's own, averaged over the batch where it differs by utterance.
    Raises ValueError for a model without a weighting.
    """
    if getattr(model, "weighting", None) is None:
        raise ValueError("the model has no weighting, so there is no mechanism to show; give one with a weighting")
    seen, figure = probe(model, batch), plt.figure(figsize=(style.TWO_COLUMNS, 2.1))
    a_map = _draw_softmax(figure, seen)
    letter, shape, goal = "S", tuple(seen.trace.tokens["text"].shape), f"mutual transformer {seen.inputs[MUTUAL[0]][0]}"
    if seen.weighs_inputs:
        letter, goal = "X", f"encoder {seen.inputs['encoder.0'][0]}, with label tokens"
        shape = "; ".join(f"{seen.outputs[f'project.{m}']}" for m in MODALITIES)
    weights = tuple(seen.trace.weights[:, 0].shape)
    factors = rf"${letter}_m$ {shape} $\odot$ $A_m$ {weights}, m = {', '.join(MODALITIES)}"
    product = figure.add_axes((0.02, 0.12, 0.96, 0.22))
    draw_box(product, Stage(PLACEMENTS[model.config.placement], (factors, f"into the {goal}")), style.ACCENT)
    draw_arrow(a_map, product, (0.5, -0.2), (0.62, 1))
    facts = f"{type(model.weighting).__name__}, {count_parameters(model.weighting):,} of {count_parameters(model):,}"
    title = f"{title}: {facts} parameters".removeprefix(": ")
    return _finished(figure, [product], title, "white in A: equal weights, 1/3; its colours are not stretched")


def _draw_softmax(figure: Figure, seen: Probe) -> Axes:
    """W, if any, and A as heat maps with an arrow between, and A's means as bars from 0 to 1; returns A's axes."""
    weighting, weights = seen.model.weighting, seen.trace.weights
    names, widths = "W W_bar . between A A_bar . means".split(), (1.3, 0.07, 0.5, 1.5, 1.3, 0.07, 0.95, 1)
    place = {"left": 0.06, "right": 0.985, "bottom": 0.51, "top": 0.82, "wspace": 0.05}
    axes = figure.subplot_mosaic([names], width_ratios=widths, gridspec_kw=place)
    a, how = weights.float().mean(0).numpy(force=True), type(weighting).__name__
    maps = {"A": (a, None, f"A {tuple(weights.shape)}: {np.nanmin(a):.3f} to {np.nanmax(a):.3f}")}
    if hasattr(weighting, "W"):
        w = weighting.W.numpy(force=True)
        maps["W"] = w, CenteredNorm(0, max(1e-3, np.abs(w).max())), f"W {w.shape}, learnable"
    else:
        how = "\n".join([how, "no W", *_weighting_stage(seen).lines[1:-2]])
    if isinstance(weighting, AMW):
        formula = r"$A_m = e^{W_m/\tau}\,/\,\Sigma_n e^{W_n/\tau}$"
        how = f"softmax over modalities\n{formula}\n$\\tau$ = {weighting.temperature:g}"
    axes["between"].text(0.4, 0.58, how, ha="center", va="bottom", fontsize=SIZE)
    draw_arrow(axes["between"], axes["between"], (0.25, 0.5), (0.55, 0.5))
    for name in ("between", *(() if "W" in maps else ("W", "W_bar"))):
        axes[name].set_axis_off()
    for name, (values, norm, title) in maps.items():
        weight_colourbar(figure, heat_map(axes[name], values, MODALITIES, norm), cax=axes[f"{name}_bar"])
        axes[name].set_xticks([])
        axes[name].set_xlabel("feature", fontsize=SIZE, labelpad=1)
        axes[name].set_title(title, fontsize=7)
    axes["means"].barh(mean_labels(a), a.mean(1), color=style.MODALITY_COLOURS.values())
    axes["means"].axvline(EVEN, **style.DASHED)
    axes["means"].grid(False)
    axes["means"].set(xlim=(0, 1), ylim=(2.5, -0.5), xticks=(0, EVEN, 1), xticklabels=("0", "1/3", "1"))
    axes["means"].set_title("means of A", fontsize=7)
    return axes["A"]
