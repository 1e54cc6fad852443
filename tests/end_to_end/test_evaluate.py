"""`sluice evaluate` says what Keras says, at every batch size; and a stateful model's fixed one, from sessions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from sluice_models.train import data
from tests.end_to_end.serving import sluice

BATCH_SIZES = (1, 7, 32, 60)
REQUEST = "temperature.evaluation.json"
STATEFUL_BATCH_SIZE = 10  # with which the model was trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    data("temperature", folder)
    return folder


@pytest.fixture(scope="module")
def report(temperature_dir: Path, folder: Path) -> Any:
    """What the command writes, from a gateway of its own."""
    done = sluice(
        "evaluate", "temperature", "--models", str(temperature_dir), "--data", str(folder / REQUEST),
        "--batch-sizes", ",".join(map(str, BATCH_SIZES)), "--fail-if", "mae > 0.4", "--report", str(folder / "t.json"),
        "--report", str(folder / "t.html"), "--report", str(folder / "t.md"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Batch size is only a knob" in done.stdout
    assert (folder / "t.html").read_text().startswith("<!doctype html>")
    assert (folder / "t.md").read_text().startswith("# temperature version 1: forecasting")
    return json.loads((folder / "t.json").read_text())


@pytest.fixture(scope="module")
def rows(folder: Path) -> tuple[Any, Any]:
    with np.load(folder / "temperature.labelled.npz") as arrays:
        return arrays["temperature"], arrays["label"]


@pytest.fixture(scope="module")
def stateful(temperature_dir: Path) -> Iterator[keras.Model]:
    model = keras.models.load_model(temperature_dir / "temperature" / "1" / "assets.extra" / "model.keras")
    model.compile(loss="mse", metrics=["mae"])
    return model


def without_state(stateful: keras.Model) -> keras.Model:
    """The same layers and weights; each row begins with zeros."""
    inputs = outputs = keras.Input((None, 1))
    for layer in stateful.layers:
        config = layer.get_config()
        again = type(layer).from_config(config | ({"stateful": False} if "stateful" in config else {}))
        outputs = again(outputs)
        again.set_weights(layer.get_weights())
    model = keras.Model(inputs, outputs)
    model.compile(loss="mse", metrics=["mae"])
    return model


def test_sessions_give_what_keras_gives_at_the_one_batch_size_it_takes(report: Any, stateful: Any, rows: Any) -> None:
    mse, mae = stateful.evaluate(*rows, batch_size=STATEFUL_BATCH_SIZE, verbose=0)
    assert report["metrics"]["mse"]["value"] == pytest.approx(mse, rel=1e-5)
    assert report["metrics"]["mae"]["value"] == pytest.approx(mae, rel=1e-5)


def test_rows_by_themselves_give_what_keras_gives_at_every_batch_size(report: Any, stateful: Any, rows: Any) -> None:
    model = without_state(stateful)
    found = {each["batch_size"]: each for each in report["batch_sizes"]}
    assert tuple(found) == BATCH_SIZES
    for size in BATCH_SIZES:
        mse, mae = model.evaluate(*rows, batch_size=size, verbose=0)
        assert found[size]["metrics"]["stateless_mse"] == pytest.approx(mse, rel=1e-5)
        assert found[size]["metrics"]["stateless_mae"] == pytest.approx(mae, rel=1e-5)
        assert found[size]["largest_difference"] <= 1e-5
        assert found[size]["metrics"]["stateless_mse"] == pytest.approx(found[1]["metrics"]["stateless_mse"], rel=1e-5)


def test_a_condition_that_holds_ends_the_command_with_code_1(temperature_dir: Path, folder: Path) -> None:
    done = sluice(
        "evaluate", "temperature", "--models", str(temperature_dir), "--data", str(folder / REQUEST),
        "--batch-sizes", "", "--fail-if", "mae < 0.4",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("sluice: mae < 0.4: mae is 0.356")
