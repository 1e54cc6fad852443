"""DATA frames are received as h2 receives them, but for the text that it makes of each; ended calls are forgotten."""

from functools import partial

import h2.events
import pytest
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import example, given
from hypothesis import strategies as st

from sluice.gateway.grpc.http2 import _CONCURRENT_CALLS, ServerSide

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "here")]
STREAMS = [1, 1, 3, 3, 5]  # the last is not open at first


def headers(id, *flags):
    return HeadersFrame(id, Encoder().encode(FIELDS), flags=["END_HEADERS", *flags]).serialize()


def data(id, size, *flags, padding=0):
    return DataFrame(id, bytes(size), flags=flags, pad_length=padding).serialize()


def gone(id):
    return RstStreamFrame(id).serialize()


def answer(connection, id):
    connection.send_headers(id, [(":status", "200")], end_stream=True)


def reset(connection, id):
    connection.reset_stream(id)


IDS = st.sampled_from(STREAMS)
SIZES = st.sampled_from([0, 1, 1000, 60_000])
ACTS = st.one_of(
    st.builds(headers, IDS),
    st.builds(data, IDS, SIZES),
    st.builds(data, IDS, SIZES),
    st.builds(data, IDS, SIZES, st.just("END_STREAM")),
    st.builds(data, IDS, st.just(100), st.just("PADDED"), padding=st.sampled_from([0, 10, 200])),
    st.builds(gone, IDS),
    st.builds(partial, st.just(answer), id=IDS),
    st.builds(partial, st.just(reset), id=IDS),
)


def happens(connection, act):
    """What an act, bytes of the client or one of ours, leads to: events or an error, and what is written."""
    try:
        told = [repr(each) for each in (connection.receive_data(act) if isinstance(act, bytes) else [act(connection)])]
    except (ProtocolError, KeyError) as error:
        told = [f"{type(error).__name__}: {error}"]
    return told, connection.data_to_send()


@given(st.lists(ACTS, max_size=30))
@example([partial(reset, id=1), data(1, 10)])
@example([partial(answer, id=1), partial(reset, id=1), data(1, 10), data(1, 10)])
@example([gone(1), data(1, 60_000), data(1, 60_000)])
@example([data(1, 10, "END_STREAM"), data(1, 10)])
@example([data(7, 10)])
def test_data_frames_lead_to_what_they_lead_to_in_h2(acts):
    ours, plain = ServerSide(), ServerSide()
    plain._receive_frame = partial(H2Connection._receive_frame, plain)
    for act in [PREFACE, headers(1), headers(3), *acts]:
        assert happens(ours, act) == happens(plain, act)


class Log:
    def __init__(self):
        self.texts = []

    def debug(self, *arguments): ...

    def trace(self, *arguments):
        self.texts += [each for each in arguments if isinstance(each, str)]


@pytest.mark.parametrize("size", [1, 16 * 1024])
def test_no_text_is_made_of_data(size):
    connection = ServerSide()
    connection.receive_data(PREFACE + headers(1))
    connection.config.logger = log = Log()
    events = connection.receive_data(data(1, size))
    assert [type(event) for event in events] == [h2.events.DataReceived]
    assert not [text for text in log.texts if "DataFrame" in text]
    connection.receive_data(gone(1))
    assert [text for text in log.texts if "RstStreamFrame" in text]


def test_a_connection_that_lasts_does_not_hold_more_for_every_call_that_was_made_on_it():
    connection, sizes = ServerSide(), []
    connection.receive_data(PREFACE)
    for call in range(3 * _CONCURRENT_CALLS):
        connection.receive_data(headers(2 * call + 1, "END_STREAM"))
        answer(connection, 2 * call + 1)
        connection.data_to_send()
        sizes.append(len(connection.streams) + len(connection._closed_streams))
    assert sizes[-1] == max(sizes) <= _CONCURRENT_CALLS + 1


@pytest.mark.parametrize(
    "late", [data(1, 10), gone(1), WindowUpdateFrame(1, 1000).serialize()], ids=["data", "reset", "window"]
)
def test_what_comes_late_for_a_call_that_is_forgotten_harms_no_other(late):
    connection = ServerSide()
    connection.receive_data(PREFACE)
    ids = range(1, 2 * _CONCURRENT_CALLS + 6, 2)
    for id in ids:
        connection.receive_data(headers(id, "END_STREAM"))
        if id != ids[-1]:
            answer(connection, id)
    assert 1 not in connection._closed_streams
    assert connection.receive_data(late) == []
    answer(connection, ids[-1])
