"""A connection that is to end: what was begun on it is answered first, whoever says goodbye."""

import asyncio
import signal

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from sluice.gateway.grpc import connection as grpc_protocol
from sluice.gateway.grpc import server as grpc_server
from sluice.wire.grpc_frames import framed
from sluice.wire.messages.v1 import sessions_pb2 as pb
from tests.gateway.echo import EACH, LATER, NEVER, ONCE
from tests.gateway.here import PATIENCE_S, Gate, eventually, running
from tests.gateway.http2 import connected
from tests.gateway.stub import dialled, tensor

LAST = 2**31 - 1
SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
DRAINING = (14, "draining")


@pytest.fixture
async def raw(served):
    async with connected(served.port) as raw:
        yield raw


def sent(raw, path, message=b"abc"):
    """A call with one message, which is whole."""
    id = raw.call(path)
    raw.send(id, framed(message), end=True)
    return id


async def begun(raw, served):
    """A call that is being carried out, and a stream that was answered once."""
    later, each = sent(raw, LATER), raw.call(EACH)
    raw.send(each, framed(b"one"))
    await raw.until(lambda: raw.streams[each].messages)
    await eventually(lambda: served.begun)
    return later, each


# The client says it.


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(grpc_protocol, "_PARTING_S", 0.05)
    monkeypatch.setattr(grpc_protocol, "_LINGER_S", 2 * PATIENCE_S)


async def test_after_a_clients_goodbye_its_calls_are_answered_and_then_the_connection_ends(raw, served):
    later, each = await begun(raw, served)
    await raw.goodbye()
    raw.send(each, framed(b"two"))
    await raw.until(lambda: raw.streams[each].messages == [b"one", b"two"])
    raw.send(each, b"", end=True)
    assert (await raw.ended(each)).status == 0
    assert not raw.goodbyes
    served.now.set()
    stream = await raw.ended(later)
    assert (stream.messages, stream.status) == ([b"abc"], 0)
    await raw.until(lambda: raw.goodbyes == [each])
    await raw.until_closed()
    assert served.left == 0


@pytest.mark.parametrize("first", [True, False])
async def test_calls_that_a_client_makes_after_its_goodbye_are_answered(raw, served, first, monkeypatch):
    monkeypatch.setattr(grpc_protocol, "_PARTING_S", PATIENCE_S if first else 0)
    if not first:
        await begun(raw, served)
    await raw.goodbye()
    assert (await raw.ended(sent(raw, ONCE))).messages == [b"abc"]
    assert not raw.goodbyes


async def test_after_a_goodbye_without_calls_the_connection_ends(raw, served):
    assert (await raw.ended(sent(raw, ONCE))).status == 0
    await raw.goodbye()
    await raw.until(lambda: raw.goodbyes == [1])
    await raw.until_closed()
    raw.abort()
    await eventually(lambda: not served.connections)


async def test_after_a_goodbye_windows_are_opened_and_pings_answered(served):
    async with connected(served.port, window=10) as raw:
        later = sent(raw, LATER, bytes(range(256)) * 40)
        await raw.flush()
        await eventually(lambda: served.begun)
        await raw.goodbye()
        raw.h2.ping(b"all read")
        served.now.set()
        stream = await raw.ended(later)
        assert (stream.messages, stream.status) == ([bytes(range(256)) * 40], 0)


async def test_a_goodbye_in_one_breath_with_its_calls_does_not_lose_them(raw, served):
    served.now.set()
    ids = [sent(raw, path) for path in (ONCE, LATER, EACH)]
    await raw.goodbye()
    for id in ids:
        stream = await raw.ended(id)
        assert (stream.messages, stream.status) == ([b"abc"], 0)
    await raw.until_closed()


async def test_a_client_that_resets_its_last_call_after_its_goodbye_is_let_go(raw, served):
    id = sent(raw, NEVER)
    await raw.flush()
    await eventually(lambda: served.begun)
    await raw.goodbye()
    raw.h2.reset_stream(id, 8)
    await raw.until(lambda: raw.goodbyes == [id])
    await eventually(lambda: served.left == 1)


async def test_a_client_that_does_not_go_after_its_goodbye_is_cut_off(raw, served, monkeypatch):
    monkeypatch.setattr(grpc_protocol, "_LINGER_S", 0.01)
    await raw.goodbye()
    await eventually(lambda: not served.connections)


# We say it.


async def test_while_the_gateway_drains_calls_go_on_and_new_ones_are_answered(raw, served):
    later, each = await begun(raw, served)
    for connection in served.connections:
        connection.drain()
    await raw.until(lambda: raw.goodbyes == [LAST])
    raw.send(each, framed(b"two"))
    await raw.until(lambda: raw.streams[each].messages == [b"one", b"two"])
    assert (await raw.ended(sent(raw, ONCE))).messages == [b"abc"]
    served.now.set()
    assert (await raw.ended(later)).messages == [b"abc"]


