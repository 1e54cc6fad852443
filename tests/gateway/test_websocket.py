"""Steps over a WebSocket: replies in the order of the messages, errors that keep it open, and every way to part."""

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.here import PATIENCE_S, Adder, Gate, Here, eventually, running
from tests.gateway.test_faults import answered


@asynccontextmanager
async def stream(here: Here, id: str, **more: object):
    """A WebSocket for a session."""
    async with connect(f"ws://127.0.0.1:{here.port}/v1/sessions/{id}/stream", proxy=None, **more) as socket:
        yield socket


async def send(socket: ClientConnection, inputs: object, **more: object) -> None:
    await socket.send(json.dumps({"inputs": inputs, **more}))


async def reply(socket: ClientConnection) -> dict[str, object]:
    async with asyncio.timeout(PATIENCE_S):
        message = await socket.recv()
    assert isinstance(message, str)
    return json.loads(message)


async def refused_reply(socket: ClientConnection, code: str) -> dict[str, object]:
    body = await reply(socket)
    assert body.keys() <= {"error", "code", "details"}
    assert body["code"] == code, body
    assert len(body["error"]) > 10
    return body


async def step(socket: ClientConnection, adder: Adder, x: tuple[float, float] = (3, 5), **more: object) -> None:
    """A step is answered, and rightly."""
    await send(socket, x, **more)
    assert await reply(socket) == adder.added(x)


async def waiting(here: Here, adder: Adder, count: int) -> None:
    session = here.gateway.engine.scheduler.sessions.get(adder.id)
    await eventually(lambda: len(session.steps) == count)


