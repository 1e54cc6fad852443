"""The requests of every scenario and what Keras answers to them, made from the files of `python -m loadtests.traffic`.

Everything is drawn from seeds that stand here, so every run sends the same in the same order. TensorFlow is not needed.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.bench.workloads.lengths import log_normal, whole
from loadtests.processes import python
from loadtests.traffic.checks import Recognizable, check_generated, check_predictions, check_recognized
from loadtests.traffic.evaluations import Evaluated
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.models import CLASSES, DATES, DIGITS, METHODS, MODELS, TEMPERATURE
from loadtests.traffic.steps import Series

FOLDER = Path("var/loadtest/traffic")
SEED = 20
POOL = 512  # requests of a scenario, which are sent in one order again and again
LABELLED = f"{TEMPERATURE}.labelled.npz"
MEDIAN_MONTHS = 20
_ROWS, _SEQUENCES, _PICTURES, _TEXTS = 8, 4, 4, 4  # the most of a request; one in two requests has one
_LEAST_STEPS = 24  # of a session

Array = NDArray[Any]
Arrays = Mapping[str, Array]


class NoTraffic(Exception):
    """What Keras answers is not there, or could not be made; the sentence says what to do."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Pictures of one request, float32 `[rows, 8, 8, 1]`, and Keras' logits of them, float32 `[rows, 7]`."""

    pictures: Array
    logits: Array


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of each scenario what is sent and what is right; empty where the scenario's model was not there.

    Attributes:
        rows, recognition, sequences, generation: whole requests over HTTP.
        blocks: the same as `rows`, as arrays.
        series: what sessions are fed.
        evaluation: an evaluation with all its rows.
    """

    rows: Sequence[Exchange] = ()
    recognition: Sequence[Exchange] = ()
    sequences: Sequence[Exchange] = ()
    generation: Sequence[Exchange] = ()
    blocks: Sequence[Rows] = ()
    series: Sequence[Series] = ()
    evaluation: Evaluated | None = None


def make(models: Path, folder: Path) -> None:
    """Have Keras answer the load where it has not; in a process of its own, as TensorFlow is large.

    Raises:
        NoTraffic: it could not be done; the process has said why.
    """
    command = python("loadtests.traffic", "--models", models, "--out", folder)
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - ourselves
        raise NoTraffic(f"what Keras answers to the load could not be written to {folder}")


def load(folder: Path = FOLDER) -> Traffic:
    """The traffic of all models that `python -m loadtests.traffic` found.

    Raises:
        NoTraffic: there is none in the folder.
    """
    files = {model: file_of(folder, model) for model in MODELS}
    there = {model: _arrays(file) for model, file in files.items() if file.is_file()}
    if not there:
        raise NoTraffic(
            f"expected what Keras answers to the load in {folder}; there is nothing. "
            f"Make it: python -m loadtests.traffic --out {folder}"
        )
    parts: dict[str, Any] = {}
    if arrays := there.get(TEMPERATURE):
        parts |= {
            "sequences": _sequences(arrays),
            "series": _series(arrays),
            "evaluation": _evaluated(arrays, (folder / LABELLED).read_bytes()),
        }
    if arrays := there.get(DIGITS):
        blocks = _blocks(arrays)
        parts |= {"rows": _rows(blocks), "blocks": blocks, "recognition": _recognition(arrays)}
    if arrays := there.get(DATES):
        parts["generation"] = _generation(arrays)
    return Traffic(**parts)


def file_of(folder: Path, model: str) -> Path:
    """Where what Keras says of a model's data is kept."""
    return folder / f"{model}.npz"


def _arrays(file: Path) -> Arrays:
    with np.load(file) as arrays:
        return {**arrays}


