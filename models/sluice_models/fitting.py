"""Trains on batches that Python makes as they are needed."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import keras
import numpy as np

from sluice_models.progress import EpochProgress


def fit(model: keras.Model, batches: Iterator[tuple[Any, ...]], epochs: int, steps: int, name: str) -> float:
    """Train a compiled model in place, showing progress; the seconds it took.

    `Model.fit` hands a generator to tf.data, whose end it awaits for ten seconds now and then, and which has the C
    library give the memory of each step back to the system.

    Args:
        model: compiled, with an optimizer that is not yet built.
        batches: inputs, targets and, if there are any, weights; `epochs * steps` of them are taken.
        epochs: how often progress is shown.
        steps: batches in an epoch.
        name: what is shown as being trained.
    """
    started = time.monotonic()
    model.optimizer.build(model.trainable_variables)  # or the training step is traced a second time
    progress = EpochProgress(name, epochs)
    progress.on_train_begin()
    for epoch in range(epochs):
        losses = [model.train_on_batch(*batch) for batch in islice(batches, steps)]
        progress.on_epoch_end(epoch, {"loss": float(np.mean(losses))})
    progress.on_train_end()
    return time.monotonic() - started
