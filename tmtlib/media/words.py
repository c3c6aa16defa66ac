"""Words with times: read from a file, and encoded a frame a word."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64

from tmtlib.common import pick_device
from tmtlib.data.schema import DataError
from tmtlib.data.text import WordVectors, load_bert, load_tokenizer, open_encoder
from tmtlib.data.transcripts import words as split_words
from tmtlib.media.rows import read_rows


def read_words(path: str | Path) -> tuple[list[str], Float64[np.ndarray, "W 2"]]:
    """The words of a clip and their times in s, from a CSV file with the columns word, start and end.

    Raises FileNotFoundError; DataError for other columns or times that do not go forward.
    """
    table = read_rows(path, {"word": str}, keep_default_na=False)
    if missing := {"word", "start", "end"} - set(table):
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; wanted the columns word, start and end (s)")
    spans = table[["start", "end"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if not len(table) or not np.isfinite(spans).all() or (spans[:, 1] <= spans[:, 0]).any():
        raise DataError(f"{path}: a word's end is not after its start, or there is no word; wanted seconds")
    return table["word"].tolist(), spans


def word_features(spoken: Sequence[str], encoder: str, device: str = "cpu") -> Float32[np.ndarray, "W D"]:
    """One vector a word: of a BERT the mean over its word pieces, of word vectors its own, zeros without one."""
    opened = open_encoder(encoder, device)
    if isinstance(opened, WordVectors):
        places = [opened.places.get("".join(split_words(word)), -1) for word in spoken]
        return np.where(np.array(places)[:, None] >= 0, opened.vectors[places], np.float32(0))
    device = str(pick_device(device))
    tokenizer, bert = load_tokenizer(encoder), load_bert(encoder).to(device).eval()
    tokens = tokenizer([*spoken], is_split_into_words=True, truncation=True, return_tensors="pt").to(device)
    with torch.no_grad():
        hidden = bert(**tokens).last_hidden_state[0].cpu().numpy()
    owners = np.array([-1 if i is None else i for i in tokens.word_ids(0)])
    vectors = [hidden[owners == i].mean(0) if (owners == i).any() else hidden[0] * 0 for i in range(len(spoken))]
    return np.stack(vectors).astype(np.float32)


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
