"""Figures 1 and 2: schematics read off built models while one real batch passes through, so they cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from matplotlib.figure import Figure

from tmtlib.common import MODALITIES
from tmtlib.figures.sheet import Sheet
from tmtlib.figures.stages import (
    MUTUAL,
    Probe,
    Stage,
    encoder_stage,
    half_stage,
    head_stage,
    label_tokens,
    probe,
    stages,
    weighs_inputs,
    weighting_stage,
)
from tmtlib.figures.style import ACCENT, MODALITY_COLOURS, NEUTRAL, ONE_COLUMN, TWO_COLUMNS, method_title, styled
from tmtlib.models.base import Batch, Model, count_parameters
from tmtlib.models.tmt import TMT

SHARED_COLOUR = "#5B5B8C"
GROUP_COLOURS = {"shared": SHARED_COLOUR, **MODALITY_COLOURS}
COLUMN_WIDTHS = {  # of figure 2, in proportion
    "features": 0.78,
    "project": 0.84,
    "encoder": 0.98,
    "tokens": 0.74,
    "weighting": 0.92,
    "mutual": 0.96,
    "head": 0.84,
}


@styled
def figure1_fusion(models: Mapping[str, Model], batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 1: how the given models fuse, a column a model, by title or method name.

    A step is highlighted when not all models have it with the same text; it is grey when they do.
    """
    columns = {name: stages(model, batch) for name, model in models.items()}
    common = set.intersection(*(set(steps) for steps in columns.values()))
    heights = _heights(list(columns.values()))
    inner = max(sum(h) + 0.13 * (len(h) - 1) for h in heights)
    sheet = Sheet(ONE_COLUMN if len(columns) == 1 else TWO_COLUMNS, inner + 0.64 + 0.16 * bool(title))
    each = sheet.width / len(columns)
    if title:
        sheet.words(sheet.width / 2, sheet.height - 0.1, title, size=8)
    for i, ((name, steps), tall) in enumerate(zip(columns.items(), heights, strict=True)):
        x, y = i * each + 0.08, inner + 0.24
        header = (method_title(name), f"{count_parameters(models[name]):,} parameters")
        sheet.label(x, y + 0.03, each - 0.16, 0.34, header)
        gap = (inner - sum(tall)) / max(1, len(steps) - 1)
        for j, (step, height) in enumerate(zip(steps, tall, strict=True)):
            look = {"colour": NEUTRAL if step in common else ACCENT, "dashed": not step.parameters}
            sheet.box(x, y - height, each - 0.16, height, (step.name, *step.text), **look)
            y -= height + gap
            if j + 1 < len(steps):
                sheet.arrow((x + each / 2 - 0.08, y + gap), (x + each / 2 - 0.08, y))
    note = "coloured: not the same in all models; grey: the same; " if len(columns) > 1 else ""
    sheet.words(sheet.width / 2, 0.1, note + "dashed: nothing to learn", size=6.5)
    return sheet.settled()


def _heights(columns: Sequence[Sequence[Stage]]) -> list[list[float]]:
    """The boxes' heights by column; columns of equally many steps have them in the same places."""
    heights = [[0.1 + 0.115 * (1 + len(step.text)) for step in steps] for steps in columns]
    if len({len(h) for h in heights}) == 1:
        heights = [[max(row) for row in zip(*heights, strict=True)]] * len(columns)
    return heights


@styled
def figure2_tmt(model: TMT, batch: Batch, title: str = "") -> Figure:
    """Counterpart of the paper's Figure 2: the framework of one TMT, with or without a weighting, left to right."""
    seen = probe(model, batch)
    sheet = Sheet(TWO_COLUMNS, 3.3, size=6)
    rows = dict(zip(("shared", *MODALITIES), (2.46, 1.74, 1.06, 0.38), strict=True))  # lower edges
    names = ["features", "project", "encoder", "tokens", "mutual", "head"]
    if model.weighting is not None:
        names.insert(names.index("encoder" if weighs_inputs(model) else "mutual"), "weighting")
    x = _columns(names)
    _draw_inputs(sheet, model, batch, seen, x, rows)
    _draw_encoder(sheet, model, seen, x, rows)
    if model.weighting is not None:
        step = weighting_stage(model, seen)
        left, width = x["weighting"]
        sheet.box(left, rows["vision"], width, rows["text"] + 0.56 - rows["vision"], (step.name, *step.text), ACCENT)
    _draw_flow(sheet, x, rows)
    _draw_mutual(sheet, model, seen, x, rows)
    head = f"{count_parameters(model):,} parameters; shapes as seen on a batch of B = {len(batch.lengths['text'])}"
    sheet.heading(title, head)
    note = "solid into the mutual transformer: target (queries); dashed: source (keys, values)"
    sheet.words(sheet.width / 2, 0.17, note, size=6.5)
    return sheet.settled()


