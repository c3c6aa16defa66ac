"""Corruptions as frozen settings, applied by `tmtlib.data.corrupt` and, for P6, `tmtlib.data.transcripts`.

    kind                protocol  level                                          modalities
    missing_frames      P1        rate of missing frames, 0 to 1                 that lose frames
    missing_modalities  P3        none                                           that are *present*
    noise               P7        signal-to-noise ratio in decibels, inf: none   that get noise
    words_dropped       P6        rate of words lost, 0 to 1                     ("text",)
    words_substituted   P6        rate of words replaced, 0 to 1                 ("text",)
    missing_block       P8        share of an utterance's frames, 0 to 1         that lose a block
    shift               P8        delay in frames                                that is late
    swapped             P9        none                                           that come from another utterance

Protocol names are this study's; P1 is the random feature missing of TFR-Net (Yuan et al. 2021, ACM MM).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tmtlib.common import MODALITIES, check_choice

TITLES = {
    "missing_frames": "frames missing (P1)",
    "missing_modalities": "modalities missing (P3)",
    "words_dropped": "words dropped (P6)",
    "words_substituted": "words substituted (P6)",
    "noise": "noise (P7)",
    "missing_block": "a block missing (P8)",
    "shift": "a modality late (P8)",
    "swapped": "another utterance's (P9)",
}
PROTOCOLS = {kind: title[-3:-1] for kind, title in TITLES.items()}
IN_TRANSCRIPTS = ("words_dropped", "words_substituted")  # kinds whose features an encoder computes from the new text
CURVES = ("missing_frames", *IN_TRANSCRIPTS, "noise", "missing_block", "shift")  # kinds with more than one level
SUBSETS = tuple(s for k in (3, 2, 1) for s in combinations(MODALITIES, k))
GROUPS = (*((m,) for m in MODALITIES), MODALITIES)  # each modality alone, then all


@dataclass(frozen=True)
class Corruption:
    """One corruption. Level None of "missing_frames": each utterance has its own rate, uniform from 0 to 1."""

    kind: str
    modalities: tuple[str, ...] = MODALITIES
    level: float | None = None

    def __post_init__(self):
        check_choice("kind", self.kind, tuple(PROTOCOLS))
        for m in self.modalities:
            check_choice("modality", m, MODALITIES)

    @property
    def protocol(self) -> str:
        return PROTOCOLS[self.kind]

    @property
    def changes_nothing(self) -> bool:
        if self.kind == "missing_modalities":
            return set(self.modalities) == set(MODALITIES)
        return self.level == (math.inf if self.kind == "noise" else 0) or not self.modalities

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the seed."""
        fixed = self.changes_nothing or self.kind in ("missing_modalities", "shift")
        return not fixed and not (self.kind in ("missing_frames", "missing_block") and self.level == 1)

    @property
    def where(self) -> str:
        """The modalities as "all" or "text+audio"."""
        return "all" if set(self.modalities) == set(MODALITIES) else "+".join(self.modalities)


# Corruption of train and valid in each regime
REGIMES = {"clean": None, "masked": Corruption("missing_frames")}


def missing_frames(rates: Sequence[float]) -> list[Corruption]:
    """P1: frames of all modalities missing at each rate."""
    return [Corruption("missing_frames", level=r) for r in rates]


def missing_modalities() -> list[Corruption]:
    """P3: the seven non-empty subsets of the modalities."""
    return [Corruption("missing_modalities", s) for s in SUBSETS]


def in_transcripts(rates: Sequence[float]) -> list[Corruption]:
    """P6: words dropped, then words substituted, at each rate."""
    return [Corruption(kind, ("text",), r) for kind in IN_TRANSCRIPTS for r in rates]


def noise(snr_db: Sequence[float]) -> list[Corruption]:
    """P7: each modality alone, then all together, at infinity (clean) and each ratio in decibels."""
    return [Corruption("noise", g, level) for g in GROUPS for level in (math.inf, *snr_db)]


def in_time(blocks: Sequence[float], shifts: Sequence[int]) -> list[Corruption]:
    """P8: a block missing from all modalities by share, and each modality late by frames; both from level 0."""
    late = [Corruption("shift", (m,), float(n)) for m in MODALITIES for n in (0, *shifts)]
    return [Corruption("missing_block", level=share) for share in (0.0, *blocks)] + late


def swapped() -> list[Corruption]:
    """P9: each modality from another utterance."""
    return [Corruption("swapped", (m,)) for m in MODALITIES]
