"""Trains the forecaster with a running state, ten stretches of the series side by side, and exports it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sluice.export import Description, Meaning, export
from sluice_models.fitting import fit
from sluice_models.temperature import data

SEED = 7
STRETCHES = 10
WINDOW_MONTHS = 12
UNITS = 32
EPOCHS = 200
LEARNING_RATE = 0.01

Array = NDArray[np.float32]

DESCRIPTION = Description(
    summary="Next month's sea-surface temperature off Peru, from the months so far (LSTM, one value a month).",
    time="one month",
    tensors={
        "temperature": Meaning(
            meaning="mean sea-surface temperature of the month",
            unit="°C",
            axes={"feature": "the temperature alone"},
            typical=(18.0, 30.0),
        ),
        "forecast": Meaning(
            meaning="mean sea-surface temperature of the next month",
            unit="°C",
            axes={"feature": "the temperature alone"},
        ),
    },
    example=[23.11],
)


def build(out: Path) -> Path:
    """Train the forecaster and export it to OUT/temperature/1, with the Keras file and a report in `assets.extra`."""
    keras.utils.set_random_seed(SEED)
    training, _ = data.split(data.temperatures())
    model = forecaster(mean=float(training.mean()), deviation=float(training.std()))
    seconds = _train(model, training)
    report = _report(model, seconds)
    return export(
        model,
        Path(out) / "temperature" / "1",
        DESCRIPTION,
        {"model.keras": model.save, "report.json": lambda file: file.write_text(json.dumps(report, indent=2) + "\n")},
    )


def forecaster(mean: float, deviation: float) -> keras.Model:
    """The untrained network: °C in, °C out, stateful at a fixed batch size of `STRETCHES`.

    Args:
        mean: of the training temperatures, in °C.
        deviation: their standard deviation, in °C.
    """
    return keras.Sequential(
        [
            keras.Input(batch_shape=(STRETCHES, None, 1), name="temperature"),
            keras.layers.Rescaling(1 / deviation, offset=-mean / deviation, name="standardise"),
            keras.layers.LSTM(UNITS, return_sequences=True, stateful=True, name="lstm"),
            keras.layers.Dense(1, name="dense"),
            keras.layers.Rescaling(deviation, offset=mean, name="forecast"),
        ],
        name="temperature",
    )


def batches(series: Array) -> tuple[Array, Array]:
    """Cut the series into stretches side by side, and these into windows one after another.

    Row i of every batch continues row i of the batch before: the last state of one batch is the first of the next.

    Args:
        series: temperatures in °C, oldest first, [months].
    Returns:
        Inputs and targets (each the month after), [batches * STRETCHES, WINDOW_MONTHS, 1]; the oldest months that do
        not fill a window are left out.
    """
    windows = (len(series) - 1) // (STRETCHES * WINDOW_MONTHS)
    months = windows * STRETCHES * WINDOW_MONTHS
    return _side_by_side(series[-months - 1 : -1], windows), _side_by_side(series[-months:], windows)


def _side_by_side(months: Array, windows: int) -> Array:
    stretches = months.reshape(STRETCHES, windows, WINDOW_MONTHS, 1)
    return stretches.swapaxes(0, 1).reshape(-1, WINDOW_MONTHS, 1)


def _reset(model: keras.Model) -> None:
    model.get_layer("lstm").reset_state()


def _train(model: keras.Model, training: Array) -> float:
    """Train in place; the seconds it took."""
    inputs, targets = batches(training)
    an_epoch = len(inputs) // STRETCHES
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * an_epoch)
    model.compile(keras.optimizers.Adam(rate), loss="mse")
    lessons = _lessons(model, np.split(inputs, an_epoch), np.split(targets, an_epoch))
    return fit(model, lessons, EPOCHS, an_epoch, "temperature")


def _lessons(model: keras.Model, inputs: Sequence[Array], targets: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """Batches without end; each epoch starts at the beginning of the stretches, from zero state."""
    while True:
        _reset(model)
        yield from zip(inputs, targets, strict=True)


def _report(model: keras.Model, seconds: float) -> dict[str, Any]:
    return {
        "held_out_mae_celsius": {
            "model": round(data.held_out_error(_held_out_forecasts(model)), 4),
            "persistence": round(data.held_out_error(data.persistence()), 4),
            "seasonal_naive": round(data.held_out_error(data.seasonal_naive()), 4),
        },
        "held_out": "2001-01 to 2010-12, one month ahead, with the state running since 1950-01",
        "seed": SEED,
        "batch_size": STRETCHES,
        "epochs": EPOCHS,
        "training_seconds": round(seconds, 1),
    }


def _held_out_forecasts(model: keras.Model) -> Array:
    """Run the whole series through the model's fixed batch, the same in every row; the last forecasts, [120] in °C."""
    months = np.repeat(data.temperatures()[np.newaxis, :-1, np.newaxis], STRETCHES, axis=0)
    _reset(model)
    forecasts = keras.ops.convert_to_numpy(model(months, training=False))
    _reset(model)
    return forecasts[0, -data.HELD_OUT_MONTHS :, 0]
