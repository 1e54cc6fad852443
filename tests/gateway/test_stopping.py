"""A gateway, and a model server alone, that are told to stop: at each stage, whoever reads what they say."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from sluice.gateway.app import create_app
from sluice.gateway.server import Server, server_config
from sluice.gateway.settings import Settings
from tests.end_to_end.serving import alive, eventually, finding
from tests.gateway.here import PATIENCE_S, Gate
from tests.gateway.test_process import serving

# Stands in for a module whose import takes its time.
BLOCKS = "import pathlib, threading\npathlib.Path(__file__).with_suffix('.importing').touch()\nthreading.Event().wait()"
SIGNALS = pytest.mark.parametrize("number", [SIGTERM, SIGINT])
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m COMMAND`, up to where it, or its model server, imports `blocks`, and stands still there."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, blocks: str = "tensorflow", stderr: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
        module = tmp_path / f"{blocks}.py"
        module.write_text(BLOCKS)
        process = subprocess.Popen(
            # Who runs the tests in the background may have these ignored, and children inherit that.
            ["env", "--default-signal=INT,HUP", sys.executable, "-m", *command],
            stdin=subprocess.PIPE, stderr=stderr, env={**finding(tmp_path), "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        started.append(process)
        eventually(module.with_suffix(".importing").exists, PATIENCE_S)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def serve(models: Path) -> list[str]:
    return ["sluice.cli", "serve", "--models", str(models), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]


def end(process: "subprocess.Popen[bytes]", number: int) -> tuple[int, str]:
    """Tell it to stop: its exit code, and what it still said."""
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, (said or b"").decode()


def left(folder: Path) -> list[Path]:
    return [*folder.glob("sluice-*")]


@SIGNALS
@pytest.mark.parametrize("server", [["sluice.cli", "model-server"], ["sluice.model_server"], ["sluice.cli", "serve"]])
def test_a_server_that_is_being_imported_ends_at_once_without_a_word(
    start: Start, tmp_path: Path, server: list[str], number: signal.Signals
) -> None:
    process = start(*server, "--models", str(tmp_path), blocks="pydantic")
    assert end(process, number) == (128 + number, "")


@SIGNALS
def test_a_gateway_whose_model_server_is_starting_ends_at_once_and_takes_it_along(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(*serve(tmp_path))
    [child] = children(process.pid)
    code, said = end(process, number)
    assert (code, alive(child), left(tmp_path)) == (0, False, [])
    assert [line.split()[1] for line in said.splitlines()] == ["[info"] * 4
    assert "the embedded model server is starting" in said
    assert f"signal={number.name}" in said


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP])
def test_a_model_server_that_imports_tensorflow_ends_at_once(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("sluice.model_server", "--models", str(tmp_path), "--port=0", f"--grpc_socket_path={tmp_path}/s")
    assert end(process, number) == (0, "")


def test_a_killed_gateway_takes_along_a_model_server_that_is_starting(start: Start, tmp_path: Path) -> None:
    process = start(*serve(tmp_path))
    [child] = children(process.pid)
    process.kill()
    eventually(lambda: not alive(child), PATIENCE_S)


@pytest.mark.parametrize(("opened", "number"), [(os.pipe, SIGTERM), (os.pipe, SIGINT), (os.openpty, SIGTERM)])
def test_a_start_whose_output_nobody_reads_can_be_stopped(
    start: Start, tmp_path: Path, opened: Callable[[], tuple[int, int]], number: signal.Signals
) -> None:
    reading, writing = opened()
    os.close(reading)
    process = start(*serve(tmp_path), stderr=writing)  # it has logged in vain that it listens, and started a child
    os.close(writing)
    [child] = children(process.pid)
    assert end(process, number)[0] == 0
    assert (alive(child), left(tmp_path)) == (False, [])


async def test_a_gateway_that_serves_goes_on_when_nobody_reads_its_log_any_more_and_can_be_stopped(puppet):
    async with serving(puppet.address, "--poll-s=0.02") as served:
        adder = await served.open()
        served.process._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined]
        puppet.versions["plain"] = [1, 2]
        listing = "/v1/models/plain/metadata"
        assert (await served.http.get(listing)).status_code == 200  # which has it look at the model, and log
        await adder.goes_on()
        served.process.send_signal(SIGTERM)
        assert await asyncio.wait_for(served.process.wait(), PATIENCE_S) == 0


async def test_a_second_signal_ends_a_gateway_that_waits_for_requests(puppet):
    async with serving(puppet.address, "--drain-s=600") as served:
        adder = await served.open()
        Gate(puppet)
        running = asyncio.create_task(adder.step())
        await puppet.until_running(1)
        served.process.send_signal(SIGTERM)
        said = ""
        while "stopping" not in said:
            said = (await served.process.stderr.readline()).decode()
        assert "requests that run, 600 s at most; a second signal ends it at once" in said
        served.process.send_signal(SIGINT)
        assert await served.end() == (0, "")
        await asyncio.gather(running, return_exceptions=True)


async def test_a_request_that_never_comes_in_whole_is_refused_by_a_gateway_that_stops(puppet, monkeypatch):
    async with serving(puppet.address) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.http.base_url.port)
        head = (
            b"POST /v1/models/sum/sessions HTTP/1.1\r\nhost: here\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
        )
        writer.write(head)
        assert b"100" in await reader.readuntil(b"\r\n\r\n")  # so it waits for the body
        served.process.send_signal(SIGTERM)
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"draining" in answer
        code, said = await served.end()
        assert (code, "Traceback" in said) == (0, False)
        for line in said.splitlines():
            assert re.match(r"\d\d:\d\d:\d\d \[", line), "libraries log in between"
        assert "[uvicorn.error]" in said
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_gateway_that_is_told_to_stop_before_it_has_started_stops_when_it_has(puppet):
    settings = Settings(backend=puppet.address, grpc="127.0.0.1:0")
    app = create_app(settings)
    server = Server(server_config(app, settings), app, settings.drain_s)
    server.handle_exit(SIGTERM, None)
    from sluice.listener import listen

    await asyncio.wait_for(server.serve([listen("127.0.0.1:0", "--http")]), PATIENCE_S)
    assert server.started
    assert app.state.gateway.draining
    assert not server.lifespan.error_occurred


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
