"""Tables that describe a data set, and `report`, all of them as text. Invalid files are rejected by `mmsa.read`."""

import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from tmtlib.common import MODALITIES
from tmtlib.data import catalog, mmsa
from tmtlib.data.schema import SPLITS, Card, DataError, Dataset, Oddity, Split, Unlabelled, said_at_once

# How ids name their video. A YouTube name may itself end in _1, so a style counts only if every id follows it
ID_STYLES = {
    "video$_$clip": re.compile(r"(.+)\$_\$.+"),
    "video[clip]": re.compile(r"(.+)\[[^\[\]]*\]"),
    "video_clip": re.compile(r"(.+)_\d+"),
    "dia_utt, which MELD counts anew in each split": re.compile(r"(dia\d+)_utt\d+"),
    "dialogue_turn, as IEMOCAP's": re.compile(r"(Ses\d\d[FM]_.+)_[FM]X?\d+"),
    "video/clip": re.compile(r"(.+)[/\\][^/\\]+"),
}
WHOLE_ID = re.compile(r"(.*)", re.DOTALL)
LENGTHS = "True lengths, in frames (absent: length 0; full: length T, so perhaps cut)"
BIN_WIDTH = {"mosi": 1.0, "sims": 0.2}  # of the label histogram: the classes of Acc-7, or CH-SIMS's own grid


def report(path: str | Path, clip_labels: bool = False) -> str:
    """Every table of a feature file as text; of utterances without splits or labels their lengths and oddities. Raises
    FileNotFoundError, or DataError for a file that cannot be used."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # the text has them
            return f"{path}\n\n{describe(mmsa.read(path, clip_labels=clip_labels))}"
    except Unlabelled as error:
        untrainable = error
    try:
        utterances, labelled, oddities = mmsa.read_utterances(path)
    except DataError:
        raise untrainable from None
    parts = [f"{path}", f"{len(utterances)} utterances, {'with' if labelled else 'without'} labels: for tmt predict"]
    said = [f"No training, as {untrainable}", *(f"WARNING: {line}" for line in said_at_once(oddities))]
    parts += [textwrap.fill(line, 110) for line in said]
    parts += [LENGTHS, _as_text(lengths_table({"all": utterances}, ("all",))), *_oddities(oddities)]
    return "\n\n".join(parts)


def describe(dataset: Dataset) -> str:
    """Every table of this module as text of at most 110 columns."""
    style = id_style(dataset)
    facts = card_table(dataset.card)
    facts.loc[facts["fact"] == "alignment", "value"] = alignment(dataset)
    ids = f"ids are {style}" if style else "ids name no clip: none can tell which are shared"
    parts = [f"{dataset.card.title}, from {dataset.card.origin}"]
    parts += [textwrap.fill(f"WARNING: {line}", 110) for line in said_at_once(dataset.oddities)]
    parts += [_as_text(facts, headers=(), tablefmt="plain", disable_numparse=True)]
    parts += ["Splits: utterances by sign of the label, and (T, D) of each modality", _as_text(splits_table(dataset))]
    parts += [LENGTHS, _as_text(lengths_table(dataset))]
    values = len(np.unique(np.concatenate([dataset[s].labels for s in SPLITS])))
    parts += [
        f"Labels, to the nearest {BIN_WIDTH[dataset.family]:g} (values: {values})",
        _as_text(labels_table(dataset)),
    ]
    parts += _oddities(dataset.oddities)
    parts += [f"Leakage: what a later split shares with an earlier one ({ids})", _as_text(leakage_table(dataset))]
    return "\n\n".join(parts)


def _oddities(oddities: Sequence[Oddity]) -> list[str]:
    if not oddities:
        return ["Oddities: none"]
    table = _as_text(oddities_table(oddities), maxcolwidths=[None, 44, None, 44])
    return ["Oddities: what was not as documented, and what was done about it", table]


def card_table(card: Card) -> pd.DataFrame:
    """The data set's card. Columns: fact, value."""
    facts = {"name": card.name, "metric family": card.family, "label range": "{:g} to {:g}".format(*card.label_range)}
    facts |= {"alignment": card.alignment, "source": card.source, "origin": card.origin}
    facts |= {"SHA-256": card.sha256, "published file": verification(card)}
    published = catalog.namesake(card.name, card.origin)
    if published and published.sha256 != card.sha256:
        facts["published SHA-256"] = published.sha256
    return pd.DataFrame(facts.items(), columns=["fact", "value"])


def alignment(dataset: Dataset) -> str:
    """The card's "aligned" or "unaligned"; "single vectors" where no modality has more than one frame."""
    longest = max(frames for frames, _ in dataset.shapes.values())
    return dataset.card.alignment if longest > 1 else "single vectors"


def verification(card: Card) -> str:
    """Compares the SHA-256: "verified: ...", "differs from ..." or "not a published file"."""
    if published := catalog.known_sha256(card.sha256):
        return f"verified: the published {published.path}"
    namesake = catalog.namesake(card.name, card.origin)
    return f"differs from the published file {namesake.path}" if namesake else "not a published file"