def _sequences(arrays: Arrays) -> list[Exchange]:
    """Stretches of the held-out decade, of log-normal lengths."""
    dice, forecasts = _dice("sequences"), arrays["forecasts"]
    most = len(forecasts)
    return [
        _predict(TEMPERATURE, [arrays["months"][cut, np.newaxis] for cut in cuts], answers)
        for count in _counts(dice, _SEQUENCES)
        for cuts in [[*_cuts(dice, whole(log_normal(dice, count, MEDIAN_MONTHS, most), most), most)]]
        for answers in [[forecasts[cut.start, : cut.stop - cut.start, np.newaxis] for cut in cuts]]
    ]


def _series(arrays: Arrays) -> list[Series]:
    dice, forecasts = _dice("series"), arrays["forecasts"]
    most = len(forecasts)
    return [
        Series(
            TEMPERATURE,
            arrays["months"][cut, np.newaxis],
            forecasts[cut.start, : cut.stop - cut.start, np.newaxis],
        )
        for cut in _cuts(dice, dice.integers(_LEAST_STEPS, most + 1, POOL), most)
    ]


def _cuts(dice: np.random.Generator, lengths: Array, most: int) -> Iterator[slice]:
    """Stretches of these lengths, from wherever they begin."""
    for length in lengths.tolist():
        start = int(dice.integers(most - length + 1))
        yield slice(start, start + length)


def _evaluated(arrays: Arrays, rows: bytes) -> Evaluated:
    request = {"model": TEMPERATURE, "task": "forecasting"}
    return Evaluated(LABELLED, rows, request, {name: float(arrays[name]) for name in ("mse", "stateless_mse")})


def _blocks(arrays: Arrays) -> list[Rows]:
    dice = _dice("rows")
    places = [dice.choice(len(arrays["pictures"]), count, replace=False) for count in _counts(dice, _ROWS)]
    return [Rows(arrays["pictures"][chosen], arrays["logits"][chosen]) for chosen in places]


def _rows(blocks: Sequence[Rows]) -> list[Exchange]:
    return [_predict(DIGITS, [*block.pictures], [*block.logits]) for block in blocks]


def _predict(model: str, instances: Sequence[Array], answers: Sequence[Array]) -> Exchange:
    body = _dumps({"instances": instances})
    return Exchange(f"/v1/models/{model}:predict", body, partial(check_predictions, answers))


def _recognition(arrays: Arrays) -> list[Exchange]:
    """As many pictures of digits that it knows as of anything else, each request with a method of its own."""
    dice, exchanges = _dice("recognition"), []
    kinds = np.flatnonzero(arrays["known"]), np.flatnonzero(~arrays["known"])
    for number, count in enumerate(_counts(dice, _PICTURES)):
        chosen = np.array([dice.choice(kinds[dice.integers(2)]) for _ in range(count)])
        method = METHODS[number % len(METHODS)]
        expected = Recognizable(method, arrays["logits"][chosen, : len(CLASSES)], arrays[method][chosen])
        body = _dumps({"instances": [*arrays["pictures"][chosen]], "method": method})
        exchanges.append(Exchange(f"/v1/models/{DIGITS}:recognize", body, partial(check_recognized, expected)))
    return exchanges


def _generation(arrays: Arrays) -> list[Exchange]:
    dice, exchanges = _dice("generation"), []
    texts = arrays["texts"].tolist()
    fields = zip(*(arrays[name].tolist() for name in ("answers", "steps", "ended", "scores")), strict=True)
    results = [
        {"text": text, "steps": steps, "finished": "end" if ended else "length", "score": score}
        for text, steps, ended, score in fields
    ]
    for count in _counts(dice, _TEXTS):
        chosen = dice.choice(len(texts), count, replace=False).tolist()
        body = _dumps({"instances": [texts[place] for place in chosen]})
        check = partial(check_generated, [results[place] for place in chosen])
        exchanges.append(Exchange(f"/v1/models/{DATES}:generate", body, check))
    return exchanges


def _counts(dice: np.random.Generator, most: int) -> list[int]:
    """How many instances each request has: one in every other one, else up to `most`."""
    found: list[int] = np.where(dice.random(POOL) < 0.5, 1, dice.integers(1, most + 1, POOL)).tolist()
    return found


def _dice(scenario: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *scenario.encode()])


def _dumps(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
