"""Corruptions of a split, each a new split. The same seed gives the same corruption for every model.

A missing frame is zero, the training mean of normalised features. Where a split holds token ids (`text_bert`), tokens
of missing frames, except [CLS] and [SEP], become the unknown token, as in TFR-Net.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce

import numpy as np

from tmtlib.common import MODALITIES, check_choice
from tmtlib.data.corruption import IN_TRANSCRIPTS, Corruption
from tmtlib.data.schema import Split, frame_moments, valid_frames

Names = Collection[str]  # of modalities
Scale = Mapping[str, np.ndarray]  # standard deviation (D,) of each feature, by modality
UNKNOWN = 100  # [UNK] in the vocabularies of BERT (bert-base-uncased, bert-base-chinese)


def corrupt(split: Split, how: Corruption, scale: Scale, seed: int = 0) -> Split:
    """Applies a corruption. Raises ValueError for a level out of range, and for P6 (words), which needs an encoder."""
    if how.kind in IN_TRANSCRIPTS:
        wanted = "must be made anew by an encoder; use tmtlib.analysis.transcripts.sweep"
        raise ValueError(f"{how.kind} changes transcripts, and their features {wanted}")
    if how.changes_nothing:
        return split
    level, modalities = how.level, how.modalities
    if how.kind == "missing_frames" and level is None:
        level = np.random.default_rng([seed, len(MODALITIES)]).random(len(split))  # a rate for each utterance
    if level is None and how.kind not in ("missing_modalities", "swapped"):
        raise ValueError(f"no level for {how.kind}; wanted a number")
    if how.kind == "missing_modalities":
        return keep_only(split, modalities)
    if how.kind == "noise":
        return add_noise(split, scale, level, modalities, seed)
    if how.kind == "shift":
        return reduce(lambda moved, m: shift(moved, int(level), m), modalities, split)
    if how.kind == "swapped":
        return swap_utterances(split, modalities, seed)
    drop = {"missing_frames": drop_frames, "missing_block": drop_block}[how.kind]
    return drop(split, level, modalities, seed)


def add_noise(split: Split, scale: Scale, snr_db: float, modalities: Names = MODALITIES, seed: int = 0) -> Split:
    """P7: Gaussian noise on every feature of every valid frame: x + scale 10^(-snr_db / 20) n, n ~ N(0, 1).

    `scale`: standard deviation (D,) of each feature by modality in the training split (`noise_scale`). Levels with the
    same seed have the same n. Raises ValueError for an unknown modality, or `snr_db` of NaN or -infinity.
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


def noise_scale(train: Split) -> Scale:
    """Standard deviation (D,) of each feature over the valid frames, by modality; 0 where no frame is valid."""
    return {m: frame_moments(train, m)[1].astype(np.float32) for m in MODALITIES}


def keep_only(split: Split, present: Names) -> Split:
    """P3: all other modalities absent (zeros, length 0). Raises ValueError for an unknown modality or none."""
    _check(present)
    if not present:
        raise ValueError(f"no modality is kept; wanted one or more of {', '.join(MODALITIES)}")
    gone = [m for m in MODALITIES if m not in present]
    features = dict(split.features) | {m: np.zeros_like(split.features[m]) for m in gone}
    lengths = dict(split.lengths) | {m: np.zeros_like(split.lengths[m]) for m in gone}
    return replace(split, features=features, lengths=lengths)


def drop_frames(split: Split, rate: float | np.ndarray, modalities: Names = MODALITIES, seed: int = 0) -> Split:
    """P1: each valid frame of each modality goes missing independently with probability `rate`, a number or (N,).

    With one seed, frames missing at a rate are missing at every higher rate. Lengths stay. Raises ValueError for a rate
    outside [0, 1].
    """
    _check(modalities, rate=rate)
    if not np.any(rate):
        return split
    streams = {m: np.random.default_rng([seed, MODALITIES.index(m)]) for m in modalities}
    gone = {m: rng.random(split.features[m].shape[:2]) < np.reshape(rate, (-1, 1)) for m, rng in streams.items()}
    return _without_frames(split, gone)


def drop_block(split: Split, share: float, modalities: Names = MODALITIES, seed: int = 0) -> Split:
    """P8: a block of `share` of each utterance's valid frames (rounded), at a random place, becomes zero.

    Raises ValueError for a share outside [0, 1].
    """
    _check(modalities, share=share)
    gone = {}
    for m in modalities if share else ():
        length = split.lengths[m]
        size = np.rint(share * length).astype(np.int64)
        uniform = np.random.default_rng([seed, MODALITIES.index(m)]).random(len(length))
        first = np.floor(uniform * (length - size + 1)).astype(np.int64)
        after = np.arange(split.shapes[m][0]) - first[:, None]
        gone[m] = (after >= 0) & (after < size[:, None])
    return _without_frames(split, gone)


def shift(split: Split, frames: int, modality: str) -> Split:
    """P8: one modality's valid frames move `frames` later (earlier if negative) within its length; zeros fill in."""
    _check((modality,))
    x = split.features[modality]
    source = np.arange(x.shape[1]) - frames
    inside = (source >= 0) & (source < x.shape[1]) & valid_frames(split, modality)
    moved = np.where(inside[..., None], x[:, source % x.shape[1]], np.float32(0))
    return replace(split, features={**split.features, modality: moved})


def swap_utterances(split: Split, modalities: Names, seed: int = 0) -> Split:
    """P9: each utterance gets the modalities (all of `modalities`, with lengths) of another one; labels stay.

    The others are a random cycle, so none keeps its own. Raises ValueError for fewer than two utterances.
    """
    _check(modalities)
    if len(split) < 2:
        raise ValueError(f"{len(split)} utterances; wanted at least two to swap")
    order = np.random.default_rng(seed).permutation(len(split))
    source = np.empty(len(split), np.int64)
    source[order] = np.roll(order, 1)
    donors = split.take(source)
    features = dict(split.features) | {m: donors.features[m] for m in modalities}
    lengths = dict(split.lengths) | {m: donors.lengths[m] for m in modalities}
    text = donors if "text" in modalities else split
    return replace(split, features=features, lengths=lengths, text_bert=text.text_bert, raw_text=text.raw_text)


def _without_frames(split: Split, gone: Mapping[str, np.ndarray]) -> Split:
    """Zeros where `gone` (N, T), by modality, is True; in `text_bert`, unknown tokens."""
    features = {m: np.where(gone[m][..., None], np.float32(0), split.features[m]) for m in gone}
    tokens = split.text_bert
    if "text" in gone and tokens is not None:
        place = np.arange(tokens.shape[2])
        word = (place > 0) & (place < tokens[:, 1].sum(1, keepdims=True) - 1)  # not [CLS], [SEP] or padding
        tokens = tokens.copy()
        tokens[:, 0][gone["text"] & word] = UNKNOWN
    return replace(split, features=dict(split.features) | features, text_bert=tokens)


def _check(modalities: Names, **shares: float | np.ndarray) -> None:
    """Raises ValueError for an unknown modality, and for shares outside [0, 1]."""
    for m in modalities:
        check_choice("modality", m, MODALITIES)
    for name, value in shares.items():
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ValueError(f"{name} is {value}; wanted 0 to 1")
