"""The root of every model's config, and the one order of the modalities."""

from __future__ import annotations

from dataclasses import dataclass

MODALITIES = ("text", "audio", "vision")  # the one order used everywhere: tokens, weights, colours
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")  # the order of CMU-MOSEI's own label columns
TASKS = ("regression", "classification", "emotions")


def check_choice(name: str, value: object, allowed: tuple) -> None:
    """Raises ValueError naming the field, the value found and the values wanted."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class ModelConfig:
    """What every model shares: the task and the training habits that belong to its recipe."""

    # "regression" (L1 loss), "classification" (5 classes, cross-entropy) or "emotions" (6 yes or no, cross-entropy)
    task: str = "regression"
    schedule: str = "constant"  # "constant" or "warmup_cosine" (per epoch, linear from 0 over 10 %, then cosine)
    mixup: str = "off"  # "off", "original" (inputs mixed, only the first label kept), "correct" (both labels)
    modalities: tuple[str, ...] = MODALITIES  # those the model is given; the others are absent, in training too

    def __post_init__(self):
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities is {self.modalities!r}; wanted one or more of {MODALITIES}")
        check_choice("task", self.task, TASKS)
        check_choice("schedule", self.schedule, ("constant", "warmup_cosine"))
        check_choice("mixup", self.mixup, ("off", "original", "correct"))
