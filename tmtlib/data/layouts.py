"""Other layouts of features under MMSA's names, where their meaning is certain; each is noted, as is what is not read.

`dev` for valid, bytes and capitals, `visual` and `acoustic`, flat keys, a dict or one of MAG-BERT's tuples for each
utterance, arrays of several lengths, transcripts as `text`, token ids alone, CMU-MOSEI's labels with emotions.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import partial

import numpy as np
from jaxtyping import Float32, Int64

from tmtlib.common import EMOTIONS, MODALITIES
from tmtlib.data.guard import Room
from tmtlib.data.mmsa_split import UNIMODAL, Note
from tmtlib.data.schema import SPLITS, DataError

SPLIT_NAMES = {"training": "train", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "validation", "dev", "devel", "development"), "valid")
ANY_SPLIT = "|".join((*SPLITS, *SPLIT_NAMES))
FLAT = re.compile(rf"(?i)({ANY_SPLIT})[_/.](.+)|(.+)[_/.]({ANY_SPLIT})")
ALIASES = {"language": "text", "acoustic": "audio", "visual": "vision", "video": "vision"}
ALIASES |= {f"{alias}_lengths": f"{m}_lengths" for alias, m in ALIASES.items()} | {"ids": "id", "label": "labels"}
READ = ("id", "raw_text", "labels", "regression_labels", "text_bert", "emotion", "emotion_labels", *MODALITIES)
READ += (*UNIMODAL.values(), *(f"{m}_lengths" for m in MODALITIES))
KNOWN = (
    *READ,
    "annotations",
    *(f"classification_labels{of}" for of in ("", "_T", "_A", "_V")),
)  # the last are not read
HINTS = {"transcript": "raw_text", "sentence": "raw_text", "sentiment": "regression_labels", "y": "regression_labels"}
HINTS |= {"covarep": "audio", "speech": "audio", "facet": "vision", "face": "vision", "glove": "text", "bert": "text"}
MOST_KEYS = 1000  # of a split
MISSING = ("None", "nan", "NaN", "<NA>")  # an empty cell of a table, as text


def as_mmsa(content: object, note_in: Note, whole: str | None = None) -> object:
    """The content of a feature file under MMSA's names, as far as its layout is known; anything else as it is.

    `note_in`: a `Note` that is told the split first. `whole`: the split that content without splits is taken as. Raises
    DataError for two keys that may be one, and for token ids as `text`.
    """
    if not isinstance(content, Mapping):
        return content
    note, taken, unread = partial(note_in, "all"), Counter(), Counter()
    content = _renamed(content, (*SPLITS, "config"), SPLIT_NAMES, taken)
    if not any(s in content for s in SPLITS):
        content = _nested(content, note)
    if whole and not any(s in content for s in SPLITS):
        content = {whole: {key: value for key, value in content.items() if key != "config"}}
    for s in [s for s in SPLITS if s in content]:
        content[s] = part = _as_dict(content[s], partial(note_in, s))
        if isinstance(part, Mapping):
            _few(part, s)
            content[s] = part = _renamed(part, READ, ALIASES, taken)
            _settle(part, partial(note_in, s))
            unread.update((key, _meant(str(key).lower(), part)) for key in part if key not in KNOWN)
    unread.update((key, None) for key in content if key not in (*SPLITS, "config"))
    for (key, name), count in taken.items():
        note(f"key {key!r}", count, f"read as {name!r}", name in MODALITIES)
    for (key, meant), count in unread.items():
        note(f"key {key!r}", count, "not read" + (f": did you mean {meant!r}?" if meant else ""), meant is not None)
    return content


def _few(keys: Collection, where: str) -> None:
    if len(keys) > MOST_KEYS:
        raise DataError(f"{where} has {len(keys)} different keys; wanted MMSA's, at most {MOST_KEYS}")


def _renamed(part: Mapping, wanted: Collection[str], aliases: Mapping[str, str], taken: Counter) -> dict:
    """Bytes as text, then keys in capitals and aliases by their wanted names, which `taken` counts."""
    named = {key.decode("utf-8", "replace") if isinstance(key, bytes) else key: value for key, value in part.items()}
    came_from = {}
    for key in [key for key in named if isinstance(key, str) and key not in wanted]:
        name = aliases.get(key.strip().lower(), key.strip().lower())
        if name in came_from:
            raise DataError(f"keys {came_from[name]!r} and {key!r} may both be {name!r}; keep one of them")
        if name in wanted and name not in named and not (name in MODALITIES and _is_text(named[key])):
            named[name], came_from[name] = named.pop(key), key
            taken[key, name] += 1
    return named


def _is_column(values: object) -> bool:
    return isinstance(values, (list, tuple)) or getattr(values, "ndim", 0) == 1


def _is_text(values: object) -> bool:
    return isinstance(values[0] if _is_column(values) and len(values) else values, (str, bytes))


def _meant(key: str, part: Mapping) -> str | None:
    """The name of `READ` that an unread key may have been meant for and that the split lacks."""
    close = get_close_matches(key, READ, 1, 0.75)
    near = [HINTS.get(key.removesuffix("s")), *close, *(m for m in MODALITIES if m in key)]
    return next((name for name in near if name and name not in part), None)


def _nested(content: Mapping, note: Note) -> dict:
    """Flat keys such as train_text or text/test by split; without all three splits, the content as it is."""
    parts, rest = {}, {}
    for key, value in content.items():
        if match := FLAT.fullmatch(str(key)):
            split, name = (match[1], match[2]) if match[1] else (match[4], match[3])
            parts.setdefault(SPLIT_NAMES.get(split.lower(), split.lower()), {})[name] = value
        else:
            rest[key] = value
    if set(parts) != set(SPLITS):
        return dict(content)
    note("keys name the split, as 'train_text'", sum(map(len, parts.values())), "read as a dict for each split")
    return rest | parts


def _as_dict(rows: object, note: Note) -> object:
    """A split of one dict, or one MAG-BERT tuple ((words, visual, acoustic), label, segment), an utterance as a dict of
    columns; anything else as it is. MISA's tuples have a fourth part, the words, after their numbers."""
    if not isinstance(rows, (list, tuple, np.ndarray)) or not len(rows):
        return rows
    if all(isinstance(row, Mapping) for row in rows):
        note("a dict for each utterance", len(rows), "read as columns")
        keys = dict.fromkeys(key for row in rows for key in row)
        _few(keys, "the utterances' dict")
        columns = {key: [row.get(key) for row in rows] for key in keys}
        stacked = (key for key, x in columns.items() if isinstance(x[0], np.ndarray) and len({*map(np.shape, x)}) == 1)
        return columns | {key: np.stack(columns[key]) for key in stacked}
    if not all(isinstance(row, tuple) and len(row) == 3 and isinstance(row[0], tuple) for row in rows):
        return rows
    inputs, labels, ids = zip(*rows, strict=True)
    if not all(len(x) in (3, 4) for x in inputs):
        return rows
    note("a tuple for each utterance", len(rows), "read as MAG-BERT's ((words, visual, acoustic), label, segment)")
    said = [" ".join(map(str, x[0] if len(x) == 3 else x[3])) for x in inputs]
    vision, audio = ([x[i] for x in inputs] for i in (1, 2))
    return {"id": ids, "raw_text": said, "labels": np.ravel(labels), "vision": vision, "audio": audio}


