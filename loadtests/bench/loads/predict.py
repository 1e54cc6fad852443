"""Calls Predict from a few threads: `python -m loadtests.bench.loads.predict ADDRESS REQUEST CALLERS SECONDS`.

Each thread sends its next call when the last one is answered, as bytes that were made before. REQUEST is `step`, one
step of the narrow model with its state along, or the number of values in a row for the plain model. Prints a line of
JSON.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from loadtests.bench.loads.load import WARM_UP_S, Load, Meter, printed
from loadtests.bench.workloads.steps import NARROW, SIGNATURE, predict_request
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import write_tensor

_SERVICE = "/tensorflow.serving.PredictionService/"
PREDICT = _SERVICE + "Predict"
_LIMIT_S = 10
OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def step_request(channel: grpc.Channel) -> bytes:
    """One row for every input that the model server says the step has."""
    asked = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = NARROW.name
    describe: Any = channel.unary_unary(
        _SERVICE + "GetModelMetadata",
        tfs.GetModelMetadataRequest.SerializeToString,
        tfs.GetModelMetadataResponse.FromString,
    )
    described = describe(asked, timeout=_LIMIT_S).metadata["signature_def"].value
    inputs = tfs.SignatureDefMap.FromString(described).signature_def[SIGNATURE].inputs
    made = tfs.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = NARROW.name, SIGNATURE
    dice = np.random.default_rng(2)
    for name, info in inputs.items():
        shape = (1, *(dim.size for dim in info.tensor_shape.dim[1:]))
        write_tensor(made.inputs[name], dice.normal(size=shape).astype(np.float32))
    return made.SerializeToString()


def run(address: str, request: str, callers: int, seconds: float) -> Load:
    meter = Meter(callers)
    with grpc.insecure_channel(address, options=OPTIONS) as channel, ThreadPoolExecutor(callers) as threads:
        call: Any = channel.unary_unary(PREDICT, bytes, bytes)
        body = step_request(channel) if request == "step" else predict_request(int(request))
        for duration in (WARM_UP_S, seconds):
            meter.begin()
            until = time.perf_counter() + duration

            def go_on(caller: int, until: float = until) -> None:
                while time.perf_counter() < until:
                    call(body, timeout=_LIMIT_S)
                    meter.answered([caller])

            for _ in threads.map(go_on, range(callers)):
                pass
    return meter.end()


def main(address: str, request: str, callers: str, seconds: str) -> None:
    try:
        load = run(address, request, int(callers), float(seconds))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
