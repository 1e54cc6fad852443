"""Trains a CNN on every frame with an LSTM behind it, and exports it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from sluice.export import Description, Meaning, export
from sluice_models.clips import data
from sluice_models.fitting import fit

SEED = 7
UNITS = 64
TRAINING_FRAMES = 8
BATCH_SIZE = 48
EPOCHS = 20
BATCHES_AN_EPOCH = 36
LEARNING_RATE = 0.003
SPREAD_EPOCHS = 10
SINGLE_FRAMES = 4096
SINGLE_FRAME_EPOCHS = 5

DESCRIPTION = Description(
    summary="Which way a shape moves in a clip of 3 to 24 pictures (a CNN on every picture, then an LSTM).",
    time="one picture",
    tensors={
        "frames": Meaning(
            meaning="a picture, red, green and blue from 0 to 1",
            axes={"height": "", "width": "", "channel": ""},
            typical=(0, 1),
        ),
        "probabilities": Meaning(
            meaning="how likely each direction is",
            axes={"direction": ", ".join(data.DIRECTIONS)},
        ),
    },
    buckets={"time": data.LENGTHS},
)


def build(out: Path) -> Path:
    """Train the network and export it to OUT/clips/1, with the Keras file and a report in `assets.extra`."""
    keras.utils.set_random_seed(SEED)
    started = time.monotonic()
    model = trained()
    seconds = time.monotonic() - started
    report = _report(model, seconds)
    return export(
        model,
        Path(out) / "clips" / "1",
        DESCRIPTION,
        {"model.keras": model.save, "report.json": lambda file: file.write_text(json.dumps(report, indent=2) + "\n")},
    )


def network(frames: int | None, every_frame: bool) -> keras.Model:
    """The untrained network: clips in, the probability of each direction out.

    Args:
        frames: how many frames a clip has, None for any number.
        every_frame: whether it answers after each frame, [batch, frames, 8], or after the last one, [batch, 8].
    """
    return keras.Sequential(
        [
            keras.Input((frames, data.SIZE, data.SIZE, 3), name="frames"),
            layers.TimeDistributed(eye(), name="eye"),
            layers.LSTM(UNITS, return_sequences=every_frame, name="lstm"),
            layers.Dense(len(data.DIRECTIONS), activation="softmax", name="probabilities"),
        ],
        name="clips",
    )


def eye() -> keras.Model:
    """The CNN: one picture, [32, 32, 3], to 32 numbers. Colours count relative to the picture's own mean."""
    return keras.Sequential(
        [
            keras.Input((data.SIZE, data.SIZE, 3)),
            layers.AveragePooling2D(2),
            layers.LayerNormalization(axis=(1, 2), center=False, scale=False),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
        ],
        name="eye",
    )


def trained() -> keras.Model:
    """A network that takes clips of any length, trained on clips of `TRAINING_FRAMES`.

    The one that is trained answers after every frame, and learns from each of its answers but the first.
    """
    learner = network(TRAINING_FRAMES, every_frame=True)
    batches = EPOCHS * BATCHES_AN_EPOCH
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, batches)
    # Compiling for the processor takes longer than it saves in a training as short as this.
    learner.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", jit_compile=False)
    fit(learner, lessons(batches), EPOCHS, BATCHES_AN_EPOCH, "clips")
    model = network(None, every_frame=False)
    model.set_weights(learner.get_weights())
    return model


def lessons(batches: int) -> Iterator[tuple[data.Frames, data.Labels, data.Frames]]:
    """Batches of new clips, the direction at each frame, and what each answer weighs: the first one nothing.

    The first clips start in the middle of the picture, where a frame alone tells the direction: from these the CNN
    learns where the shape is. Over `SPREAD_EPOCHS` the start spreads over the whole picture, and the position in one
    frame comes to say nothing without the one before.
    """
    weights = np.ones((BATCH_SIZE, TRAINING_FRAMES), np.float32)
    weights[:, 0] = 0
    for i in range(batches):
        spread = min(1.0, i / (SPREAD_EPOCHS * BATCHES_AN_EPOCH))
        clips, directions = data.clips(BATCH_SIZE, TRAINING_FRAMES, (SEED, i), spread)
        yield clips, np.repeat(directions[:, None], TRAINING_FRAMES, axis=1), weights


def accuracy(model: keras.Model, frames: int) -> float:
    """How many of the held-out clips of this length the model names the direction of."""
    clips, directions = data.held_out(frames)
    return _share_right(model(clips, training=False), directions)


def single_frame_accuracy() -> float:
    """The same for the same CNN trained to tell the direction from one frame: there is nothing to be learned."""
    model = keras.Sequential([keras.Input((data.SIZE, data.SIZE, 3)), eye(), layers.Dense(len(data.DIRECTIONS))])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    clips, directions = data.clips(SINGLE_FRAMES, 1, (SEED,))
    model.fit(clips[:, 0], directions, batch_size=BATCH_SIZE, epochs=SINGLE_FRAME_EPOCHS, verbose=0)
    clips, directions = data.held_out(TRAINING_FRAMES)
    pictures = clips.reshape(-1, *clips.shape[2:])
    return _share_right(model(pictures, training=False), np.repeat(directions, TRAINING_FRAMES))


def _share_right(scores: Any, directions: data.Labels) -> float:
    return float(np.mean(keras.ops.convert_to_numpy(scores).argmax(axis=-1) == directions))


def _report(model: keras.Model, seconds: float) -> dict[str, Any]:
    return {
        "held_out_accuracy": {str(frames): round(accuracy(model, frames), 4) for frames in data.LENGTHS},
        "held_out": f"{data.HELD_OUT_CLIPS} clips of each number of frames",
        "chance": 1 / len(data.DIRECTIONS),
        "seed": SEED,
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "training_clips": EPOCHS * BATCHES_AN_EPOCH * BATCH_SIZE,
        "training_seconds": round(seconds, 1),
    }
