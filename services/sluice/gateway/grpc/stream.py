"""A bidirectional stream of requests, each with an answer of its own.

It knows how many may run at a time; what a request means is its door's.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from google.protobuf.message import Message

from sluice.gateway.grpc.call import STREAM_WINDOW, Call

# Requests of one stream that may await their answer or its sending, and their bytes; beyond it no more are read.
_STREAM_LIMIT = 1024
_STREAM_BYTES_LIMIT = STREAM_WINDOW


class Begins(Protocol):
    """What carries out a stream's requests."""

    def begin(self, data: bytes, done: Callable[[Message], None]) -> Callable[[], None]:
        """Begin a request; what it returns cancels it. `done` is called once, unless it is cancelled.

        Raises:
            CallFailed: the whole stream ends.
        """


class Stream:
    """One bidirectional stream: requests are begun as they come, answers are sent as they are ready.

    Requests are taken as long as not too many, and not too large ones, await their answer or its sending; who sends
    faster has to wait.
    """

    __slots__ = ("_bytes", "_call", "_door", "_ended", "_number", "_running")

    def __init__(self, door: Begins, call: Call) -> None:
        self._door = door
        self._call = call
        self._number = 0
        self._running: dict[int, Callable[[], None]] = {}  # what cancels each request
        self._bytes = 0  # of the requests that run
        self._ended = False
        call.open()

    @property
    def full(self) -> bool:
        call = self._call
        return (
            len(self._running) + call.unsent >= _STREAM_LIMIT or self._bytes + call.unsent_bytes >= _STREAM_BYTES_LIMIT
        )

    def receive(self, message: bytes) -> None:
        self._number = number = self._number + 1
        self._bytes += len(message)
        self._running[number] = self._door.begin(message, partial(self._answer, number, len(message)))

    def end(self) -> None:
        self._ended = True
        self._finish_if_done()

    def leave(self) -> None:
        running, self._running = self._running, {}
        for cancel in running.values():
            cancel()

    def _answer(self, number: int, size: int, answer: Message) -> None:
        if self._running.pop(number, None) is None:  # the stream was cut when the answer was on its way
            return
        self._bytes -= size
        self._call.send(answer.SerializeToString())
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._ended and not self._running:
            self._call.finish()
