"""Batches in arrival order, padded to their longest, as TensorFlow Serving's `pad_variable_length_inputs` does.

`python -m loadtests.bench.servers.arrival HOST:PORT BACKEND` takes the requests of `sequences.py` alone, and calls the
model server as the gateway does: as many rows as wait, up to the gateway's largest batch, as many batches at a time. It
does less than the gateway for each request; what the gateway gains on it, it gains by its batches.
"""

import asyncio
import sys
from collections import deque
from functools import partial
from typing import Any

import grpc.aio
import numpy as np
import orjson
import uvloop

from loadtests.bench.loads.predict import OPTIONS, PREDICT
from loadtests.bench.workloads.sequences import Rows, predict_request
from loadtests.bench.workloads.steps import FEATURES, OUTPUT
from sluice.policy.batching import BatchingOptions
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor

_FIELDS = (b"content-length: ", b"inference-header-content-length: ")


class Batcher:
    """Sequences that wait, and the batches that run. `call` sends a `PredictRequest` to the model server."""

    def __init__(self, call: Any, options: BatchingOptions) -> None:
        self._call = call
        self._options = options
        self._waiting: deque[tuple[Rows, Any]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def offer(self, row: Rows, answer: Any) -> None:
        """Take on a sequence, float32 `[length, FEATURES]`; `answer(bytes)` is told its output."""
        self._waiting.append((row, answer))
        if len(self._running) < self._options.in_flight and len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._launch)  # when all that came together are here

    def _launch(self) -> None:
        while self._waiting and len(self._running) < self._options.in_flight:
            count = min(len(self._waiting), self._options.max_rows)
            task = asyncio.get_running_loop().create_task(self._run([self._waiting.popleft() for _ in range(count)]))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._launch()
        task.result()  # what went wrong is for the log

    async def _run(self, batch: list[tuple[Rows, Any]]) -> None:
        answer = await self._call(predict_request([row for row, _ in batch]))
        outputs = read_tensor(tfs.PredictResponse.FromString(answer).outputs[OUTPUT])
        for (_, tell), output in zip(batch, outputs, strict=True):
            tell(output.tobytes())


class Connection(asyncio.Protocol):
    """One client, with one request at a time."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._data = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, _ = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        size, json_size = (int(head.partition(b"\r\n" + field)[2].partition(b"\r\n")[0]) for field in _FIELDS)
        start = len(head) + len(end)
        if len(self._data) < start + size:
            return
        row = np.frombuffer(bytes(self._data[start + json_size : start + size]), np.float32).reshape(-1, FEATURES)
        del self._data[: start + size]
        self._batcher.offer(row, partial(answer, self._transport))


def answer(transport: Any, output: bytes) -> None:
    """Write a whole answer, of the protocol's binary form, if the client is still there."""
    if transport.is_closing():
        return
    given = {"name": OUTPUT, "datatype": "FP32", "shape": [1, FEATURES]}
    head = orjson.dumps({"outputs": [given | {"parameters": {"binary_data_size": len(output)}}]})
    transport.write(
        b"HTTP/1.1 200 OK\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b"
        % (len(head), len(head) + len(output), head, output)
    )


async def serve(address: str, backend: str) -> None:
    host, _, port = address.rpartition(":")
    async with grpc.aio.insecure_channel(backend, options=OPTIONS) as channel:
        batcher = Batcher(channel.unary_unary(PREDICT, bytes, bytes), BatchingOptions())
        server = await asyncio.get_running_loop().create_server(partial(Connection, batcher), host, int(port))
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
