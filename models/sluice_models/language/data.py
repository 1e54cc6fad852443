"""Short texts in many languages, from Django's catalogues, and the split that never changes."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np

from sluice_models.language.catalogues import clean, messages

SPLITS = ("training", "validation", "held_out")
SEED = 7
LONGEST_WORDS = 32
SENTENCE_WORDS = 4

_VALIDATION_PERCENT, _HELD_OUT_PERCENT = 10, 20
# What is joined to texts that change their language: pieces that tell which language they are in, and fit in together.
_PIECE_WORDS = range(3, LONGEST_WORDS // 2 + 1)


@dataclass(frozen=True, slots=True)
class Text:
    """A message in one language, or two messages one after the other.

    Attributes:
        text: words with single spaces between them, `LONGEST_WORDS` at most.
        language: one of `LANGUAGES`; the one that the text ends in, where it changes its language.
        begins: the language that it begins in.
        split: one of `SPLITS`.
    """

    text: str
    language: str
    begins: str
    split: str

    @property
    def words(self) -> int:
        return self.text.count(" ") + 1


def texts() -> list[Text]:
    """The different texts of all messages, in a fixed order.

    A message is in the same part of the split in every language, together with those like it. Left out are texts that
    are the same in two languages, as no answer to them is right; that two parts of the split have in common; and that
    are longer than `LONGEST_WORDS`.
    """
    known = [message for message in messages() if message.text]
    parts = _parts(sorted({message.id for message in known}))
    places = defaultdict(set)
    for message in known:
        places[message.text].add((message.language, parts[message.id]))
    found = []
    for text in sorted(places):
        (language, part), *others = places[text]
        if not others:
            found.append(Text(text, language, language, part))
    return [text for text in found if text.words <= LONGEST_WORDS]


def switching(texts: Sequence[Text], count: int, seed: int = SEED) -> list[Text]:
    """Texts that change their language: two texts, of two languages, drawn and joined in both orders.

    Of the two orders of the same words no bag of words can be right about more than one.

    Args:
        texts: those to draw from, all of one part of the split.
        count: how many to make, an even number.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    pieces = [text for text in texts if text.words in _PIECE_WORDS]
    made: list[Text] = []
    while len(made) < count:
        one, other = (pieces[i] for i in random.integers(len(pieces), size=2))
        if one.language != other.language:
            made += [_joined(one, other), _joined(other, one)]
    return made


def _joined(first: Text, last: Text) -> Text:
    return Text(f"{first.text} {last.text}", last.language, first.language, last.split)


def shuffled(texts: Iterable[Text], seed: int = SEED) -> list[Text]:
    """The same texts with their words in another order."""
    random = np.random.default_rng(seed)
    return [
        Text(" ".join(random.permutation(text.text.split(" "))), text.language, text.begins, text.split)
        for text in texts
    ]


def write_csv(out: Path) -> Path:
    """Write the texts to OUT/language.csv: text, language, and which part of the split it is in."""
    file = Path(out) / "language.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "language", "split"])
        rows.writerows([text.text, text.language, text.split] for text in texts())
    return file


def _parts(ids: Sequence[str]) -> dict[str, str]:
    """The part of the split of each message: by a hash of the first of the messages that are alike."""
    return {id: _part(first) for id, first in _alike(ids).items()}


def _part(id: str) -> str:
    percent = int.from_bytes(sha256(id.encode()).digest()[:4]) % 100
    if percent < _HELD_OUT_PERCENT:
        return "held_out"
    return "validation" if percent < _HELD_OUT_PERCENT + _VALIDATION_PERCENT else "training"


def _alike(ids: Sequence[str]) -> dict[str, str]:
    """For each message the first of its group: two whose English shares more than half its words are in one group."""
    words = {id: frozenset(re.findall(r"\w+", clean(id).lower())) for id in ids}
    first = {id: id for id in ids}

    def root(id: str) -> str:
        while first[id] != id:
            id = first[id]
        return id

    for one, other in combinations(ids, 2):
        if 2 * len(words[one] & words[other]) > len(words[one] | words[other]):
            earlier, later = sorted((root(one), root(other)))
            first[later] = earlier
    return {id: root(id) for id in ids}
