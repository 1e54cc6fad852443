"""Texts as padded arrays, in buckets of like length."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice_models.language.catalogues import LANGUAGES
from sluice_models.language.data import LONGEST_WORDS, Text

# Upper bounds of the number of words, the longest text last; half the texts have no more than two words.
BUCKETS = (4, 8, 16, 32)

Array = NDArray[np.int32]


class Rows(NamedTuple):
    """Texts as a network takes them.

    Attributes:
        rows: rows of the embedding, int32 [texts, LONGEST_WORDS], 0 beyond a text's end.
        lengths: words of each text, int32 [texts].
        languages: index into `LANGUAGES`, int32 [texts].
    """

    rows: Array
    lengths: Array
    languages: Array


def look_up(texts: Sequence[Text], word_rows: Callable[[tf.Tensor], tf.Tensor]) -> Rows:
    """Texts to rows, by the lookup that is served."""
    words = tf.ragged.constant([text.text.split(" ") for text in texts])
    lengths = words.row_lengths().numpy().astype(np.int32)
    rows = words.with_flat_values(word_rows(words.flat_values)).to_tensor(shape=(None, LONGEST_WORDS))
    return Rows(rows.numpy(), lengths, np.array([LANGUAGES.index(text.language) for text in texts], np.int32))


def in_buckets(lengths: Array, size: int, order: Array | None = None) -> Iterator[tuple[int, Array]]:
    """Bucket and indices of at most `size` texts, for all texts; in a bucket they come as in `order`."""
    order = np.arange(len(lengths), dtype=np.int32) if order is None else order
    buckets = np.searchsorted(BUCKETS, lengths[order])
    for i, bound in enumerate(BUCKETS):
        chosen = order[buckets == i]
        yield from ((bound, chosen[start : start + size]) for start in range(0, len(chosen), size))


def batches(texts: Rows, size: int, seed: int) -> tf.data.Dataset:
    """Training batches of at most `size` texts, padded to their bucket's bound.

    Texts and batches come in another order each time the dataset is read; the seed is that of the orders.
    """
    random = np.random.default_rng(seed)
    count = sum(1 for _ in in_buckets(texts.lengths, size))

    def epoch() -> Iterator[Any]:
        order = random.permutation(len(texts.lengths)).astype(np.int32)
        found = list(in_buckets(texts.lengths, size, order))
        for bound, chosen in (found[i] for i in random.permutation(len(found))):
            yield (texts.rows[chosen, :bound], texts.lengths[chosen]), texts.languages[chosen]

    rows, per_text = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=((rows, per_text), per_text))
    return dataset.apply(tf.data.experimental.assert_cardinality(count))
