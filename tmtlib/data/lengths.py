"""True lengths: how many frames of each utterance are data and how many are padding.

A length comes from the file's own list; where there is none, from the BERT mask (text), or else from the frames:
up to the last one that is not all zero. Afterwards data stand at the start, and all beyond the length is zero.
Whatever was not so in the file is told to `note(what, count, handling)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from tmtlib.data.schema import DataError

Note = Callable[[str, int, str], None]  # what was odd, how many utterances (or values), what was done about it


def frames_with_data(x: Float32[np.ndarray, "N T D"]) -> Bool[np.ndarray, "N T"]:
    """True at frames with any value other than zero."""
    return (x != 0).any(2)


def last_frame(filled: Bool[np.ndarray, "N T"]) -> Int64[np.ndarray, " N"]:
    """The number of frames up to and including the last with data; 0 where there is none."""
    frames = filled.shape[1] - filled[:, ::-1].argmax(1)
    return np.where(filled.any(1), frames, 0).astype(np.int64)


def stated_lengths(values: object, modality: str, n: int, frames: int, note: Note) -> Int64[np.ndarray, " N"]:
    """A file's lengths as integers within 0..frames. Raises DataError when they are not n integers."""
    try:
        found = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{modality}_lengths is no list of numbers ({error}); wanted {n} integers") from error
    if len(found) != n:
        raise DataError(f"{modality}_lengths holds {len(found)} values; wanted one for each of {n} utterances")
    broken = np.flatnonzero(found != np.rint(found))  # NaN too
    if len(broken) or np.isinf(found).any():
        raise DataError(f"{modality}_lengths holds {found[broken[:3]]} or infinity; wanted whole numbers of frames")
    note(f"{modality} length beyond T={frames}", (found > frames).sum(), f"clamped to {frames}")
    note(f"{modality} length below 0", (found < 0).sum(), "clamped to 0")
    return np.clip(found, 0, frames).astype(np.int64)


def settle(
    x: Float32[np.ndarray, "N T D"], modality: str, lengths: Int64[np.ndarray, " N"] | None, note: Note
) -> tuple[Float32[np.ndarray, "N T D"], Int64[np.ndarray, " N"]]:
    """Features that are zero beyond their lengths, and the lengths; `lengths` None: found from the frames."""
    filled = frames_with_data(x)
    own = last_frame(filled)
    if lengths is None:
        note(f"{modality} lengths not in the file", len(x), "found from the trailing all-zero frames")
        lengths = own
    lost = (lengths == 0) & (own > 0)
    note(f"{modality} length 0 but frames hold data", lost.sum(), "found from the trailing all-zero frames")
    lengths = np.where(lost, own, lengths)

    absent = lengths == 0
    if absent.all():
        note(f"{modality} absent from every utterance", len(x), "kept, with length 0")
    else:
        note(f"{modality} absent (length 0)", absent.sum(), "kept, with length 0")
    note(f"{modality} all zero within its length", ((own == 0) & ~absent).sum(), "kept as it is")
    beyond = own > lengths
    note(f"{modality} data beyond the length", beyond.sum(), "set to 0: the length is trusted")
    if beyond.any():
        valid = np.arange(x.shape[1]) < lengths[:, None]
        x = np.where(valid[..., None], x, np.float32(0))
    return x, lengths


def move_padding_to_end(
    features: dict[str, Float32[np.ndarray, "N T D"]], one_clock: bool, note: Note
) -> dict[str, Float32[np.ndarray, "N T D"]]:
    """Moves data to the start in modalities that are padded at the front, as the MulT pickles are.

    A modality counts as padded there when most of its utterances begin with zeros and end with data. With one
    clock all such modalities move by the same number of frames, so that what was simultaneous stays so.
    """
    leading = {}
    for m, x in features.items():
        filled = frames_with_data(x)
        present = filled.any(1)
        padded = ~filled[:, 0] & filled[:, -1]
        if 2 * padded.sum() > present.sum():
            leading[m] = np.where(present, filled.argmax(1), x.shape[1])
    if one_clock and leading:
        leading = dict.fromkeys(leading, np.min(list(leading.values()), axis=0))
    moved = dict(features)
    for m, lead in leading.items():
        frames = features[m].shape[1]
        note(f"{m} padded at the front", (lead % frames > 0).sum(), "data moved to the start")
        at = (np.arange(frames) + lead[:, None]) % frames
        moved[m] = np.take_along_axis(features[m], at[..., None], axis=1)
    return moved
