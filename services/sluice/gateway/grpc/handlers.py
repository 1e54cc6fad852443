"""The shapes in which a method is carried out: one message in; answered at once, from a task, or with many messages."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from sluice.gateway.grpc.call import Call
from sluice.wire.grpc_frames import BAD_REQUEST, CallFailed

Answered = Callable[[bytes | CallFailed | None], None]
Begin = Callable[[bytes, Call, Answered], Callable[[], object]]


class Unary:
    """A call with one message of the client. `begin` gets it and whom to answer, once; it returns what cancels it.

    The answer is a message, or None where `begin` has sent all messages itself. `begin` may raise `CallFailed`.
    """

    __slots__ = ("_begin", "_call", "_cancel", "_message")

    full = False

    def __init__(self, begin: Begin, call: Call) -> None:
        self._begin = begin
        self._call = call
        self._message: bytes | None = None
        self._cancel: Callable[[], object] | None = None

    def receive(self, message: bytes) -> None:
        if self._message is not None:
            raise CallFailed("INTERNAL", "This method takes one message; more than one came.", BAD_REQUEST)
        self._message = message

    def end(self) -> None:
        if self._message is None:
            raise CallFailed("INTERNAL", "This method takes one message; none came.", BAD_REQUEST)
        self._cancel = self._begin(self._message, self._call, self._answer)

    def leave(self) -> None:
        if self._cancel is not None:
            self._cancel()

    def _answer(self, answer: bytes | CallFailed | None) -> None:
        if isinstance(answer, CallFailed):
            self._call.finish(answer)
            return
        if answer is not None:
            self._call.send(answer)
        self._call.finish()


def awaited(act: Callable[[bytes, Call], Awaitable[bytes]]) -> Begin:
    """What `Unary` begins, for a call that is carried out in a task; `act` may raise `CallFailed`."""

    async def run(message: bytes, call: Call, done: Answered) -> None:
        try:
            answer: bytes | CallFailed = await act(message, call)
        except CallFailed as failure:
            answer = failure
        done(answer)

    return _in_task(run)


def streamed(act: Callable[[bytes, Call], AsyncGenerator[bytes]]) -> Begin:
    """As `awaited`, for a call with any number of answers. Those that the client has no room for wait in the call."""

    async def run(message: bytes, call: Call, done: Answered) -> None:
        try:
            async with aclosing(act(message, call)) as answers:
                async for answer in answers:
                    call.send(answer)
        except CallFailed as failure:
            done(failure)
        else:
            done(None)

    return _in_task(run)


def _in_task(run: Callable[[bytes, Call, Answered], Coroutine[Any, Any, None]]) -> Begin:
    def begin(message: bytes, call: Call, done: Answered) -> Callable[[], object]:
        return asyncio.get_running_loop().create_task(run(message, call, done)).cancel

    return begin
