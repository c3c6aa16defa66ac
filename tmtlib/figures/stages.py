"""The steps of a built model's computation, read off it while one batch passes through.

Shapes come from forward hooks, token counts from the trace, layers, heads and parameters from the modules.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tmtlib.common import MODALITIES
from tmtlib.models.base import Batch, Model, Trace, count_parameters
from tmtlib.models.tmt import TMT

PLACEMENTS = {
    "R1": r"$S$′$_m = A_m \odot S_m$",
    "R1M": r"$S$′$_m = M\,A_m \odot S_m$",
    "R2": r"$S$′$ = \Sigma_m\,A_m \odot S_m$",
    "R3": r"$X$′$_m = A_m \odot X_m$",
}
MUTUAL = ("shared_from_specific", "specific_from_shared")


@dataclass(frozen=True)
class Probe:
    """What one batch showed of a model: the shapes each module was given and gave, by its name, and the trace."""

    inputs: dict[str, list[tuple[int, ...]]]  # of each tensor given by position
    outputs: dict[str, tuple[int, ...]]  # in the order of the computation
    trace: Trace


@dataclass(frozen=True)
class Stage:
    """One step of a model's computation, as a box shows it."""

    name: str  # the module's name
    lines: tuple[str, ...]
    parameters: int = 0

    @property
    def text(self) -> tuple[str, ...]:
        return (*self.lines, f"{self.parameters:,} parameters") if self.parameters else self.lines


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
        for each in hooks:
            each.remove()
    return Probe(inputs, outputs, trace)


def stages(model: Model, batch: Batch) -> list[Stage]:
    """The model's steps in order; their parameters add up to the model's. TMT's are told in full, another model's by
    its top modules in the order in which they were called."""
    seen = probe(model, batch)
    features = Stage("features", tuple(f"{m} {tuple(batch.features[m].shape)}" for m in MODALITIES))
    if not isinstance(model, TMT):
        return [features, *_other_stages(model, seen)]
    weighting = weighting_stage(model, seen)
    steps = [features, *_bert_stage(model, seen), project_stage(model, seen), encoder_stage(model, seen)]
    steps.insert(len(steps) - 1 if weighs_inputs(model) else len(steps), weighting)
    return [*steps, mutual_stage(model, seen), head_stage(model, seen)]


def _other_stages(model: Model, seen: Probe) -> list[Stage]:
    children = {name: module for name, module in model.named_children() if count_parameters(module)}
    order = [called.split(".")[0] for called in seen.outputs]
    steps = []
    for name in sorted(children, key=lambda n: order.index(n) if n in order else len(order)):
        last = [shape for called, shape in seen.outputs.items() if called.split(".")[0] == name][-1:]
        lines = (type(children[name]).__name__, *(f"out {shape}" for shape in last))
        steps.append(Stage(name, lines, count_parameters(children[name])))
    own = count_parameters(model) - sum(s.parameters for s in steps)
    return steps + ([Stage("own parameters", (), own)] if own else [])


def weighs_inputs(model: TMT) -> bool:
    return model.weighting is not None and model.config.placement == "R3"


def _bert_stage(model: TMT, seen: Probe) -> list[Stage]:
    if model.bert is None:
        return []
    return [Stage("bert", (f"text {seen.outputs['bert']}",), count_parameters(model.bert))]


def project_stage(model: TMT, seen: Probe) -> Stage:
    lines = tuple(f"{m} {seen.outputs[f'project.{m}']}" for m in MODALITIES)
    return Stage("project", lines, count_parameters(model.project))


def label_tokens(model: TMT) -> Stage:
    """The learned label tokens and the positional tables, of tokens and frames."""
    tables = [model.token_positions, *model.positions.values()]
    lines = (f"label tokens {tuple(model.tokens.shape)}", f"positions {sum(t.shape[1] for t in tables)} × d")
    return Stage("tokens, positions", lines, sum(p.numel() for p in (model.tokens, *tables)))


def encoder_stage(model: TMT, seen: Probe) -> Stage:
    """The encoder with its label tokens."""
    k, last = model.tokens.shape[1], len(model.encoder) - 1
    given = seen.inputs["encoder.0"][0]
    lines = (
        f"{last + 1} layers, {model.encoder[0].attention.heads} heads",
        f"{k} tokens + {given[1] - k} frames",
        f"in {given}",
        f"out {seen.outputs[f'encoder.{last}']}",
    )
    return Stage("encoder", lines, count_parameters(model.encoder) + label_tokens(model).parameters)


def weighting_stage(model: TMT, seen: Probe) -> Stage:
    """What the weighting is, where it acts and on what; or that there is none."""
    if model.weighting is None:
        return Stage("no weighting", (r"$S$′$_m = S_m$",))
    learned = [f"{name} {tuple(p.shape)}, learnable" for name, p in model.weighting.named_parameters()]
    if len(learned) > 2:
        learned = [f"{len(learned)} learnable tensors"]
    weights = f"A {tuple(seen.trace.weights.shape)}"
    lines = (type(model.weighting).__name__, *(learned or ["nothing to learn"]), weights)
    return Stage("weighting", (*lines, PLACEMENTS[model.config.placement]), count_parameters(model.weighting))


def half_stage(model: TMT, seen: Probe, name: str) -> Stage:
    """One half of the mutual transformer."""
    half, (target, source) = getattr(model, name), seen.inputs[name]
    layers = f"{len(half.layers)} layers, {half.layers[0].attention.heads} heads"
    return Stage(name, (layers, f"target {target}", f"source {source}"), count_parameters(half))


def mutual_stage(model: TMT, seen: Probe) -> Stage:
    halves = [half_stage(model, seen, name) for name in MUTUAL]
    lines = (halves[0].lines[0], *(f"{h.name}: {seen.outputs[h.name]}" for h in halves))
    return Stage("mutual transformer", lines, sum(h.parameters for h in halves))


def head_stage(model: TMT, seen: Probe) -> Stage:
    kinds = [type(m).__name__ for m in model.head]
    lines = ("means over tokens, added", ", ".join(kinds), f"prediction {seen.outputs['']}")
    return Stage("head", lines, count_parameters(model.head))