def _settle(part: dict, note: Note) -> None:
    """Puts what has one meaning under its name, in place, and notes what looks wrong. Raises DataError for token ids as
    `text`."""
    _settle_text(part, note)
    if _is_column(ids := part.get("id")):
        note("ids missing (None or NaN)", sum(str(name) in MISSING for name in ids), "kept as that text")
    for m in MODALITIES:
        if (padded := _padded(part.get(m))) is not None:
            part[m], lengths = padded
            part.setdefault(f"{m}_lengths", lengths)
            note(f"{m} is of several lengths", len(lengths), "padded with zeros at the end")
        if _swapped(part.get(m), part.get(f"{m}_lengths")):
            found = f"{m} is (T, D) = {part[m].shape[1:]}, but its data fit (D, T)"
            note(found, len(part[m]), "kept; if its axes are swapped, give x.transpose(0, 2, 1)", True)
    key = "regression_labels" if "regression_labels" in part else "labels"
    labels = part.get(key)
    if getattr(labels, "shape", ())[1:] in ((7,), (1, 7)) and not {"emotion", "emotion_labels"} & set(part):
        labels = labels.reshape(-1, 1 + len(EMOTIONS))
        part[key], part["emotion_labels"] = labels[:, 0], labels[:, 1:]
        columns = f"read as the sentiment and {', '.join(EMOTIONS)}, as CMU-MOSEI has them"
        note(f"{key} has seven columns", len(labels), columns, True)


