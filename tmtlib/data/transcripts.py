"""P6, words dropped or substituted in transcripts (text family of MultiBench, Liang et al. 2021, NeurIPS Datasets).

Whole words, not MultiBench's typing errors: a misspelt word has no word vector. The label is assumed to stay because
negations are kept (`NEGATIONS`). At least one word of each transcript stays. The same seed chooses the same words for
every model and both kinds, and words chosen at a rate are chosen at every higher rate.
"""

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
    """The words in lower case, without outer punctuation, split at spaces; each Chinese character is a word."""
    return [word for word in map(_bare, TOKEN.findall(text)) if word]


def vocabulary(raw_text: Sequence[str]) -> Counter[str]:
    """Count of each word."""
    return Counter(word for text in raw_text for word in words(text))


def drop_words(
    raw_text: Sequence[str], rate: float, seed: int = 0, keep: Collection[str] = NEGATIONS
) -> tuple[str, ...]:
    """Drops each word outside `keep` (lower case) with probability `rate`, but never all words of a transcript.

    Unchanged transcripts keep their spacing. Raises ValueError for a rate outside [0, 1].
    """
    left = []
    for text, tokens, chosen, draw in _chosen(raw_text, rate, seed, keep):
        if chosen.any() and not any(map(_bare, compress(tokens, ~chosen))):
            chosen[np.where(chosen, draw, -1).argmax()] = False  # the one that would go last stays
        left.append(" ".join(compress(tokens, ~chosen)) if chosen.any() else text)
    return tuple(left)


def substitute_words(
    raw_text: Sequence[str], rate: float, vocabulary: Mapping[str, int], seed: int = 0, keep: Collection = NEGATIONS
) -> tuple[str, ...]:
    """Replaces each word outside `keep`, with probability `rate`, by another of `vocabulary`, drawn by its count.

    Words of `keep` are never drawn. Raises ValueError for a rate outside [0, 1], or fewer than two words to draw from.
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
    """Each transcript, its tokens, which are chosen, and their random numbers (infinity: kept, or no word)."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; wanted 0 to 1")
    rng = np.random.default_rng(seed)
    for text in raw_text:
        tokens = TOKEN.findall(text)
        free = np.array([bool(word) and word not in keep for word in map(_bare, tokens)], bool)
        draw = np.where(free, rng.random(len(tokens)), np.inf)
        yield text, tokens, draw < rate, draw


def _another(ends: np.ndarray, place: int | None, uniform: float) -> int:
    """Index of the word drawn by `uniform` in [0, 1), in proportion to counts, without the word at `place`."""
    start = 0 if place in (None, 0) else ends[place - 1]
    length = 0 if place is None else ends[place] - start
    at = int(uniform * (ends[-1] - length))
    return int(np.searchsorted(ends, at + length * (at >= start), side="right"))


def _bare(token: str) -> str:
    return re.sub(r"^\W+|\W+$", "", token.lower())
