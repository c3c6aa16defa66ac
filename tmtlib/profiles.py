"""The three sizes of the study, and the methods it compares, as data.

smoke: seconds a notebook, for tests. quick: the whole series on two CPU cores in minutes. paper: the paper's
protocol at the paper's size, ten seeds, on a GPU.
"""

from __future__ import annotations

from dataclasses import replace

from tmtlib.config import PlantedSize, Profile, TMTConfig, Training

# A method is a change to the profile's model config; nothing else differs between methods.
METHODS = {
    "tmt": {"weighting": "none"},
    "tmt_amw": {"weighting": "static"},  # W learns at the training rate, as nothing else is stated
    "tmt_amw_fast": {"weighting": "static", "weighting_lr": 1e-2},  # W can move far within the budget
    "tmt_uniform": {"weighting": "uniform"},
    "tmt_5class": {"weighting": "none", "task": "classification"},
    "tmt_amw_5class": {"weighting": "static", "task": "classification"},
}
METHOD_TITLES = {
    "tmt": "TMT",
    "tmt_amw": "TMT+AMW",
    "tmt_amw_fast": "TMT+AMW, fast W",
    "tmt_uniform": "TMT, uniform weights",
    "tmt_5class": "TMT, 5-class head",
    "tmt_amw_5class": "TMT+AMW, 5-class head",
}
FIVE_CLASS = ("tmt_5class", "tmt_amw_5class")


def method_config(method: str, base: TMTConfig) -> TMTConfig:
    """The model config of a method. Raises ValueError for an unknown one."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    return replace(base, **METHODS[method])


SMALL = TMTConfig(
    width=64,
    encoder_layers=2,
    cross_layers=2,
    heads=4,
    head_width=16,
    encoder_hidden=128,
    cross_hidden=64,
)

PROFILES = {
    "smoke": Profile(
        name="smoke",
        seeds=(0, 1),
        model=replace(SMALL, width=16, heads=2, head_width=8, encoder_hidden=32, cross_hidden=16),
        training=Training(learning_rate=3e-3, epochs=2, patience=None),
        planted=dict.fromkeys(("mosi", "mosei", "sims"), PlantedSize((96, 32, 64), (8, 10, 8))),
        snr_db=(10.0, 0.0),
        threads=1,
    ),
    "quick": Profile(
        name="quick",
        seeds=(0, 1, 2),
        model=SMALL,
        training=Training(learning_rate=1e-3, epochs=15, patience=5),
        planted=dict.fromkeys(("mosi", "mosei", "sims"), PlantedSize((1000, 300, 500), (24, 32, 24))),
    ),
    "paper": Profile(name="paper", seeds=tuple(range(10))),
}
