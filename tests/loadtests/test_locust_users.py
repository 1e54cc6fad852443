"""Locust's users against a real gateway: each is answered as Keras answers, and none lets a wrong answer pass."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from loadtests.locust.scenarios import (
    CONNECT_WEBSOCKET,
    EVALUATE,
    FORGET,
    GENERATION,
    LEAVE_REQUEST,
    LEAVE_STEP,
    LEAVE_STREAM,
    LEAVE_WEBSOCKET,
    LOOK,
    OPEN,
    OPEN_GRPC,
    RECOGNITION,
    RETURN,
    ROWS,
    ROWS_GRPC,
    SCAN,
    SEQUENCES,
    STEP,
    STEP_STREAM,
    STEP_WEBSOCKET,
    UPLOAD,
)
from loadtests.traffic.library import LABELLED, file_of
from loadtests.traffic.models import DATES, DIGITS, METHODS, MODELS, TEMPERATURE
from tests.conftest import ROOT

USERS, MOST_S = 12, 60
CUT_EVERY = 9  # answers
RIGHT, WRONG, LOST, CUT = "None", "WrongAnswer", "SessionLost: session_closed", "Unreachable: the connection broke"
# What is answered with numbers of Keras; then all else that every run has.
OF_KERAS = (
    GENERATION, LOOK, RECOGNITION, RETURN, ROWS, ROWS_GRPC, SCAN, SEQUENCES, STEP, STEP_STREAM, STEP_WEBSOCKET,
)  # fmt: skip
OTHERS = (
    CONNECT_WEBSOCKET, EVALUATE, FORGET, OPEN, OPEN_GRPC, UPLOAD,
    LEAVE_REQUEST, LEAVE_STEP, LEAVE_STREAM, LEAVE_WEBSOCKET,
)  # fmt: skip
LOCUSTFILE = """
import json
from pathlib import Path

import gevent
from grpc.experimental.gevent import init_gevent
from locust import events

from loadtests.locust.users import *
from loadtests.locust.users.asking import LoadUser

LoadUser.folder, LoadUser.grpc, LoadUser.think_s = Path({folder!r}), {grpc!r}, 0.02
wanted, told, running = set({wanted!r}), set(), []

@events.init.add_listener
def begin(environment, **_):
    init_gevent()
    running.append(environment.runner)

@events.request.add_listener
def tell(name, exception, **_):
    told.add((name, repr(exception)))
    if running and wanted <= told:
        gevent.spawn(running.pop().quit)  # not by the user that is quit

@events.user_error.add_listener
def fail(user_instance, exception, **_):
    told.add((type(user_instance).__name__, repr(exception)))

@events.quitting.add_listener
def end(**_):
    Path({out!r}).write_text(json.dumps(sorted(told)))
"""

Told = set[tuple[str, str]]  # scenarios, and what Locust shows of a failure, or `RIGHT`


class Run:
    """Locust with some users, until all that is wanted was told."""

    def __init__(
        self, out: Path, gateway: tuple[str, str], folder: Path, wanted: Told, users: Sequence[str] = ()
    ) -> None:
        out.mkdir()
        self._told, self._wanted, file = out / "told.json", wanted, out / "locustfile.py"
        (http, grpc), here = gateway, {"folder": str(folder), "out": str(self._told)}
        file.write_text(LOCUSTFILE.format(grpc=grpc.removeprefix("grpc://"), wanted=wanted, **here), encoding="utf-8")
        command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary", "--host", http]
        command += ["-u", str(USERS), "-r", "100", "-t", f"{MOST_S}s", *users]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def goes_on(self) -> bool:
        return self._process.poll() is None

    def failed(self) -> Told:
        """All failures, each once, when it has ended; what was wanted must have been told."""
        said, _ = self._process.communicate(timeout=2 * MOST_S)
        told = {(name, outcome) for name, outcome in json.loads(self._told.read_bytes())}
        missing = self._wanted - told
        assert not missing, said
        return {(name, outcome) for name, outcome in told if outcome != RIGHT}


@pytest.fixture(scope="module")
def planted(traffic: Path, tmp_path_factory) -> Path:
    """The same traffic, with answers that Keras does not give."""
    folder = tmp_path_factory.mktemp("planted")
    wrong = {TEMPERATURE: ("forecasts", "mse"), DIGITS: ("logits", *METHODS), DATES: ("scores",)}
    for model in MODELS:
        with np.load(file_of(traffic, model)) as arrays:
            found = {**arrays}
        np.savez(file_of(folder, model), **found | {name: found[name] + 0.01 for name in wrong[model]})
    (folder / LABELLED).write_bytes((traffic / LABELLED).read_bytes())
    return folder


@pytest.fixture(scope="module")
def failed(gateway: Any, traffic: Path, planted: Path, tmp_path_factory) -> Mapping[str, Told]:
    """What failed in two runs at the same time: one expects what Keras says, and one does not."""
    out, address = tmp_path_factory.mktemp("runs"), (gateway.http, gateway.grpc)
    right = Run(out / "right", address, traffic, {(name, RIGHT) for name in (*OF_KERAS, *OTHERS)})
    wrong = Run(out / "wrong", address, planted, {(name, WRONG) for name in OF_KERAS})
    return {"right": right.failed(), "wrong": wrong.failed()}


def test_every_user_is_answered_as_keras_answers(failed: Mapping[str, Told]) -> None:
    assert failed["right"] == set()


def test_a_planted_wrong_answer_is_caught_in_every_scenario(failed: Mapping[str, Told]) -> None:
    assert failed["wrong"] == {(name, WRONG) for name in OF_KERAS}


def test_sessions_go_on_through_answers_that_are_lost_and_one_that_ended_is_no_wrong_answer(
    gateway: Any, traffic: Path, tmp_path: Path
) -> None:
    wanted = {(STEP, CUT), (STEP, LOST), (STEP_WEBSOCKET, CUT), (STEP_WEBSOCKET, LOST)}
    with CuttingProxy(gateway.http) as url:
        run = Run(tmp_path / "run", (url, gateway.grpc), traffic, wanted, ("SessionUser", "SessionWebSocketUser"))
        with httpx.Client(base_url=gateway.http) as client:
            while run.goes_on():
                _end_sessions(client)
        assert {error for _, error in run.failed()} == {CUT, LOST}


def _end_sessions(client: httpx.Client) -> None:
    """End all sessions, of whomever, that have been stepped."""
    for each in client.get(f"/v1/models/{TEMPERATURE}/sessions", params={"limit": 1000}).json()["sessions"]:
        if each["step"]:
            client.delete(f"/v1/sessions/{each['session']}")


class CuttingProxy:
    """Passes connections on to a gateway, and cuts them at every few answers, which then never come."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._gateway = address.hostname or "", address.port or 80
        self._answers = 0
        self._listening = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                gateway = socket.create_connection(self._gateway)
                for pair in ((client, gateway), (gateway, client)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with source:  # the other way's thread closes the other one
            with suppress(OSError):
                while data := source.recv(65536):
                    if source.getpeername() == self._gateway:
                        self._answers += 1
                        if not self._answers % CUT_EVERY:
                            break
                    target.sendall(data)
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
