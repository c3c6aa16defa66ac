"""The sizes of the study, and the methods it compares, as data.

smoke: seconds a notebook, for tests. quick: the whole series on two CPU cores in minutes. full: quick with the whole
family of weightings and every subset of the modalities. ten: quick with ten seeds. paper: the paper's protocol at the
paper's size, ten seeds, on a GPU.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

from tmtlib.config import (
    MODALITIES,
    BertTextConfig,
    LateFusionConfig,
    MISAConfig,
    ModelConfig,
    MulTConfig,
    PlantedSize,
    Profile,
    TMTConfig,
    Training,
)

# A method is a change to the profile's model config, or another model's config at the size of its paper; nothing else
# differs between methods.
METHODS = {
    "tmt": {"weighting": "none"},
    "tmt_amw": {"weighting": "static"},  # W learns at the training rate, as nothing else is stated
    "tmt_amw_fast": {"weighting": "static", "weighting_lr": 1e-2},  # W can move far within the budget
    "tmt_amw_slow": {"weighting": "static", "weighting_lr": 1e-4},  # the paper's rate, where a profile has another
    "tmt_uniform": {"weighting": "uniform"},  # control C1
    "tmt_random": {"weighting": "random"},  # control C2
    **{f"tmt_mostly_{m}": {"weighting": f"mostly_{m}"} for m in MODALITIES},  # control C3
    "tmt_amw_r1m": {"weighting": "static", "placement": "R1M"},  # M A: TMT itself at the start
    "tmt_amw_r2": {"weighting": "static", "placement": "R2"},  # the weighted sum of the paper's text
    "tmt_amw_r3": {"weighting": "static", "placement": "R3"},  # before disentanglement
    "tmt_scalar": {"weighting": "scalar"},
    "tmt_lowrank": {"weighting": "lowrank"},
    "tmt_gated": {"weighting": "gated"},
    "tmt_gated_fast": {"weighting": "gated", "weighting_lr": 1e-2},  # as for W: so that they can move within the budget
    "tmt_gated_scalar": {"weighting": "gated_scalar"},
    "tmt_attention": {"weighting": "attention"},
    "tmt_token": {"weighting": "token"},
    "tmt_temporal": {"weighting": "token", "placement": "R3"},  # frame by frame
    "text_only": {"modalities": ("text",)},
    "audio_only": {"modalities": ("audio",)},
    "vision_only": {"modalities": ("vision",)},
    "text_audio": {"modalities": ("text", "audio")},
    "text_vision": {"modalities": ("text", "vision")},
    "audio_vision": {"modalities": ("audio", "vision")},
    "tmt_5class": {"weighting": "none", "task": "classification"},
    "tmt_amw_5class": {"weighting": "static", "task": "classification"},
    "tmt_emotions": {"weighting": "none", "task": "emotions"},
    "tmt_amw_emotions": {"weighting": "static", "task": "emotions"},
    "tmt_uniform_emotions": {"weighting": "uniform", "task": "emotions"},
}
METHODS |= {"late_fusion": LateFusionConfig, "mult": MulTConfig, "misa": MISAConfig}
METHODS["bert_text"] = partial(BertTextConfig, bert=os.environ.get("TMT_BERT"))  # needs `text_bert` in the file
METHODS |= {f"{name}_mmsa": partial(METHODS[name], compat="mmsa") for name in ("mult", "misa")}  # MMSA's quirks
METHOD_TITLES = {
    "tmt": "TMT",
    "tmt_amw": "TMT+AMW",
    "tmt_amw_fast": "TMT+AMW, fast W",
    "tmt_amw_slow": "TMT+AMW, slow W",
    "tmt_uniform": "TMT, uniform weights",
    "tmt_random": "TMT, random weights",
    **{f"tmt_mostly_{m}": f"TMT, mostly {m} (.8)" for m in MODALITIES},
    "tmt_amw_r1m": "TMT+AMW, times M (R1M)",
    "tmt_amw_r2": "TMT+AMW, summed (R2)",
    "tmt_amw_r3": "TMT+AMW, before (R3)",
    "tmt_scalar": "TMT, a number a modality",
    "tmt_lowrank": "TMT, rank-one W",
    "tmt_gated": "TMT, gated by the input",
    "tmt_gated_fast": "TMT, gated by the input, fast",
    "tmt_gated_scalar": "TMT, gated, one number",
    "tmt_attention": "TMT, attention over modalities",
    "tmt_token": "TMT, gated token by token",
    "tmt_temporal": "TMT, gated frame by frame",
    "text_only": "TMT, text only",
    "audio_only": "TMT, audio only",
    "vision_only": "TMT, vision only",
    "text_audio": "TMT, text and audio",
    "text_vision": "TMT, text and vision",
    "audio_vision": "TMT, audio and vision",
    "tmt_5class": "TMT, 5-class head",
    "tmt_amw_5class": "TMT+AMW, 5-class head",
    "tmt_emotions": "TMT, emotions",
    "tmt_amw_emotions": "TMT+AMW, emotions",
    "tmt_uniform_emotions": "TMT, uniform weights, emotions",
    "late_fusion": "late fusion",
    "mult": "MulT",
    "misa": "MISA",
    "bert_text": "BERT, text only",
    "mult_mmsa": "MulT, as in MMSA",
    "misa_mmsa": "MISA, as in MMSA",
    # floors, see tmtlib.floors and tmtlib.emotions
    "constant": "constant (train median)",
    "train_mean": "constant (train mean)",
    "linear_text": "linear, text only",
    "linear_audio": "linear, audio only",
    "linear_vision": "linear, vision only",
    "linear_all": "linear, all modalities",
    "oracle": "best possible (oracle)",
    "majority": "majority (absent or present)",
    "always": "every emotion, always",
}
FIVE_CLASS = ("tmt_5class", "tmt_amw_5class")
EMOTION_METHODS = ("tmt_emotions", "tmt_amw_emotions", "tmt_uniform_emotions")


def method_config(method: str, base: TMTConfig) -> ModelConfig:
    """The model config of a method. Raises ValueError for an unknown one.

    Another model than TMT takes the profile's schedule, and no more layers than its TMT has.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    change = METHODS[method]
    if isinstance(change, dict):
        return replace(base, **change)
    config = change(schedule=base.schedule)
    if isinstance(config, MulTConfig):
        layers = min(config.layers, base.encoder_layers)
        config = replace(config, layers=layers, memory_layers=layers)
    return config


