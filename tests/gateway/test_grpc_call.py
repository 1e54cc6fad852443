"""One call: its life, and what late or repeated words of its handler do to it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.gateway.grpc.call import Call
from sluice.gateway.grpc.life_cycle import LIFE_CYCLE, Event, Phase
from sluice.wire.grpc_frames import CallFailed, framed

HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.Echo/Each"),
    (b"content-type", b"application/grpc"),
]
GONE, FULL = CallFailed("NOT_FOUND", "It is gone."), CallFailed("UNAVAILABLE", "It is full.")

# The life cycle


def test_the_life_cycle_speaks_of_every_phase_and_of_known_events_only():
    assert set(LIFE_CYCLE) == set(Phase)
    assert {event for row in LIFE_CYCLE.values() for event in row} == set(Event)


def test_a_call_that_is_closed_stays_closed_and_every_other_one_can_be_closed():
    assert LIFE_CYCLE[Phase.CLOSED] == {}
    assert {row[Event.CLOSE] for phase, row in LIFE_CYCLE.items() if phase is not Phase.CLOSED} == {Phase.CLOSED}


class Halves:
    """The two halves of a stream in plain words: what each side has done, and hence what may come."""

    def __init__(self):
        self.ended = self.drained = self.finished = self.closed = False

    def may(self, event):
        if self.closed:
            return False
        return {
            Event.TAKE: not self.drained and not self.finished,
            Event.SEND: not self.finished,
            Event.END: not self.ended,
            Event.DRAIN: self.ended and not self.drained and not self.finished,
            Event.FINISH: not self.finished,
            Event.FAIL: True,
            Event.CLOSE: True,
        }[event]

    def hear(self, event):
        self.ended |= event is Event.END
        self.drained |= event is Event.DRAIN
        self.finished |= event in {Event.FINISH, Event.FAIL}
        self.closed |= event is Event.CLOSE

    @property
    def phase(self):
        if self.closed:
            return Phase.CLOSED
        if self.finished:
            return Phase.FINISHING if self.ended else Phase.CUTTING
        if self.drained:
            return Phase.DRAINED
        return Phase.HALF_CLOSED if self.ended else Phase.OPEN


@given(st.lists(st.sampled_from(Event)))
def test_the_life_cycle_is_that_of_the_two_halves_of_a_stream(events):
    call, halves = Call(Carrier(), 1), Halves()
    for event in events:
        moved = halves.may(event)
        if moved:
            halves.hear(event)
        assert call.advance(event) is moved
        assert call.phase is halves.phase


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_moves_along_the_table_or_changes_nothing(phase, event):
    call = Call(Carrier(), 1)
    call.phase = phase
    assert call.advance(event) is (event in LIFE_CYCLE[phase])
    assert call.phase is LIFE_CYCLE[phase].get(event, phase)


# What is sent


class Carrier:
    """A connection with `room` bytes in the client's windows, and what was sent on it. It is its own h2."""

    bytes_limit = 1000
    max_outbound_frame_size = 1000
    overfed = False

    def __init__(self, room=1000):
        self.h2 = self
        self.room = room
        self.inbox_bytes = self.unsent_bytes = self.idle = 0
        self.full = False
        self.wanted = Counter()
        self.sent = []

    def must_wait(self, call):
        return self.full

    def wants(self, call):
        self.wanted[call] += 1

    def collect(self): ...

    def ended(self, call):
        call.close()

    def local_flow_control_window(self, id):
        return self.room

    def send_headers(self, id, fields, end_stream=False):
        fields = dict(fields)
        self.sent.append((":status" if b":status" in fields else "", fields.get(b"grpc-status"), end_stream))

    def send_data(self, id, data):
        self.room -= len(data)
        self.sent.append(data)

    def reset_stream(self, id, code):
        self.sent.append("reset")


class Ears:
    """A handler that only listens."""

    full = False

    def __init__(self, call):
        self.heard = []

    def receive(self, message):
        self.heard.append(message)

    def end(self):
        self.heard.append("end")

    def leave(self):
        self.heard.append("leave")


BEGUN, OK, NOT_FOUND, UNAVAILABLE = (":status", None, False), ("", b"0", True), ("", b"5", True), ("", b"14", True)


@pytest.fixture
def carrier():
    return Carrier()


@pytest.fixture
def ears():
    return []


