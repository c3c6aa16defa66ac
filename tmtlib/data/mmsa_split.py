"""One split of an MMSA, MMSA-FET or MulT pickle as a validated `Split`; departures go to `note`.

Lengths come from the file; else, for text, from the BERT mask; else from the last frame that is not all zero.
Afterwards data stand at the start, and all frames beyond the length are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.schema import DataError, Split

Note = Callable[[str, int, str], None]  # what is odd, number of utterances (or values), handling
UNIMODAL = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}


def read_split(raw: Mapping[str, object], name: str, note: Note) -> Split:
    """One split of any layout; `name` is used in ids where the file has none.

    Raises DataError for missing features or labels, labels that are not finite, or arrays that do not fit together.
    """
    ids = _row_by_row(raw.get("id"), "id", _id)
    labels = _labels(raw, ids, note)
    n = len(labels)
    if ids is None:
        note("ids not in the file", n, f"numbered {name}[0], {name}[1], ...")
        ids = tuple(f"{name}[{i}]" for i in range(n))
    note("id repeated within the split", n - len(set(ids)), "kept")
    if not any(m in raw for m in MODALITIES):
        raise DataError(f"no features among the keys {', '.join(raw)}; wanted 'text', 'audio', 'vision'")
    features = {m: _features(raw.get(m), m, n, note) for m in MODALITIES}
    text_bert = _text_bert(raw.get("text_bert"), features["text"], note)
    features, lengths = _lengths(raw, features, text_bert, note)
    transcripts = _row_by_row(raw.get("raw_text"), "raw_text", _text)
    if transcripts is None and "labels" not in raw:  # MulT files never have them
        note("raw_text not in the file", n, "transcripts left empty")
    return Split(
        features=features,
        lengths=lengths,
        labels=labels,
        ids=ids,
        raw_text=("",) * n if transcripts is None else transcripts,
        unimodal_labels=_unimodal_labels(raw, n, note),
        text_bert=text_bert,
        emotion_labels=_emotion_labels(raw.get("emotion_labels"), n),
    )


def _row_by_row(values: object, key: str, read: Callable[[object], str]) -> tuple[str, ...] | None:
    """Text for each utterance. Raises DataError for anything but a list, tuple or array."""
    if values is None:
        return None
    if not isinstance(values, (list, tuple, np.ndarray)) or getattr(values, "ndim", 1) == 0:
        raise DataError(f"{key} is a {type(values).__name__}; wanted a list or array, one text an utterance")
    return tuple(read(value) for value in values)


def _id(value: object) -> str:
    """An id as text; MulT's (video, start, end) become video[start,end]."""
    if isinstance(value, (list, tuple, np.ndarray)) and len(value):
        video, *rest = (_text(v) for v in value)
        return video + (f"[{','.join(rest)}]" if rest else "")
    return _text(value)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _array(values: object, key: str) -> np.ndarray:
    """An array of numbers. Raises DataError for text, complex numbers and rows of several sizes."""
    wanted = "wanted numbers in rows of one size, padded with 0"
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":  # an array of lists or arrays, or numbers kept as objects
            array = np.asarray(array.tolist())
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{key} is no array of numbers ({error}); {wanted}") from error
    if array.dtype.kind in "USc":  # astype(float32) would parse text and drop imaginary parts
        raise DataError(f"{key} holds {array.dtype}; {wanted}")
    return array


def _numbers(values: object, key: str) -> Float32[np.ndarray, " ..."]:
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are reported
        return _array(values, key).astype(np.float32, copy=False)


