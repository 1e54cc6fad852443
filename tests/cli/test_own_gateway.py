"""`sluice calibrate` without a gateway that runs: it starts one over a folder of models, and stops it again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import proxy_bypass

import keras
import numpy as np
import pytest
from keras import layers

from sluice.cli.embedded import embedded
from sluice.cli.errors import CommandError
from sluice.cli.own_gateway import own_gateway
from sluice.export import Classes, Detector, export_recognizer
from sluice.policy.calibration_document import parse_calibration
from tests.cli.conftest import told
from tests.end_to_end.serving import alive, eventually
from tests.policy.recognizers import recognition_document

CENTRES = np.array([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]], np.float32)


def network(name: str, classes: int) -> keras.Model:
    """Its logits are the products with the classes' centres."""
    inputs = keras.Input((2, 2), name="picture")
    logits = layers.Dense(classes, name="logits")
    model = keras.Model(inputs, logits(layers.Flatten(name="flat")(inputs)), name=name)
    logits.set_weights([CENTRES[:classes].T, np.zeros(classes, np.float32)])
    return model


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).normal(size=(count, 4))
    return (CENTRES[labels] + noise).astype(np.float32).reshape(-1, 2, 2), labels


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 2 of `animals`, the detector `front` that it names, and a model that cannot be served."""
    folder = tmp_path_factory.mktemp("models")
    pictures, labels = rows(60)
    for name, classes, places in (
        ("animals", Classes(("cat", "dog", "owl"), detector=Detector("front")), labels),
        ("front", Classes(("known", "unknown")), labels % 2),
    ):
        export_recognizer(
            network(name, len(classes.names)), "flat", (pictures, places), folder / name / "2", classes=classes,
            methods=["knn"] if name == "animals" else (),
        )  # fmt: skip
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "known.npz"
    pictures, labels = rows(300)
    np.savez(file, picture=pictures, label=labels)
    return file


def test_a_model_of_a_folder_is_calibrated_with_its_detector_whatever_else_lies_there(
    models: Path, known: Path, tmp_path: Path
) -> None:
    out = tmp_path / "calibrations"
    result = told("calibrate", "animals", "--known", known, "--models", models, "--calibrations", out)
    assert result.code == 0, result.error
    assert f"Starting a gateway and a model server for animals and front, from {models}" in result.reason
    assert "animals version 2: 300 known rows" in result.text
    made = parse_calibration(json.loads((out / "animals-2.json").read_text()))
    assert {"knn", "detector"} <= made.methods.keys()
    logits = rows(300)[0].reshape(-1, 4) @ CENTRES.T
    assert made.methods["max_logit"].scores == pytest.approx(np.sort(-logits.max(axis=1)), abs=1e-4)


def test_a_model_that_is_not_there_is_named_with_those_that_are(models: Path, known: Path, tmp_path: Path) -> None:
    absent = told("calibrate", "plants", "--known", known, "--models", models)
    assert absent.code == 1
    assert f"expected a model of this name in {models}; there are animals, broken, front. Export it to" in absent.reason
    empty = told("calibrate", "plants", "--known", known, "--models", tmp_path)
    assert (empty.code, "there are no models. Export it to" in empty.reason) == (1, True)
    (tmp_path / "plants.keras").touch()
    bare = told("calibrate", "plants", "--known", known, "--models", tmp_path)
    assert (bare.code, f"plants: {tmp_path}/plants.keras is a Keras file: export it" in bare.reason) == (1, True)
    misspelt = told("calibrate", "plants", "--known", known, "--models", f"{models}s")
    assert (misspelt.code, f"there is no folder {models}s; did you mean {models}?" in misspelt.reason) == (1, True)


def test_a_folder_and_a_gateway_are_not_asked_for_together(models: Path, known: Path) -> None:
    both = told("calibrate", "animals", "--known", known, "--models", models, "--url", "http://127.0.0.1:9")
    assert (both.code, "expected --url or --models, got both" in both.reason) == (2, True)


def test_a_model_may_name_itself_as_its_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.cli.embedded._READY_S", 0.0)  # what is started has nothing that can be served
    own = recognition_document(2, classes=["known", "unknown"], detector={"model": "guard", "known": 0})
    (tmp_path / "guard" / "1" / "assets.extra").mkdir(parents=True)
    (tmp_path / "guard" / "1" / "assets.extra" / "contract.json").write_text(json.dumps(own))
    with pytest.raises(CommandError, match="guard: the gateway "), own_gateway("calibrate", "guard", tmp_path):
        pass


def test_ones_own_gateway_is_not_asked_through_a_proxy(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for before in (None, "example.org"):
        if before:
            monkeypatch.setenv("no_proxy", before)
        else:
            monkeypatch.delenv("no_proxy", raising=False)
        with embedded(models, tmp_path / "serve.log", "--no-such-setting") as gateway:
            assert proxy_bypass(gateway.http.removeprefix("http://"))
            assert proxy_bypass("example.org") == bool(before)
        assert os.environ.get("no_proxy") == before


def test_a_gateway_that_ends_before_it_is_ready_is_not_waited_for(models: Path, tmp_path: Path) -> None:
    with (
        embedded(models, tmp_path / "serve.log", "--no-such-setting") as gateway,
        pytest.raises(CommandError, match="the gateway ended with code 2"),
    ):
        gateway.until_ready()
    assert "--no-such-setting" in (tmp_path / "serve.log").read_text()


def test_a_gateway_that_does_not_stop_is_killed_and_its_model_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.cli.embedded._STOP_S", 0.0)
    with embedded(tmp_path, tmp_path / "serve.log") as gateway:
        eventually(lambda: len([*below(gateway.process.pid)]) == 1, 60)
        [model_server] = below(gateway.process.pid)
        gateway.process.send_signal(signal.SIGSTOP)
    assert gateway.process.returncode == -signal.SIGKILL
    eventually(lambda: not alive(model_server), 60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_started_is_stopped_with_the_command(models: Path, known: Path, number: signal.Signals) -> None:
    # Who runs the tests in the background may have SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "sluice.cli", "calibrate", "animals"]
    command += ["--known", str(known), "--calibrations", str(known.parent / "calibrations")]
    process = subprocess.Popen(
        [*command, "--models", str(models)], stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(known.parent)}
    )
    started = set[int]()

    def both_run() -> bool:
        started.update(below(process.pid))
        return len(started) >= 2

    eventually(both_run, 60)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not any(map(alive, started))
    assert not [*known.parent.glob("sluice-*")]


def below(pid: int) -> Iterator[int]:
    """The ids of a process's children and of theirs."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from below(int(child))
