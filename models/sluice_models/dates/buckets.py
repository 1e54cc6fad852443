"""From texts to padded arrays: which bucket a text is in, and the batches that training takes from the buckets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_models.dates.data import BYTES_LIMIT, Written

BOUNDS = (12, 24, BYTES_LIMIT)  # bytes, inclusive

PAD, START, END = 0, 1, 2
TOKENS = ("", "", "", *"0123456789-")  # the text of each token id
ANSWER_TOKENS = len("YYYY-MM-DD") + 1  # and the end

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Bucket:
    """The texts of one bucket.

    Attributes:
        text: their bytes, 0 beyond their ends, int32 [texts, bound].
        lengths: the number of bytes of each, int32 [texts].
        tokens: start, the ten characters of the ISO date, end, int32 [texts, 1 + ANSWER_TOKENS].
    """

    text: Ids
    lengths: Ids
    tokens: Ids


def buckets(written: Sequence[Written]) -> dict[int, Bucket]:
    """The texts by the smallest bound that they fit, in their order."""
    grouped: dict[int, list[Written]] = {bound: [] for bound in BOUNDS}
    for each in written:
        grouped[bucket_for(len(each.text.encode()))].append(each)
    return {
        bound: Bucket(*padded([each.text for each in group], bound), tokens([each.iso for each in group]))
        for bound, group in grouped.items()
    }


def bucket_for(length: int) -> int:
    """The smallest bound that a text of so many bytes fits."""
    return next(bound for bound in BOUNDS if length <= bound)


def padded(texts: Sequence[str], bound: int) -> tuple[Ids, Ids]:
    """The bytes of texts that fit the bound, int32 [texts, bound], 0 beyond their ends, and how many, int32 [texts]."""
    encoded = [text.encode() for text in texts]
    rows = b"".join(each.ljust(bound, b"\0") for each in encoded)
    ids = np.frombuffer(rows, np.uint8).reshape(len(texts), bound).astype(np.int32)
    return ids, np.array([len(each) for each in encoded], np.int32)


def tokens(dates: Sequence[str]) -> Ids:
    """Start, the characters of each ISO date, end: int32 [dates, 1 + ANSWER_TOKENS]."""
    ids = {text: token for token, text in enumerate(TOKENS)}
    return np.array([[START, *(ids[character] for character in each), END] for each in dates], np.int32)


def iso(answers: Ids) -> list[str]:
    """The text of each row of tokens, int32 [rows, tokens]."""
    return ["".join(TOKENS[token] for token in row) for row in answers]


def batches(filled: Mapping[int, Bucket], rows: int, random: np.random.Generator) -> Iterator[Bucket]:
    """Batches of `rows` texts for ever, each from one bucket, in random order; an incomplete one is left out."""
    while True:
        chosen = [(bound, part) for bound, bucket in filled.items() for part in _parts(len(bucket.text), rows, random)]
        random.shuffle(chosen)
        for bound, part in chosen:
            bucket = filled[bound]
            yield Bucket(bucket.text[part], bucket.lengths[part], bucket.tokens[part])


def _parts(texts: int, rows: int, random: np.random.Generator) -> NDArray[np.int64]:
    return random.permutation(texts)[: texts // rows * rows].reshape(-1, rows)
