"""Text features of transcripts, by word vectors or a frozen BERT on disk; nothing is downloaded.

`text_bert` is the layout of MMSA (https://github.com/thuiar/MMSA): int64 (N, 3, T), rows token ids, attention mask and
segment ids, padded at the end. transformers is imported only when a BERT is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from tmtlib.common import digest, pick_device
from tmtlib.data import formats
from tmtlib.data.catalog import file_sha256
from tmtlib.data.schema import DataError
from tmtlib.data.transcripts import words

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HOW_TO_GET_ONE = (
    "Get one where there is a network: AutoTokenizer.from_pretrained(name).save_pretrained(folder) and "
    "AutoModel.from_pretrained(name).save_pretrained(folder), with name bert-base-uncased or, for CH-SIMS, "
    "bert-base-chinese."
)
ENCODERS = (
    "wanted an .npz with the arrays 'words' (V,) and 'vectors' (V, D), as np.savez(path, words=words, vectors=vectors) "
    "writes it, or the folder of a BERT, as save_pretrained writes it (config.json, model and tokenizer)"
)
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
Encoded = tuple[Float32[np.ndarray, "N T D"], Int64[np.ndarray, " N"]]  # features and lengths


@dataclass(frozen=True)
class EncodedText:
    """N encoded transcripts; lengths count [CLS] and [SEP]."""

    features: Float32[np.ndarray, "N T H"]  # last hidden state, zero from each length on
    lengths: Int64[np.ndarray, " N"]  # tokens, 2 (an empty transcript) to T
    text_bert: Int64[np.ndarray, "N 3 T"]  # token ids, attention mask, segment ids


def encode_text(
    raw_text: Sequence[str], model: str | Path, max_length: int = 50, batch_size: int = 32, device: str = "cpu"
) -> Float32[np.ndarray, "N T H"]:
    """`encode_transcripts(...).features`, (N, T, 768) for a BERT-base."""
    return encode_transcripts(raw_text, model, max_length, batch_size, device).features


def encode_transcripts(
    raw_text: Sequence[str], model: str | Path, max_length: int = 50, batch_size: int = 32, device: str = "cpu"
) -> EncodedText:
    """Encodes transcripts by a frozen BERT in evaluation mode.

    Args:
        raw_text: N transcripts; longer ones are cut to max_length tokens, [CLS] and [SEP] included.
        model: folder with a tokenizer and a BERT-like model, both written by `save_pretrained`.
        max_length: T, at least 3. In MMSA's files 50 for MOSI and MOSEI, 39 for CH-SIMS.
        device: where BERT runs; the result is on the CPU.

    Raises FileNotFoundError for a missing folder, model or tokenizer; TypeError for a transcript that is not a string;
    ValueError for no transcripts, sizes out of range, or a tokenizer with more tokens than the model.
    """
    if isinstance(raw_text, str):
        raise TypeError("raw_text is one string; wanted a sequence of transcripts, such as [text]")
    if not len(raw_text):
        raise ValueError("raw_text is empty; wanted at least one transcript")
    for i, text in enumerate(raw_text):
        if not isinstance(text, str):
            raise TypeError(f'transcript {i} is {type(text).__name__}; wanted str ("" for no words)')
    if batch_size < 1 or max_length < 3:
        raise ValueError(f"max_length {max_length}, batch_size {batch_size}; wanted at least 3 and 1")
    tokenizer, bert = load_tokenizer(model), load_bert(model).to(device).eval()
    if len(tokenizer) > bert.config.vocab_size:
        sizes = f"the tokenizer has {len(tokenizer)} tokens but the model {bert.config.vocab_size}"
        raise ValueError(f"{model}: {sizes}; save both from the same BERT")
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # a saved tokenizer may say left
    how = {"padding": "max_length", "truncation": True, "max_length": max_length, "return_tensors": "pt"}
    tokens = tokenizer(list(raw_text), return_token_type_ids=True, return_attention_mask=True, **how)
    text_bert = torch.stack([tokens[k] for k in ("input_ids", "attention_mask", "token_type_ids")], dim=1).long()
    with torch.no_grad():
        hidden = torch.cat([last_hidden(bert, part.to(device)).cpu() for part in text_bert.split(batch_size)])
    return EncodedText(hidden.numpy(), text_bert[:, 1].sum(1).numpy(), text_bert.numpy())


def last_hidden(bert: "PreTrainedModel", text_bert: Int[Tensor, "B 3 T"]) -> Float[Tensor, "B T H"]:
    """BERT's last hidden state, zero where the mask is 0. Raises ValueError for another shape or too many tokens."""
    if text_bert.ndim != 3 or text_bert.shape[1] != 3:
        raise ValueError(f"text_bert has shape {tuple(text_bert.shape)}; wanted (B, 3, T): ids, mask, segments")
    tokens, positions = text_bert.shape[2], getattr(bert.config, "max_position_embeddings", None)
    if positions is not None and tokens > positions:
        raise ValueError(f"{tokens} tokens an utterance, but the model has {positions} positions; use fewer")
    ids, mask, segments = text_bert.long().unbind(1)
    hidden = bert(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
    return hidden.masked_fill(mask[..., None] == 0, 0.0)


def load_bert(model: str | Path) -> "PreTrainedModel":
    """The model in float32, without the pooler, whose parameters would get no gradient."""
    from transformers import AutoModel

    bert = AutoModel.from_pretrained(_model_folder(model), local_files_only=True).float()
    if hasattr(bert, "pooler"):
        bert.pooler = None
    return bert


def load_tokenizer(model: str | Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    folder = _model_folder(model)
    # Without these files transformers 5 silently makes a tokenizer that reads every word as [UNK]
    if not any(any(folder.glob(name)) for name in VOCABULARY_FILES):
        wanted = f"wanted one of {', '.join(VOCABULARY_FILES)} beside it"
        raise FileNotFoundError(f"there is a model but no tokenizer in {folder}; {wanted}. {HOW_TO_GET_ONE}")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _model_folder(model: str | Path) -> Path:
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        missing = "there is no config.json in the folder" if folder.is_dir() else "there is no folder"
        wanted = "wanted a folder with a saved BERT (config.json, model.safetensors) and its tokenizer"
        raise FileNotFoundError(f"{missing} {folder}; {wanted}. {HOW_TO_GET_ONE}")
    return folder


@dataclass(frozen=True)
class FrozenBert:
    """The last hidden state of a frozen BERT, one frame a token, [CLS] and [SEP] included."""

    path: Path
    sha256: str  # of the hashes of its files
    device: str

    def __call__(self, raw_text: Sequence[str], frames: int) -> Encoded:
        """As `WordVectors`; errors as `encode_transcripts`, which wants 3 frames or more."""
        encoded = encode_transcripts(raw_text, self.path, frames, device=self.device)
        return encoded.features, encoded.lengths


@dataclass(frozen=True)
class WordVectors:
    """One frame a word; words without a vector are skipped, as in CMU-MOSI's GloVe features."""

    path: Path
    sha256: str
    places: dict[str, int]  # of each word in `vectors`, by the word in lower case
    vectors: Float32[np.ndarray, "V D"]

    def __call__(self, raw_text: Sequence[str], frames: int) -> Encoded:
        """Features (N, frames, D), zero beyond the lengths (N,); longer transcripts are cut."""
        features = np.zeros((len(raw_text), frames, self.vectors.shape[1]), np.float32)
        lengths = np.zeros(len(raw_text), np.int64)
        for i, text in enumerate(raw_text):
            places = [self.places[word] for word in words(text) if word in self.places][:frames]
            features[i, : len(places)], lengths[i] = self.vectors[places], len(places)
        return features, lengths


def open_encoder(path: str | Path, device: str = "cpu") -> WordVectors | FrozenBert:
    """An encoder of transcripts, `(raw_text, T) -> (features (N, T, D), lengths (N,))`.

    `path`: an .npz of word vectors, or the folder of a BERT, which runs on `device` ("auto", "cpu", "cuda"). Raises
    FileNotFoundError for a missing path, ValueError for another file or folder.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; {ENCODERS}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"there is no config.json in the folder {path}; {ENCODERS}")
        files = sorted(file for file in path.iterdir() if file.is_file())
        return FrozenBert(path, digest([file_sha256(file) for file in files]), str(pick_device(device)))
    try:
        content = formats.load(path)
        vocabulary, vectors = (np.asarray(content[key]) for key in ("words", "vectors"))
    except (DataError, LookupError, TypeError) as error:  # of another file, or another content
        raise DataError(f"{path} cannot be read as word vectors ({error}); {ENCODERS}") from None
    fit = vocabulary.dtype.kind == "U" and vocabulary.ndim == 1 and vectors.ndim == 2
    fit = fit and len(vectors) == len(vocabulary) > 0 and np.issubdtype(vectors.dtype, np.floating)
    if not fit or not np.isfinite(vectors).all():
        arrays = f"words {vocabulary.dtype} {vocabulary.shape} and vectors {vectors.dtype} {vectors.shape}"
        raise DataError(f"{path} has {arrays}; {ENCODERS}: words of text, vectors finite and as many")
    places = {str(word).lower(): i for i, word in reversed(list(enumerate(vocabulary)))}  # of two spellings, the first
    return WordVectors(path, file_sha256(path), places, vectors.astype(np.float32))
