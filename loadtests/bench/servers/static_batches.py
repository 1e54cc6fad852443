"""Generation without a gateway: `python -m loadtests.bench.servers.static_batches BACKEND ROWS SECONDS`.

A batch of ROWS is encoded with one call of the model server, and decoded with a call for each step until the longest
of it has its tokens; states go back as they came. Answers are the tokens that were asked for, latencies a batch's.
Prints a line of JSON.
"""

import sys
import time
from typing import Any

import grpc
import numpy as np

from loadtests.bench.loads.load import WARM_UP_S, Load, printed
from loadtests.bench.loads.predict import OPTIONS, PREDICT
from loadtests.bench.workloads.generation import (
    DECODE,
    ENCODE,
    GENERATOR,
    LENGTHS,
    LOGITS,
    POOL,
    SOURCE,
    START,
    STATE,
    TOKEN,
    sources,
    steps,
)
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor, write_tensor

_LIMIT_S = 60


def generate(call: Any, places: range) -> int:
    """Generate for the requests at these places, greedily, until all have ended; how many tokens they asked for."""
    asked = [steps()[place % POOL] for place in places]
    state = call(_encode([sources()[place % POOL] for place in places])).outputs[STATE]
    tokens = np.full(len(asked), START, np.int32)
    for _ in range(max(asked)):
        request = _request(DECODE)
        write_tensor(request.inputs[TOKEN], tokens)
        request.inputs[STATE].CopyFrom(state)
        outputs = call(request).outputs
        tokens, state = read_tensor(outputs[LOGITS]).argmax(axis=1).astype(np.int32), outputs[STATE]
    return sum(asked)


def _encode(rows: list[list[int]]) -> tfs.PredictRequest:
    lengths = np.array([len(row) for row in rows], np.int32)
    block = np.zeros((len(rows), lengths.max()), np.int32)
    for into, row in zip(block, rows, strict=True):
        into[: len(row)] = row
    request = _request(ENCODE)
    write_tensor(request.inputs[SOURCE], block)
    write_tensor(request.inputs[LENGTHS], lengths)
    return request


def _request(signature: str) -> tfs.PredictRequest:
    request = tfs.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = GENERATOR, signature
    return request


def run(backend: str, rows: int, seconds: float) -> Load:
    with grpc.insecure_channel(backend, options=OPTIONS) as channel:
        method: Any = channel.unary_unary(PREDICT, tfs.PredictRequest.SerializeToString, tfs.PredictResponse.FromString)

        def call(request: tfs.PredictRequest) -> Any:
            return method(request, timeout=_LIMIT_S)

        first = 0
        for duration in (WARM_UP_S, seconds):
            tokens, latencies = 0, []
            began, cpu = time.perf_counter(), time.process_time()
            while (begins := time.perf_counter()) < began + duration:
                tokens += generate(call, range(first, first + rows))
                latencies.append(time.perf_counter() - begins)
                first += rows
        passed, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Load(tokens, passed, float(p50), float(p99), cpu_s)


def main(backend: str, rows: str, seconds: str) -> None:
    try:
        load = run(backend, int(rows), float(seconds))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
