"""The network, an LSTM over words and the bag of words it is compared with, and its training."""

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from sluice_models.language.batches import Rows, batches
from sluice_models.language.catalogues import LANGUAGES
from sluice_models.language.embedding import WordVectors
from sluice_models.language.lazy_adam import LazyAdam
from sluice_models.progress import EpochProgress

SEED = 7
DIMENSIONS = 16
UNITS = 64
EPOCHS = 6
BATCH_SIZE = 128
LEARNING_RATE = 0.005


class WithinLength(keras.layers.Layer):
    """Which words are within each text's length: rows [batch, word] and lengths [batch] to bool [batch, word]."""

    def call(self, rows: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        return tf.sequence_mask(lengths, tf.shape(rows)[1])

    def compute_output_shape(self, rows_shape: Any, lengths_shape: Any) -> Any:
        return rows_shape


def classifier(vectors: WordVectors, *, ordered: bool = True) -> keras.Model:
    """The untrained network: rows, int32 [batch, word], and lengths, int32 [batch], to logits [batch, language].

    Args:
        vectors: the embedding.
        ordered: an LSTM reads the words one after another. Otherwise the mean of the words, whatever their order, goes
            through a dense layer of as many units.
    """
    rows = keras.Input([None], dtype="int32", name="rows")
    lengths = keras.Input([], dtype="int32", name="lengths")
    within = WithinLength(name="within_length")(rows, lengths)
    words = keras.layers.LayerNormalization(name="normalise")(vectors(rows))
    if ordered:
        text = keras.layers.LSTM(UNITS, name="lstm")(words, mask=within)
    else:
        mean = keras.layers.GlobalAveragePooling1D(name="mean")(words, mask=within)
        text = keras.layers.Dense(UNITS, "relu", name="hidden")(mean)
    logits = keras.layers.Dense(len(LANGUAGES), name="logits")(text)
    return keras.Model([rows, lengths], logits, name="language")


def train(
    model: keras.Model,
    texts: Rows,
    optimizer: Callable[[Any], keras.Optimizer] = LazyAdam,
    epochs: int = EPOCHS,
) -> float:
    """Train in place; the seconds it took.

    Args:
        model: a `classifier`.
        texts: what to train on.
        optimizer: makes one of a learning rate.
        epochs: how often each text is seen.
    """
    dataset = batches(texts, BATCH_SIZE, SEED)
    prepare(model, optimizer(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(dataset))))
    started = time.monotonic()
    model.fit(dataset, epochs=epochs, shuffle=False, verbose=0, callbacks=[EpochProgress(model.name, epochs)])
    return time.monotonic() - started


def prepare(model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Compile the model for training. A loss or metric that reads the whole embedding has no place here."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
