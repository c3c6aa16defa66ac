"""One split of an MMSA, MMSA-FET or MulT pickle, from whatever types the file has to a validated `Split`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32, Int64

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.lengths import Note, move_padding_to_end, settle, stated_lengths
from tmtlib.data.schema import DataError, Split

UNIMODAL = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}


def read_split(raw: Mapping[str, object], name: str, note: Note) -> Split:
    """One split of any layout; `name` makes up ids where there are none.

    Raises DataError for a split without features or finite labels, or whose arrays do not fit together.
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
    bert = _text_bert(raw.get("text_bert"), features["text"], note)
    features, lengths = _lengths(raw, features, bert, note)
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
        text_bert=bert,
        emotion_labels=_emotion_labels(raw.get("emotion_labels"), n),
    )


def _row_by_row(values: object, what: str, read: Callable[[object], str]) -> tuple[str, ...] | None:
    """Text for each utterance. Raises DataError for what is no list, tuple or array of any length."""
    if values is None:
        return None
    if not isinstance(values, (list, tuple, np.ndarray)) or getattr(values, "ndim", 1) == 0:
        raise DataError(f"{what} is a {type(values).__name__}; wanted a list or array, one text an utterance")
    return tuple(read(value) for value in values)


def _id(value: object) -> str:
    """An id as text; MulT's (video, start, end) become video[start,end]."""
    if isinstance(value, (list, tuple, np.ndarray)) and len(value):
        video, *rest = (_text(v) for v in value)
        return video + (f"[{','.join(rest)}]" if rest else "")
    return _text(value)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _array(values: object, what: str) -> np.ndarray:
    """An array of numbers of one kind. Raises DataError for text, rows of several sizes and all else."""
    wanted = "wanted numbers in rows of one size, padded with 0"
    try:
        found = np.asarray(values)
        if found.dtype.kind == "O":  # an array of lists or arrays, or numbers kept as objects
            found = np.asarray(found.tolist())
        if found.dtype.kind in "USc":  # text would be parsed, and an imaginary part lost, in silence
            raise DataError(f"{what} holds {found.dtype}; {wanted}")
        return found.astype(np.float64) if found.dtype.kind == "O" else found
    except DataError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} is no array of numbers ({error}); {wanted}") from error


def _numbers(values: object, what: str) -> Float32[np.ndarray, " ..."]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is reported
        return _array(values, what).astype(np.float32, copy=False)


def _labels(raw: Mapping[str, object], ids: tuple[str, ...] | None, note: Note) -> Float32[np.ndarray, " N"]:
    key = "regression_labels" if "regression_labels" in raw else "labels"
    if key not in raw:
        found = ", ".join(raw)
        raise DataError(f"no labels among the keys {found}; wanted 'regression_labels' (or MulT's 'labels')")
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
    """Strengths 0..3 in the order of EMOTIONS, from numbers (N, 6) or (N, 1, 6), as arrays or lists.

    Raises DataError for another shape. The seven columns of CMU-MOSEI's own label file begin with the sentiment, and a
    column too many is not taken off by guess.
    """
    if values is None:
        return None
    found, k = _numbers(values, "emotion_labels"), len(EMOTIONS)
    if found.shape not in ((n, k), (n, 1, k)):
        hint = "; leave out the first column, the sentiment" if found.shape[-1:] == (k + 1,) else ""
        wanted = f"({n}, {k}) or ({n}, 1, {k}), the columns {', '.join(EMOTIONS)}"
        raise DataError(f"emotion_labels is {found.shape}; wanted {wanted}{hint}")
    return found.reshape(n, k)


def _features(values: object, modality: str, n: int, note: Note) -> Float32[np.ndarray, "N T D"]:
    """Finite float32 features; zeros (N, 1, 1) for a modality that the file does not have."""
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
    """Token ids, mask and segments, if they are as long as the text features; None otherwise."""
    if values is None:
        return None
    n, frames = text.shape[:2]
    found = _array(values, "text_bert")
    if found.shape != (n, 3, frames) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        what = f"text_bert is {found.dtype} {found.shape}"
        note(what, n, f"left out: wanted finite numbers ({n}, 3, {frames}), as the text has {frames} frames")
        return None
    if found.dtype.kind == "f":
        note(f"text_bert is {found.dtype}", n, "made int64")
    found = found.astype(np.int64)
    full = (found[:, 1] != 0).all(1).sum()
    note("text_bert mask has no 0", full, "length is the mask's sum (the field's argmin(mask) would give 0)")
    return found


def _lengths(
    raw: Mapping[str, object], features: dict, bert: Int64[np.ndarray, "N 3 T"] | None, note: Note
) -> tuple[dict[str, Float32[np.ndarray, "N T D"]], dict[str, Int64[np.ndarray, " N"]]]:
    """Settled features, and lengths by modality: the file's, the BERT mask's, or the frames' own."""
    lengths = {}
    for m, x in features.items():
        values = raw.get(f"{m}_lengths")
        if raw.get(m) is None:
            lengths[m] = np.zeros(len(x), np.int64)
        else:
            lengths[m] = None if values is None else stated_lengths(values, m, len(x), x.shape[1], note)
    if lengths["text"] is None and bert is not None:
        note("text lengths not in the file", len(bert), "found from the mask of text_bert")
        lengths["text"] = (bert[:, 1] != 0).sum(1).astype(np.int64)
    one_clock = len({x.shape[1] for x in features.values() if x.any()}) == 1  # absent modalities aside
    unstated = {m: features[m] for m in MODALITIES if lengths[m] is None}
    features = features | move_padding_to_end(unstated, one_clock, note)
    settled = {m: settle(features[m], m, lengths[m], note) for m in MODALITIES}
    return {m: x for m, (x, _) in settled.items()}, {m: length for m, (_, length) in settled.items()}