def _settle_text(part: dict, note: Note) -> None:
    text, tokens, said = (part.get(key) for key in ("text", "text_bert", "raw_text"))
    if said is None and _is_text(text):
        said = part["raw_text"] = part.pop("text")
        note("text holds transcripts", len(said), "read as raw_text; encode_text makes features of them", True)
    if _is_column(said):
        part["raw_text"] = ["" if str(text) in MISSING else text for text in said]
        note("transcripts missing (None or NaN)", sum(str(text) in MISSING for text in said), 'read as ""')
    if part.get("text") is not None:
        _refuse_token_ids(part["text"])
    elif getattr(tokens, "ndim", 0) == 3:
        part.pop("text_lengths", None)  # the mask has them
        part["text"] = np.zeros((len(tokens), tokens.shape[2], 1), np.float32)
        use = "kept for models that fine-tune a BERT; others see zeros: encode_text makes features of raw_text"
        note("text_bert but no text features", len(tokens), use, True)


def _refuse_token_ids(text: object) -> None:
    """Raises DataError for (N, 3, T) of token ids, mask and segments, and for (N, T) of token ids."""
    x = text if isinstance(text, np.ndarray) and text.dtype.kind in "iuf" and text.size else np.full(1, -1)
    if x.ndim not in (2, 3) or (x[:8] != np.rint(x[:8])).any() or x.min() < 0:
        return
    tokens = x.ndim == 3 and x.shape[1] == 3 and x[:, 1:].max() <= 1 < x.max()
    if tokens or (x.ndim == 2 and x.max() >= 100):
        wanted = "name it text_bert (ids, mask and segments, (N, 3, T)), and make features by encode_text"
        raise DataError(f"text {x.shape} holds whole numbers up to {x.max():g}, which look like token ids: {wanted}")


def _swapped(values: object, stated: object) -> bool:
    """Whether features (N, T, D) look as if they were (N, D, T): data end on the last axis where the lengths say, or
    where none are stated in most of the first 64 utterances before it does, in frames that are all full."""
    if not isinstance(values, np.ndarray) or values.ndim != 3 or not 1 < values.shape[1] < values.shape[2]:
        return False
    data = values[:64] != 0
    ends = (data.any(1) * np.arange(1, values.shape[2] + 1)).max(1)
    if stated is not None:
        lengths = np.ravel(stated)[:64]
        return bool(np.equal(lengths, ends).mean() > 0.5 and max(ends) > values.shape[1])
    return bool(data.any(2).all() and (ends < values.shape[2]).mean() > 0.5 and len(set(ends)) > 2)


def _padded(values: object) -> tuple[Float32[np.ndarray, "N T D"], Int64[np.ndarray, " N"]] | None:
    """Features and lengths of N arrays (T, D) of several T, or None where absent; None for anything else."""
    if not isinstance(values, (list, tuple)) and not (isinstance(values, np.ndarray) and values.dtype.hasobject):
        return None
    try:
        with np.errstate(over="ignore"):
            rows = [np.empty(0, np.float32) if v is None else np.asarray(v, np.float32) for v in values]
    except (TypeError, ValueError):
        return None
    widths = {x.shape[1:] for x in rows if x.size}
    lengths = np.array([len(x) if x.size and x.ndim else 0 for x in rows], np.int64)
    if len(set(lengths)) < 2 or [*map(len, widths)] != [1]:
        return None
    shape = len(rows), int(lengths.max()), *widths.pop()
    Room(sum(x.nbytes for x in rows)).take(4 * math.prod(shape))
    padded = np.zeros(shape, np.float32)
    for x, row, length in zip(padded, rows, lengths, strict=True):
        if length:
            x[:length] = row
    return padded, lengths
