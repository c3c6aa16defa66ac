"""Corruptions of transcripts that leave the label as it is (P6: words dropped or substituted), and what a word is.

P6 is the text family of MultiBench (Liang et al. 2021, NeurIPS Datasets and Benchmarks), a word at a time: MultiBench's
own noise is typing errors, which transcripts do not have, and a misspelt word is no word to word vectors.

The label is taken to hold where no negation is lost, added or replaced (`NEGATIONS`; any other set can be given): a
lost "not" says the opposite, a lost "good" says less. At least one word of each transcript stays. The same seed
chooses the same words for every model and for both kinds, and what is chosen at a rate is chosen at every higher one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import compress

import numpy as np

AUXILIARIES = "ai are ca could did do does had has have is might must need should was were wo would".split()
NEGATIONS = frozenset(
    [*"no not nor none never neither nobody nothing nowhere cannot without hardly barely".split()]
    + [verb + end for verb in AUXILIARIES for end in ("n't", "n’t", "nt")]  # transcripts often lack apostrophes
    + list("不没無无非别未莫勿否")
)
CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
TOKEN = re.compile(rf"[{CHINESE}]|[^\s{CHINESE}]+")


def words(text: str) -> list[str]:
    """The words of a transcript in lower case, without punctuation at their ends.

    Words are what stands between spaces; Chinese, written without any, is split by characters.
    """
    return [word for word in map(_bare, TOKEN.findall(text)) if word]


def vocabulary(raw_text: Sequence[str]) -> Counter[str]:
    """How often each word is said in some transcripts."""
    return Counter(word for text in raw_text for word in words(text))


def drop_words(
    raw_text: Sequence[str], rate: float, seed: int = 0, keep: Collection[str] = NEGATIONS
) -> tuple[str, ...]:
    """P6: each word that is not in `keep` (lower case) is lost with probability `rate`; the last of a transcript never.

    A transcript that loses nothing is left as it is, another comes back with a space between tokens. Raises ValueError
    for a rate outside [0, 1].
    """
    left = []
    for text, tokens, chosen, draw in _chosen(raw_text, rate, seed, keep):
        if chosen.any() and not any(map(_bare, compress(tokens, ~chosen))):
            chosen[np.where(chosen, draw, -1).argmax()] = False  # the one that would go last stays
        left.append(" ".join(compress(tokens, ~chosen)) if chosen.any() else text)
    return tuple(left)


def substitute_words(
    raw_text: Sequence[str],
    rate: float,
    vocabulary: Mapping[str, int],
    seed: int = 0,
    keep: Collection[str] = NEGATIONS,
) -> tuple[str, ...]:
    """P6: each word that is not in `keep` becomes, with probability `rate`, another of `vocabulary`.

    A word is drawn by how often `vocabulary` says that it is said, never the one that it replaces, and never one of
    `keep`. Other arguments as `drop_words`. Raises ValueError for a rate outside [0, 1], or fewer than two such words.
    """
    others = sorted(word for word, count in vocabulary.items() if count > 0 and word not in keep)
    if len(others) < 2:
        raise ValueError(f"the vocabulary has {len(others)} words to draw from; wanted two or more")
    ends = np.cumsum([vocabulary[word] for word in others])
    place = {word: i for i, word in enumerate(others)}
    rng = np.random.default_rng([seed, 1])
    replaced = []
    for text, tokens, chosen, draw in _chosen(raw_text, rate, seed, keep):
        uniform = rng.random(len(draw))
        for i in np.flatnonzero(chosen):
            tokens[i] = others[_another(ends, place.get(_bare(tokens[i])), uniform[i])]
        replaced.append(" ".join(tokens) if chosen.any() else text)
    return tuple(replaced)


def _chosen(
    raw_text: Sequence[str], rate: float, seed: int, keep: Collection[str]
) -> Iterator[tuple[str, list[str], np.ndarray, np.ndarray]]:
    """Each transcript, its tokens, which of them are chosen, and the number drawn for each: infinity for what is kept
    or no word."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; wanted 0 to 1")
    rng = np.random.default_rng(seed)
    for text in raw_text:
        tokens = TOKEN.findall(text)
        free = np.array([bool(word) and word not in keep for word in map(_bare, tokens)], bool)
        draw = np.where(free, rng.random(len(tokens)), np.inf)
        yield text, tokens, draw < rate, draw


def _another(ends: np.ndarray, place: int | None, uniform: float) -> int:
    """The word at a uniform number when all but that at `place` are laid end to end, each as long as it is frequent."""
    start = 0 if place in (None, 0) else ends[place - 1]
    length = 0 if place is None else ends[place] - start
    at = int(uniform * (ends[-1] - length))
    return int(np.searchsorted(ends, at + length if length and at >= start else at, side="right"))


def _bare(token: str) -> str:
    return re.sub(r"^\W+|\W+$", "", token.lower())
