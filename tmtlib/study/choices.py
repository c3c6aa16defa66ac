"""Every choice of model and training: what the paper says, the released TMT, and two profiles."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from tmtlib.models.tmt import TMTConfig
from tmtlib.paper.facts import SETTINGS
from tmtlib.study.profiles import PROFILES, Profile

NOT_STATED = "not stated"
TASKS = {"regression": "one value, L1", "classification": "five classes, cross-entropy"}


@dataclass(frozen=True)
class Choice:
    """One choice: `stated` is the name of the paper's setting ("" for none), `released` what cug-ygh/TMT at e0c6a2b
    does, as far as `TMTConfig.original` does not say it, `ours` the choice of a profile."""

    name: str
    ours: Callable[[Profile], object]
    stated: str = ""
    released: str | None = None


def _model(name: str, words: Callable[[TMTConfig], object], stated: str = "", released: str | None = None) -> Choice:
    return Choice(name, lambda profile: words(profile.model), stated, released)


def _epochs(profile: Profile) -> str:
    least = profile.training.least_steps
    return f"{profile.training.epochs}{f', at least {least} steps' if least else ''}"


CHOICES = (
    _model("layers", lambda c: f"{c.encoder_layers} in the encoder + {c.cross_layers} x 2 mutual", "layers"),
    _model("width", lambda c: c.width, "width"),
    _model("heads", lambda c: c.heads, "heads"),
    _model("head width", lambda c: c.head_width),
    _model("feed-forward width", lambda c: f"{c.encoder_hidden} in the encoder, {c.cross_hidden} mutual"),
    _model("label tokens", lambda c: f"{c.shared_tokens} shared, {c.specific_tokens} a modality"),
    _model("dropout", lambda c: f"{c.dropout}, on embeddings {c.embedding_dropout}", "dropout"),
    _model("dropout on raw features", lambda c: c.raw_dropout),
    _model("positions", lambda c: f"learned, from N(0, {c.position_std}^2)"),
    _model("head", lambda c: "two linear maps" + (", GELU between" if c.head_activation == "gelu" else "")),
    _model("task and its loss", lambda c: TASKS[c.task], "task: five classes or regression"),
    _model(
        "weights of the losses",
        lambda c: f"task {c.task_weight:g}, difference {c.orthogonality:g}, similarity {c.similarity:g}",
        "weights of the loss terms",
    ),
    _model("padded frames", lambda c: "masked" if c.masked else "attended to"),
    _model("frames a modality", lambda c: "all" if c.window is None else c.window),
    _model("mix-up", lambda c: {"off": "none", "original": "inputs only"}.get(c.mixup, c.mixup)),
    Choice("normalisation", lambda p: "z-scores of train" if p.normalize else "none", released="none"),
    Choice(
        "optimiser, learning rate", lambda p: f"Adam, {p.training.learning_rate:g}", "learning rate", "Adam, 0.0001"
    ),
    _model("schedule", lambda c: c.schedule.replace("_", ", "), "learning-rate schedule"),
    Choice("batch", lambda p: p.training.batch_size, "batch size", "64"),
    Choice("epochs", _epochs, "optimiser, epochs", "200"),
    Choice(
        "early stopping",
        lambda p: "none" if p.training.patience is None else f"after {p.training.patience} epochs without gain",
        "stopping",
        "none",
    ),
    Choice("selection", lambda p: f"validation {p.training.select_by}", "checkpoint", "each metric's best on test"),
    Choice("seeds", lambda p: len(p.seeds), "seeds and number of runs", "1"),
    _model(
        "AMW: initial W, its learning rate",
        lambda c: f"N(0, {c.weighting_init_std:g}^2), {c.weighting_lr or 'the same'}",
        "initial value and learning rate of the weight matrix",
        "no AMW",
    ),
    _model(
        "AMW: where it acts",
        lambda c: f"{c.placement}, {'before' if c.placement == 'R3' else 'after'} disentanglement",
        "place of the weights",
        "no AMW",
    ),
)


def choices(*profiles: str) -> pd.DataFrame:
    """One row a choice: "choice", "paper says", "released TMT" and "profile x" for each of `PROFILES` named (default:
    paper, quick), from their configs. Raises KeyError for an unknown profile."""
    said = {setting.name: setting.value for setting in SETTINGS} | {"": None}
    original = Profile("original", (), model=TMTConfig.original())
    rows = [
        {
            "choice": c.name,
            "paper says": said[c.stated] or NOT_STATED,
            "released TMT": str(c.ours(original)) if c.released is None else c.released,
            **{f"profile {name}": str(c.ours(PROFILES[name])) for name in profiles or ("paper", "quick")},
        }
        for c in CHOICES
    ]
    return pd.DataFrame(rows)
