"""Several splits as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tmtlib.common import MODALITIES
from tmtlib.data.schema import Split


def joined(parts: Sequence[Split]) -> Split:
    """One split of several, padded to the longest T; unimodal labels, `text_bert` and emotions where all have them."""
    longest = {m: max(p.shapes[m][0] for p in parts) for m in MODALITIES}
    whole = {m: _stacked([p.features[m] for p in parts], 1, longest[m]) for m in MODALITIES}
    bert, felt = [p.text_bert for p in parts], [p.emotion_labels for p in parts]
    shared = [m for m in MODALITIES if all(m in p.unimodal_labels for p in parts)]
    return Split(
        features=whole,
        lengths={m: np.concatenate([p.lengths[m] for p in parts]) for m in MODALITIES},
        labels=np.concatenate([p.labels for p in parts]),
        ids=tuple(i for p in parts for i in p.ids),
        raw_text=tuple(t for p in parts for t in p.raw_text),
        unimodal_labels={m: np.concatenate([p.unimodal_labels[m] for p in parts]) for m in shared},
        text_bert=None if any(b is None for b in bert) else _stacked(bert, 2, longest["text"]),
        emotion_labels=None if any(e is None for e in felt) else np.concatenate(felt),
    )


def _stacked(arrays: Sequence[np.ndarray], axis: int, size: int) -> np.ndarray:
    """Arrays one after another, each filled up with 0 to `size` along `axis`."""
    shape = list(arrays[0].shape)
    shape[0], shape[axis] = sum(len(a) for a in arrays), size
    whole, start = np.zeros(shape, arrays[0].dtype), 0
    for a in arrays:
        whole[(slice(start, start + len(a)), *(slice(n) for n in a.shape[1:]))] = a
        start += len(a)
    return whole
