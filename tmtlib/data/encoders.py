"""Text features made anew from transcripts, by word vectors or by a BERT that the user has on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from tmtlib.common import digest, pick_device
from tmtlib.data.catalog import file_sha256
from tmtlib.data.text import encode_transcripts
from tmtlib.data.transcripts import words

WANTED = (
    "wanted an .npz with the arrays 'words' (V,) and 'vectors' (V, D), as np.savez(path, words=words, vectors=vectors) "
    "writes it, or the folder of a BERT, as save_pretrained writes it (config.json, model and tokenizer)"
)
Encoded = tuple[Float32[np.ndarray, "N T D"], Int64[np.ndarray, " N"]]


@dataclass(frozen=True)
class WordVectors:
    """A vector for each word: a frame a word, in order. Words without one are left out, as in CMU-MOSI's GloVe features
    (all 2195 utterances of a public copy come out as they are in it); a transcript without any known word has length 0.
    """

    path: Path
    known: dict[str, int]  # place of each word in `vectors`, by the word in lower case
    vectors: Float32[np.ndarray, "V D"]

    @cached_property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def __call__(self, raw_text: Sequence[str], frames: int) -> Encoded:
        """Features (N, frames, D), zero from each length on, and lengths (N,); longer transcripts are cut."""
        features = np.zeros((len(raw_text), frames, self.vectors.shape[1]), np.float32)
        lengths = np.zeros(len(raw_text), np.int64)
        for i, text in enumerate(raw_text):
            places = [self.known[word] for word in words(text) if word in self.known][:frames]
            features[i, : len(places)], lengths[i] = self.vectors[places], len(places)
        return features, lengths


@dataclass(frozen=True)
class FrozenBert:
    """The last hidden state of a BERT that is not trained, a frame a token ([CLS] and [SEP] too)."""

    path: Path
    device: str = "cpu"

    @cached_property
    def sha256(self) -> str:
        return digest([file_sha256(file) for file in sorted(self.path.iterdir()) if file.is_file()])

    def __call__(self, raw_text: Sequence[str], frames: int) -> Encoded:
        """As `WordVectors`; errors as `tmtlib.data.text.encode_transcripts`, which wants 3 frames or more."""
        found = encode_transcripts(raw_text, self.path, frames, device=self.device)
        return found.features, found.lengths


def open_encoder(path: str | Path, device: str = "cpu") -> WordVectors | FrozenBert:
    """What makes text features of transcripts, `(raw_text, T) -> (features (N, T, D), lengths (N,))`.

    Args:
        path: an .npz of word vectors, or the folder of a BERT.
        device: where a BERT runs: "auto", "cpu" or "cuda".

    Raises FileNotFoundError where nothing is there, ValueError for a path that is neither or arrays that do not fit.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; {WANTED}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"there is no config.json in the folder {path}; {WANTED}")
        return FrozenBert(path, str(pick_device(device)))
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("words", "vectors")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:  # what np.load says of other files
        raise ValueError(f"{path} cannot be read as word vectors ({error}); {WANTED}") from None
    said, vectors = arrays["words"], arrays["vectors"]
    fit = said.dtype.kind == "U" and said.ndim == 1 and vectors.ndim == 2 and len(vectors) == len(said) > 0
    if not fit or not np.issubdtype(vectors.dtype, np.floating) or not np.isfinite(vectors).all():
        raise ValueError(
            f"{path} has words {said.dtype} {said.shape} and vectors {vectors.dtype} {vectors.shape}; "
            f"{WANTED}: words of text, vectors finite and as many"
        )
    known = {str(word).lower(): i for i, word in reversed(list(enumerate(said)))}  # of two spellings the first counts
    return WordVectors(path, known, vectors.astype(np.float32))
