"""What streams do when nobody answers, in made-up time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from sluice.client import NoAnswer
from sluice.client.contracts import OutputDtypes
from sluice.client.grpc_stream import StreamLane
from sluice.client.values import Call
from sluice.client.websocket import SocketLane
from sluice.wire.messages.v1 import sessions_pb2 as pb
from tests.client.sums import CONTRACT

STEP = Call("a", "sum", "1", {"x": np.zeros(2, np.float32)}, 0, ())


class Rpc:
    """A stream that a test answers, ends or leaves alone."""

    def __init__(self, *, writable: bool = True) -> None:
        self.replies: asyncio.Queue[pb.StepManyResponse | None] = asyncio.Queue()
        self.written: list[pb.StepManyRequest] = []
        self.writable = writable

    async def write(self, request: pb.StepManyRequest) -> None:
        if not self.writable:
            raise asyncio.InvalidStateError("RPC already finished.")
        self.written.append(request)

    async def __aiter__(self) -> AsyncIterator[pb.StepManyResponse]:
        while (reply := await self.replies.get()) is not None:
            yield reply

    def cancel(self) -> None: ...


class Socket:
    """A WebSocket on which no answer comes."""

    def __init__(self) -> None:
        self.transport = self
        self.aborted = False

    async def send(self, _: str) -> None: ...

    async def recv(self) -> str:
        return await asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.looptime
async def test_a_grpc_stream_that_is_silent_is_not_waited_for_and_stays() -> None:
    rpc = Rpc()
    lane = StreamLane(lambda: rpc)
    with pytest.raises(NoAnswer, match="within 3 s"):
        await lane.step(STEP, 3.0)
    late = pb.StepManyResponse(tag=rpc.written[0].tag, steps=[7])
    again = asyncio.create_task(lane.step(STEP, 3.0))
    await asyncio.sleep(1)
    rpc.replies.put_nowait(late)
    rpc.replies.put_nowait(pb.StepManyResponse(tag=rpc.written[1].tag, steps=[1]))
    assert (await again).step == 1
    await lane.aclose()


@pytest.mark.looptime
async def test_a_grpc_stream_that_the_gateway_ends_is_opened_again() -> None:
    rpcs = [Rpc(), Rpc(writable=False), Rpc()]
    begun = iter(rpcs)
    lane = StreamLane(lambda: next(begun))
    for rpc in rpcs[:2]:
        rpc.replies.put_nowait(None)
        with pytest.raises(NoAnswer, match="ended the stream"):
            await lane.step(STEP, 3.0)
    rpcs[2].replies.put_nowait(pb.StepManyResponse(tag=3, steps=[1]))
    assert (await lane.step(STEP, 3.0)).step == 1
    await lane.aclose()
    await StreamLane(Rpc).aclose()


@pytest.mark.looptime
async def test_a_socket_that_is_silent_is_given_up_so_that_no_late_answer_is_taken_for_another() -> None:
    async def contract(*_: Any) -> Any:
        return CONTRACT

    lane, socket = SocketLane("http://gateway", {}, OutputDtypes(contract)), Socket()
    lane._sockets["a"] = socket  # type: ignore[assignment]
    with pytest.raises(NoAnswer, match="within 3 s"):
        await lane.step(STEP, 3.0)
    assert socket.aborted
    assert lane._sockets == {}
