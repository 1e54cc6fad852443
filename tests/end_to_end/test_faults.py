"""Bad days: the model server is killed under load, versions change, processes are stopped in every way."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from sluice_models.temperature.data import temperatures
from tests.end_to_end.serving import Gateway, alive, eventually, serving, sluice

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLIENTS, MONTHS = 64, 40
TOLERANCE = 1e-5


@pytest.fixture
def gateway(temperature_dir: Path, tmp_path: Path) -> Iterator[Gateway]:
    with serving(temperature_dir, tmp_path) as running:
        yield running


def test_a_killed_model_server_costs_clear_errors_and_no_state(gateway: Gateway, temperature_dir: Path) -> None:
    series = temperatures()
    forecasts: dict[int, list[float]] = {client: [] for client in range(CLIENTS)}
    refusals: list[tuple[int, str | None]] = []
    half_way, resumed = threading.Barrier(CLIENTS + 1), threading.Event()

    def feed(client: int) -> None:
        """Numbered steps, each sent until it is answered; half-way the model server is killed."""
        gateway.open("temperature", f"c{client}")
        for month in range(MONTHS):
            if month == MONTHS // 2:
                half_way.wait(120)
            body = {"inputs": [float(series[client + month])], "step": month}
            while (reply := gateway.call("POST", f"/v1/sessions/c{client}:step", body)).status != 200:
                refusals.append((reply.status, reply.headers.get("sluice-code")))
                assert gateway.call("GET", f"/v1/sessions/c{client}").body["step"] == month
                resumed.wait(120)
            assert reply.body["step"] == month + 1
            forecasts[client].append(reply.body["outputs"]["forecast"][0])

    threads = [threading.Thread(target=feed, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    victim = gateway.model_server()
    half_way.wait(120)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: gateway.call("GET", "/readyz").status == 503, 30)
    gateway.until_ready()
    resumed.set()
    for thread in threads:
        thread.join(120)

    assert gateway.model_server() != victim
    assert {len(answers) for answers in forecasts.values()} == {MONTHS}
    assert refusals
    assert set(refusals) == {(503, "backend_unavailable")}
    expected = keras_alone(temperature_dir, np.stack([series[c : c + MONTHS] for c in range(CLIENTS)]))
    answered = np.array([forecasts[client] for client in range(CLIENTS)])
    assert np.all(np.abs(answered - expected) <= TOLERANCE * np.maximum(1, np.abs(expected)))


def keras_alone(temperature_dir: Path, rows: np.ndarray) -> np.ndarray:
    """Keras' own trained model at the batch size it was trained with, ten independent rows at a time: [rows, time]."""
    model = keras.models.load_model(temperature_dir / "temperature/1/assets.extra/model.keras", compile=False)
    size = model.input_shape[0]
    padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size, axis=0)])
    outputs = []
    for start in range(0, len(padded), size):
        model.get_layer("lstm").reset_state()
        outputs.append(np.asarray(model(padded[start : start + size, :, np.newaxis], training=False))[..., 0])
    return np.concatenate(outputs)[: len(rows)]


def test_a_start_warns_of_nothing_and_is_ready_once_and_sigterm_takes_the_model_server_along(gateway: Gateway) -> None:
    child = gateway.model_server()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(30) == 0
    assert not alive(child)
    lines = [re.match(r"[\d:]+ \[(\w+) *\] (.*?)  ", line) for line in gateway.log.read_text().splitlines()]
    assert all(lines), gateway.log.read_text()
    levels, events = zip(*(line.groups() for line in lines if line), strict=True)
    assert {*levels} == {"info"}
    assert [event for event in events if "ready" in event] == ["ready"]
    assert events[-1] == "stopping"


def test_a_killed_gateway_leaves_no_model_server_behind(gateway: Gateway) -> None:
    child = gateway.model_server()
    gateway.process.kill()
    gateway.process.wait(30)
    eventually(lambda: not alive(child), 30)


def test_beside_a_broken_model_sessions_of_a_replaced_version_are_told_and_new_ones_open_on_the_new(
    temperature_dir: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(temperature_dir / "temperature", models / "temperature")
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "saved_model.pb").write_bytes(b"cut off")
    with serving(models, tmp_path) as gateway:
        ready = gateway.call("GET", "/readyz")
        assert (ready.status, ready.body["models"]["temperature"]) == (200, ["1"])
        assert ready.body["troubled"]["broken"].startswith("version 1 is END: ")
        gateway.open("temperature", "old")
        assert gateway.call("POST", "/v1/sessions/old:step", {"inputs": [20.0]}).status == 200
        shutil.copytree(models / "temperature" / "1", models / "temperature" / "arriving")
        (models / "temperature" / "arriving").rename(models / "temperature" / "2")
        eventually(lambda: gateway.call("POST", "/v1/sessions/old:step", {"inputs": [20.0]}).status != 200, 60)
        gone = gateway.call("POST", "/v1/sessions/old:step", {"inputs": [20.0]})
        assert (gone.status, gone.body["code"]) == (410, "session_version_gone")
        opened = gateway.call("POST", "/v1/models/temperature/sessions", {"session": "new"})
        assert opened.body["version"] == "2"
        assert gateway.call("POST", "/v1/sessions/new:step", {"inputs": [20.0]}).status == 200


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["--http", "nowhere"], "HOST:PORT"),
        ([], "models"),
        (["--models", "does-not-exist"], "does-not-exist"),
        (["--models", ".", "--config", "no-such-file.yaml"], "no-such-file.yaml"),
    ],
)
def test_wrong_flags_end_with_two_and_a_reason(flags: list[str], named: str) -> None:
    done = sluice("serve", *flags)
    assert done.returncode == 2
    assert named in done.stderr