def _labels(raw: Mapping[str, object], ids: tuple[str, ...] | None, note: Note) -> Float32[np.ndarray, " N"]:
    key = "regression_labels" if "regression_labels" in raw else "labels"
    if key not in raw:
        raise DataError(f"no labels among the keys {', '.join(raw)}; wanted 'regression_labels' (or MulT's 'labels')")
    labels = _numbers(raw[key], key)
    n = len(labels) if labels.ndim else 0
    if isinstance(raw[key], list):
        note(f"{key} is a list", n, "made an array")
    if labels.size != n:
        raise DataError(f"{key} is {labels.shape}; wanted one sentiment value an utterance, ({n},)")
    if ids is not None and len(ids) != n:
        raise DataError(f"{len(ids)} ids but {n} labels; wanted one of each for an utterance")
    labels = labels.reshape(n)
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):
        names = ", ".join(ids[i] if ids else f"row {i}" for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(f"{len(bad)} of {n} labels are NaN or infinite ({names}); label or remove them")
    return labels


def _unimodal_labels(raw: Mapping[str, object], n: int, note: Note) -> dict[str, Float32[np.ndarray, " N"]]:
    kept = {}
    for m, key in UNIMODAL.items():
        if raw.get(key) is not None:
            labels = _numbers(raw[key], key).reshape(-1)
            bad = n if len(labels) != n else (~np.isfinite(labels)).sum()
            note(f"{key} without a finite value", bad, "this key left out for the whole split")
            if not bad:
                kept[m] = labels
    return kept


def _emotion_labels(values: object, n: int) -> Float32[np.ndarray, "N 6"] | None:
    """Strengths 0..3 in the order of EMOTIONS, from (N, 6) or (N, 1, 6). Raises DataError for another shape."""
    if values is None:
        return None
    strengths, k = _numbers(values, "emotion_labels"), len(EMOTIONS)
    if strengths.shape not in ((n, k), (n, 1, k)):
        hint = "; leave out the first column, the sentiment" if strengths.shape[-1:] == (k + 1,) else ""
        wanted = f"({n}, {k}) or ({n}, 1, {k}), the columns {', '.join(EMOTIONS)}"
        raise DataError(f"emotion_labels is {strengths.shape}; wanted {wanted}{hint}")
    return strengths.reshape(n, k)


def _features(values: object, modality: str, n: int, note: Note) -> Float32[np.ndarray, "N T D"]:
    """Finite float32 features; zeros (N, 1, 1) for a missing modality."""
    x = np.empty(0) if values is None else _numbers(values, modality)
    if not x.size:
        note(f"{modality} not in the file", n, "taken as one frame of one 0, length 0")
        return np.zeros((n, 1, 1), np.float32)
    kind = getattr(values, "dtype", type(values).__name__)
    if kind != np.float32:
        note(f"{modality} is {kind}", n, "made float32")
    if x.ndim == 2:
        note(f"{modality} has no time axis", n, "taken as one frame, (N, 1, D)")
        x = x[:, None]
    if x.ndim != 3 or len(x) != n:
        raise DataError(f"{modality} is {x.shape}; wanted ({n}, T, D), one row for each of the {n} labels")
    if not np.isfinite(x).all():
        for what, bad in {"-inf": np.isneginf(x), "+inf": np.isposinf(x), "NaN": np.isnan(x)}.items():
            note(f"{what} values in {modality}", bad.sum(), "set to 0")
        x = np.where(np.isfinite(x), x, np.float32(0))
    return x


def _text_bert(values: object, text: Float32[np.ndarray, "N T D"], note: Note) -> Int64[np.ndarray, "N 3 T"] | None:
    """Token ids, mask and segments; None unless as long as the text features."""
    if values is None:
        return None
    n, frames = text.shape[:2]
    tokens = _array(values, "text_bert")
    if tokens.shape != (n, 3, frames) or tokens.dtype.kind not in "iuf" or not np.isfinite(tokens).all():
        handling = f"left out: wanted finite numbers ({n}, 3, {frames}), as the text has {frames} frames"
        note(f"text_bert is {tokens.dtype} {tokens.shape}", n, handling)
        return None
    if tokens.dtype.kind == "f":
        note(f"text_bert is {tokens.dtype}", n, "made int64")
    tokens = tokens.astype(np.int64)
    full = (tokens[:, 1] != 0).all(1).sum()
    note("text_bert mask has no 0", full, "length is the mask's sum (the field's argmin(mask) would give 0)")
    return tokens


def _lengths(
    raw: Mapping[str, object], features: dict, text_bert: Int64[np.ndarray, "N 3 T"] | None, note: Note
) -> tuple[dict[str, Float32[np.ndarray, "N T D"]], dict[str, Int64[np.ndarray, " N"]]]:
    """Features as `_settled` returns them, and lengths by modality."""
    lengths = {}
    for m, x in features.items():
        values = raw.get(f"{m}_lengths")
        if raw.get(m) is None:
            lengths[m] = np.zeros(len(x), np.int64)
        else:
            lengths[m] = None if values is None else _stated_lengths(values, m, len(x), x.shape[1], note)
    if lengths["text"] is None and text_bert is not None:
        note("text lengths not in the file", len(text_bert), "found from the mask of text_bert")
        lengths["text"] = (text_bert[:, 1] != 0).sum(1).astype(np.int64)
    one_clock = len({x.shape[1] for x in features.values() if x.any()}) == 1  # absent modalities aside
    unstated = {m: features[m] for m in MODALITIES if lengths[m] is None}
    features = features | _padded_at_the_end(unstated, one_clock, note)
    settled = {m: _settled(features[m], m, lengths[m], note) for m in MODALITIES}
    return {m: x for m, (x, _) in settled.items()}, {m: length for m, (_, length) in settled.items()}


def _stated_lengths(values: object, modality: str, n: int, frames: int, note: Note) -> Int64[np.ndarray, " N"]:
    """The file's lengths, clipped to 0..frames. Raises DataError unless they are n integers."""
    try:
        lengths = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{modality}_lengths is no list of numbers ({error}); wanted {n} integers") from error
    if len(lengths) != n:
        raise DataError(f"{modality}_lengths holds {len(lengths)} values; wanted one for each of {n} utterances")
    broken = np.flatnonzero(lengths != np.rint(lengths))  # NaN too
    if len(broken) or np.isinf(lengths).any():
        raise DataError(f"{modality}_lengths holds {lengths[broken[:3]]} or infinity; wanted whole numbers of frames")
    note(f"{modality} length beyond T={frames}", (lengths > frames).sum(), f"clamped to {frames}")
    note(f"{modality} length below 0", (lengths < 0).sum(), "clamped to 0")
    return np.clip(lengths, 0, frames).astype(np.int64)


def _settled(
    x: Float32[np.ndarray, "N T D"], modality: str, lengths: Int64[np.ndarray, " N"] | None, note: Note
) -> tuple[Float32[np.ndarray, "N T D"], Int64[np.ndarray, " N"]]:
    """Features that are zero beyond their lengths, and the lengths; `lengths` None: from the frames."""
    frames = np.arange(1, x.shape[1] + 1)
    last = (_has_data(x) * frames).max(1)  # frames up to and including the last with data
    if lengths is None:
        note(f"{modality} lengths not in the file", len(x), "found from the trailing all-zero frames")
        lengths = last
    lost = (lengths == 0) & (last > 0)
    note(f"{modality} length 0 but frames hold data", lost.sum(), "found from the trailing all-zero frames")
    lengths = np.where(lost, last, lengths)
    absent = lengths == 0
    where = "from every utterance" if absent.all() else "(length 0)"
    note(f"{modality} absent {where}", absent.sum(), "kept, with length 0")
    note(f"{modality} all zero within its length", ((last == 0) & ~absent).sum(), "kept as it is")
    beyond = (last > lengths).sum()
    note(f"{modality} data beyond the length", beyond, "set to 0: the length is trusted")
    if beyond:
        x = np.where((frames <= lengths[:, None])[..., None], x, np.float32(0))
    return x, lengths


def _padded_at_the_end(
    features: dict[str, Float32[np.ndarray, "N T D"]], one_clock: bool, note: Note
) -> dict[str, Float32[np.ndarray, "N T D"]]:
    """Moves data to the start in modalities padded at the front, as in the MulT pickles.

    These are the ones most of whose utterances begin with zeros and end with data. With one clock they all move by the
    same number of frames, to stay synchronous.
    """
    leading = {}
    for m, x in features.items():
        data = _has_data(x)
        present = data.any(1)
        padded = ~data[:, 0] & data[:, -1]
        if 2 * padded.sum() > present.sum():
            leading[m] = np.where(present, data.argmax(1), x.shape[1])
    if one_clock and leading:
        leading = dict.fromkeys(leading, np.min(list(leading.values()), axis=0))
    moved = dict(features)
    for m, lead in leading.items():
        frames = features[m].shape[1]
        note(f"{m} padded at the front", (lead % frames > 0).sum(), "data moved to the start")
        at = (np.arange(frames) + lead[:, None]) % frames
        moved[m] = np.take_along_axis(features[m], at[..., None], axis=1)
    return moved


def _has_data(x: Float32[np.ndarray, "N T D"]) -> Bool[np.ndarray, "N T"]:
    return (x != 0).any(2)
