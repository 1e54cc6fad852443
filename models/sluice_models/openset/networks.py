"""Small networks for pictures: a few members that learn side by side, and one network that has them all.

A member's features have length 1, so that directions alone tell classes apart and distances mean the same everywhere.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from sluice_models.fitting import fit
from sluice_models.openset.data import Pictures
from sluice_models.openset.pictures import moved

FEATURES = "features"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is built and trained.

    Attributes:
        filters: of each convolution of 3 by 3; the last ones halve the picture.
        strides: of each.
        units: features of a member.
        members: how many learn side by side.
        scale: the logit of a picture in the very direction of its class.
        epochs: how often each picture is seen.
        batch_size: pictures in a batch.
        learning_rate: at the start; it falls to 0 along a cosine.
        degrees, pixels, stretch: how far a picture is turned, shifted and stretched each time that it is seen.
        noise: standard deviation of what is added to each pixel each time.
        smoothing: of labels.
    """

    filters: tuple[int, ...]
    strides: tuple[int, ...]
    units: int = 48
    members: int = 3
    scale: float = 12.0
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.003
    degrees: float = 10.0
    pixels: float = 0.7
    stretch: float = 0.1
    noise: float = 0.03
    smoothing: float = 0.0


def trained(
    name: str, pictures: Pictures, targets: NDArray[np.generic], outputs: int, recipe: Recipe, seed: int
) -> tuple[keras.Model, float]:
    """A network with logits [batch, outputs], whose layer `FEATURES` gives [batch, members * units], and its seconds.

    Args:
        name: of the model.
        pictures: what to learn.
        targets: int [n], the place of the right logit; or 0s and 1s [n, outputs], each unit's own.
        outputs: how many logits.
        recipe: how.
        seed: of the weights, and of how pictures are moved.
    """
    keras.utils.set_random_seed(seed)
    started = time.monotonic()
    entry = keras.Input(pictures.shape[1:], name="picture")
    members = [_member(i, pictures.shape[1], recipe) for i in range(recipe.members)]
    heads = [layers.Dense(outputs, name=f"head_{i}") for i in range(recipe.members)]
    features = [member(entry) for member in members]
    answers = [head(layers.Rescaling(recipe.scale)(each)) for head, each in zip(heads, features, strict=True)]
    # One output for all: of several, Keras makes metrics while it traces a training step, and has to trace it again.
    learner = keras.Model(entry, keras.ops.stack(answers, axis=1), name=f"{name}_members")
    batches = -(-len(pictures) // recipe.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * batches)
    learner.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01),
        _loss(targets.ndim, recipe.smoothing),
        loss_weights=float(recipe.members),
        jit_compile=False,
    )
    fit(learner, _lessons(pictures, targets, recipe, seed), recipe.epochs, batches, name)
    joined = layers.Concatenate(name=FEATURES)(features) if recipe.members > 1 else features[0]
    logits = layers.Dense(outputs, name="logits")
    model = keras.Model(entry, logits(joined), name=name)
    kernels, biases = zip(*(head.get_weights() for head in heads), strict=True)
    share = recipe.scale / recipe.members
    logits.set_weights([share * np.concatenate(kernels), np.mean(biases, axis=0)])
    return model, time.monotonic() - started


def _member(number: int, size: int, recipe: Recipe) -> keras.Model:
    convolutions = [
        layers.Conv2D(filters, 3, strides=stride, padding="same", activation="relu")
        for filters, stride in zip(recipe.filters, recipe.strides, strict=True)
    ]
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            *convolutions,
            layers.Flatten(),
            layers.Dense(recipe.units),
            layers.UnitNormalization(),
        ],
        name=f"member_{number}",
    )


def _loss(axes: int, smoothing: float) -> keras.losses.Loss:
    if axes == 1:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)


def _lessons(
    pictures: Pictures, targets: NDArray[np.generic], recipe: Recipe, seed: int
) -> Iterator[tuple[Pictures, NDArray[np.generic]]]:
    """Batches without end, in a new order in each epoch, every picture moved; its target is each member's."""
    random = np.random.default_rng(seed)
    targets = np.stack([targets] * recipe.members, axis=1)
    while True:
        order = random.permutation(len(pictures))
        for start in range(0, len(order), recipe.batch_size):
            rows = order[start : start + recipe.batch_size]
            shown = moved(pictures[rows, ..., 0], random, recipe.degrees, recipe.pixels, recipe.stretch)
            shown += random.normal(0, recipe.noise, shown.shape)
            yield np.clip(shown, 0, 1).astype(np.float32)[..., None], targets[rows]
