"""From words, as clients send them, to rows of the embedding; in the graph, so that it is served as it was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

ENDINGS = 4096
ENDING_LETTERS = 3

# wordfreq's words are case-folded: of the letters that have another form at the end of a word, or none in upper case,
# these occur here: U+0307 is what lower case leaves of the Turkish İ. The last are apostrophes.
_FOLDED = (("i\u0307", "i"), ("ς", "\u03c3"), ("ß", "ss"), ("[\u2019\u02bc]", "'"))
_NOT_OF_THE_WORD = r"^[^\pL\pM\pN]+|[^\pL\pM\pN]+$"
_ELISION = r"^[a-z]{1,2}'(\pL{3,})$"


def normalised(words: tf.Tensor) -> tf.Tensor:
    """Words as the vocabulary has them, strings of any shape: lower case, without what is around them.

    What is around them is punctuation, and an article or pronoun before an apostrophe, as in "l'adresse". Bytes that
    are not UTF-8 become U+FFFD.
    """
    words = tf.strings.lower(words, encoding="utf-8")
    for written, folded in _FOLDED:
        words = tf.strings.regex_replace(words, written, folded)
    words = tf.strings.regex_replace(words, _NOT_OF_THE_WORD, "")
    return tf.strings.regex_replace(words, _ELISION, r"\1")


def ending_buckets(words: Any) -> tf.Tensor:
    """The bucket, int64 below `ENDINGS`, of each word's last three letters."""
    endings = tf.strings.regex_replace(words, rf"^.*(.{{{ENDING_LETTERS}}})$", r"\1")
    return tf.strings.to_hash_bucket_fast(endings, ENDINGS)


class WordRows(keras.layers.Layer):
    """Words, string [batch, word] → rows, int32 [batch, word]: the word's own, or that of its ending.

    Args:
        words: those that have a row of their own, row i for word i. The endings' rows follow.
        file: a file to write them to; it is copied into a SavedModel when one is made.
    """

    def __init__(self, words: Sequence[str], file: Path, **kwargs: Any) -> None:
        super().__init__(dtype="string", trainable=False, **kwargs)
        file.write_text("\n".join(words) + "\n", encoding="utf-8")
        self._words = len(words)
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(file),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                vocab_size=len(words),
            ),
            default_value=-1,
        )

    def call(self, words: tf.Tensor) -> tf.Tensor:
        words = normalised(words)
        own = self._table.lookup(words)
        return tf.cast(tf.where(own < 0, self._words + ending_buckets(words), own), tf.int32)
