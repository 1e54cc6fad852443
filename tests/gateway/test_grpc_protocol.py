"""gRPC on a connection: what a client of any kind may do to it, and what it gets."""

import asyncio

import grpc
import grpc.aio
import h2.events
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import DataFrame, PingFrame, PriorityFrame, SettingsFrame, WindowUpdateFrame

from sluice.gateway.grpc import connection as grpc_protocol
from sluice.gateway.grpc.server import GrpcServer
from sluice.wire.grpc_frames import framed
from sluice.wire.messages.v1 import sessions_pb2 as messages
from tests.gateway.echo import BUG, EACH, LIMIT, NEVER, ONCE, REFUSED, Each, Served
from tests.gateway.here import Gate, eventually
from tests.gateway.http2 import RawClient, connected

SERVICE = "/sluice.v1.Sessions"


@pytest.fixture
async def raw(served):
    async with connected(served.port) as raw:
        yield raw


def ping(raw):
    raw.h2.ping(b"all read")


def pinged(raw):
    return any(isinstance(each, h2.events.PingAckReceived) for each in raw.events)


async def test_an_unary_call_is_answered(raw):
    id = raw.call(ONCE)
    raw.send(id, framed(b"abc"), end=True)
    stream = await raw.ended(id)
    accepted = {"grpc-accept-encoding": "identity,deflate,gzip"}
    assert stream.head == {":status": "200", "content-type": "application/grpc", **accepted}
    assert stream.messages == [b"abc"]
    assert stream.tail == {"grpc-status": "0"}
    assert stream.reset is None


async def test_a_message_may_be_cut_anywhere(raw):
    id = raw.call(EACH)
    wire = framed(b"abc") + framed(b"") + framed(b"defg")
    for at in range(len(wire)):
        raw.send(id, wire[at : at + 1])
        await raw.flush()
    raw.send(id, b"", end=True)
    assert (await raw.ended(id)).messages == [b"abc", b"", b"defg"]


async def test_small_answers_share_frames(raw):
    id = raw.call(EACH)
    wire = [framed(b"%d" % number) for number in range(60)]
    for each in wire:
        raw.send(id, each)
    raw.send(id, b"", end=True)
    stream = await raw.ended(id)
    assert stream.data == b"".join(wire)
    assert stream.frames < 10


async def test_an_error_comes_without_other_headers(raw):
    id = raw.call(REFUSED)
    raw.send(id, framed(b""), end=True)
    stream = await raw.ended(id)
    assert not stream.tail
    assert stream.head[":status"] == "200"
    assert (stream.status, stream.sentence) == (grpc.StatusCode.NOT_FOUND.value[0], "Not “here”.")
    assert stream.head["sluice-code"] == "nowhere"


