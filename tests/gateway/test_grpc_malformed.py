"""Whatever one call sends, its neighbours on the connection go on."""

import asyncio

import grpc
import grpc.aio
import pytest
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PriorityFrame, RstStreamFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.wire.grpc_frames import framed
from tests.gateway.echo import EACH, LATER, ONCE, Served
from tests.gateway.here import eventually
from tests.gateway.http2 import RawClient, connected
from tests.size import size

HEAD = [
    (":method", "POST"), (":scheme", "http"), (":path", ONCE), (":authority", "here"), ("te", "trailers"),
    ("content-type", "application/grpc"),
]  # fmt: skip


def without(*names):
    return [field for field in HEAD if field[0] not in names]


ODD = {
    "blank at the end": [*HEAD, ("x-tenant", "blue ")],
    "blank at the start": [*HEAD, ("x-tenant", " blue")],
    "tab": [*HEAD, ("x-tenant", "blue\t")],
    "host": [*HEAD, ("host", "other")],
    "no authority": without(":authority"),
    "no te": without("te"),
    "connection": [*HEAD, ("connection", "close"), ("keep-alive", "5"), ("transfer-encoding", "chunked")],
    "te": [*without("te"), ("te", "gzip")],
    "empty value": [*HEAD, ("x-tenant", "")],
    "8 KiB": [*HEAD, ("x-tenant", "x" * 8192)],
    "not ASCII": [*HEAD, ("x-tenant", b"\xc3\xa4\xff")],
    "control characters": [*HEAD, ("x-tenant", b"a\0b\r\nc")],
    "no base64": [*HEAD, ("x-tenant-bin", "!!!")],
    "twice": [*HEAD, ("x-tenant", "a"), ("x-tenant", "b")],
    "cookies": [*HEAD, ("cookie", "a=1"), ("cookie", "b=2")],
    "right length": [*HEAD, ("content-length", "8")],
}
MALFORMED = {
    "capitals": [*HEAD, ("X-Tenant", "blue")],
    "blank in a name": [*HEAD, ("x tenant", "blue")],
    "colon in a name": [*HEAD, ("x:tenant", "blue")],
    "no ASCII in a name": [*HEAD, (b"x-\xe4", "blue")],
    "no name": [*HEAD, ("", "blue")],
    "no method": without(":method"),
    "no scheme": without(":scheme"),
    "no path": without(":path"),
    "two paths": [(":path", EACH), *HEAD],
    "late authority": [*without(":authority"), (":authority", "here")],
    "unknown with a colon": [(":tenant", "blue"), *HEAD],
    "a status": [(":status", "200"), *HEAD],
}
RESET = {
    "wrong length": [*HEAD, ("content-length", "7")],
    "no length": [*HEAD, ("content-length", "many")],
    "two lengths": [*HEAD, ("content-length", "8"), ("content-length", "9")],
}


@pytest.fixture
async def raw(served):
    async with connected(served.port) as raw:
        yield raw


@pytest.fixture
async def neighbour(raw, served):
    """A call that is being carried out, and answered when the test is over."""
    id = raw.call(LATER)
    raw.send(id, framed(b"neighbour"), end=True)
    await raw.flush()
    yield
    served.now.set()
    stream = await raw.ended(id)
    assert (stream.messages, stream.status) == ([b"neighbour"], 0)


def sent(raw: RawClient, head: list[tuple[str, str]]) -> int:
    id = raw.open(head)
    raw.send(id, framed(b"abc"), end=True)
    return id


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("head", ODD.values(), ids=ODD)
async def test_a_call_with_odd_metadata_is_answered(raw, head):
    stream = await raw.ended(sent(raw, head))
    assert (stream.messages, stream.status) == ([b"abc"], 0)


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_call_is_told_what_is_wrong(raw, head):
    stream = await raw.ended(sent(raw, head))
    assert (stream.status, stream.head["sluice-code"]) == (13, "bad_request")
    assert "came" in stream.sentence or "got" in stream.sentence


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("head", RESET.values(), ids=RESET)
async def test_a_call_that_HTTP_2_cannot_read_is_reset(raw, head):
    assert (await raw.ended(sent(raw, head))).reset == 1  # PROTOCOL_ERROR


def trailing(id: int, *flags: str) -> Frame:
    return HeadersFrame(id, Encoder().encode([NeverIndexedHeaderTuple("x", "y")]), flags=["END_HEADERS", *flags])


END = DataFrame(3, flags=["END_STREAM"])
AFTER = {
    "trailers": ([trailing(3, "END_STREAM")], None),
    "trailers without the end": ([trailing(3)], 1),
    "trailers twice": ([trailing(3), trailing(3)], 1),
    "that it depends on itself": ([PriorityFrame(3, depends_on=3), END], None),
    "a header after the end": ([END, trailing(3)], 5),
    "data after the end": ([END, DataFrame(3, b"abc")], 5),
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("frames", "reset"), AFTER.values(), ids=AFTER)
async def test_frames_that_a_call_may_not_send_end_it_alone(raw, frames, reset):
    id = raw.call(ONCE)
    assert id == 3
    raw.send(id, framed(b"abc"))
    await raw.flush()
    await raw.write(b"".join(frame.serialize() for frame in frames))
    stream = await raw.ended(id)
    assert stream.reset == reset
    assert stream.messages == ([] if reset else [b"abc"])


