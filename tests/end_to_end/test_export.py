"""From a Keras file to an answer: `sluice export`, and the lines that it ends with, pasted."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.cli.conftest import Told, told
from tests.export.served import KERAS_ARRAYS, opened, quick_verification

from .serving import Gateway, serving

__all__ = ["opened", "quick_verification"]

pytestmark = pytest.mark.filterwarnings(KERAS_ARRAYS)

ADDRESS = "http://127.0.0.1:8080"  # where `sluice serve` listens unless it is told otherwise
CLASSES = ["--classes", "A,B"]


def session() -> keras.Model:
    entry = keras.Input((None, 2), name="readings")
    return keras.Model(entry, layers.LSTM(3, name="level")(entry))


def both_ways() -> keras.Model:
    entry = keras.Input((None, 2), name="readings")
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(entry)
    return keras.Model(entry, layers.Dense(2, name="level")(hidden))


def table() -> keras.Model:
    age, place = keras.Input((1,), name="age"), keras.Input((), name="place", dtype="int32")
    joined = layers.Concatenate()([age, layers.Embedding(4, 2)(place)])
    return keras.Model([age, place], layers.Dense(1, name="risk")(joined))


def pictures() -> keras.Model:
    """A row of it is too long for a line."""
    return keras.Sequential([keras.Input((12, 12), name="picture"), layers.Flatten(), layers.Dense(2, "softmax")])


MODELS: dict[str, tuple[Callable[[], keras.Model], list[str]]] = {
    "session": (session, []),
    "both ways": (both_ways, []),
    "table": (table, []),
    "pictures": (pictures, CLASSES),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def made() -> dict[str, keras.Model]:
    keras.utils.set_random_seed(1)
    return {name: build() for name, (build, _) in MODELS.items()}


@pytest.fixture(scope="module")
def said(folder: Path, made: dict[str, keras.Model], quick_verification: None) -> dict[str, Told]:
    """By model, what `sluice export` says, called where the models are to be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {name: exported(name, model, MODELS[name][1]) for name, model in made.items()}


def exported(name: str, model: keras.Model, options: list[str]) -> Told:
    model.save("model.keras")
    done = told("export", "model.keras", "--out", f"served/{name}/1", *options)
    assert (done.code, done.text) == (0, f"served/{name}/1\n"), done.error
    return done


@pytest.fixture(scope="module")
def gateway(folder: Path, said: dict[str, Told], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(folder / "served", tmp_path_factory.mktemp("serving")) as running:
        yield running


def pasted(lines: str, folder: Path, gateway: Gateway) -> list[dict[str, Any]]:
    """What these lines print in a shell, document by document."""
    script = lines.replace(ADDRESS, gateway.url)
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True, check=True)
    decoder, answers, at = json.JSONDecoder(), [], 0
    while at < len(done.stdout.rstrip()):
        answer, at = decoder.raw_decode(done.stdout, at)
        answers.append(answer)
    return answers


@pytest.mark.parametrize("name", MODELS)
def test_the_lines_that_an_export_ends_with_work_when_they_are_pasted(
    name: str, said: dict[str, Told], folder: Path, gateway: Gateway
) -> None:
    serve, *ask = [line for line in said[name].error.splitlines() if line.startswith("    ")]
    assert serve.strip() == "sluice serve --models served"
    lines = "\n".join(line for line in ask if "sluice calibrate" not in line)
    for _ in range(2):  # again, as people do
        *_, answer = pasted(lines, folder, gateway)
        assert answer.keys() & {"predictions", "outputs"}, answer


def test_a_recognizer_is_told_to_be_calibrated(said: dict[str, Told]) -> None:
    assert said["pictures"].error.endswith("    sluice calibrate pictures --known DATA --models served\n")


def test_rows_of_any_lengths_in_one_request_get_what_keras_predicts_for_each_alone(
    gateway: Gateway, made: dict[str, keras.Model]
) -> None:
    random = np.random.default_rng(2)
    rows = [random.normal(size=(length, 2)).astype("f4") for length in (5, 1, 12, 5, 3)]
    reply = gateway.call("POST", "/v1/models/both%20ways:predict", {"instances": [row.tolist() for row in rows]})
    assert reply.status == 200, reply.body
    for answer, row in zip(reply.body["predictions"], rows, strict=True):
        expected = made["both ways"].predict(row[np.newaxis], verbose=0)[0]
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_steps_opens_no_session(gateway: Gateway) -> None:
    reply = gateway.call("POST", "/v1/models/both%20ways/sessions", {})
    assert (reply.status, reply.headers["sluice-code"]) == (400, "unsupported_by_model")