async def test_a_socket_steps_its_session(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        assert socket.response.headers["sluice-session"] == adder.id
        for n in range(5):
            await step(socket, adder, (n, 1))
        await adder.goes_on()
        await step(socket, adder)


async def test_replies_come_in_the_order_of_the_messages(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    async with stream(here, adder.id) as socket:
        await send(socket, [1, 1])
        await here.puppet.until_running(1)
        for n in range(1, 6):  # errors are known at once, and wait for their turn all the same
            await send(socket, [n, 2])
            await socket.send("nonsense")
            await send(socket, [1, 2, 3])
        await waiting(here, adder, 6)
        gate.open()
        assert await reply(socket) == adder.added((1, 1))
        for n in range(1, 6):
            assert await reply(socket) == adder.added((n, 2))
            await refused_reply(socket, "bad_request")
            await refused_reply(socket, "shape_mismatch")
        await step(socket, adder)
    await other.goes_on()


MISTAKES = {
    "nonsense": "bad_request",
    "": "bad_request",
    "[]": "bad_request",
    "3": "bad_request",
    "\x00": "bad_request",
    "[" * 100_000: "bad_request",
    '{"inputs": [1, 2], "step": -1}': "bad_request",
    '{"inputs": [1, 2], "outputs": ["nothing"]}': "bad_request",
    '{"inputs": [1, 2], "session": "x"}': "bad_request",
    '{"inputs": [1, 2], "step": 7}': "step_mismatch",
    "{}": "missing_input",
    '{"inputs": {"y": [1, 2]}}': "unknown_input",
    '{"inputs": [1, 2, 3]}': "shape_mismatch",
    '{"inputs": ["a", "b"]}': "dtype_mismatch",
    '{"inputs": [true, 1]}': "dtype_mismatch",
    '{"inputs": [NaN, 1]}': "input_not_finite",
    '{"inputs": []}': "empty_input",
}


@pytest.mark.parametrize(("text", "code"), MISTAKES.items(), ids=lambda each: f"{each[:30]!r}")
async def test_a_mistake_is_told_and_the_socket_stays_open(here, text, code):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        await socket.send(text)
        await refused_reply(socket, code)
        await step(socket, adder)


async def test_a_message_may_be_binary(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        await socket.send(json.dumps({"inputs": [1, 2]}).encode())
        assert await reply(socket) == adder.added((1, 2))
        await socket.send(b"\xff\xfe\0")
        await refused_reply(socket, "bad_request")
        await step(socket, adder)


async def test_a_message_may_come_in_fragments(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        await socket.send(['{"inp', 'uts": [1,', " 2]}"])
        assert await reply(socket) == adder.added((1, 2))


async def test_numbers_and_outputs_are_as_elsewhere(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        await step(socket, adder, (1, 2), step=0)
        ran = len(here.puppet.batches)
        await send(socket, [1, 2], step=0)
        assert (await reply(socket))["step"] == 1
        assert len(here.puppet.batches) == ran
        await send(socket, [1, 2], step=5)
        assert (await refused_reply(socket, "step_mismatch"))["details"] == {"current": 1}
        await send(socket, [1, 2], outputs=["doubled"])
        assert await reply(socket) == {"outputs": {"doubled": adder.added((1, 2))["outputs"]["doubled"]}, "step": 2}


async def test_an_answer_that_is_not_finite_is_null(here):
    adder = await here.open()
    here.puppet.twist = lambda outputs: outputs | {"total": outputs["total"] * float("nan")}
    async with stream(here, adder.id) as socket:
        await send(socket, [1, 2])
        assert (await reply(socket))["outputs"]["total"] == [None, None]


async def test_closing_leaves_the_session_open_and_withdraws_what_is_not_answered(here):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    async with stream(here, adder.id) as socket:
        await send(socket, [1, 1])
        await here.puppet.until_running(1)
        going_on = asyncio.create_task(other.goes_on())
        for _ in range(3):
            await send(socket, [9, 9])
        await waiting(here, adder, 4)
    await waiting(here, adder, 0)
    gate.open()
    await going_on
    await eventually(here.nothing_left)
    assert (await adder.view())["step"] == 0
    await asyncio.gather(adder.goes_on(), other.goes_on())


async def test_a_connection_that_breaks_is_as_one_that_is_closed(here):
    gate = Gate(here.puppet)
    adder = await here.open()
    socket = await connect(f"ws://127.0.0.1:{here.port}/v1/sessions/{adder.id}/stream", proxy=None)
    await send(socket, [1, 1])
    await here.puppet.until_running(1)
    socket.transport.abort()
    await waiting(here, adder, 0)
    gate.open()
    await socket.wait_closed()
    await adder.goes_on()


async def test_two_sockets_of_one_session_take_turns(here):
    adder = await here.open()
    async with stream(here, adder.id) as one, stream(here, adder.id) as two:
        for n in range(5):
            await step(one, adder, (n, 1))
            await step(two, adder, (1, n))


async def ended(here: Here) -> str:
    adder = await here.open()
    await here.http.delete(f"/v1/sessions/{adder.id}")
    return adder.id


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        (ended, 410, "session_closed"),
        (lambda here: asyncio.sleep(0, "nobody"), 404, "session_not_found"),
        (lambda here: asyncio.sleep(0, "s-19a0b1c2d3e-0123456789abcdef"), 410, "session_lost"),
    ],
)
async def test_a_session_that_is_not_open_is_refused_at_the_handshake(here, make, status, code):
    with pytest.raises(InvalidStatus) as caught:
        async with stream(here, await make(here)):
            pass
    response = caught.value.response
    assert (response.status_code, response.headers["sluice-code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"
    body = json.loads(response.body)
    assert (body["code"], body.keys()) == (code, {"error", "code"})


@pytest.mark.parametrize(
    "headers", [{"Sluice-Session": "another"}, {"Sluice-Timeout-Ms": "soon"}, {"Sluice-Timeout-Ms": "0"}]
)
async def test_headers_that_make_no_sense_are_refused_at_the_handshake(here, headers):
    adder = await here.open()
    with pytest.raises(InvalidStatus) as caught:
        async with stream(here, adder.id, additional_headers=headers):
            pass
    assert caught.value.response.status_code == 400
    assert json.loads(caught.value.response.body)["code"] == "bad_request"
    async with stream(here, adder.id, additional_headers={"Sluice-Session": adder.id}) as socket:
        await step(socket, adder)


@pytest.mark.parametrize("path", ["/", "/v1/sessions/a", "/v1/sessions/a b/stream", "/v1/nothing/stream"])
async def test_another_path_takes_no_socket(here, path):
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://127.0.0.1:{here.port}{path.replace(' ', '%20')}", proxy=None):
            pass
    assert caught.value.response.status_code in (403, 404)


async def test_a_hot_path_takes_no_socket(here):
    adder = await here.open()
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://127.0.0.1:{here.port}/v1/sessions/{adder.id}:step", proxy=None):
            pass
    assert caught.value.response.status_code in (403, 404, 405)
    await adder.goes_on()


async def test_the_stream_path_takes_sockets_only(here):
    adder = await here.open()
    response = await here.http.get(f"/v1/sessions/{adder.id}/stream")
    assert response.status_code in (404, 405, 426)
    assert response.json()["code"] == "bad_request"


async def test_the_timeout_of_the_handshake_is_that_of_each_message(here):
    gate = Gate(here.puppet)
    adder = await here.open()
    async with stream(here, adder.id, additional_headers={"Sluice-Timeout-Ms": "50"}) as socket:
        await send(socket, [9, 9])
        await refused_reply(socket, "deadline_exceeded")
        gate.open()
        await eventually(here.nothing_left)
        await step(socket, adder)


async def test_more_steps_than_may_wait_are_refused_in_their_turn(puppet):
    async with running(puppet, session_queue_steps=3) as here:
        gate = Gate(puppet)
        adder = await here.open()
        async with stream(here, adder.id) as socket:
            for _ in range(5):
                await send(socket, [1, 1])
            await puppet.until_running(1)
            session = here.gateway.engine.scheduler.sessions.get(adder.id)
            await eventually(lambda: len(session.steps) == 3)
            gate.open()
            for _ in range(3):
                assert await reply(socket) == adder.added((1, 1))
            bodies = [await reply(socket) for _ in range(2)]
            # Told so if they came while the queue was full: one read at a time may find room again.
            for body in bodies:
                assert body.get("code") == "session_queue_full" or body == adder.added((1, 1))
            await step(socket, adder)


async def test_who_sends_without_reading_is_held_back_and_costs_little_memory(puppet):
    async with running(puppet, session_queue_steps=4) as here:
        adder, other = await here.adders(2)
        async with stream(here, adder.id, max_queue=1) as socket:
            text = json.dumps({"inputs": [1, 1], "outputs": ["n" * 50_000]})  # the reply repeats it
            sent = [0]

            async def flood():
                while True:
                    await socket.send(text)
                    sent[0] += 1

            flooding = asyncio.create_task(flood())
            resident = _resident_kib()
            await eventually(lambda: _stands_still(sent))
            assert _resident_kib() - resident < 64 * 1024
            await other.goes_on()  # nobody else is held back
            assert not flooding.done()
            refusals = 0
            for _ in range(100):  # who reads may go on
                refusals += (await reply(socket))["code"] == "bad_request"
            assert refusals == 100
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            socket.transport.abort()
        await eventually(here.nothing_left)
        await adder.goes_on()


def _stands_still(seen: list[int]) -> bool:
    """A number, the first of `seen`, has not changed while it was looked at 300 times."""
    seen.append(seen[0])
    return len(seen) > 300 and seen[-300] == seen[0]


def _resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def test_a_message_that_is_too_large_closes_the_socket_and_not_the_session(puppet):
    async with running(puppet, body_bytes=1000) as here:
        adder = await here.open()
        async with stream(here, adder.id) as socket:
            await step(socket, adder)
            await socket.send(json.dumps({"inputs": [1, 1]}) + " " * 1000)
            with pytest.raises(ConnectionClosed) as caught:
                await reply(socket)
            assert caught.value.rcvd.code == 1009
        await adder.goes_on()


async def test_a_session_that_is_closed_tells_its_socket(here):
    gate = Gate(here.puppet)
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        for _ in range(3):
            await send(socket, [1, 1])
        await waiting(here, adder, 3)
        await here.http.delete(f"/v1/sessions/{adder.id}")
        for _ in range(3):
            await refused_reply(socket, "session_closed")
        await send(socket, [1, 1])
        await refused_reply(socket, "session_closed")
        gate.open()
        again = await here.open(session=adder.id)  # the id is what a socket is for
        await step(socket, again)


async def test_a_gateway_that_drains_answers_what_it_has_and_closes_sockets(puppet):
    async with running(puppet) as here:
        gate = Gate(puppet)
        adder, idle = await here.adders(2)
        async with stream(here, adder.id) as socket, stream(here, idle.id) as quiet:
            await send(socket, [1, 2])
            await puppet.until_running(1)
            here.server.handle_exit(signal.SIGTERM, None)
            await eventually(lambda: here.gateway.draining)
            gate.open()
            assert await reply(socket) == adder.added((1, 2))
            for each in (socket, quiet):
                with pytest.raises(ConnectionClosed) as caught:
                    await reply(each)
                assert caught.value.rcvd.code == 1012


async def test_two_hundred_sockets_sit_idle_beside_those_that_work(here):
    adders = await here.adders(200)
    sockets = []
    for adder in adders:
        sockets.append(await connect(f"ws://127.0.0.1:{here.port}/v1/sessions/{adder.id}/stream", proxy=None))
    await asyncio.gather(*(step(sockets[n], adders[n]) for n in (0, 77, 199)))
    await asyncio.gather(*(step(socket, adder) for socket, adder in zip(sockets, adders, strict=True)))
    await asyncio.gather(*(socket.close() for socket in sockets))
    await eventually(lambda: not here.server.server_state.connections or len(here.server.server_state.connections) <= 1)
    await asyncio.gather(*(adder.goes_on() for adder in adders))


async def test_messages_are_counted_by_outcome(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        await step(socket, adder)
        await socket.send("nonsense")
        await refused_reply(socket, "bad_request")
    metrics = await here.metrics()
    assert metrics['sluice_requests_total{call="stream",model="sum",outcome="ok"}'] == 1
    assert metrics['sluice_requests_total{call="stream",model="sum",outcome="bad_request"}'] == 1


async def test_the_model_servers_faults_are_told_on_the_socket(here):
    adder = await here.open()
    async with stream(here, adder.id) as socket:
        here.puppet.twist = lambda outputs: {}
        await send(socket, [1, 1])
        await refused_reply(socket, "backend_error")
        here.puppet.twist = None

        async def away(_):
            return grpc.StatusCode.UNAVAILABLE

        here.puppet.before = away
        await send(socket, [1, 1])
        await refused_reply(socket, "backend_unavailable")
        here.puppet.before = None
        await eventually(lambda: answered(here))
        await step(socket, adder)


@pytest.mark.parametrize("path", ["/v1/sessions/any/streams", "/v1/models/plain:predict", "/"])
async def test_where_there_is_no_websocket_the_handshake_is_answered_in_a_sentence(here, path):
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://127.0.0.1:{here.port}{path}", proxy=None):
            pass
    response = caught.value.response
    assert (response.status_code, response.headers["sluice-code"]) == (404, "bad_request")
    assert response.headers["x-request-id"]
    assert "there is one at /v1/sessions/ID/stream" in json.loads(response.body)["error"]
