"""A bidirectional stream of requests, each with an answer of its own.

It knows how many may run at a time; what a request means is its door's.
"""

from collections.abc import Callable
from functools import partial

from google.protobuf.message import Message

from sluice.gateway.core.pending import Pending
from sluice.gateway.grpc.call import Call
from sluice.gateway.grpc.http2 import STREAM_WINDOW

# Requests of one stream that may await their answer or its sending, and their bytes; beyond it no more are read.
_STREAM_LIMIT = 1024
_STREAM_BYTES_LIMIT = STREAM_WINDOW


# Begins one request; its outcome is a message, errors among them. May raise `CallFailed`: the whole stream ends.
BeginOne = Callable[[bytes, Call, Pending], None]


class Stream:
    """One bidirectional stream: requests are begun as they come, answers are sent as they are ready.

    Requests are taken as long as not too many, and not too large ones, await their answer or its sending; who sends
    faster has to wait.
    """

    __slots__ = ("_begin", "_bytes", "_call", "_ended", "_number", "_running")

    def __init__(self, begin: BeginOne, call: Call) -> None:
        self._begin = begin
        self._call = call
        self._number = 0
        self._running: dict[int, Pending] = {}
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
        self._running[number] = pending = Pending(partial(self._answer, number, len(message)))
        self._begin(message, self._call, pending)

    def end(self) -> None:
        self._ended = True
        self._finish_if_done()

    def leave(self) -> None:
        running, self._running = self._running, {}
        for pending in running.values():
            pending.cancel()

    def _answer(self, number: int, size: int, answer: Message) -> None:
        del self._running[number]
        self._bytes -= size
        self._call.send(answer.SerializeToString())
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._ended and not self._running:
            self._call.finish()
