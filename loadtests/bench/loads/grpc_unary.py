"""Makes many gRPC Predict calls at once.

`python -m loadtests.bench.loads.grpc_unary ADDRESS CONNECTIONS CALLS SECONDS`

Each of CONNECTIONS has CALLS on their way, of one row each; a new one begins when an answer has come. Prints a line of
JSON.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from loadtests.bench.loads.http2 import GrpcCalls
from loadtests.bench.loads.load import Load, Meter, measure, printed
from loadtests.bench.loads.predict import PREDICT
from loadtests.bench.workloads.steps import predict_request

_PROBE_S = 10


class Client(asyncio.Protocol):
    """One connection, whose calls have the given tags of the meter that all connections share."""

    def __init__(self, message: bytes, tags: list[int], meter: Meter, failed: "asyncio.Future[None]") -> None:
        self._message = message
        self._tags = tags
        self._meter = meter
        self._failed = failed

    def connection_made(self, transport: Any) -> None:
        self._calls = GrpcCalls(transport.write, PREDICT, self._message)
        self._calls.call(self._tags)

    def data_received(self, data: bytes) -> None:
        try:
            tags = self._calls.receive(data)
        except ConnectionError as error:
            self._fail(error)
            return
        if tags:
            self._meter.answered(tags)
            self._calls.call(tags)

    def connection_lost(self, reason: Exception | None) -> None:
        self._fail(reason or ConnectionError("the server closed the connection"))

    def _fail(self, reason: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(reason)


def probe(address: str, message: bytes) -> None:
    """One call by gRPC's own client, which can say what is wrong.

    Raises:
        grpc.RpcError: it was not answered as it should.
    """
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(PREDICT, bytes, bytes)
        call(message, timeout=_PROBE_S, wait_for_ready=True)


async def run(address: str, connections: int, calls: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    message = predict_request(1)
    meter = Meter(connections * calls)
    failed: asyncio.Future[None] = loop.create_future()
    host, _, port = address.rpartition(":")
    transports = []
    try:
        for first in range(0, connections * calls, calls):
            client = Client(message, [*range(first, first + calls)], meter, failed)
            transport, _ = await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
            transports.append(transport)
        return await measure(meter, failed, seconds)
    finally:
        for transport in transports:
            transport.abort()


def main(address: str, connections: str, calls: str, seconds: str) -> None:
    try:
        probe(address, predict_request(1))
        load = uvloop.run(run(address, int(connections), int(calls), float(seconds)))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except ConnectionError as error:
        sys.exit(str(error))
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
