"""The server as a process: how it starts, ends, and refuses to start."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

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
    told = f"sluice model-server: cannot start: {flag} {port}: cannot listen on 127.0.0.1:{port}: it is in use by "
    assert said == f"{told}another program. End that one, or choose another port with {flag}\n"


def test_the_environment_does_not_set_flags_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/somewhere")
    process = start()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "Traceback" not in said


def test_a_server_of_one_model_waits_for_it_and_ends_if_it_cannot_be_loaded(tmp_path: Path) -> None:
    flags = ("--file_system_poll_wait_seconds=0.05", "--max_num_load_retries=0", "--port=0")
    process = start(f"--model_base_path={tmp_path / 'm'}", f"--grpc_socket_path={tmp_path / 's'}", *flags)
    told = []
    while "cannot be read" not in "".join(told):  # the folder that is not there
        told.append(process.stderr.readline())
    assert not (tmp_path / "s").exists()
    made = tmp_path / "made" / "1"
    made.mkdir(parents=True)
    (made / "saved_model.pb").write_bytes(b"not a graph")
    made.parent.rename(tmp_path / "m")
    _, rest = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "cannot start" in rest, "Traceback" in rest) == (1, True, False)


def test_a_server_that_waits_for_its_model_can_be_told_to_stop(tmp_path: Path) -> None:
    process = start(f"--model_base_path={tmp_path / 'm'}", f"--grpc_socket_path={tmp_path / 's'}", "--port=0")
    told = process.stderr.readline()
    while "cannot be read" not in told:
        told = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
