"""What the cases with sequences of different lengths send: whole HTTP requests, one sequence each.

They are of the Open Inference Protocol's binary form, so that numbers cost next to nothing on their way.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.bench.workloads.lengths import LONGEST, Mix, lengths_of
from loadtests.bench.workloads.steps import FEATURES, INPUT, OUTPUT
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import write_tensor

Rows = NDArray[np.float32]

SEQUENCES = "sequences256"  # an LSTM of 256 over sequences, and a dense layer on what it says after the last step
# Its signatures: the gateway pads; the client has padded; a chunk of time steps.
RAGGED, PADDED, SCAN = "sequences", "serving_default", "scan"
LENGTHS = "lengths"
STATES = "h", "c"
PATH = f"/v2/models/{SEQUENCES}/infer"
_SEED = 13


@cache
def sequences_of(mix: Mix) -> tuple[Rows, ...]:
    """The sequences of a mix, each float32 `[length, FEATURES]`."""
    block = np.random.default_rng(_SEED).normal(size=(LONGEST, FEATURES)).astype(np.float32)
    return tuple(block[:length] for length in lengths_of(mix))


def http_requests(mix: Mix, *, padded: bool) -> list[bytes]:
    """A request for each sequence of a mix, as it is; `padded`: to the longest there is, with its length beside it."""
    return [_padded(row) if padded else _ragged(row) for row in sequences_of(mix)]


def write_requests(requests: Sequence[bytes], file: Path) -> None:
    """As lua/many.lua reads them: each behind its size."""
    file.write_bytes(b"".join(len(request).to_bytes(4) + request for request in requests))


def predict_request(rows: Sequence[Rows]) -> bytes:
    """TensorFlow Serving's `PredictRequest` with a batch of sequences, padded to the longest of them."""
    lengths = np.array([len(row) for row in rows], np.int32)
    block = np.zeros((len(rows), lengths.max(), FEATURES), np.float32)
    for into, row in zip(block, rows, strict=True):
        into[: len(row)] = row
    request = tfs.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = SEQUENCES, PADDED
    write_tensor(request.inputs[INPUT], block)
    write_tensor(request.inputs[LENGTHS], lengths)
    return request.SerializeToString()


def _ragged(row: Rows) -> bytes:
    return _http(RAGGED, [(INPUT, "FP32", [1, *row.shape], row.tobytes())])


def _padded(row: Rows) -> bytes:
    block = np.zeros((1, LONGEST, FEATURES), np.float32)
    block[0, : len(row)] = row
    length = np.array([len(row)], np.int32)
    return _http(PADDED, [(INPUT, "FP32", [*block.shape], block.tobytes()), (LENGTHS, "INT32", [1], length.tobytes())])


def _http(signature: str, inputs: Sequence[tuple[str, str, list[int], bytes]]) -> bytes:
    given = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in inputs
    ]
    head = orjson.dumps(
        {
            "parameters": {"signature_name": signature},
            "inputs": given,
            "outputs": [{"name": OUTPUT, "parameters": {"binary_data": True}}],
        }
    )
    body = head + b"".join(_datas(inputs))
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
        f"inference-header-content-length: {len(head)}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def _datas(inputs: Sequence[tuple[str, str, list[int], bytes]]) -> Iterator[bytes]:
    return (data for *_, data in inputs)
