"""From rows to vectors: a small table that is trained, beside a table of facts that is not."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_CERTAIN = 255  # of a table of uint8


class WordVectors(keras.layers.Layer):
    """Rows, int32 [batch, word] → float32 [batch, word, dimensions + facts].

    Only the rows asked for are read, from both tables, and the gradient of the trained one is as small.

    Args:
        rows: of both tables.
        dimensions: of the trained table; 0 for none.
        facts: the frozen table, uint8 [rows, facts], which is read as numbers from 0 to 1; None for none.
    """

    def __init__(self, rows: int, dimensions: int, facts: NDArray[np.uint8] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows, self._dimensions, self._known = rows, dimensions, facts

    def build(self, input_shape: Any) -> None:
        # Zeros: a word that no training text holds says nothing beyond the facts.
        self._trained = self._frozen = None
        if self._dimensions:
            self._trained = self.add_weight(shape=(self._rows, self._dimensions), initializer="zeros", name="trained")
        if self._known is not None:
            self._frozen = self.add_weight(
                shape=self._known.shape, dtype="uint8", initializer="zeros", trainable=False, name="frozen"
            )
            self._frozen.assign(self._known)

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        # `value` is TensorFlow's variable, of which `gather` reads rows; of a Keras variable it would read the whole.
        vectors = []
        if self._trained is not None:
            vectors.append(tf.gather(self._trained.value, rows))
        if self._frozen is not None:
            vectors.append(tf.cast(tf.gather(self._frozen.value, rows), tf.float32) / _CERTAIN)
        return tf.concat(vectors, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        facts = 0 if self._known is None else self._known.shape[1]
        return (*input_shape, self._dimensions + facts)
