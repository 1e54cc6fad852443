"""Keras alone, the judge of the load: what each model says of real data that it has not learned from.

Whatever it says, it says of one series, picture or text by itself, or of several of one length, unpadded.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from loadtests.traffic.models import CLASSES
from sluice.cli.demo.judge import alone
from sluice_models.dates import data as dates_data
from sluice_models.dates.buckets import END, START, TOKENS
from sluice_models.dates.network import MAX_STEPS
from sluice_models.digits import data as digits_data
from sluice_models.temperature import data as temperature_data
from sluice_models.temperature.labelled import STRETCHES, labelled

SEED = 20
TEXTS = 512
CLEAR = 1e-3  # how much likelier, in logits, each token of an answer is than any other: rounding decides nothing

Arrays = Mapping[str, NDArray[Any]]


def temperature(keras_file: Path) -> Arrays:
    """Forecasts of the held-out decade, and how well the rows of an evaluation are forecast.

    Returns:
        months: in °C, float32 [month].
        forecasts: after the months from the first index on, as many as the second says and one more, float32
            [start, month]; NaN where the decade is over.
        mse, stateless_mse: of the rows of `sluice_models.temperature.labelled`, with the state carried from row to row,
            and with each from a state of zeros.
    """
    trained = keras.models.load_model(keras_file, compile=False)
    single = alone(trained)
    _, months = temperature_data.split(temperature_data.temperatures())
    forecasts = np.full((len(months), len(months)), np.nan, np.float32)
    for start in range(len(months)):
        stretch = months[start:]
        forecasts[start, : len(stretch)] = np.asarray(single(stretch[np.newaxis, :, np.newaxis]))[0, :, 0]
    rows = labelled().columns
    inputs, targets = np.asarray(rows["temperature"]), np.asarray(rows["label"])
    trained.compile(loss="mse")
    trained.get_layer("lstm").reset_state()
    carried = trained.evaluate(inputs, targets, batch_size=STRETCHES, verbose=0)
    stateless = np.square(np.concatenate([np.asarray(single(row[np.newaxis])) for row in inputs]) - targets).mean()
    return {
        "months": months,
        "forecasts": forecasts,
        "mse": np.array(carried),
        "stateless_mse": np.array(stateless),
    }


def digits(keras_file: Path) -> Arrays:
    """Logits of the test's pictures, of digits and of what is none of them, and how strange they are by each method.

    Returns:
        pictures: float32 [picture, 8, 8, 1].
        known: whether it shows one of the classes, bool [picture].
        logits: float32 [picture, class and other].
        energy, max_logit, other: larger = stranger, float64 [picture].
    """
    every = digits_data.load()
    assert every.classes == CLASSES
    strange = np.concatenate([every.near, *every.far.values()])
    pictures = np.concatenate([every.test.pictures, strange])
    logits = np.asarray(keras.models.load_model(keras_file, compile=False)(pictures))
    wide = logits.astype(np.float64)
    of_classes = wide[:, : len(CLASSES)]
    return {
        "pictures": pictures,
        "known": np.arange(len(pictures)) < len(every.test.pictures),
        "logits": logits,
        "energy": -np.log(np.exp(of_classes).sum(axis=1)),
        "max_logit": -of_classes.max(axis=1),
        "other": np.exp(wide[:, len(CLASSES)]) / np.exp(wide).sum(axis=1),
    }


def dates(keras_file: Path) -> Arrays:
    """What the likeliest token at each step makes of held-out texts; those where rounding could decide are left out.

    Returns:
        texts: str [text].
        answers: str [text].
        steps: how many tokens, with the end, int64 [text].
        ended: whether the end came before the limit, bool [text].
        scores: log probabilities, float64 [text].
    """
    model = keras.models.load_model(keras_file, compile=False)
    written = dates_data.texts("held_out")
    places = np.random.default_rng(SEED).choice(len(written), TEXTS, replace=False)
    texts = sorted((written[place].text for place in places), key=_size)
    states = [_encoded(model, [*group]) for _, group in groupby(texts, _size)]
    return _decoded(model, texts, [np.concatenate(each) for each in zip(*states, strict=True)])


def _size(text: str) -> int:
    return len(text.encode())


def _encoded(model: keras.Model, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """The decoder's first states, h and c, after texts of one length."""
    rows = np.array([[*text.encode()] for text in texts], np.int32)
    found = model.get_layer("encoder")([rows, np.full(len(rows), rows.shape[1], np.int32)])
    return [np.asarray(state) for state in found]


def _decoded(model: keras.Model, texts: Sequence[str], states: Sequence[NDArray[np.float32]]) -> Arrays:
    decoder, count = model.get_layer("decoder"), len(texts)
    tokens, answers = np.full(count, START, np.int32), [""] * count
    steps, ended, clear = np.zeros(count, np.int64), np.zeros(count, bool), np.ones(count, bool)
    scores = np.zeros(count)
    for _ in range(MAX_STEPS):
        logits, *states = (np.asarray(each) for each in decoder([tokens[:, np.newaxis], *states]))
        wide = logits[:, 0].astype(np.float64)
        tokens = wide.argmax(axis=1).astype(np.int32)
        *_, second, first = np.sort(wide, axis=1).T
        running = ~ended
        clear &= ended | (first - second > CLEAR)
        scores[running] += (first - np.log(np.exp(wide).sum(axis=1)))[running]
        steps[running] += 1
        answers = [
            text + TOKENS[token] * run for text, token, run in zip(answers, tokens, running.tolist(), strict=True)
        ]
        ended |= tokens == END
    found = {
        "texts": np.array(texts), "answers": np.array(answers), "steps": steps, "ended": ended, "scores": scores,
    }  # fmt: skip
    return {name: values[clear] for name, values in found.items()}
