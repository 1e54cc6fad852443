"""Calls the model server directly, one call after another: `python -m loadtests.bench.predict_load ADDRESS SECONDS`.

Each call is one step of the narrow model, its state along with it, as bytes that were made before. Prints a line of
JSON.
"""

import sys
import time
from typing import Any

import grpc
import numpy as np

from loadtests.bench.load import WARM_UP_S, Load, Meter, printed
from loadtests.bench.workload import NARROW, SIGNATURE
from services.wire.sluice.tfs.v1 import serving_pb2 as tfs
from services.wire.tensors import write_tensor

_SERVICE = "/tensorflow.serving.PredictionService/"
_LIMIT_S = 10


def request(channel: grpc.Channel) -> bytes:
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


def run(address: str, seconds: float) -> Load:
    meter = Meter(1)
    with grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
        call: Any = channel.unary_unary(_SERVICE + "Predict", bytes, bytes)
        body = request(channel)
        for duration in (WARM_UP_S, seconds):
            meter.begin()
            until = time.perf_counter() + duration
            while time.perf_counter() < until:
                call(body)
                meter.answered([0])
    return meter.end()


def main(address: str, seconds: str) -> None:
    try:
        load = run(address, float(seconds))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print(printed(load))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
