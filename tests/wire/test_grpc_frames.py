"""gRPC's rules on top of HTTP/2, as its PROTOCOL-HTTP2.md has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.wire.grpc_frames import CallFailed, Inbox, framed, is_grpc, read_timeout, trailers


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


def test_a_compressed_message_is_refused():
    inbox = Inbox(40)
    inbox.feed(b"\1\0\0\0\1x")
    with pytest.raises(CallFailed, match="compressed") as caught:
        inbox.take()
    assert (caught.value.status, *caught.value.metadata) == ("UNIMPLEMENTED", ("sluice-code", "bad_request"))


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


def test_a_call_that_was_answered_ends_with_status_0():
    assert trailers(None) == [(b"grpc-status", b"0")]


def test_a_sentence_is_percent_encoded():
    fields = dict(trailers(CallFailed("NOT_FOUND", "50 % of “x”\n", [("sluice-code", "session_not_found")])))
    assert fields == {
        b"grpc-status": b"5",
        b"grpc-message": b"50 %25 of %E2%80%9Cx%E2%80%9D%0A",
        b"sluice-code": b"session_not_found",
    }