def planted_sizes(utterances: tuple, aligned: int, unaligned: tuple) -> dict[str, PlantedSize]:
    """Small planted data sets that keep what is particular: CH-SIMS alone has a T of its own for each modality."""
    frames = {"mosi": (aligned,) * 3, "mosei": (aligned,) * 3, "sims": unaligned}
    return {name: PlantedSize(utterances, t) for name, t in frames.items()}


SMALL = TMTConfig(
    width=64,
    encoder_layers=2,
    cross_layers=2,
    heads=4,
    head_width=16,
    encoder_hidden=128,
    cross_hidden=64,
)

# Claims about learned weights need them to beat uniform and random ones, so the controls are in every study.
MAIN = (
    *("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated"),
    *("tmt_gated_fast", "tmt_scalar", "tmt_token", "text_only", "late_fusion", "mult", "misa"),
)
ABLATIONS = (
    *("tmt_amw_r1m", "tmt_amw_r2", "tmt_amw_r3", "tmt_lowrank", "tmt_gated_scalar", "tmt_attention", "tmt_temporal"),
    *("audio_only", "vision_only", "text_audio", "text_vision", "audio_vision", "mult_mmsa", "misa_mmsa"),
)

MASKED = ("tmt", "tmt_amw", "tmt_uniform", "tmt_gated", "tmt_token", "text_only", "late_fusion", "mult", "misa")

PROFILES = {
    "smoke": Profile(
        name="smoke",
        seeds=(0, 1),
        model=replace(SMALL, width=16, heads=2, head_width=8, encoder_hidden=32, cross_hidden=16),
        training=Training(learning_rate=3e-3, epochs=2, patience=None),
        planted=planted_sizes((96, 32, 64), aligned=8, unaligned=(8, 12, 10)),
        methods=("tmt", "tmt_amw", "tmt_amw_fast", "tmt_uniform", "tmt_random", "tmt_gated", "text_only", "mult"),
        masked=("tmt", "tmt_amw"),
        noisy_training=("text",),
        training_snr_db=(-20.0,),
        snr_db=(10.0, 0.0),
        missing_rates=(0.0, 0.5, 1.0),
        blocks=(0.4,),
        shifts=(2,),
        masks=2,
        worlds=2,
        world_size=PlantedSize((64, 32, 64), (8, 8, 8)),
        jobs=1,
    ),
    "quick": Profile(
        name="quick",
        seeds=(0, 1, 2),
        model=replace(SMALL, schedule="warmup_cosine"),  # few epochs end better with a falling learning rate
        training=Training(learning_rate=1e-3, epochs=8, patience=5),
        planted=planted_sizes((1200, 300, 500), aligned=20, unaligned=(20, 26, 24)),
        methods=("tmt", "tmt_amw", "tmt_uniform", "tmt_random"),
        ablations=("tmt_amw_fast", "tmt_gated", "tmt_token", "text_only", "late_fusion", "mult"),
        masked=MASKED[:3],
        noisy_training=("text",),  # the most informative one on planted CMU-MOSI
        training_snr_db=(-20.0,),
        snr_db=(10.0, 0.0, -10.0),
        missing_rates=(0.0, 0.25, 0.5, 0.75, 1.0),
        blocks=(0.4,),
        shifts=(4,),
        masks=2,
        worlds=12,
        world_size=PlantedSize((1200, 150, 300), (4, 4, 4)),  # little to read, so that they learn something in seconds
    ),
    "paper": Profile(name="paper", seeds=tuple(range(10)), methods=MAIN, ablations=ABLATIONS, masked=MASKED, worlds=30),
}
# Profile quick with everything that it leaves out for time; what quick has trained is not trained again
PROFILES["full"] = replace(
    PROFILES["quick"],
    name="full",
    ablations=("tmt_amw_fast", *MAIN[5:], *ABLATIONS),
    masked=MASKED,
    training_snr_db=Profile.training_snr_db,
    blocks=Profile.blocks,
    shifts=Profile.shifts,
)
# For small files of one's own: profile quick with ten seeds, and the whole family of weightings on every data set
PROFILES["ten"] = replace(
    PROFILES["quick"],
    name="ten",
    seeds=tuple(range(10)),
    worlds=30,
    world_size=PlantedSize((1200, 300, 500), (20, 20, 20)),
    methods=(*MAIN[:11], *ABLATIONS[:7]),
    training_snr_db=Profile.training_snr_db,
    snr_db=Profile.snr_db,  # more levels cost no training
    missing_rates=Profile.missing_rates,
    masks=Profile.masks,
    ablations=(),
)
