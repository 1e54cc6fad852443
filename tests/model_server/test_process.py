"""The server as a process: how it starts, ends, and refuses to start."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from services.model_server.main import main
from tests.model_server import zoo
from tests.model_server.conftest import PATIENCE_S, Server, free_port, refused, request, start

ENDLESS = np.array([10**15])


@pytest.fixture(scope="module")
def spinner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of one model, whose calls last as long as one likes."""
    return zoo.save(tmp_path_factory.mktemp("spinner") / "1", zoo.spinner).parent


@pytest.fixture
def servers(spinner: Path, tmp_path: Path) -> Iterator[list[Server]]:
    """Starts another server on the same socket path with every `servers.append`; all are ended."""
    started: list[Server] = []
    yield started
    for each in started:
        each.close()


def serve(servers: list[Server], spinner: Path, folder: Path, *flags: str) -> Server:
    servers.append(Server(folder, "--model_name=spin", f"--model_base_path={spinner}", *flags))
    return servers[-1]


def turns_of_a_second(server: Server) -> int:
    """So many turns that a call lasts about a second: a call with a deadline tells how fast the machine is."""
    turns = 10_000
    while True:
        try:
            server.client.predictions.Predict(request("spin", turns=np.array([turns])), 0.5)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return turns
        turns *= 2


def test_a_killed_server_starts_again_on_its_socket_and_a_told_one_finishes_what_runs(
    servers: list[Server], spinner: Path, tmp_path: Path
) -> None:
    killed = serve(servers, spinner, tmp_path)
    endless = [killed.client.predictions.Predict.future(request("spin", turns=ENDLESS), PATIENCE_S) for _ in range(4)]
    assert killed.client.state("spin") == {1: ("AVAILABLE", "")}  # long calls do not keep the status waiting
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    assert all(call.code() is grpc.StatusCode.UNAVAILABLE for call in endless)
    assert killed.socket.is_socket()

    told = serve(servers, spinner, tmp_path)
    turns = turns_of_a_second(told)
    running = told.client.predictions.Predict.future(request("spin", turns=np.array([turns])), PATIENCE_S)
    assert told.client.state("spin") == {1: ("AVAILABLE", "")}  # so the call before it is there
    told.process.terminate()
    assert running.result().outputs["y"].tensor_content == turns.to_bytes(8, "little")
    assert told.process.wait(PATIENCE_S) == 0
    with refused("UNAVAILABLE"):
        told.client.predict("spin", turns=np.array([1]))


def test_with_stop_with_parent_the_end_of_input_ends_the_server(
    servers: list[Server], spinner: Path, tmp_path: Path
) -> None:
    child = serve(servers, spinner, tmp_path, "--stop_with_parent")
    child.process.stdin.close()
    child.process.stdin = None
    assert child.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("flag", ["--port", "--rest_api_port"])
def test_a_port_in_use_ends_the_server_with_a_sentence(tmp_path: Path, flag: str) -> None:
    other = {"--port": "--rest_api_port", "--rest_api_port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(f"--models={tmp_path}", f"{flag}={port}", f"{other}={free_port()}")
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_help_lists_the_flags() -> None:
    process = start("--help")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    for flag in ("--port", "--rest_api_port", "--model_name", "--model_base_path", "--models", "--grpc_socket_path"):
        assert flag in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "expected either --models"),
        (["--model_name=one"], "expected either --models"),
        (["--models=a", "--model_name=one", "--model_base_path=b"], "expected either --models"),
        (["--models=a", "--port=70000"], "port"),
        (["--models=a", "--port=http"], "port"),
        (["--models=a", "--port=0", "--rest_api_port=0"], "somewhere to listen"),
        (["--models=a", "--nosuch=1"], "nosuch"),
    ],
)
def test_wrong_flags_are_answered_with_a_sentence(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(flags) == 2
    assert sentence in capsys.readouterr().err


def test_the_environment_does_not_set_flags_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/somewhere")
    process = start()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "Traceback" not in said


def code_of(flags: list[str]) -> int:
    """How `main` ends with these flags, be it by `sys.exit`."""
    try:
        return main(flags)
    except SystemExit as end:
        return int(end.code or 0)
