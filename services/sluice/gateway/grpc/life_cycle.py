"""The life of a call: its phases, and what may happen to it in each."""

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    OPEN = "open"  # the client sends messages
    HALF_CLOSED = "half_closed"  # it has sent all
    DRAINED = "drained"  # and the handler has taken all
    FINISHING = "finishing"  # the handler is done: what is unsent goes out, then the trailers
    CUTTING = "cutting"  # the same, and the client, which still sends, is then told to stop
    CLOSED = "closed"


class Event(StrEnum):
    TAKE = "take"  # the handler takes a message
    SEND = "send"  # it has headers or a message for the client
    END = "end"  # the client ends its half of the stream
    DRAIN = "drain"  # the handler is told so
    FINISH = "finish"
    FAIL = "fail"  # what is unsent is dropped
    CLOSE = "close"  # the stream has ended, was reset, or lost its connection


# The life of a call, phase by event. What is not here changes nothing.
LIFE_CYCLE: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.OPEN: {
        Event.TAKE: Phase.OPEN,
        Event.SEND: Phase.OPEN,
        Event.END: Phase.HALF_CLOSED,
        Event.FINISH: Phase.CUTTING,
        Event.FAIL: Phase.CUTTING,
        Event.CLOSE: Phase.CLOSED,
    },
    Phase.HALF_CLOSED: {
        Event.TAKE: Phase.HALF_CLOSED,
        Event.SEND: Phase.HALF_CLOSED,
        Event.DRAIN: Phase.DRAINED,
        Event.FINISH: Phase.FINISHING,
        Event.FAIL: Phase.FINISHING,
        Event.CLOSE: Phase.CLOSED,
    },
    Phase.DRAINED: {
        Event.SEND: Phase.DRAINED,
        Event.FINISH: Phase.FINISHING,
        Event.FAIL: Phase.FINISHING,
        Event.CLOSE: Phase.CLOSED,
    },
    Phase.CUTTING: {Event.END: Phase.FINISHING, Event.FAIL: Phase.CUTTING, Event.CLOSE: Phase.CLOSED},
    Phase.FINISHING: {Event.FAIL: Phase.FINISHING, Event.CLOSE: Phase.CLOSED},
    Phase.CLOSED: {},
}
