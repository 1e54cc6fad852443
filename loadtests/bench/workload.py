"""What every case sends: the models, the sessions' names, one row of input and the calls that carry it."""

from dataclasses import dataclass

import numpy as np
import orjson

FEATURES = 8
# One row, with as many digits as float32 has.
ROW = [float(f"{value:.7g}") for value in np.random.default_rng(1).normal(size=FEATURES)]
STEP_BODY = orjson.dumps({"inputs": ROW})
SIGNATURE = "step"
INPUT, OUTPUT = "reading", "forecast"


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


def _post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
