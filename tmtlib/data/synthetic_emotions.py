"""Emotion labels of synthetic data, of the same latents as the sentiment (see `synthetic`).

For utterance i and emotion k, with z = (u_0, u_text, u_audio, u_vision, p q) and an independent standard normal e_ik:

    v_ik = a_k . z_i + sqrt(1 - |a_k|^2) e_ik,    so v ~ N(0, 1)

The emotion is absent (0) unless v_ik lies among the highest share r_k. There, with s uniform in (0, 1) for how far up
it lies, its strength is 9 s^2 rounded up, in thirds: 1/3, 2/3, ..., 3, weak ones commoner than strong.

Loadings a and rates r are chosen, not measured: each emotion leans on modalities of its own, and rates are like those
of CMU-MOSEI, where happiness is in every second utterance and fear in one of twelve. They are part of what
`synthetic.VERSION` stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import ndtr

from tmtlib.common import EMOTIONS

RATES: Mapping[str, float] = dict(zip(EMOTIONS, (0.53, 0.26, 0.21, 0.10, 0.17, 0.08), strict=True))
LOADINGS: Mapping[str, Mapping[str, tuple[float, ...]]] = {  # by data set; a_k on u_0, u_text, u_audio, u_vision, p q
    "mosei": {
        "happy": (0.6, 0.3, 0.1, 0.5, 0.0),
        "sad": (-0.5, -0.4, -0.4, -0.1, 0.0),
        "anger": (-0.4, -0.2, 0.6, -0.2, 0.0),
        "surprise": (0.0, 0.2, 0.5, 0.5, 0.2),
        "disgust": (-0.5, -0.5, 0.0, -0.4, 0.0),
        "fear": (-0.4, 0.5, -0.3, 0.3, 0.2),
    },
}


def labels(
    loadings: Mapping[str, tuple[float, ...]], latents: Float[np.ndarray, "N 5"], rng: np.random.Generator
) -> Float32[np.ndarray, "N 6"]:
    """Strengths 0..3 in thirds, in the order of EMOTIONS, of N utterances with latents z; `rng` gives the noise."""
    a, rate = np.array([loadings[name] for name in EMOTIONS]), np.array([RATES[name] for name in EMOTIONS])
    noise = rng.standard_normal((len(latents), len(EMOTIONS)))
    v = latents @ a.T + np.sqrt(1 - np.square(a).sum(1)) * noise
    s = (ndtr(v) - (1 - rate)) / rate
    return np.where(s > 0, np.ceil(9 * np.square(s)) / 3, 0).astype(np.float32)
