"""What every case sends: the models, the sessions' names, one row of input and the calls that carry it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import orjson

from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import write_tensor

FEATURES = 8
# One row, with as many digits as float32 has.
ROW = [float(f"{value:.7g}") for value in np.random.default_rng(1).normal(size=FEATURES)]
STEP_BODY = orjson.dumps({"inputs": ROW})
SIGNATURE = "step"
INPUT, OUTPUT = "reading", "forecast"
# A plain model: y = x / 2 + 2 for rows of any width.
PLAIN, PLAIN_SIGNATURE, PLAIN_INPUT, PLAIN_OUTPUT = "half_plus_two", "serving_default", "x", "y"
MEGABYTE = 2**18  # values of a row of 1 MiB
INFER_PATH = f"/v2/models/{PLAIN}/infer"
PREDICT_PATH, PREDICT_BODY = f"/v1/models/{PLAIN}:predict", orjson.dumps({"instances": [ROW[:1]]})


@dataclass(frozen=True, slots=True)
class Model:
    """A served model of the bench: stacked LSTM layers and a dense one, random weights from a fixed seed."""

    name: str
    units: int
    layers: int

    @property
    def state_bytes(self) -> int:
        """Two float32 vectors a layer."""
        return 2 * 4 * self.units * self.layers


NARROW = Model("lstm256", 256, 1)
WIDE = Model("lstm1024x2", 1024, 2)
MODELS = (NARROW, WIDE)


def session(model: Model, index: int) -> str:
    """The name of a model's session number `index`, on any gateway."""
    return f"{model.name}-{index}"


def open_request(model: Model, index: int) -> bytes:
    """A whole HTTP request that opens a session."""
    return _post(f"/v1/models/{model.name}/sessions", orjson.dumps({"session": session(model, index)}))


def step_request(model: Model, index: int) -> bytes:
    """A whole HTTP request that steps a session."""
    return _post(f"/v1/sessions/{session(model, index)}:step", STEP_BODY)


def predict_request(values: int) -> bytes:
    """TensorFlow Serving's `PredictRequest` with one row of so many values for the plain model."""
    request = tfs.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = PLAIN, PLAIN_SIGNATURE
    write_tensor(request.inputs[PLAIN_INPUT], np.resize(np.asarray(ROW, np.float32), (1, values)))
    return request.SerializeToString()


def infer_request(values: int) -> tuple[bytes, Mapping[str, str]]:
    """The Open Inference Protocol's binary form of the same, and the header that it needs."""
    data = np.resize(np.asarray(ROW, np.float32), (1, values)).tobytes()
    given = {
        "name": PLAIN_INPUT,
        "datatype": "FP32",
        "shape": [1, values],
        "parameters": {"binary_data_size": len(data)},
    }
    head = orjson.dumps({"inputs": [given], "parameters": {"binary_data_output": True}})
    return head + data, {"inference-header-content-length": str(len(head))}


def _post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
