"""Which words have a row of the embedding, and what wordfreq's lists say about each row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_models.language.catalogues import LANGUAGES
from sluice_models.language.lookup import ENDING_LETTERS, ENDINGS, ending_buckets

# Lists of words by falling frequency: list i holds those that are 10^(-i/100) of all words of a text.
WordList = Sequence[Sequence[str]]
Facts = NDArray[np.uint8]

# What is taken for the share of a word that a language's list does not hold; the lists end at 1e-6 (or 1e-8).
_UNLISTED = 10**-8.5
_FEWEST_DECADES = 4
_SEEN_BEFORE = 1 / len(LANGUAGES)  # words with each ending that every language is taken to have besides those listed


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The rows of an embedding: one for each word, the most frequent first, then `ENDINGS` for all other words.

    Attributes:
        words: as `lookup.normalised` writes them.
        facts: uint8 [rows, languages]: how probable each language is where this word, or ending, is met and all
            languages are as frequent. 255 is certain, and 0 is 1e-4 or less; between them the scale is logarithmic.
    """

    words: Sequence[str]
    facts: Facts

    @property
    def rows(self) -> int:
        return len(self.facts)


def vocabulary(words: int) -> Vocabulary:
    """The most frequent words of all `LANGUAGES` together: a word counts as in the language where it is most frequent.

    wordfreq's small lists are read, and its large ones if these do not hold enough words.

    Args:
        words: how many; there are 1.1 million in the small lists and 6.6 million in the large ones.

    Raises:
        ValueError: the lists do not hold so many words.
    """
    for size in ("small", "best"):
        lists = _lists(size)
        index = _most_frequent(lists, words)
        if len(index) == words:
            return Vocabulary(list(index), np.concatenate([_word_facts(lists, index), _ending_facts(lists)]))
    raise ValueError(f"expected at most {len(index)} words, which is what wordfreq's lists hold, got {words}")


def _lists(size: str) -> list[WordList]:
    from wordfreq import get_frequency_list

    return [get_frequency_list(language, size) for language in LANGUAGES]


def _most_frequent(lists: Sequence[WordList], words: int) -> dict[str, int]:
    """Word → row, for as many words as are asked for, or as there are."""
    index: dict[str, int] = {}
    for centibels in range(max(map(len, lists))):
        for each in lists:
            for word in each[centibels] if centibels < len(each) else ():
                if len(index) == words:
                    return index
                index.setdefault(word, len(index))
    return index


def _word_facts(lists: Sequence[WordList], index: dict[str, int]) -> Facts:
    shares = np.full((len(index), len(lists)), _UNLISTED, np.float32)
    for language, each in enumerate(lists):
        for centibels, words in enumerate(each):
            shares[[index[word] for word in words if word in index], language] = 10 ** (-centibels / 100)
    return _facts(shares)


def _ending_facts(lists: Sequence[WordList]) -> Facts:
    """From how many of a language's words have an ending, as it is rare words that are looked up by theirs."""
    shares = np.empty((ENDINGS, len(lists)), np.float32)
    for language, each in enumerate(lists):
        endings = Counter(word[-ENDING_LETTERS:] for words in each for word in words)
        counts = np.bincount(ending_buckets(list(endings)), weights=list(endings.values()), minlength=ENDINGS)
        shares[:, language] = (counts + _SEEN_BEFORE) / (endings.total() + ENDINGS * _SEEN_BEFORE)
    return _facts(shares)


def _facts(shares: NDArray[np.float32]) -> Facts:
    """Shares of each language's texts, float32 [rows, languages], to probabilities on the scale of `Vocabulary.facts`.

    It works in place, as there may be gigabytes.
    """
    shares /= shares.sum(axis=1, keepdims=True)
    np.log10(shares, out=shares)
    shares *= 255 / _FEWEST_DECADES
    shares += 255
    np.clip(shares, 0, 255, out=shares)
    return np.rint(shares, out=shares).astype(np.uint8)
