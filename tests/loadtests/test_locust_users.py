"""Locust's users against a real gateway: each is answered as Keras answers, and none lets a wrong answer pass."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    SLOW,
    STEP,
    STEP_STREAM,
    STEP_WEBSOCKET,
    UPLOAD,
)
from loadtests.traffic.library import LABELLED, file_of
from loadtests.traffic.models import DATES, DIGITS, METHODS, MODELS, TEMPERATURE
from tests.conftest import ROOT

MOST_S = 60
CUT_EVERY = 9  # answers
RIGHT, WRONG, LOST, CUT = "None", "WrongAnswer", "SessionLost: session_closed", "Unreachable: the connection broke"
# What is answered with numbers of Keras; then all else that every run has.
OF_KERAS = (
    GENERATION, LOOK, RECOGNITION, RETURN, ROWS, ROWS_GRPC, SCAN, SEQUENCES, SLOW, STEP, STEP_STREAM, STEP_WEBSOCKET,
)  # fmt: skip
OTHERS = (
    CONNECT_WEBSOCKET, EVALUATE, FORGET, OPEN, OPEN_GRPC, UPLOAD,
    LEAVE_REQUEST, LEAVE_STEP, LEAVE_STREAM, LEAVE_WEBSOCKET,
)  # fmt: skip
LOCUSTFILE = """
import json
from contextlib import suppress
from pathlib import Path
from urllib.request import Request, urlopen

import gevent
from grpc.experimental.gevent import init_gevent
from locust import events

from loadtests.locust import users
from loadtests.locust.users.asking import LoadUser

END_EVERY = 7  # right answers to steps of sessions that are ended meanwhile
here = json.loads(Path({here!r}).read_text())
wanted, told, running, steps = set(map(tuple, here["wanted"])), set(), [], []
LoadUser.grpc = here["grpc"]

def taking_part(name, run, url, traffic):
    class User(getattr(users, name)):
        weight, host, folder = 1, url, Path(traffic)
        think_s = 0.1 if run == "cut" or name == "HangUpUser" else 0.3  # who waits for luck asks more often

        def context(self):
            return dict(run=run, user=self)

    User.__name__ = f"{{run}}{{name}}"
    return User

globals().update((user.__name__, user) for user in (taking_part(*each) for each in here["users"]))

@events.init.add_listener
def begin(environment, **_):
    init_gevent()
    running.append(environment.runner)

@events.request.add_listener
def tell(name, exception, context, **_):
    told.add((context["run"], name, repr(exception)))
    if context["run"] == "cut" and name.startswith("step ") and exception is None:
        steps.append(name)
        if not len(steps) % END_EVERY:
            gevent.spawn(end_session, context["user"]._walk.session)
    if running and wanted <= told:
        gevent.spawn(running.pop().quit)  # not by the user that is quit

def end_session(session):
    with suppress(OSError):
        urlopen(Request(f"{{here['url']}}/v1/sessions/{{session}}", method="DELETE")).close()

@events.user_error.add_listener
def fail(user_instance, exception, **_):
    told.add((user_instance.context()["run"], type(user_instance).__name__, repr(exception)))

@events.quitting.add_listener
def end(**_):
    Path(here["out"]).write_text(json.dumps(sorted(told)))
"""

EVERY = (
    "EvaluationUser", "GenerationUser", "HangUpUser", "RecognitionUser", "RowsGrpcUser", "RowsUser", "SequencesUser",
    "SessionStreamUser", "SessionUser", "SessionWebSocketUser", "SlowUser",
)  # fmt: skip
Told = set[tuple[str, str]]  # scenarios, and what Locust shows of a failure


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
    """What failed in three runs, which one Locust makes at the same time until all that is wanted was told.

    One expects what Keras says, and one does not; in the third connections are cut, and sessions ended.
    """
    out = tmp_path_factory.mktemp("runs")
    wanted = {("right", name, RIGHT) for name in (*OF_KERAS, *OTHERS)} | {("wrong", name, WRONG) for name in OF_KERAS}
    wanted |= {("cut", name, outcome) for name in (STEP, STEP_WEBSOCKET) for outcome in (CUT, LOST)}
    with CuttingProxy(gateway.http) as cutting:
        users = [(name, "right", gateway.http, str(traffic)) for name in EVERY]
        users += [(name, "wrong", gateway.http, str(planted)) for name in EVERY]
        users += [(name, "cut", cutting, str(traffic)) for name in ("SessionUser", "SessionWebSocketUser")]
        here = {"wanted": [*wanted], "users": users, "url": gateway.http, "out": str(out / "told.json")}
        here["grpc"] = gateway.grpc.removeprefix("grpc://")
        (out / "here.json").write_text(json.dumps(here))
        (out / "locustfile.py").write_text(LOCUSTFILE.format(here=str(out / "here.json")))
        command = [sys.executable, "-m", "locust", "-f", str(out / "locustfile.py"), "--headless", "--only-summary"]
        command += ["-u", str(len(users)), "-r", "100", "-t", f"{MOST_S}s"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * MOST_S)
    told = {(run, name, outcome) for run, name, outcome in json.loads((out / "told.json").read_bytes())}
    assert not wanted - told, done.stderr
    return {
        run: {each[1:] for each in told if each[0] == run and each[2] != RIGHT} for run in ("right", "wrong", "cut")
    }


def test_every_user_is_answered_as_keras_answers(failed: Mapping[str, Told]) -> None:
    assert failed["right"] == set()


def test_a_planted_wrong_answer_is_caught_in_every_scenario(failed: Mapping[str, Told]) -> None:
    assert failed["wrong"] == {(name, WRONG) for name in OF_KERAS}


def test_sessions_go_on_through_answers_that_are_lost_and_one_that_ended_is_no_wrong_answer(
    failed: Mapping[str, Told],
) -> None:
    assert {error for _, error in failed["cut"]} == {CUT, LOST}


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
