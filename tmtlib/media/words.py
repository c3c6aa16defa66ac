"""Words with times: read from a file, and encoded a frame a word."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32, Float64

from tmtlib.common import pick_device
from tmtlib.data.schema import DataError
from tmtlib.data.text import WordVectors, load_bert, load_tokenizer, open_encoder
from tmtlib.data.transcripts import words as split_words
from tmtlib.media.files import read_csv

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_words(path: str | Path) -> tuple[list[str], Float64[np.ndarray, "W 2"]]:
    """The words of a clip and their times in s, from a CSV file with the columns word, start and end.

    Raises FileNotFoundError; DataError for other columns or times that do not go forward.
    """
    table = read_csv(path, {"word": str, "start": np.float64, "end": np.float64})
    if missing := {"word", "start", "end"} - set(table):
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; wanted the columns word, start and end (s)")
    spans = table[["start", "end"]].to_numpy()
    if not len(table) or not np.isfinite(spans).all() or (spans[:, 1] <= spans[:, 0]).any():
        raise DataError(f"{path}: a word's end is not after its start, or there is no word; wanted seconds")
    return table["word"].fillna("").tolist(), spans


def word_features(spoken: Sequence[str], encoder: str, device: str = "cpu") -> tuple[Float32[np.ndarray, "W D"], int]:
    """One vector a word, and how many words lie past the encoder's limit, where they are zeros.

    A BERT's vector is the mean over the word's pieces; word vectors have no limit, and zeros for an unknown word.
    """
    opened = _opened(encoder, device)
    if isinstance(opened, WordVectors):
        places = [opened.places.get("".join(split_words(word)), -1) for word in spoken]
        return np.where(np.array(places)[:, None] >= 0, opened.vectors[places], np.float32(0)), 0
    tokenizer, bert = opened
    limit = min(tokenizer.model_max_length, getattr(bert.config, "max_position_embeddings", None) or np.inf)
    tokens = tokenizer([*spoken], is_split_into_words=True, return_tensors="pt", truncation=True, max_length=limit)
    with torch.no_grad():
        hidden = bert(**tokens.to(bert.device)).last_hidden_state[0].cpu().numpy()
    owners = np.array([-1 if i is None else i for i in tokens.word_ids(0)])
    vectors = [hidden[owners == i].mean(0) if (owners == i).any() else hidden[0] * 0 for i in range(len(spoken))]
    past = len(spoken) - 1 - owners.max() if len(owners) == limit else 0
    return np.stack(vectors).astype(np.float32), int(past)


@cache
def _opened(encoder: str, device: str) -> "WordVectors | tuple[PreTrainedTokenizerBase, PreTrainedModel]":
    opened = open_encoder(encoder, device)
    if isinstance(opened, WordVectors):
        return opened
    return load_tokenizer(encoder), load_bert(encoder).to(pick_device(device)).eval()


def unknown_share(transcripts: Sequence[str], encoder: str) -> float:
    """The share of tokens that the encoder does not know; 0 without tokens."""
    opened = open_encoder(encoder)
    if isinstance(opened, WordVectors):
        known = [word in opened.places for text in transcripts for word in split_words(text)]
    else:
        tokenizer = load_tokenizer(encoder)
        ids = tokenizer([*transcripts], add_special_tokens=False)["input_ids"]
        known = [token != tokenizer.unk_token_id for row in ids for token in row]
    return 1 - float(np.mean(known)) if known else 0.0