@pytest.mark.usefixtures("neighbour")
async def test_headers_of_a_call_that_is_over_change_nothing(raw):
    for _ in range(3):  # a stream that is over is forgotten when the next one is opened
        id = sent(raw, HEAD)
        assert (await raw.ended(id)).messages == [b"abc"]
        await raw.write(trailing(id).serialize() + trailing(3, "END_STREAM").serialize())


@pytest.mark.usefixtures("neighbour")
async def test_bodies_of_a_wrong_length_do_not_use_the_connection_up(raw):
    for _ in range(200):
        id = raw.open([*HEAD, ("content-length", "1")])
        raw.send(id, bytes(50_000))
        assert (await raw.ended(id)).reset == 1
    assert raw.h2.outbound_flow_control_window > 1_000_000


@pytest.mark.usefixtures("neighbour")
async def test_calls_beyond_the_limit_are_refused_and_may_be_repeated(raw):
    raw.h2.remote_settings.update({3: 2000})  # a client that does not keep to our setting
    raw.h2.remote_settings.acknowledge()
    ids = [raw.call(EACH) for _ in range(1005)]
    await raw.until(lambda: all(raw.streams[id].reset == 7 for id in ids[999:]))  # REFUSED_STREAM
    assert not any(raw.streams[id].reset for id in ids[:999])
    raw.h2.reset_stream(ids[0])
    again = raw.call(ONCE)
    raw.send(again, framed(b"abc"), end=True)
    assert (await raw.ended(again)).messages == [b"abc"]


FIELD = st.tuples(
    st.sampled_from([":method", ":path", ":scheme", ":status", "content-length", "te", "host", "X", "grpc-encoding"]),
    st.sampled_from(["POST", "GET", ONCE, EACH, "http", "100", "8", "gzip", "", " x"]),
).map(lambda field: NeverIndexedHeaderTuple(*field))
FLAGS = st.lists(st.sampled_from(["END_STREAM", "PRIORITY"]), unique=True)
HEADERS = st.builds(
    lambda head, more, flags: HeadersFrame(
        3, Encoder().encode([*head, *more]), flags=["END_HEADERS", *flags], depends_on=3
    ),
    st.sampled_from([[NeverIndexedHeaderTuple(*field) for field in HEAD], []]),
    st.lists(FIELD, max_size=2),
    FLAGS,
)
FRAMES = st.one_of(
    HEADERS,
    st.builds(
        lambda data, flags: DataFrame(3, data, flags=flags),
        st.sampled_from([framed(b"abc"), b"", b"\0\0\0\0\7abc", b"\1\0\0\0\3abc", bytes(60_000)]),
        st.sampled_from([[], ["END_STREAM"]]),
    ),
    st.builds(RstStreamFrame, st.just(3), error_code=st.integers(0, 20)),
    st.builds(WindowUpdateFrame, st.just(3), window_increment=st.sampled_from([1, 2**31 - 1])),
    st.just(PriorityFrame(3, depends_on=3)),
)


@settings(max_examples=size(100, 5000))
@given(HEADERS, st.lists(FRAMES, max_size=6), st.booleans())
def test_whatever_frames_one_call_sends_its_neighbour_is_answered(first, frames, apart):
    async def talk():
        served = Served()
        connection, pipe = served.piped()
        client = RawClient(None, None)
        neighbour = client.call(LATER)
        client.send(neighbour, framed(b"neighbour"), end=True)
        for data in [client.h2.data_to_send(), *(frame.serialize() for frame in [first, *frames])]:
            connection.data_received(data)
            if apart:
                await asyncio.sleep(0)
        await eventually(lambda: served.begun)
        served.now.set()
        await eventually(lambda: b"neighbour" in b"".join(pipe.written))
        assert not pipe.closing
        connection.connection_lost(None)
        assert (connection.inbox_bytes, connection.unsent_bytes) == (0, 0)

    asyncio.run(talk())


@pytest.mark.parametrize("key", [("x-tenant", "blue "), ("host", "other"), ("connection", "close")])
async def test_metadata_that_gRPCs_own_server_takes_is_taken(served, key):
    async with grpc.aio.insecure_channel(served.address) as channel:
        neighbour = channel.unary_unary(LATER)(b"neighbour")
        calls = [channel.unary_unary(ONCE)(b"%d" % number, metadata=[key], timeout=10) for number in range(3)]
        assert await asyncio.gather(*calls) == [b"0", b"1", b"2"]
        served.now.set()
        assert await neighbour == b"neighbour"
