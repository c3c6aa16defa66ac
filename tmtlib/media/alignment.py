"""Frames to words: features with times averaged over the time in which each word is said."""

import numpy as np
from jaxtyping import Bool, Float32, Float64

EPSILON = 1e-5  # s; intervals that only touch do not overlap (as in the CMU-MultimodalSDK's `mmdataset.align`)


def overlaps(words: Float64[np.ndarray, "W 2"], intervals: Float64[np.ndarray, "T 2"]) -> Bool[np.ndarray, "W T"]:
    """True where an interval (start and end in s) overlaps a word's."""
    return (intervals[:, 0] < words[:, 1:] - EPSILON) & (intervals[:, 1] > words[:, :1] + EPSILON)


def interval_average(
    words: Float64[np.ndarray, "W 2"], intervals: Float64[np.ndarray, "T 2"], features: Float32[np.ndarray, "T D"]
) -> Float32[np.ndarray, "W D"]:
    """The mean of the frames, all finite, that overlap each word; zeros for a word that none overlaps."""
    inside = overlaps(words, intervals)
    near = inside.any(0)
    sums = inside[:, near].astype(np.float64) @ features[near].astype(np.float64)
    return (sums / np.maximum(1, inside.sum(1, keepdims=True))).astype(np.float32)
