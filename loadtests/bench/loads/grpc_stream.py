"""Steps many sessions over one gRPC stream.

`python -m loadtests.bench.loads.grpc_stream HOST:PORT ROWS OUTSTANDING SECONDS`

ROWS sessions step with each message; OUTSTANDING messages are on their way, each with sessions of its own, and each is
sent again when its answer has come. Prints a line of JSON.
"""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import uvloop

from loadtests.bench.loads.http2 import GrpcStream, message_frames
from loadtests.bench.loads.load import Load, Meter, measure, printed
from loadtests.bench.workloads.steps import INPUT, NARROW, ROW, session
from sluice.wire.messages.v1 import sessions_pb2 as messages

_STREAM = "/sluice.v1.Sessions/Stream"
_PROBE_S = 10


class Refused(Exception):
    """The gateway does not answer as it should."""


def requests(rows: int, outstanding: int) -> Iterator[messages.StepManyRequest]:
    """The messages, tagged 0 and up."""
    block = np.tile(np.asarray(ROW, "<f4"), (rows, 1))
    inputs = messages.Tensor(dtype="float32", shape=block.shape, data=block.tobytes())
    for tag in range(outstanding):
        names = [session(NARROW, tag * rows + row) for row in range(rows)]
        yield messages.StepManyRequest(model=NARROW.name, sessions=names, inputs={INPUT: inputs}, tag=tag)


def check(answer: messages.StepManyResponse) -> int:
    """The tag of an answer.

    Raises:
        Refused: the request, or one of its steps, was refused.
    """
    if answer.HasField("error"):
        raise Refused(f"{answer.error.code}: {answer.error.message}")
    if answer.errors:
        raise Refused(f"{answer.errors[0].error.code}: {answer.errors[0].error.message}")
    return int(answer.tag)


def probe(address: str, request: messages.StepManyRequest) -> None:
    """One message by gRPC's own client, which can say what is wrong.

    Raises:
        Refused, grpc.RpcError: it was not answered as it should.
    """
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(
            _STREAM, messages.StepManyRequest.SerializeToString, messages.StepManyResponse.FromString
        )
        for answer in call(iter([request]), timeout=_PROBE_S, wait_for_ready=True):
            check(answer)


class Client(asyncio.Protocol):
    """Sends each request again when its answer comes."""

    def __init__(self, frames: list[bytes], failed: "asyncio.Future[None]") -> None:
        self._frames = frames
        self._failed = failed
        self.meter = Meter(len(frames))

    def connection_made(self, transport: Any) -> None:
        self._stream = GrpcStream(transport.write, _STREAM)
        self._stream.send(self._frames)

    def data_received(self, data: bytes) -> None:
        try:
            read = messages.StepManyResponse.FromString
            tags = [check(read(message)) for message in self._stream.receive(data)]
        except (Refused, ConnectionError) as error:
            self._fail(error)
            return
        self.meter.answered(tags)
        self._stream.send([self._frames[tag] for tag in tags])

    def connection_lost(self, reason: Exception | None) -> None:
        self._fail(reason or ConnectionError("the gateway closed the connection"))

    def _fail(self, reason: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(reason)


async def run(address: str, rows: int, outstanding: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    frames = [message_frames(request.SerializeToString()) for request in requests(rows, outstanding)]
    failed: asyncio.Future[None] = loop.create_future()
    host, _, port = address.rpartition(":")
    transport, client = await loop.create_connection(lambda: Client(frames, failed), host, int(port))
    try:
        return await measure(client.meter, failed, seconds)
    finally:
        transport.abort()


def main(address: str, rows: str, outstanding: str, seconds: str) -> None:
    try:
        probe(address, next(requests(int(rows), 1)))
        load = uvloop.run(run(address, int(rows), int(outstanding), float(seconds)))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except (Refused, ConnectionError) as error:
        sys.exit(str(error))
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