@pytest.mark.parametrize("path", ["/test.Echo/Other", "/", "/sluice.v1.Sessions", "/test.Echo/Once?x", "*"])
async def test_an_unknown_method_is_unimplemented(raw, path):
    stream = await raw.ended(raw.call(path))
    assert stream.status == 12
    assert stream.head["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert stream.reset == 0  # what the client would still send is not wanted


async def test_other_content_is_refused_as_HTTP_does(raw):
    assert (await raw.ended(raw.call(ONCE, content_type="application/json"))).head == {":status": "415"}


async def test_another_method_of_HTTP_is_refused(raw):
    assert (await raw.ended(raw.call(ONCE, method="GET", end=True))).head[":status"] == "405"


@pytest.mark.parametrize(
    ("path", "wire", "status"),
    [
        (ONCE, framed(b"a") + framed(b"b"), "INTERNAL"),
        (ONCE, b"", "INTERNAL"),
        (ONCE, framed(b"abc")[:-1], "INTERNAL"),
        (EACH, b"\0\0", "INTERNAL"),
        (EACH, framed(b"a") + framed(b"abc")[:-1], "INTERNAL"),
        (ONCE, b"\1" + framed(b"abc")[1:], "INTERNAL"),
        (EACH, framed(b"a") + b"\1" + framed(b"abc")[1:], "INTERNAL"),
        (ONCE, b"\0" + (LIMIT + 1).to_bytes(4), "RESOURCE_EXHAUSTED"),
        (EACH, b"\0\xff\xff\xff\xff", "RESOURCE_EXHAUSTED"),
        (BUG, framed(b""), "INTERNAL"),
    ],
)
async def test_a_call_that_breaks_the_rules_fails_alone(raw, path, wire, status):
    id = raw.call(path)
    raw.send(id, wire, end=True)
    stream = await raw.ended(id)
    assert stream.status == grpc.StatusCode[status].value[0]
    assert len(stream.sentence) > 10
    code = {"RESOURCE_EXHAUSTED": "body_too_large"}.get(status, "internal" if path == BUG else "bad_request")
    assert (stream.tail or stream.head)["sluice-code"] == code
    again = raw.call(ONCE)
    raw.send(again, framed(b"abc"), end=True)
    assert (await raw.ended(again)).messages == [b"abc"]


async def test_a_message_that_is_too_large_is_refused_before_it_has_come(raw):
    id = raw.call(ONCE)
    raw.send(id, b"\0\x7f\xff\xff\xff" + bytes(1000))
    stream = await raw.ended(id)
    assert (stream.status, stream.head["sluice-code"]) == (8, "body_too_large")


@pytest.mark.parametrize("timeout", ["1n", "1u", "1m", "0S"])
async def test_a_call_ends_at_its_deadline(raw, served, timeout):
    id = raw.call(NEVER, grpc_timeout=timeout)
    raw.send(id, framed(b""), end=True)
    stream = await raw.ended(id)
    assert (stream.status, stream.head["sluice-code"]) == (4, "deadline_exceeded")
    await eventually(lambda: served.left == 1)


async def test_a_stream_ends_at_its_deadline_although_the_client_still_sends(raw, served):
    id = raw.call(EACH, grpc_timeout="1m")
    raw.send(id, framed(b"abc"))
    stream = await raw.ended(id)
    assert (stream.status, stream.reset, served.left) == (4, 0, 1)


async def test_a_deadline_that_cannot_be_read_is_refused(raw):
    assert (await raw.ended(raw.call(ONCE, grpc_timeout="soon"))).status == 3


async def test_a_call_that_the_client_resets_is_left(raw, served):
    never, each = raw.call(NEVER), raw.call(EACH)
    raw.send(never, framed(b""), end=True)
    raw.send(each, framed(b"abc"))
    await raw.until(lambda: raw.streams[each].messages)
    for id in (never, each):
        raw.h2.reset_stream(id, 8)
    await raw.flush()
    await eventually(lambda: served.left == 2)
    again = raw.call(ONCE)
    raw.send(again, framed(b"abc"), end=True)
    assert (await raw.ended(again)).messages == [b"abc"]


@pytest.mark.parametrize("how", ["abort", "garbage"])
async def test_the_calls_of_a_lost_connection_are_left(raw, served, how):
    never, each = raw.call(NEVER), raw.call(EACH)
    raw.send(never, framed(b""), end=True)
    raw.send(each, framed(b"abc"))
    await raw.until(lambda: raw.streams[each].messages)
    if how == "abort":
        raw.abort()
    else:
        await raw.write(bytes(9))  # a DATA frame of no stream
    await eventually(lambda: served.left == 2 and not served.connections)


async def test_a_client_of_HTTP_1_is_sent_away(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await eventually(lambda: not served.connections)


async def test_header_lists_have_a_limit(raw, served):
    raw.call(ONCE, x_long="x" * 70_000)
    await raw.flush()
    await raw.until_closed()
    assert not served.connections


@pytest.mark.parametrize("fields", [{"x_long": "x" * 20_000}, {f"x_{number}": "x" * 100 for number in range(200)}])
async def test_a_call_with_too_much_metadata_fails_alone(raw, fields):
    stream = await raw.ended(raw.call(ONCE, **fields))
    assert (stream.status, stream.head["sluice-code"]) == (8, "bad_request")
    again = raw.call(ONCE, x_long="x" * 15_000)
    raw.send(again, framed(b"abc"), end=True)
    assert (await raw.ended(again)).messages == [b"abc"]


async def test_answers_that_one_call_does_not_fetch_hold_the_others_back(served, monkeypatch):
    monkeypatch.setattr(grpc_protocol, "_UNSENT_BYTES", 5000)
    async with connected(served.port, window=10) as raw:
        full, other = raw.call(EACH), raw.call(EACH)
        raw.reads = False
        for _ in range(10):
            raw.send(full, framed(bytes(995)))
        raw.send(other, framed(b"abc"))
        ping(raw)
        await raw.until(lambda: pinged(raw))
        assert served.received == 6
        raw.h2.reset_stream(full)
        await raw.until(lambda: raw.streams[other].messages)
        (connection,) = served.connections
        await eventually(lambda: connection.unsent_bytes == 0)


async def test_a_ping_is_answered(raw):
    ping(raw)
    await raw.until(lambda: pinged(raw))


async def test_a_client_that_does_not_read_is_held_back_by_its_windows(served):
    async with connected(served.port, reads=False, window=1000) as raw:
        id = raw.call(EACH)
        message, sent = bytes(995), 0
        while raw.h2.local_flow_control_window(id) >= 1000:
            raw.send(id, framed(message))
            sent += 1
        await raw.until(lambda: raw.streams[id].data)
        ping(raw)
        await raw.until(lambda: pinged(raw))
        assert sent > 1000
        assert served.received <= 1 + Each.room
        assert raw.h2.local_flow_control_window(id) < 1000  # and may not send more
        raw.reads = True
        for each in (None, id):
            raw.h2.increment_flow_control_window(100 * 1024 * 1024, each)
        raw.send(id, b"", end=True)
        stream = await raw.ended(id)
        assert stream.messages == [message] * sent


@pytest.fixture
async def piped():
    """A connection without a socket on which a call of EACH is open, what it writes, and its client."""
    protocol, pipe = Served().piped()
    client = RawClient(None, None)
    client.call(EACH)
    protocol.data_received(client.h2.data_to_send())
    await asyncio.sleep(0)
    client.h2.receive_data(b"".join(pipe.written))
    pipe.written.clear()
    return protocol, pipe, client


async def test_what_a_turn_of_the_loop_has_to_send_is_written_at_once(piped):
    protocol, pipe, client = piped
    for _ in range(3):
        for _ in range(10):
            client.send(1, framed(b"abc"))
        protocol.data_received(client.h2.data_to_send())
    assert not pipe.written
    await asyncio.sleep(0)
    assert len(pipe.written) == 1
    assert pipe.written[0].count(b"abc") == 30


async def test_a_client_may_send_much_and_reset_the_call_in_one_breath(piped, logs):
    protocol, pipe, client = piped
    client.send(1, framed(bytes(300_000)))
    client.h2.reset_stream(1)
    protocol.data_received(client.h2.data_to_send())
    await asyncio.sleep(0)
    client.h2.receive_data(b"".join(pipe.written))
    assert not logs
    assert not protocol.lost.done()


FLOODS = {
    "ping": PingFrame(0, opaque_data=b"12345678"),
    "settings": SettingsFrame(0, settings={4: 65_535}),
    "priority": PriorityFrame(1, depends_on=0, stream_weight=3),
    "window": WindowUpdateFrame(0, window_increment=1),
    "data": DataFrame(1),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_frames_without_requests_ends_the_connection(piped, kind):
    protocol, pipe, client = piped
    flood = FLOODS[kind].serialize()
    for _ in range(10):
        protocol.take(flood * 990)
    client.send(1, framed(b"abc"))
    protocol.take(client.h2.data_to_send())
    for _ in range(10):
        protocol.take(flood * 990)
    assert not pipe.closing
    for _ in range(2):
        protocol.take(flood * 990)
    assert pipe.closing
    events = client.h2.receive_data(b"".join(pipe.written))
    (goodbye,) = (each for each in events if isinstance(each, h2.events.ConnectionTerminated))
    assert goodbye.error_code == 11  # ENHANCE_YOUR_CALM


async def test_a_flood_of_calls_that_are_reset_ends_the_connection(piped):
    protocol, pipe, client = piped
    for _ in range(5001):
        id = client.call(EACH)
        client.h2.reset_stream(id)
        protocol.take(client.h2.data_to_send())
        if pipe.closing:
            break
    assert pipe.closing


async def test_keepalive_pings_of_a_long_connection_are_no_flood(piped, monkeypatch):
    protocol, pipe, _ = piped
    monkeypatch.setattr(grpc_protocol, "_IDLE_S", -1.0)
    for _ in range(12):
        protocol.take(FLOODS["ping"].serialize() * 990)
    assert not pipe.closing


async def test_messages_that_are_not_complete_share_a_limit(piped):
    protocol, pipe, client = piped
    protocol._inbox_limit = 3000
    other = client.call(EACH)
    client.send(1, framed(bytes(5000))[:2000])
    client.send(other, framed(bytes(5000))[:2000])
    protocol.take(client.h2.data_to_send())
    assert protocol.inbox_bytes == 2000
    await asyncio.sleep(0)
    events = client.h2.receive_data(b"".join(pipe.written))
    (tail,) = (dict(each.headers) for each in events if isinstance(each, h2.events.TrailersReceived))
    assert (tail["grpc-status"], tail["sluice-code"]) == ("8", "body_too_large")
    client.h2.reset_stream(1)
    protocol.take(client.h2.data_to_send())
    assert protocol.inbox_bytes == 0


async def test_while_the_client_does_not_read_its_socket_nothing_is_read_or_written(piped):
    protocol, pipe, client = piped
    protocol.pause_writing()
    client.send(1, framed(b"abc"))
    protocol.data_received(client.h2.data_to_send())
    await asyncio.sleep(0)
    assert not pipe.reading
    assert not pipe.written
    protocol.resume_writing()
    await asyncio.sleep(0)
    assert pipe.reading
    assert pipe.written[0].count(b"abc") == 1


async def test_an_answer_larger_than_the_windows_comes_in_parts(served):
    async with connected(served.port, window=10) as raw:
        id = raw.call(EACH)
        message = bytes(range(256)) * 4
        raw.send(id, framed(message), end=True)
        assert (await raw.ended(id)).messages == [message]


async def test_calls_share_a_connection(raw):
    ids = [raw.call(ONCE) for _ in range(200)]
    for id in ids:
        raw.send(id, framed(b"%d" % id), end=True)
    for id in ids:
        assert (await raw.ended(id)).messages == [b"%d" % id]


@pytest.mark.parametrize("size", [0, 256 * 1024, LIMIT])
async def test_the_asyncio_client_of_gRPC_streams(served, size):
    async with grpc.aio.insecure_channel(served.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.stream_stream(EACH)()
        for number in range(4):
            message = bytes([number]) * size
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_the_threaded_client_of_gRPC_calls_and_streams(served):
    def talk():
        with grpc.insecure_channel(served.address) as channel:
            once = channel.unary_unary(ONCE)
            assert [once(b"%d" % number, timeout=10) for number in range(20)] == [b"%d" % each for each in range(20)]
            sent = [bytes([number % 256]) * 5000 for number in range(2000)]
            assert list(channel.stream_stream(EACH)(iter(sent), timeout=60)) == sent
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(REFUSED)(b"")
            return caught.value

    error = await asyncio.to_thread(talk)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "Not “here”.")
    assert ("sluice-code", "nowhere") in error.trailing_metadata()


async def test_a_client_that_cancels_is_left(served):
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = channel.unary_unary(NEVER)(b"")
        await eventually(lambda: served.begun == 1)
        call.cancel()
        await eventually(lambda: served.left == 1)


# The gateway behind it.


@pytest.fixture
async def door(here):
    async with connected(here.app.state.grpc.port) as door:
        yield door


def many(adder, tag=1, **more):
    x = messages.Tensor(dtype="float32", shape=[1, 2], data=np.array([[1, 2]], "<f4").tobytes())
    return messages.StepManyRequest(model="sum", sessions=[adder.id], inputs={"x": x}, tag=tag, **more)


@pytest.mark.parametrize("method", ["Step", "Open", "Stream"])
async def test_bytes_that_are_no_message_are_refused(door, method):
    id = door.call(f"{SERVICE}/{method}")
    door.send(id, framed(b"\xff\xff"), end=True)
    stream = await door.ended(id)
    assert (stream.status, (stream.tail or stream.head)["sluice-code"]) == (3, "bad_request")
    assert "sluice.v1." in stream.sentence


@pytest.mark.parametrize("how", ["reset", "abort"])
@pytest.mark.parametrize("method", ["Stream", "StepMany"])
async def test_steps_of_a_client_that_leaves_have_no_effect(here, door, puppet, method, how):
    adder, gate = await here.open(), Gate(puppet)
    id = door.call(f"{SERVICE}/{method}")
    door.send(id, framed(many(adder).SerializeToString()), end=method == "StepMany")
    await door.flush()
    await puppet.until_running(1)
    if how == "reset":
        door.h2.reset_stream(id, 8)
        ping(door)
        await door.until(lambda: pinged(door))
    else:
        door.abort()
        await eventually(lambda: not here.app.state.grpc._open)
    gate.open()
    await eventually(here.nothing_left)
    await adder.goes_on()


async def test_a_stream_that_the_client_has_ended_ends_after_its_last_answer(here, door, puppet):
    adder, gate = await here.open(), Gate(puppet)
    id = door.call(f"{SERVICE}/Stream")
    for tag in (7, 8):
        door.send(id, framed(many(adder, tag).SerializeToString()), end=tag == 8)
    await door.flush()
    await puppet.until_running(1)
    gate.open()
    stream = await door.ended(id)
    replies = list(map(messages.StepManyResponse.FromString, stream.messages))
    assert [(reply.tag, list(reply.steps)) for reply in replies] == [(7, [1]), (8, [2])]
    assert stream.status == 0


async def test_requests_of_a_stream_are_refused_one_by_one(here, door):
    adder = await here.open()
    id = door.call(f"{SERVICE}/Stream")
    door.send(id, framed(many(adder, 1, steps=[5]).SerializeToString()))
    door.send(id, framed(messages.StepManyRequest(model="nothing", sessions=["x"], tag=2).SerializeToString()))
    door.send(id, framed(many(adder, 3).SerializeToString()), end=True)
    stream = await door.ended(id)
    replies = {reply.tag: reply for reply in map(messages.StepManyResponse.FromString, stream.messages)}
    assert replies[1].errors[0].error.code == "step_mismatch"
    assert replies[2].error.code == "model_not_found"
    assert list(replies[3].steps) == [1]


async def test_health_tells_whether_the_gateway_is_ready(here):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "sluice.v1.Sessions"):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=service)) for service in ("", "other")]
        first = [(await watch.read()).status for watch in watches]
        assert first == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]
        here.gateway.draining = True
        assert (await watches[0].read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for watch in watches:
            watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_tells_the_services_and_their_messages(here, version):
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="sluice.v1.Sessions"),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        services, files = [reply async for reply in ask(iter(asked))]
    names = {service.name for service in services.list_services_response.service}
    assert {"sluice.v1.Sessions", "grpc.health.v1.Health"} <= names
    assert files.file_descriptor_response.file_descriptor_proto


async def test_a_port_that_is_taken_is_refused_before_anything_starts(here):
    address = f"127.0.0.1:{here.app.state.grpc.port}"
    with pytest.raises(OSError, match="in use"):
        GrpcServer(here.gateway, here.app.state.metrics, here.app.state.calls.inference, address)
