"""Figure 3: how a built model's weighting works, read off the model while one real batch passes through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from tmtlib.common import MODALITIES
from tmtlib.figures.sheet import Sheet
from tmtlib.figures.stages import MUTUAL, PLACEMENTS, Probe, Stage, probe, stages, weighs_inputs, weighting_stage
from tmtlib.figures.style import ACCENT, MODALITY_COLOURS, NEUTRAL, TWO_COLUMNS, styled
from tmtlib.figures.weights import heat_map, mean_labels, weight_colourbar, weight_norm
from tmtlib.models.amw import AMW
from tmtlib.models.base import Batch, count_parameters
from tmtlib.models.tmt import TMT


@styled
def figure3_amw(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 3: how the model's weighting makes A, what A multiplies, and where it sits.

    W is shown when the weighting has one; A is the model's own, averaged over the batch where it differs by utterance.
    Raises ValueError for a model without a weighting.
    """
    if getattr(model, "weighting", None) is None:
        raise ValueError("the model has no weighting, so there is no mechanism to show; give one with a weighting")
    seen = probe(model, batch)
    sheet = Sheet(TWO_COLUMNS, 3.2)
    step = weighting_stage(model, seen)
    head = f"{step.lines[0]}, {step.parameters:,} of {count_parameters(model):,} parameters"
    sheet.heading(title, head)
    _draw_softmax(sheet, model, seen)
    _draw_products(sheet, model, seen)
    _draw_place(sheet, stages(model, batch))
    return sheet.settled()


def _draw_softmax(sheet: Sheet, model: TMT, seen: Probe) -> None:
    """W and A as heat maps with an arrow between."""
    shape = tuple(seen.trace.weights.shape)
    a = seen.trace.weights.float().mean(0).numpy(force=True)
    which = "the same for every utterance" if shape[0] == 1 else "mean over the batch"
    if hasattr(model.weighting, "W"):
        w = model.weighting.W.detach().numpy(force=True)
        limit = max(1e-3, float(np.abs(w).max()))
        ax = sheet.area(0.55, 2.1, 1.85, 0.66)
        image = _draw_map(ax, w, CenteredNorm(0, limit), MODALITIES, f"W {w.shape}, learnable")
        bar = sheet.figure.colorbar(image, cax=sheet.area(2.46, 2.1, 0.07, 0.66))
        bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.3f}", "0", f"{limit:.3f}"])
        bar.outline.set_visible(False)
        how = type(model.weighting).__name__
        if isinstance(model.weighting, AMW):
            how = "softmax over\nM modalities"
            sheet.words(3.31, 2.3, f"temperature {model.weighting.temperature:g}", size=6.5)
        sheet.words(3.31, 2.62, how, size=6.5)
    else:
        step = weighting_stage(model, seen)
        sheet.box(0.55, 2.1, 1.85, 0.66, (step.lines[0], "no W", *step.lines[1:-2]), ACCENT, dashed=not step.parameters)
    sheet.arrow((3.02, 2.43), (3.6, 2.43))
    ax = sheet.area(4.3, 2.1, 1.75, 0.66)
    image = _draw_map(ax, a, weight_norm([a]), mean_labels(a), f"A {shape}, {which}")
    weight_colourbar(sheet.figure, image, cax=sheet.area(6.11, 2.1, 0.07, 0.66))


def _draw_map(ax: Axes, values: np.ndarray, norm: CenteredNorm, labels: Sequence[str], title: str) -> AxesImage:
    image = heat_map(ax, values, norm, labels)
    for label, m in zip(ax.get_yticklabels(), MODALITIES, strict=True):
        label.set_color(MODALITY_COLOURS[m])
    ax.set_xticks([])
    ax.set_xlabel("feature", fontsize=6.5, labelpad=1)
    ax.set_title(title, fontsize=7)
    return image


def _draw_products(sheet: Sheet, model: TMT, seen: Probe) -> None:
    """A lane a modality: what is weighted, by what, and the equation of the placement."""
    inputs = weighs_inputs(model)
    symbol, lane = "X" if inputs else "S", sheet.width / 3
    for i, m in enumerate(MODALITIES):
        shape = seen.outputs[f"project.{m}"] if inputs else tuple(seen.trace.tokens[m].shape)
        left, name = i * lane + 0.15, rf"{{\mathrm{{{m}}}}}$"
        sheet.box(left, 1.4, 0.95, 0.36, (f"${symbol}_{name}", f"{shape}"), MODALITY_COLOURS[m])
        sheet.words(left + 1.07, 1.58, r"$\odot$", size=9)
        sheet.box(left + 1.19, 1.4, 0.8, 0.36, (f"$A_{name}", f"{tuple(seen.trace.weights[:, i].shape)}"), ACCENT)
        sheet.path([(left + 1.07, 1.5), (left + 1.07, 1.2)], MODALITY_COLOURS[m])
    goal = f"into the encoder {seen.inputs['encoder.0'][0]}, with label tokens"
    if not inputs:
        goal = f"into the mutual transformer {seen.inputs[MUTUAL[1]][0]}"
    sheet.box(0.15, 0.96, sheet.width - 0.3, 0.24, (), NEUTRAL)
    sheet.words(sheet.width / 2, 1.08, f"{PLACEMENTS[model.config.placement]},  {goal}", sheet.size)


def _draw_place(sheet: Sheet, steps: Sequence[Stage]) -> None:
    """All steps in a row, the weighting highlighted."""
    sheet.words(sheet.width / 2, 0.68, "where it sits", size=6.5)
    each = (sheet.width - 0.16) / len(steps)
    for i, step in enumerate(steps):
        left = 0.15 + i * each
        colour = ACCENT if step.name == "weighting" else NEUTRAL
        sheet.box(left, 0.14, each - 0.14, 0.42, (step.name, *step.text[len(step.lines) :]), colour)
        if i:
            sheet.arrow((left - 0.14, 0.35), (left, 0.35))
