"""The demo, where its gateway does not become ready; and what it leaves to be sent."""

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sluice.cli.demo.command import MODELS
from sluice.cli.demo.recognition import Answer, Row, write
from sluice.cli.example_models import build_missing
from sluice.policy.contract import Axis, Tensor
from sluice.signals import exits_when_told
from sluice.wire.recognition import parse_recognize
from tests.cli.conftest import told
from tests.end_to_end.serving import alive, eventually


def test_a_demo_that_cannot_be_served_says_why_and_where_the_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.cli.embedded._READY_S", 0.0)  # what is started has nothing that can be served
    monkeypatch.setattr("sluice_models.train.is_built", lambda *_: True)  # or it would train them
    for name in MODELS:
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "saved_model.pb").touch()
    out = tmp_path / "demo"
    ended = told("demo", "--models", tmp_path / "models", "--out", out)
    assert ended.code == 3
    assert ended.reason.startswith("sluice: the demo could not be served: the gateway is not ready after 0 s: ")
    assert ended.reason.endswith(f". The log is in {out / 'serve.log'}")


def test_the_pictures_that_it_leaves_are_a_request_to_recognize_them(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).random((3, 4, 4, 1), np.float32)
    row = Row("letters", [Answer("a letter", picture, None, "A", 0.5) for picture in pictures])
    asked = parse_recognize(write(row, tmp_path / "letters.json").read_bytes())
    axes = (Axis("batch"), Axis("height", 4), Axis("width", 4), Axis("channel", 1))
    tensors = asked.rows.tensors({"picture": Tensor("picture", "float32", axes)})
    np.testing.assert_array_equal(tensors["picture"], pictures)
    assert asked.top_k == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_told_to_stop_stops_those_that_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    trains = tmp_path / "trains"  # in Python's place; it never ends by itself
    trains.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec cat {tmp_path}/never\n")
    trains.chmod(0o755)
    os.mkfifo(tmp_path / "never")
    monkeypatch.setattr(sys, "executable", str(trains))
    pid = tmp_path / "pid"

    def stop() -> None:
        try:
            eventually(lambda: pid.is_file() and pid.read_text().endswith("\n"), 60)
        finally:
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with exits_when_told(), pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt):
            build_missing(tmp_path, ["dates"])
    finally:
        signal.signal(signal.SIGINT, before)
        stopper.join()
    assert not alive(int(pid.read_text()))
