"""Steps over one bidirectional gRPC stream: each request carries a tag, and its answer comes with it."""

import asyncio
from collections.abc import Callable
from copy import copy
from itertools import count
from typing import Any

import grpc.aio

from sluice.client.errors import NoAnswer
from sluice.client.grpc_messages import answers, refusal, stream_request, told
from sluice.client.values import Answer, Call
from sluice.policy.errors import SluiceError
from sluice.wire.messages.v1 import sessions_pb2 as pb

_GRACE_S = 1.0  # for the gateway's own word that the time was over


class StreamLane:
    """A stream that `begin` opens at the first step, and again after it was cut."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._tags = count(1)
        self._stream: _Stream | None = None

    async def step(self, call: Call, timeout_s: float) -> Answer:
        if self._stream is None or self._stream.broken:
            self._stream = _Stream(self._begin())
        reply = await self._stream.ask(stream_request(call, next(self._tags), timeout_s), timeout_s)
        if reply.HasField("error"):
            raise told(reply.error)
        (result,) = answers(reply)
        if isinstance(result, SluiceError):
            raise result
        return result

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()


class _Stream:
    """One call of `Stream`, until it is cut."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._waiting: dict[int, asyncio.Future[pb.StepManyResponse]] = {}
        self._unsent: asyncio.Queue[pb.StepManyRequest] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        self.broken = False

    async def ask(self, request: pb.StepManyRequest, timeout_s: float) -> pb.StepManyResponse:
        """The answer to a request.

        Raises:
            SluiceError: the stream was refused or cut, or the time was over.
        """
        answer: asyncio.Future[pb.StepManyResponse] = asyncio.get_running_loop().create_future()
        self._waiting[request.tag] = answer
        self._unsent.put_nowait(request)
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await answer
        except TimeoutError:
            raise NoAnswer(f"The gateway did not answer on the stream within {timeout_s:g} s.") from None
        finally:
            del self._waiting[request.tag]

    async def aclose(self) -> None:
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self) -> None:
        """One request after another, in a task of its own: giving up in the middle of writing would end the stream."""
        while True:
            request = await self._unsent.get()
            try:
                await self._call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader says why

    async def _read(self) -> None:
        reason: SluiceError = NoAnswer("The gateway ended the stream before it answered.")
        try:
            async for reply in self._call:
                self._settle(reply)
        except grpc.aio.AioRpcError as error:
            reason = refusal(error)
        finally:
            self._cut(reason)

    def _settle(self, reply: pb.StepManyResponse) -> None:
        waiting = self._waiting.get(reply.tag)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _cut(self, reason: SluiceError) -> None:
        self.broken = True
        self._tasks[1].cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(copy(reason))
