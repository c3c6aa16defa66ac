"""One split of an MMSA, MMSA-FET or MulT pickle as a validated `Split`; departures go to `note`.

Lengths come from the file; else, for text, from the BERT mask; else from the last frame that is not all zero.
Afterwards data stand at the start, and all frames beyond the length are zero.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32, Int64

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.schema import DataError, Split, Unlabelled

Note = Callable[..., None]  # what is odd, number of utterances (or values), handling, whether it is loud
Raw = Mapping[str, object]  # one split as the file has it
Features = Float32[np.ndarray, "N T D"]
Lengths = Int64[np.ndarray, " N"]
LONGEST_ID = 1000  # characters
Tokens = Int64[np.ndarray, "N 3 T"]
UNIMODAL = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}


def read_split(raw: Raw, name: str, note: Note, emotions: tuple[str, ...] = EMOTIONS) -> Split:
    """One split of any layout; `name` is used in ids where the file has none, `emotions` names the labels' columns.

    Raises Unlabelled without labels, DataError without features, for labels that are not finite, or arrays that do not
    fit together.
    """
    ids = _row_by_row(raw.get("id"), "id", _id)
    if ids and len(long := max(ids, key=len)) > LONGEST_ID:
        raise DataError(f"an id has {len(long)} characters ({long[:40]}...); wanted at most {LONGEST_ID}")
    labels = _labels(raw, ids, note)
    n = len(labels)
    if ids is None:
        ids = tuple(f"{name}[{i}]" for i in range(n))
        note("ids not in the file", n, f"numbered {name}[0], {name}[1], ...")
    note("id repeated within the split", n - len(set(ids)), "kept")
    if not any(m in raw for m in MODALITIES):
        raise DataError(f"no features among the keys {', '.join(map(str, raw))}; wanted 'text', 'audio', 'vision'")
    features = {m: _features(raw.get(m), m, n, note) for m in MODALITIES}
    text_bert = _text_bert(raw.get("text_bert"), features["text"], note)
    features, lengths = _lengths(raw, features, text_bert, note)
    transcripts = _row_by_row(raw.get("raw_text"), "raw_text", _text)
    if transcripts is None:
        note("raw_text not in the file", 0 if "labels" in raw else n, "transcripts left empty")  # MulT's never have any
        transcripts = ("",) * n
    felt = _emotion_labels(raw, n, emotions) if emotions else None
    return Split(features, lengths, labels, ids, transcripts, _unimodal_labels(raw, n, note), text_bert, felt)


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


def _array(values: object, key: str, dtype: type | None = np.float32) -> np.ndarray:
    """Numbers; dtype None: as they are. Raises DataError for text, complex numbers and rows of several sizes."""
    wanted = "wanted numbers in rows of one size, padded with 0"
    try:
        if _holds_text(values):  # of which numpy would make an array as wide as the longest
            raise DataError(f"{key} holds text; {wanted}")
        array = np.asarray(values)
        if array.dtype.kind == "O":  # an array of lists or arrays, or numbers kept as objects
            array = np.asarray(array.tolist())
        array = array.astype(np.float64) if array.dtype.kind == "O" else array
    except DataError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{key} is no array of numbers ({error}); {wanted}") from error
    if array.dtype.kind not in "biuf":  # astype(float32) would drop imaginary parts
        raise DataError(f"{key} holds {array.dtype}; {wanted}")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are reported
        return array if dtype is None else array.astype(dtype, copy=False)


def _holds_text(values: object) -> bool:
    if isinstance(values, np.ndarray) and not values.dtype.hasobject:
        return values.dtype.kind in "US"
    rows = values.flat if isinstance(values, np.ndarray) else values if isinstance(values, (list, tuple)) else ()
    return isinstance(values, (str, bytes)) or any(map(_holds_text, rows))


def _labels(raw: Raw, ids: tuple[str, ...] | None, note: Note) -> Float32[np.ndarray, " N"]:
    key = "regression_labels" if "regression_labels" in raw else "labels"
    if key not in raw:
        found = ", ".join(map(str, raw))
        raise Unlabelled(f"no labels among the keys {found}; wanted 'regression_labels' (or MulT's 'labels')")
    labels = _array(raw[key], key)
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


def _unimodal_labels(raw: Raw, n: int, note: Note) -> dict[str, Float32[np.ndarray, " N"]]:
    given = {m: _array(raw[key], key).reshape(-1) for m, key in UNIMODAL.items() if raw.get(key) is not None}
    bad = {m: n if len(labels) != n else (~np.isfinite(labels)).sum() for m, labels in given.items()}
    for m, count in bad.items():
        note(f"{UNIMODAL[m]} without a finite value", count, "this key left out for the whole split")
    return {m: labels for m, labels in given.items() if not bad[m]}


def _emotion_labels(raw: Raw, n: int, names: tuple[str, ...]) -> Float32[np.ndarray, "N K"] | None:
    """Strengths 0..3, from (N, K) or (N, 1, K), or 1 for the one emotion named. Raises DataError for another shape."""
    values, named, k = raw.get("emotion_labels"), _row_by_row(raw.get("emotion"), "emotion", str), len(names)
    if values is None and named is None:
        return None
    if values is None:
        if len(named) != n:
            raise DataError(f"emotion holds {len(named)} names; wanted one for each of {n} utterances")
        return np.equal.outer(np.array(named), np.array(names)).astype(np.float32)
    strengths = _array(values, "emotion_labels")
    if strengths.shape in ((n, k), (n, 1, k)):
        return strengths.reshape(n, k)
    hint = "; leave out the first column, the sentiment" if strengths.shape[-1:] == (k + 1,) else ""
    wanted = f"({n}, {k}) or ({n}, 1, {k}), the columns {', '.join(names)}"
    raise DataError(f"emotion_labels is {strengths.shape}; wanted {wanted}{hint}")


def _features(values: object, modality: str, n: int, note: Note) -> Features:
    """Finite float32 features; zeros (N, 1, 1) for a missing modality."""
    x = np.empty(0) if values is None else _array(values, modality)
    if not x.size:
        note(f"{modality} not in the file", n, "taken as one frame of one 0, length 0", True)
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


def _text_bert(values: object, text: Features, note: Note) -> Tokens | None:
    """Token ids, mask and segments; None unless as long as the text features."""
    if values is None:
        return None
    n, frames = text.shape[:2]
    tokens = _array(values, "text_bert", None)
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


def _lengths(raw: Raw, features: dict[str, Features], text_bert: Tokens | None, note: Note) -> tuple[dict, dict]:
    """Features as `_settled` returns them, and lengths, by modality."""
    lengths = {m: _stated_lengths(raw, m, *x.shape[:2], note) for m, x in features.items()}
    if lengths["text"] is None and text_bert is not None:
        note("text lengths not in the file", len(text_bert), "found from the mask of text_bert")
        lengths["text"] = (text_bert[:, 1] != 0).sum(1).astype(np.int64)
    one_clock = len({x.shape[1] for x in features.values() if x.any()}) == 1  # absent modalities aside
    unstated = {m: features[m] for m in MODALITIES if lengths[m] is None}
    features |= _at_the_start(unstated, one_clock, note)
    settled = {m: _settled(features[m], m, lengths[m], note) for m in MODALITIES}
    return {m: x for m, (x, _) in settled.items()}, {m: length for m, (_, length) in settled.items()}


def _stated_lengths(raw: Raw, modality: str, n: int, frames: int, note: Note) -> Lengths | None:
    """The file's lengths, clipped to 0..frames: 0 for a missing modality. Raises DataError unless they are integers."""
    values = raw.get(f"{modality}_lengths")
    if raw.get(modality) is None or values is None:
        return np.zeros(n, np.int64) if raw.get(modality) is None else None
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


