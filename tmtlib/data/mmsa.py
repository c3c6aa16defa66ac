"""Reads the field's feature pickles into `Dataset`, and writes MMSA pickles.

    MMSA       {train, valid, test} of {id, raw_text, text, audio, vision, regression_labels, ...}; aligned
               files state no lengths, unaligned ones state audio_lengths and vision_lengths
    MMSA-FET   the same with text_lengths, float64, and a `config` beside the splits
    MulT       {train, valid, test} of {text, audio, vision, labels (N, 1, 1), id}

All may hold `emotion_labels` in every split: (N, 6) or (N, 1, 6), the order of EMOTIONS, each 0 (absent) to 3; or
`emotion`, one name an utterance, of which any number makes that many columns. Every departure from this layout is
recorded as an `Oddity`. Other layouts and formats: `tmtlib.data.layouts`, `tmtlib.data.formats`.
"""

import pickle
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from tmtlib.common import EMOTIONS, MODALITIES, check_choice, write_atomic
from tmtlib.data import catalog, feature_table, formats, schema
from tmtlib.data.guard import reading
from tmtlib.data.layouts import as_mmsa
from tmtlib.data.mmsa_split import UNIMODAL, Note, read_split
from tmtlib.data.schema import FAMILY_RANGE, SPLITS, Card, DataError, Dataset, Oddity, Split, Unlabelled, said_at_once

FOLDERS = {"MOSI": "mosi", "MOSEI": "mosei", "SIMS": "sims", "SIMSV2": "simsv2"}
FAR = 1e6  # standard deviations of a feature
MOST_EMOTIONS = 100
OUR_KEY = "tmtlib"  # key in `config` for family, alignment and source, which the MMSA layout lacks


def read(path: str | Path, *, name: str | None = None, family: str | None = None, clip_labels: bool = False) -> Dataset:
    """The data set of a feature file; `name` and metric `family` are guessed if not given.

    `clip_labels`: labels beyond the family's range become its ends. Warns of each loud oddity. Raises DataError for
    another file, RefusedPickle for a pickle with code, FileNotFoundError.
    """
    path = catalog.feature_file(path)
    with reading(path, "a feature file in MMSA's layout"):
        return _read(path, name, family, clip_labels)


def _read(path: Path, name: str | None, family: str | None, clip_labels: bool) -> Dataset:
    oddities, splits = [], {}
    note_in = partial(_noted, oddities)
    note = partial(note_in, "all")
    sha256, content = catalog.file_sha256(path), _content(path, note_in)
    config = content.get("config") if isinstance(content.get("config"), dict) else {}
    stated = any(f"{m}_lengths" in content[s] for s in SPLITS for m in MODALITIES)
    emotions = _emotions(path, content, config.get(OUR_KEY), note)
    for s in SPLITS:
        try:
            splits[s] = read_split(content.pop(s), s, partial(note_in, s), emotions)
        except DataError as error:
            raise type(error)(f"{path}, split {s}: {error}") from error
    card = replace(_card(path, sha256, name, family, config.get(OUR_KEY), splits, stated, note), emotions=emotions)
    if clip_labels:
        splits = {s: _clipped(split, card.label_range, partial(note_in, s)) for s, split in splits.items()}
    _compare_with_catalog(card, path, splits, config, note)
    times = Counter(i for split in splits.values() for i in set(split.ids))
    _note_untrained(splits, oddities)
    _note_labels(splits, note)
    note("id in more than one split", sum(k > 1 for k in times.values()), "kept: test scores on them leak")
    try:
        dataset = Dataset(card, **splits)
        dataset = replace(dataset, feature_names=_feature_names(config, dataset))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    _note_far(dataset, note_in)
    for line in said_at_once(oddities):
        warnings.warn(f"{path}: {line}", stacklevel=2)
    return replace(dataset, oddities=tuple(oddities))


def _noted(oddities: list[Oddity], split: str, what: str, count: int, handling: str, loud: bool = False) -> None:
    """A `Note` that is told where it adds what it notes, and of which split."""
    if count:
        oddities.append(Oddity(split, what, int(count), handling, loud))