def splits_table(dataset: Dataset) -> pd.DataFrame:
    """One row a split: utterances, videos, labels by sign, (T, D) by modality, optional contents."""
    rows = []
    for s, videos in videos_of(dataset).items():
        split = dataset[s]
        row = {"split": s, "utterances": len(split), "videos": len(set(videos)) if id_style(dataset) else "cannot tell"}
        signs = np.sign(split.labels)
        row |= {"negative": (signs < 0).sum(), "zero": (signs == 0).sum(), "positive": (signs > 0).sum()}
        row |= {m: f"({t}, {d})" for m, (t, d) in split.shapes.items()}
        optional = {"unimodal labels": split.unimodal_labels or None, "text_bert": split.text_bert}
        optional["emotion labels"] = split.emotion_labels
        rows.append(row | {"also": ", ".join(name for name, values in optional.items() if values is not None)})
    return pd.DataFrame(rows)


def lengths_table(splits: Dataset | Mapping[str, Split], names: Sequence[str] = SPLITS) -> pd.DataFrame:
    """One row a modality and split: T, D, quantiles of the length, and utterances of length 0 and T."""
    rows = []
    for m, s in product(MODALITIES, names):
        (t, d), length = splits[s].shapes[m], splits[s].lengths[m]
        quantiles = np.quantile(length, (0, 0.25, 0.5, 0.75, 1))
        rows.append((m, s, t, d, *quantiles, (length == 0).sum(), (length == t).sum()))
    columns = ("modality", "split", "T", "D", "min", "25 %", "median", "75 %", "max", "absent", "full")
    return pd.DataFrame(rows, columns=columns)


def labels_table(dataset: Dataset) -> pd.DataFrame:
    """Label histogram, one row a bin: label, utterances by split, share of all, a bar as text.

    Bins: the seven classes of Acc-7 for mosi, the eleven values -1, -0.8, ..., 1 for sims.
    """
    width, (low, high) = BIN_WIDTH[dataset.family], dataset.card.label_range
    last = round((high - low) / width)
    table = pd.DataFrame({"label": np.round(low + width * np.arange(last + 1), 6) + 0.0})
    for s in SPLITS:
        steps = np.round(dataset[s].labels.astype(np.float64) / width).astype(int) + last // 2
        table[s] = np.bincount(np.clip(steps, 0, last), minlength=last + 1)
    total = table[[*SPLITS]].sum(axis=1)
    return table.assign(share=total / total.sum(), histogram=["#" * round(40 * k / total.max()) for k in total])


def oddities_table(found: Dataset | Sequence[Oddity]) -> pd.DataFrame:
    """The reader's oddities. Columns: split, what, count, handling."""
    return pd.DataFrame(map(asdict, getattr(found, "oddities", found)), columns=["split", "what", "count", "handling"])


def leakage_table(dataset: Dataset) -> pd.DataFrame:
    """One row a pair of splits: ids and videos shared, and the later split's utterances from shared videos, which
    nobody can tell where the ids name no clip."""
    videos, rows, style = videos_of(dataset), [], id_style(dataset)
    for earlier, later in combinations(SPLITS, 2):
        ids = len(set(dataset[later].ids) & set(dataset[earlier].ids))
        every, shared = set(videos[later]), set(videos[later]) & set(videos[earlier])
        inside = [v in shared for v in videos[later]]
        known = (len(every), len(shared), sum(inside), np.mean(inside)) if style else ("", *["cannot tell"] * 2, "")
        rows.append((later, earlier, ids, *known))
    columns = "split", "earlier", "ids shared", "videos", "videos shared", "utterances in shared videos", "share"
    return pd.DataFrame(rows, columns=columns)


def id_style(dataset: Dataset) -> str | None:
    """The key of `ID_STYLES` that all ids follow; None without one, when the reader made the ids, and where all ids of
    a split would be of one video in every split: those are row numbers, such as train_0 or utterance_17."""
    if any(o.what == "ids not in the file" for o in dataset.oddities):
        return None
    ids = {s: dataset[s].ids for s in SPLITS}
    for style, form in ID_STYLES.items():
        matches = {s: [form.fullmatch(i) for i in of_split] for s, of_split in ids.items()}
        if all(map(all, matches.values())):
            numbered = all(len({match[1] for match in of_split}) == 1 for of_split in matches.values())
            return None if numbered else style
    return None


def videos_of(dataset: Dataset) -> dict[str, list[str]]:
    """The video of each utterance, by split; without an `id_style`, the id itself."""
    form = ID_STYLES.get(id_style(dataset), WHOLE_ID)
    return {s: [form.fullmatch(i)[1] for i in dataset[s].ids] for s in SPLITS}


def videos_named(ids: Sequence[str]) -> list[str] | None:
    """The video that each id names; None where not all follow one of `ID_STYLES`, and where fewer than two are named
    beside the names of splits: those are row numbers."""
    for form in ID_STYLES.values():
        matches = [form.fullmatch(i) for i in ids]
        if all(matches):
            videos = [match[1] for match in matches]
            return videos if len({*videos} - {*SPLITS}) > 1 else None
    return None


def _as_text(table: pd.DataFrame, **options: object) -> str:
    """A table as plain text, shares in per cent."""
    formats = [".1%" if column == "share" else "g" for column in table]
    return tabulate(table, showindex=False, floatfmt=formats, **{"headers": "keys"} | options)