def _settled(x: Features, modality: str, lengths: Lengths | None, note: Note) -> tuple[Features, Lengths]:
    """Features that are zero beyond their lengths, and the lengths; `lengths` None: from the frames."""
    frames = np.arange(1, x.shape[1] + 1)
    last = ((x != 0).any(2) * frames).max(1)  # frames up to and including the last with data
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
    return np.where((frames <= lengths[:, None])[..., None], x, np.float32(0)) if beyond else x, lengths


def _at_the_start(features: dict[str, Features], one_clock: bool, note: Note) -> dict[str, Features]:
    """The modalities padded at the front, as in MulT's pickles, with their data moved to the start.

    These are the ones most of whose utterances begin with zeros and end with data. With one clock they all move by the
    same number of frames, to stay synchronous.
    """
    leading = {}
    for m, x in features.items():
        data = (x != 0).any(2)
        if 2 * (~data[:, 0] & data[:, -1]).sum() > data.any(1).sum():
            leading[m] = np.where(data.any(1), data.argmax(1), x.shape[1])
    moved, least = {}, np.min(list(leading.values()), axis=0) if leading and one_clock else None
    for m, lead in leading.items():
        lead, frames = lead if least is None else least, features[m].shape[1]
        note(f"{m} padded at the front", (lead % frames > 0).sum(), "data moved to the start")
        at = (np.arange(frames) + lead[:, None]) % frames
        moved[m] = np.take_along_axis(features[m], at[..., None], axis=1)
    return moved
