"""Corruptions of a split: noise at a signal-to-noise ratio, and modalities that are missing.

Each returns a new split and leaves the given one as it was. Padding stays padding, and the same seed gives the same
corruption for every model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from tmtlib.config import MODALITIES, check_choice
from tmtlib.data.schema import Split, valid_frames


def add_noise(
    split: Split,
    scale: Mapping[str, np.ndarray],
    snr_db: float,
    modalities: Collection[str] = MODALITIES,
    seed: int = 0,
) -> Split:
    """Gaussian noise on every feature of every valid frame: x + scale 10^(-snr_db / 20) n, n ~ N(0, 1).

    Args:
        scale: standard deviation (D,) of each feature by modality, over the training split's valid frames
            (`noise_scale`), so that 0 dB is noise as large as the feature itself varies.
        snr_db: signal-to-noise ratio in decibels; infinity changes nothing.
        seed: two levels with one seed have the same noise at different strength.

    Raises ValueError for an unknown modality or a ratio that is NaN or minus infinity.
    """
    _check(modalities)
    if np.isnan(snr_db) or snr_db == -np.inf:
        raise ValueError(f"snr_db is {snr_db}; wanted a finite number of decibels, or infinity for no noise")
    strength = np.float32(10 ** (-snr_db / 20))
    if strength == 0:
        return split
    features = dict(split.features)
    for m in modalities:
        rng = np.random.default_rng([seed, MODALITIES.index(m)])
        valid = valid_frames(split, m)
        x = features[m].copy()
        x[valid] += strength * scale[m] * rng.standard_normal((valid.sum(), x.shape[2]), np.float32)
        features[m] = x
    return replace(split, features=features)


def noise_scale(train: Split) -> dict[str, np.ndarray]:
    """Standard deviation (D,) of each feature by modality over a split's valid frames; 0 where none is valid."""
    scale = {}
    for m in MODALITIES:
        frames = train.features[m][valid_frames(train, m)]
        width = train.features[m].shape[2]
        scale[m] = frames.std(0, dtype=np.float64).astype(np.float32) if len(frames) else np.zeros(width, np.float32)
    return scale


def keep_only(split: Split, present: Collection[str]) -> Split:
    """The split with all other modalities absent: features zero and length 0 in every utterance.

    Raises ValueError for an unknown modality, or when none is left.
    """
    _check(present)
    if not present:
        raise ValueError(f"no modality is kept; wanted one or more of {', '.join(MODALITIES)}")
    gone = [m for m in MODALITIES if m not in present]
    features = dict(split.features) | {m: np.zeros_like(split.features[m]) for m in gone}
    lengths = dict(split.lengths) | {m: np.zeros_like(split.lengths[m]) for m in gone}
    return replace(split, features=features, lengths=lengths)


def _check(modalities: Collection[str]) -> None:
    for m in modalities:
        check_choice("modality", m, MODALITIES)
