"""gRPC's rules on top of HTTP/2, as its PROTOCOL-HTTP2.md has them."""

import gzip
import random
import tracemalloc
import zlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.wire.grpc_frames import (
    ENCODINGS,
    CallFailed,
    Inbox,
    answer_encoding,
    framed,
    is_grpc,
    malformed,
    read_timeout,
    trailers,
)


def taken(inbox):
    messages = []
    while (message := inbox.take()) is not None:
        messages.append(message)
    return messages


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages, data):
    wire = b"".join(map(framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    inbox, got = Inbox(40), []
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        inbox.feed(wire[begin:end])
        got += taken(inbox)
    assert got == messages
    assert inbox.empty


@pytest.mark.parametrize("wire", [b"\0", b"\0\0\0\0", framed(b"abc")[:-1]])
def test_an_incomplete_message_waits(wire):
    inbox = Inbox(40)
    inbox.feed(wire)
    assert inbox.take() is None
    assert not inbox.empty


def test_a_message_that_is_too_large_is_refused_at_its_prefix():
    inbox = Inbox(40)
    inbox.feed(framed(bytes(41))[:5])
    with pytest.raises(CallFailed, match="40 bytes; one of 41 bytes came") as caught:
        inbox.take()
    assert caught.value.status == "RESOURCE_EXHAUSTED"


PACK = {b"gzip": partial(gzip.compress, mtime=0), b"deflate": zlib.compress}


def inbox_of(encoding, *parts, limit=40):
    inbox = Inbox(limit)
    inbox.encoding = encoding
    for compressed, data in parts:
        inbox.feed(bytes([compressed]) + len(data).to_bytes(4) + data)
    return inbox


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_messages_and_others_come_out_as_they_went_in(encoding):
    pack = PACK[encoding]
    inbox = inbox_of(encoding, (1, pack(b"abc" * 10)), (0, b"as it is"), (1, pack(b"")), (1, b""), limit=60)
    assert taken(inbox) == [b"abc" * 10, b"as it is", b"", b""]


@pytest.mark.parametrize(
    ("encoding", "compressed", "data", "status", "sentence"),
    [
        (b"", 1, b"x", "INTERNAL", "does not say how"),
        (b"identity", 1, b"x", "INTERNAL", "does not say how"),
        (b"snappy", 1, b"x", "UNIMPLEMENTED", "identity, deflate or gzip; got 'snappy'"),
        (b"gzip", 2, b"x", "INTERNAL", "does not say how"),
        (b"gzip", 1, b"no gzip", "INTERNAL", "not gzip"),
        (b"gzip", 1, PACK[b"gzip"](b"abc")[:-1], "INTERNAL", "not gzip"),
        (b"deflate", 1, PACK[b"gzip"](b"abc"), "INTERNAL", "not deflate"),
        (b"gzip", 1, PACK[b"gzip"](bytes(41)), "RESOURCE_EXHAUSTED", "40 bytes; one has more when it is inflated"),
    ],
)
def test_what_cannot_be_inflated_is_refused(encoding, compressed, data, status, sentence):
    with pytest.raises(CallFailed, match=sentence) as caught:
        inbox_of(encoding, (compressed, data)).take()
    code = "body_too_large" if status == "RESOURCE_EXHAUSTED" else "bad_request"
    assert (caught.value.status, *caught.value.metadata) == (status, ("sluice-code", code))


def test_an_unknown_encoding_is_no_matter_where_nothing_is_compressed():
    assert taken(inbox_of(b"snappy", (0, b"abc"))) == [b"abc"]


def test_an_encoding_that_is_not_known_is_refused_before_the_message_has_come():
    inbox = Inbox(40)
    inbox.feed(b"\1\0\0\0\7")
    with pytest.raises(CallFailed):
        inbox.take()


def test_a_bomb_takes_no_more_memory_than_a_message_may():
    inbox = inbox_of(b"gzip", (1, gzip.compress(bytes(100_000_000))), limit=200_000)
    tracemalloc.start()
    try:
        with pytest.raises(CallFailed, match="inflated"):
            inbox.take()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


WORDS = b"the quick brown fox " * 100
NOISE = random.Random(1).randbytes(2000)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("message", [WORDS, bytes(1024), bytes(4 * 1024 * 1024)], ids=len)
def test_an_answer_that_becomes_smaller_is_compressed(encoding, message):
    frame = framed(message, encoding)
    assert len(frame) < len(message) / 2
    inbox = Inbox(len(message))
    inbox.encoding = encoding
    inbox.feed(frame)
    assert taken(inbox) == [message]


@pytest.mark.parametrize("message", [b"", bytes(1023), NOISE, bytes(4 * 1024 * 1024 + 1)], ids=len)
def test_an_answer_that_is_not_worth_it_goes_as_it_is(message):
    assert framed(message, b"gzip") == framed(message) == b"\0" + len(message).to_bytes(4) + message


@pytest.mark.parametrize(
    ("encoding", "accepted", "answers"),
    [
        (b"gzip", None, b"gzip"),
        (b"gzip", b"identity, deflate, gzip", b"gzip"),
        (b"deflate", b"identity,deflate", b"deflate"),
        (b"gzip", b"identity,deflate", b""),
        (b"identity", b"gzip", b""),
        (b"snappy", b"snappy,gzip", b""),
    ],
)
def test_answers_are_compressed_as_the_clients_messages_are(encoding, accepted, answers):
    assert answer_encoding(encoding, accepted) == answers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"10S", 10), (b"50m", 0.05), (b"7u", 7e-6), (b"0n", 0), (b"99999999H", 31536000)],
)
def test_a_timeout_has_a_number_and_a_unit(value, seconds):
    assert read_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"1", b"S", b"-1S", b"1s", b"123456789S", b"1.5S", b"1S ", b"\xff"])
def test_another_timeout_is_refused(value):
    with pytest.raises(CallFailed, match="grpc-timeout") as caught:
        read_timeout(value)
    assert (caught.value.status, *caught.value.metadata) == ("INVALID_ARGUMENT", ("sluice-code", "bad_request"))


def test_what_has_come_is_measured_and_dropped():
    inbox = Inbox(40)
    inbox.feed(framed(b"abc")[:-1])
    assert inbox.size == 7
    inbox.clear()
    assert inbox.empty


@pytest.mark.parametrize(
    ("content_type", "is_it"),
    [
        (b"application/grpc", True), (b"application/grpc+proto", True), (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False), (b"application/json", False), (b"", False),
    ],
)  # fmt: skip
def test_gRPC_is_told_by_its_content_type(content_type, is_it):
    assert is_grpc(content_type) is is_it


def test_a_request_is_malformed_by_the_first_field_that_is_wrong():
    head = [(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http"), (b"x-tenant", b" \0\xff")]
    assert malformed(head) is None
    assert "one field :path" in malformed([*head, head[1]])
    assert ":method stands before" in malformed([*head[1:], head[0]])
    assert ":scheme; none" in malformed(head[:2])
    assert "got 'X'" in malformed([*head, (b"X", b"")])


def test_a_call_that_was_answered_ends_with_status_0():
    assert trailers(None) == [(b"grpc-status", b"0")]


def test_a_sentence_is_percent_encoded():
    fields = dict(trailers(CallFailed("NOT_FOUND", "50 % of “x”\n", [("sluice-code", "session_not_found")])))
    assert fields == {
        b"grpc-status": b"5",
        b"grpc-message": b"50 %25 of %E2%80%9Cx%E2%80%9D%0A",
        b"sluice-code": b"session_not_found",
    }