@pytest.fixture
def call(carrier, ears):
    """A call that is open, and its handler in `ears`."""

    def listening(call):
        ears.append(Ears(call))
        return ears[0]

    call = Call(carrier, 1)
    call.begin(HEAD, {b"/test.Echo/Each": listening})
    return call


def test_a_call_is_answered_with_headers_messages_and_trailers(call, carrier):
    call.end()
    call.send(b"abc")
    call.finish()
    assert call.push()
    assert carrier.sent == [BEGUN, framed(b"abc"), OK]
    assert call.phase is Phase.CLOSED


def test_a_call_without_an_answer_has_trailers_only(call, carrier):
    call.end()
    call.finish(GONE)
    call.push()
    assert carrier.sent == [(":status", b"5", True)]


def test_headers_are_sent_once_however_often_they_are_wanted(call, carrier):
    for _ in range(2):
        call.open()
        call.push()
    call.send(b"abc")
    call.push()
    assert carrier.sent == [BEGUN, framed(b"abc")]


def test_a_client_that_still_sends_when_it_is_answered_is_told_to_stop(call, carrier):
    call.send(b"abc")
    call.finish()
    call.push()
    assert carrier.sent == [BEGUN, framed(b"abc"), OK, "reset"]


def test_a_client_that_ends_before_the_answer_is_out_is_not(carrier, call):
    carrier.room = 0
    call.send(b"abc")
    call.finish()
    assert not call.push()
    call.end()
    carrier.room = 100
    assert call.push()
    assert carrier.sent == [BEGUN, framed(b"abc"), OK]


def test_what_comes_after_the_answer_is_dropped(call, carrier, ears):
    call.finish()
    call.receive(framed(b"abc"), 8)
    call.end()
    assert ears[0].heard == []
    assert carrier.inbox_bytes == 0


def test_a_message_after_the_end_of_the_call_is_not_sent(call, carrier):
    call.end()
    call.finish()
    call.send(b"abc")
    call.open()
    assert (call.unsent, carrier.unsent_bytes) == (0, 0)
    call.push()
    call.send(b"abc")
    assert carrier.sent == [(":status", b"0", True)]


def test_a_call_is_finished_once(call, carrier):
    call.end()
    call.open()
    call.finish(GONE)
    call.finish()
    call.push()
    assert carrier.sent == [BEGUN, NOT_FOUND]


def test_a_call_whose_answer_has_no_room_can_still_fail(call, carrier):
    carrier.room = 5
    call.end()
    call.send(b"abc")
    call.finish()
    assert not call.push()
    call.fail(FULL)
    assert carrier.unsent_bytes == 0
    assert call.push()
    assert carrier.sent == [BEGUN, framed(b"abc")[:5], UNAVAILABLE]


@pytest.mark.parametrize("end", [lambda call: call.finish(), lambda call: call.fail(GONE)])
def test_nothing_is_said_on_a_stream_that_is_no_more(call, carrier, end):
    call.send(b"abc")
    call.close()
    carrier.wanted.clear()
    for act in (end, lambda call: call.send(b"abc"), lambda call: call.open()):
        act(call)
    assert call.push()
    assert (carrier.sent, carrier.wanted, carrier.unsent_bytes) == ([], {}, 0)


# What the handler hears


def test_the_handler_hears_messages_and_then_the_end_once(call, ears):
    wire = framed(b"abc") + framed(b"de")
    call.receive(wire[:9], 9)
    call.receive(wire[9:], len(wire) - 9)
    call.end()
    call.push()
    assert ears[0].heard == [b"abc", b"de", "end"]


def test_a_call_that_must_wait_for_others_goes_on_when_it_is_pushed(call, carrier, ears):
    carrier.full = True
    call.receive(framed(b"abc"), 8)
    call.end()
    assert (ears[0].heard, carrier.inbox_bytes) == ([], 8)
    carrier.full = False
    call.push()
    assert (ears[0].heard, carrier.inbox_bytes) == ([b"abc", "end"], 0)


def test_a_handler_that_finishes_with_a_message_hears_no_more(call, ears):
    ears[0].receive = lambda message: (ears[0].heard.append(message), call.finish())
    call.receive(framed(b"abc") + framed(b"de"), 15)
    call.end()
    assert ears[0].heard == [b"abc"]
