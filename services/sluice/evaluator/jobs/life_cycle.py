"""Decides what may happen to an evaluation. It does not know what runs, nor where that is written down."""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    START = "start"  # it is its turn
    FINISH = "finish"  # there is a report
    FAIL = "fail"  # what was asked for cannot be done
    PAUSE = "pause"  # something that is needed is not there now: the gateway, the model, room on the disk
    RESTART = "restart"  # the evaluator ended while it ran, and is there again
    RESUME = "resume"
    CANCEL = "cancel"


# The life of an evaluation, status by event. What is not here is refused, and changes nothing.
LIFE_CYCLE: Mapping[Status, Mapping[Event, Status]] = {
    Status.QUEUED: {Event.START: Status.RUNNING, Event.CANCEL: Status.CANCELLED},
    Status.RUNNING: {
        Event.FINISH: Status.DONE,
        Event.FAIL: Status.FAILED,
        Event.PAUSE: Status.PAUSED,
        Event.RESTART: Status.QUEUED,
        Event.CANCEL: Status.CANCELLED,
    },
    Status.PAUSED: {Event.RESUME: Status.QUEUED, Event.CANCEL: Status.CANCELLED},
    Status.DONE: {},
    Status.FAILED: {},
    Status.CANCELLED: {},
}
ENDED = frozenset(status for status, events in LIFE_CYCLE.items() if not events)