async def test_when_the_server_stops_what_was_sent_whole_is_answered_and_the_rest_told(raw, served):
    later, each = await begun(raw, served)
    for connection in served.connections:
        connection.stop(cut=False)
    stream = await raw.ended(each)
    assert (stream.status, stream.tail["sluice-code"]) == DRAINING
    assert (await raw.ended(sent(raw, ONCE))).reset == 7  # REFUSED_STREAM: the client may repeat it elsewhere
    assert raw.goodbyes == [each]
    served.now.set()
    stream = await raw.ended(later)
    assert (stream.messages, stream.status) == ([b"abc"], 0)
    await raw.until(lambda: raw.goodbyes == [each, each])  # the number never grows
    await raw.until_closed()
    assert served.left == 1


async def test_when_the_time_is_over_calls_are_cut(raw, served):
    later, each = await begun(raw, served)
    for cut in (False, True):
        for connection in served.connections:
            connection.stop(cut=cut)
    for id in (later, each):
        stream = await raw.ended(id)
        assert (stream.status, (stream.tail or stream.head)["sluice-code"]) == DRAINING
    await raw.until_closed()


async def test_a_goodbye_of_both_sides_is_one_end(raw, served):
    later, each = await begun(raw, served)
    (connection,) = served.connections
    await raw.goodbye()
    connection.drain()
    connection.stop(cut=False)
    served.now.set()
    assert (await raw.ended(later)).messages == [b"abc"]
    await raw.until_closed()
    connection.stop(cut=True)
    connection.drain()
    raw.abort()
    await eventually(lambda: not served.connections)


async def test_gRPCs_own_client_loses_nothing_when_the_server_goes(served):
    async with grpc.aio.insecure_channel(served.address) as channel:
        running = channel.unary_unary(LATER)(b"running", timeout=PATIENCE_S)
        await eventually(lambda: served.begun == 1)
        (first,) = served.connections
        first.drain()
        assert await channel.unary_unary(ONCE)(b"next", timeout=PATIENCE_S, wait_for_ready=True) == b"next"
        first.stop(cut=False)
        calls = [channel.unary_unary(ONCE)(b"%d" % number, timeout=PATIENCE_S) for number in range(20)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
        served.now.set()
        assert await running == b"running"
        await eventually(lambda: first not in served.connections)


# The gateway behind it.


async def test_a_step_that_runs_when_its_client_says_goodbye_is_answered(here, puppet):
    adder, gate = await here.open(), Gate(puppet)
    async with connected(here.app.state.grpc.port) as raw:
        step = pb.StepRequest(session=adder.id, inputs={"x": tensor((1, 2))})
        id = sent(raw, "/sluice.v1.Sessions/Step", step.SerializeToString())
        await raw.flush()
        await puppet.until_running(1)
        await raw.goodbye()
        gate.open()
        assert (await raw.ended(id)).status == 0
    adder.added((1, 2))
    await adder.goes_on()


async def test_a_gateway_that_drains_says_goodbye_and_answers_a_step_that_runs(puppet):
    async with running(puppet) as here, dialled(here) as stub, connected(here.app.state.grpc.port) as raw:
        adder, gate = await here.open(), Gate(puppet)
        step = asyncio.ensure_future(stub.step(adder.id, (1, 2)))
        await puppet.until_running(1)
        here.server.handle_exit(signal.SIGTERM, None)
        await raw.until(lambda: raw.goodbyes == [LAST])
        gate.open()
        assert await step == adder.added((1, 2))


async def test_a_gateway_that_drains_answers_a_call_that_it_passes_on(puppet):
    async with running(puppet) as here, dialled(here) as stub:
        gate = Gate(puppet)
        puppet.forwarded = b"abc"
        call = stub.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")(b"", timeout=PATIENCE_S)
        await eventually(lambda: puppet.asked)
        here.server.handle_exit(signal.SIGTERM, None)
        await eventually(lambda: not here.app.state.grpc._server.is_serving())
        gate.open()
        assert await call == b"abc"


async def test_a_gateway_that_stops_ends_the_calls_of_those_who_watch_its_health(puppet, monkeypatch):
    monkeypatch.setattr(grpc_server, "_LAST_ANSWERS_S", 2 * PATIENCE_S)
    async with running(puppet) as here, dialled(here) as stub:
        watch = stub.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE_S)
        assert await watch.read() == SERVING
        here.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await watch.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_gateway_that_stops_does_not_wait_for_a_client_that_has_no_call_and_stays(puppet, monkeypatch):
    monkeypatch.setattr(grpc_server, "_LAST_ANSWERS_S", 2 * PATIENCE_S)
    async with running(puppet) as here, connected(here.app.state.grpc.port):
        here.server.handle_exit(signal.SIGTERM, None)
        await eventually(lambda: not here.app.state.grpc._open)