def _under_names(path: Path, note_in: Note, whole: str | None = None) -> object:
    """The content of a file by `as_mmsa`."""
    content = formats.load(path)
    try:
        if isinstance(content, pd.DataFrame):
            content = feature_table.as_arrays(content, partial(note_in, "all"))
        return as_mmsa(content, note_in, whole)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _content(path: Path, note_in: Note) -> dict:
    """The splits of a file, each a dict, under MMSA's names. Raises DataError for anything else, Unlabelled for a dict
    that lacks splits."""
    content = _under_names(path, note_in)
    wanted = "wanted 'train', 'valid' and 'test', each a dict of arrays (MMSA, MMSA-FET or MulT layout)"
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; {wanted}")
    if not all(isinstance(content.get(s), dict) for s in SPLITS):
        mend = "; for utterances without splits there is tmt predict" if {*MODALITIES} & {*content} else ""
        raise Unlabelled(f"{path} has the keys {', '.join(map(repr, content))}; {wanted}{mend}")
    return content


def _feature_names(config: Mapping, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Of each modality whose features the config of `tmt features` names, as many as there are."""
    given = config.get("feature_names")
    names = {m: given.get(m) for m in MODALITIES} if isinstance(given, dict) else {}
    listed = {m: tuple(map(str, row)) for m, row in names.items() if isinstance(row, (list, tuple))}
    return {m: row for m, row in listed.items() if len(row) == dataset.shapes[m][1]}


def _clipped(split: Split, ends: tuple[float, float], note: Note) -> Split:
    labels = np.clip(split.labels, *map(np.float32, ends))
    beyond = (np.abs(labels - split.labels) > 1e-4).sum()
    note(f"labels beyond {ends[0]:g}..{ends[1]:g}", beyond, "clipped, as asked", True)
    return replace(split, labels=labels)


def _note_labels(splits: Mapping[str, Split], note: Note) -> None:
    """Notes labels that look like classes, and splits too small for what is done with them."""
    labels = np.concatenate([split.labels for split in splits.values()])
    values = np.unique(labels)
    given = ", ".join(f"{v:g}" for v in values[:4])
    if len(values) <= 4 and values[0] >= 0 and (values == np.rint(values)).all():
        classes = "kept: 0 is neutral and none is negative; for classes, give each its sentiment, such as -1 and 1"
        note(f"labels are {given} alone", len(labels), classes, True)
    elif len(values) <= 3:
        note(f"labels take {len(values)} values alone: {given}", len(labels), "kept: finer metrics are left out")
    for s, split in splits.items():
        stops = "kept, but analyses that swap or compare utterances stop (notebook 04)"
        note(f"{s} is a single utterance", len(split) == 1, stops, True)


def _note_far(dataset: Dataset, note_in: Note) -> None:
    """Notes values so far from the training split's mean that they drown all others once z-scored."""
    for (m, moments), s in product(schema.normalizer(dataset.train).items(), SPLITS):
        x, (mean, far) = dataset[s].features[m], np.array(moments, np.float64) * [[1], [FAR]]
        some = np.maximum(x.max((0, 1)) - mean, mean - x.min((0, 1))) > far  # features to look at; most often none
        beyond = (np.abs(x[..., some] - mean[some]) > far[some])[schema.valid_frames(dataset[s], m)].sum()
        note_in(s, f"{m} beyond {FAR:g} standard deviations of train", beyond, "kept, but it drowns the rest", True)


def read_utterances(
    path: str | Path, ends: tuple[float, float] | None = None
) -> tuple[Split, bool, tuple[Oddity, ...]]:
    """All utterances of a file, with or without splits and labels: as one split, labels 0 where there are none; whether
    all have labels; and oddities. `ends`: labels beyond them become these. Raises as `read`."""
    path = catalog.feature_file(path)
    with reading(path, "utterances in MMSA's layout"):
        return _read_utterances(path, ends)


def _read_utterances(path: Path, ends: tuple[float, float] | None) -> tuple[Split, bool, tuple[Oddity, ...]]:
    oddities, splits, labelled = [], [], True
    note_in = partial(_noted, oddities)
    content = _under_names(path, note_in, whole="test")
    parts = {s: content[s] for s in SPLITS if isinstance(content.get(s), Mapping)} if isinstance(content, dict) else {}
    if not parts:
        raise DataError(
            f"{path} holds a {type(content).__name__} without utterances; wanted arrays by name ('text', ...)"
        )
    for name, raw in parts.items():
        raw = {key: value for key, value in raw.items() if key not in ("emotion", "emotion_labels")}
        key = next((k for k in ("regression_labels", "labels") if k in raw), None)
        if key is None or not _finite(raw[key]):
            note_in(name, f"{key} not finite", len(raw[key]) if key else 0, "not used")
            rows = next((raw[key] for key in ("id", *MODALITIES) if raw.get(key) is not None), ())
            raw, labelled = raw | {"regression_labels": np.zeros(len(rows), np.float32)}, False
        try:
            splits.append(read_split(raw, name, partial(note_in, name)))
        except DataError as error:
            raise DataError(f"{path}, {name}: {error}") from error
    whole = Split.concat(splits)
    if ends and labelled:
        whole = _clipped(whole, ends, partial(note_in, "all"))
    return whole, labelled, tuple(oddities)


def _finite(values: object) -> bool:
    try:
        return bool(np.isfinite(np.asarray(values, np.float64)).all())
    except (TypeError, ValueError):
        return False


def _emotions(path: Path, content: dict, written: object, note: Note) -> tuple[str, ...]:
    """Names of the emotions that a file has labels of: of `write_mmsa`, EMOTIONS, or those under `emotion`, which count
    where no split has `emotion_labels`. Raises DataError for `emotion` in some splits alone, or not a name each."""
    if any(content[s].get("emotion_labels") is not None for s in SPLITS):
        for s in SPLITS:
            content[s].pop("emotion", None)
        return tuple(written.get("emotions") or EMOTIONS) if isinstance(written, dict) else EMOTIONS
    given = {s: content[s]["emotion"] for s in SPLITS if content[s].get("emotion") is not None}
    if given and len(given) < len(SPLITS):
        raise DataError(f"{path}: emotion is in {', '.join(given)} alone; wanted it in every split or in none")
    for s, names in given.items():
        rows = names if isinstance(names, (list, tuple)) or getattr(names, "ndim", 0) == 1 else [names]
        if bad := [name for name in rows if not isinstance(name, str) or not name.strip()]:
            raise DataError(f"{path}, split {s}: emotion holds {bad[0]!r:.60}; wanted the name of each utterance's")
    taught, every = set(given.get("train", ())), {name for names in given.values() for name in names}
    if len(every) > MOST_EMOTIONS or len(max(every, key=len, default="")) > 100:
        found = f"emotion holds {len(every)} different names, the longest of {len(max(every, key=len))} characters"
        raise DataError(f"{path}: {found}; wanted at most {MOST_EMOTIONS} of at most 100")
    for name in sorted(every - taught):
        note(f"emotion {name!r} in no training utterance", 1, "kept as a column that nothing teaches")
    return tuple(sorted(map(str, every)))


def name_of(path: Path, sha256: str) -> str:
    """The data set's name: by known hash, else by folder (MOSI, MOSEI, SIMS, SIMSv2), else the file's stem."""
    if published := catalog.known_sha256(sha256):
        return published.name
    folders = [folder.name.upper() for folder in path.resolve().parents[:2]]
    stem = Path(path.stem).stem if path.suffix in (".gz", ".bz2", ".xz") else path.stem
    return FOLDERS.get(folders[1 if folders[0] == "PROCESSED" else 0], stem)


def write_mmsa(dataset: Dataset, path: str | Path) -> None:
    """Writes an MMSA pickle, atomically. `read` restores all but the ground truth of synthetic data."""
    content = {s: _as_mmsa(dataset[s]) for s in SPLITS}
    content["config"] = {OUR_KEY: {k: getattr(dataset.card, k) for k in ("family", "alignment", "source", "emotions")}}
    content["config"] |= {"feature_names": dict(dataset.feature_names)} if dataset.feature_names else {}
    write_content(content, path)


def write_content(content: Mapping[str, object], path: str | Path) -> None:
    """Writes a pickle of arrays in one of this module's layouts, atomically; protocol 5 copies none of them."""
    write_atomic(Path(path), lambda file: pickle.dump(content, file, protocol=5))


def _as_mmsa(split: Split) -> dict[str, np.ndarray]:
    arrays = {"id": np.array(split.ids), "raw_text": np.array(split.raw_text, dtype=object)}
    classes = np.array(["Negative", "Neutral", "Positive"])
    arrays |= {"regression_labels": split.labels, "annotations": classes[np.sign(split.labels).astype(int) + 1]}
    for m in MODALITIES:
        arrays |= {m: split.features[m], f"{m}_lengths": split.lengths[m]}
    arrays |= {UNIMODAL[m]: labels for m, labels in split.unimodal_labels.items()}
    more = {"text_bert": split.text_bert, "emotion_labels": split.emotion_labels}
    return arrays | {key: x for key, x in more.items() if x is not None}


def _card(path, sha256, name, family, written: object, splits: Mapping, stated: bool, note: Note) -> Card:
    """Fields from the arguments, else the catalog, else what `write_mmsa` wrote, else a guess."""
    published = catalog.known_sha256(sha256)
    name, known = name or name_of(path, sha256), written if isinstance(written, dict) else {}
    if published:
        known = {"family": published.family, "alignment": published.alignment, "source": "real"}
    family = family or known.get("family") or _family(name, splits, note)
    alignment = known.get("alignment") or _alignment(splits, stated)
    source = known.get("source", "real")
    source = "synthetic" if source == "planted" else source  # "planted": files of earlier versions
    try:
        check_choice("metric family", family, tuple(FAMILY_RANGE))
        check_choice("alignment", alignment, ("aligned", "unaligned"))
        check_choice("source", source, ("real", "synthetic"))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return Card(name, family, alignment, source, path.name, sha256)


def _family(name: str, splits: Mapping[str, Split], note: Note) -> str:
    """The metric family by the data set's name, else by the range of all labels."""
    (low, high), labels = FAMILY_RANGE["sims"], np.concatenate([s.labels for s in splits.values()])
    within = ((low - 1e-4 <= labels) & (labels <= high + 1e-4)).all()
    why = f"labels {'lie all within' if within else 'go beyond'} {low:g}..{high:g}"
    if name in FOLDERS.values():
        within, why = name.startswith("sims"), f"the name is {name!r}"
    family = "sims" if within else "mosi"
    note("metric family not in the file", 1, f"guessed {family!r}: {why}; load_dataset(..., family=) overrides it")
    return family


def _alignment(splits: Mapping[str, Split], stated: bool) -> str:
    """Aligned: one T for all modalities and, where the file states lengths, the same ones (absent ones aside)."""
    for split in splits.values():
        if len({split.shapes[m][0] for m in MODALITIES if split.lengths[m].any()}) > 1:
            return "unaligned"
        lengths = np.stack(list(split.lengths.values()))
        if stated and ((lengths != lengths.max(0)) & (lengths > 0)).any():
            return "unaligned"
    return "aligned"


def _note_untrained(splits: Mapping[str, Split], oddities: list[Oddity]) -> None:
    """Puts a modality that valid or test have and train lacks before all other oddities."""
    for m in MODALITIES:
        present = {s: int((splits[s].lengths[m] > 0).sum()) for s in SPLITS}
        if not present["train"] and (count := sum(present.values())):
            where = f"{m} in {' and '.join(s for s in SPLITS if present[s])} but in no training utterance"
            handling = "kept, but no model can learn it: give train this modality, or remove it from the other splits"
            oddities.insert(0, Oddity("all", where, count, handling, loud=True))


def _compare_with_catalog(card: Card, path: Path, splits: Mapping, config: Mapping, note: Note) -> None:
    """Notes a standard file with another hash, and shapes unlike the published ones or the file's config."""
    published = catalog.namesake(card.name, path.name)
    if published and published.sha256 != card.sha256:
        hashes = f"SHA-256 is {card.sha256[:12]}..., that of the published file is {published.sha256[:12]}..."
        note(hashes, 1, "read all the same: results are this file's, not the published one's")
    files = [f for f in catalog.files_of(card.name) if f.alignment == card.alignment]
    described = {"the published file": files[0].shapes} if files and card.source == "real" else {}
    frames, widths = config.get("seq_lens"), config.get("feature_dims")  # as MMSA's own config names them
    if isinstance(frames, (list, tuple)) and isinstance(widths, (list, tuple)):
        described["its config"] = tuple(zip(frames, widths, strict=False))
    for whose, shapes in described.items():
        for m, wanted in zip(MODALITIES, shapes, strict=False):
            shape = tuple(splits["train"].shapes[m])
            if shape != tuple(wanted):
                note(f"{m} is (T, D) = {shape}, {whose} has {tuple(wanted)}", 1, "kept as in the arrays")
