"""The bench's own load generators, against servers of the libraries that they do without."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
import websockets

from loadtests.bench.loads import grpc_stream as grpc_load
from loadtests.bench.loads import grpc_unary as unary_load
from loadtests.bench.loads import predict as predict_load
from loadtests.bench.loads import websocket as websocket_load
from loadtests.bench.servers import grpc_echo
from loadtests.bench.workloads.steps import predict_request
from loadtests.processes import ROOT
from sluice.wire.messages.v1 import sessions_pb2 as messages

SHORT_S = 0.1


class Sessions(grpc.GenericRpcHandler):
    """Answers every message of a stream with its tag and, as a gateway does, an output as large as its input."""

    def __init__(self, refusal: str = "") -> None:
        self.rows: list[int] = []
        self._refusal = refusal

    def service(self, details):
        if details.method != "/sluice.v1.Sessions/Stream":
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream, messages.StepManyRequest.FromString, messages.StepManyResponse.SerializeToString
        )

    async def _stream(self, requests, context) -> AsyncIterator[messages.StepManyResponse]:
        async for request in requests:
            self.rows.append(len(request.sessions))
            if self._refusal:
                yield messages.StepManyResponse(tag=request.tag, error=messages.Error(code=self._refusal))
            yield messages.StepManyResponse(tag=request.tag, outputs=request.inputs, steps=[1] * self.rows[-1])


async def stream(sessions: Sessions, rows: int, outstanding: int):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([sessions])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await grpc_load.run(f"127.0.0.1:{port}", rows, outstanding, SHORT_S)
    finally:
        await server.stop(None)


@pytest.mark.parametrize(("rows", "outstanding"), [(1, 128), (128, 4), (1024, 8)])
async def test_messages_go_round_on_one_grpc_stream(rows: int, outstanding: int) -> None:
    sessions = Sessions()
    measured = await stream(sessions, rows, outstanding)
    assert set(sessions.rows) == {rows}
    assert 0 < measured.answers <= len(sessions.rows)
    assert measured.p50_ms <= measured.p99_ms


async def test_a_refused_message_ends_the_grpc_load_with_its_reason() -> None:
    with pytest.raises(grpc_load.Refused, match="session_not_found"):
        await stream(Sessions("session_not_found"), 1, 4)


async def test_a_server_without_the_stream_ends_the_grpc_load() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ConnectionError, match="the server ended the stream"):
        await grpc_load.run(f"127.0.0.1:{port}", 1, 1, SHORT_S)
    await server.stop(None)


class Predictions(grpc_echo.Echo):
    """The bench's echo, which notes what it was asked."""

    def __init__(self, status: grpc.StatusCode | None = None) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self._status = status

    def service(self, details):
        async def answer(message: bytes, context) -> bytes:
            self.asked.append((details.method, message))
            if self._status is not None:
                await context.abort(self._status, "so the test wants it")
            return message

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def served(handler: grpc.GenericRpcHandler) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_many_predict_calls_are_made_at_once() -> None:
    predictions = Predictions()
    async with served(predictions) as address:
        measured = await unary_load.run(address, 3, 5, SHORT_S)
    assert set(predictions.asked) == {("/tensorflow.serving.PredictionService/Predict", predict_request(1))}
    assert 15 < measured.answers <= len(predictions.asked)


async def test_a_refused_predict_call_ends_the_load() -> None:
    async with served(Predictions(grpc.StatusCode.NOT_FOUND)) as address:
        with pytest.raises(ConnectionError, match="ended a call without an answer"):
            await unary_load.run(address, 1, 2, SHORT_S)


async def test_threads_predict_rows_of_any_size() -> None:
    predictions = Predictions()
    async with served(predictions) as address:
        measured = await asyncio.to_thread(predict_load.run, address, "100000", 2, SHORT_S)
    assert {message for _, message in predictions.asked} == {predict_request(100_000)}
    assert measured.answers > 0


async def test_grpcs_echo_returns_what_it_is_given() -> None:
    async with served(grpc_echo.Echo()) as address, grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/any.Service/Method")(b"bytes") == b"bytes"


@pytest.mark.parametrize("size", [20, 200, 70_000])
async def test_steps_go_round_on_websockets(size: int) -> None:
    answer = '{"outputs":"' + "x" * size + '"}'
    paths, seen = set(), set()

    async def answer_each(socket) -> None:
        paths.add(socket.request.path)
        async for message in socket:
            seen.add(message)
            await socket.send(answer)

    async with websockets.serve(answer_each, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        measured = await websocket_load.run(f"127.0.0.1:{port}", 3, SHORT_S)
    assert paths == {f"/v1/sessions/lstm256-{index}/stream" for index in range(3)}
    assert seen == {websocket_load.STEP_BODY.decode()}
    assert measured.answers > 0


async def test_a_door_that_is_no_websocket_is_told() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nnot here!")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(websocket_load.Refused, match="404 Not Found"):
            await websocket_load.run(f"127.0.0.1:{port}", 2, SHORT_S)


def test_a_case_is_measured_for_real(tmp_path) -> None:
    if shutil.which("wrk") is None:
        assert os.environ.get("CI") != "true", "wrk is missing; make system-packages installs it"
        pytest.skip("wrk is missing; make system-packages installs it")
    command = [
        sys.executable,
        "-m",
        "loadtests.bench",
        "--only=echo-1",
        "--seconds=1",
        "--rounds=1",
        f"--out={tmp_path}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "echo, 1 client" in done.stdout
    (case,) = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert case["failure"] is None
    assert case["median"]["steps_per_s"] > 0