def _columns(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Left edge and width by column, in order; the gap before the mutual transformer holds its crossing arrows."""
    gaps = [0.3 if name == "mutual" else 0.13 for name in names[1:]]
    scale = (TWO_COLUMNS - 0.08) / (sum(COLUMN_WIDTHS[n] for n in names) + sum(gaps))
    places, left = {}, 0.04
    for name, gap in zip(names, [*gaps, 0], strict=True):
        places[name] = left, scale * COLUMN_WIDTHS[name]
        left += scale * (COLUMN_WIDTHS[name] + gap)
    return places


def _draw_inputs(sheet: Sheet, model: TMT, batch: Batch, seen: Probe, x: dict, rows: dict) -> None:
    for m in MODALITIES:
        linear = model.project[m]
        lines = [f"{tuple(batch.features[m].shape)}"]
        if m == "text" and model.bert is not None:
            lines = [f"text_bert {tuple(batch.text_bert.shape)}", f"bert {seen.outputs['bert']}"]
            lines.append(f"{count_parameters(model.bert):,} parameters")
        sheet.box(x["features"][0], rows[m], x["features"][1], 0.56, (m, *lines), MODALITY_COLOURS[m])
        step = (f"project.{m}", f"{type(linear).__name__} {linear.in_features} → {linear.out_features}")
        step += (f"{seen.outputs[f'project.{m}']}", f"{count_parameters(linear):,} parameters")
        sheet.box(x["project"][0], rows[m], x["project"][1], 0.56, step, MODALITY_COLOURS[m])
    step = label_tokens(model)
    left, right = x["features"][0], sum(x["project"])
    sheet.box(left, rows["shared"], right - left, 0.56, (step.name, *step.text), SHARED_COLOUR)


def _draw_encoder(sheet: Sheet, model: TMT, seen: Probe, x: dict, rows: dict) -> None:
    step = encoder_stage(model, seen)
    only = replace(step, parameters=count_parameters(model.encoder))
    left, width = x["encoder"]
    sheet.box(left, rows["vision"], width, rows["shared"] + 0.56 - rows["vision"], (step.name, *only.text), NEUTRAL)
    for group in GROUP_COLOURS:
        symbol = "$I$" if group == "shared" else rf"$S_{{\mathrm{{{group}}}}}$"
        shape = tuple(seen.trace.tokens[group].shape)
        left, width = x["tokens"]
        sheet.box(left, rows[group], width, 0.56, (symbol, group, f"{shape}", ""), GROUP_COLOURS[group])
        sheet.squares(left, rows[group] + 0.05, width, shape[1], GROUP_COLOURS[group])


def _draw_flow(sheet: Sheet, x: dict, rows: dict) -> None:
    """Arrows from column to column up to the mutual transformer."""
    for before, after in pairwise(list(x)[:-2]):
        for m in MODALITIES:
            sheet.arrow((sum(x[before]), rows[m] + 0.28), (x[after][0], rows[m] + 0.28), MODALITY_COLOURS[m])
    middle = rows["shared"] + 0.28
    sheet.arrow((sum(x["project"]), middle), (x["encoder"][0], middle), SHARED_COLOUR)
    sheet.arrow((sum(x["encoder"]), middle), (x["tokens"][0], middle), SHARED_COLOUR)


def _draw_mutual(sheet: Sheet, model: TMT, seen: Probe, x: dict, rows: dict) -> None:
    """Both halves, each fed with one token group as its target and the other as its source, and the head."""
    left, width = x["mutual"]
    lower = {"shared_from_specific": 1.78, "specific_from_shared": 0.38}
    for name, bottom in lower.items():
        step = half_stage(model, seen, name)
        lines = (name.replace("from_", "from_\n"), *step.text, f"out {seen.outputs[name]}")
        sheet.box(left, bottom, width, 1.24, lines, SHARED_COLOUR if name == MUTUAL[0] else NEUTRAL)
    before = list(x)[-3]
    weighted, start = before == "weighting", sum(x[before])
    bus, turn = left - 0.62 * (left - start), left - 0.3 * (left - start)
    shared, specific = rows["shared"] + 0.28, rows["audio"] + 0.28 if weighted else rows["audio"] + 0.02
    sheet.arrow((sum(x["tokens"]), shared), (left, shared), SHARED_COLOUR)
    sheet.path([(bus, shared), (bus, 1.52), (left, 1.52)], SHARED_COLOUR, dashed=True)
    colour = ACCENT if weighted else "black"
    if not weighted:
        for m in MODALITIES:
            sheet.path([(start, rows[m] + 0.28), (turn, rows[m] + 0.28)], MODALITY_COLOURS[m], head=False)
        sheet.path([(turn, rows["vision"] + 0.28), (turn, rows["text"] + 0.28)], colour, head=False)
    sheet.arrow((start if weighted else turn, specific), (left, specific), colour)
    sheet.path([(turn, specific), (turn, 2.02), (left, 2.02)], colour, dashed=True)
    step = head_stage(model, seen)
    left_head, width_head = x["head"]
    lines = (step.name, *(",\n".join(line.rsplit(", ", 1)) for line in step.text[:2]), *step.text[2:])
    sheet.box(left_head, 1.0, width_head, 1.3, lines, NEUTRAL)
    for y in (2.1, 1.2):
        sheet.arrow((left + width, y), (left_head, y))
