"""A small, obvious gateway for one model, `sum`, and what a test wants to go wrong with it.

Its predict gives y = `factor`·x in `dtype`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np

from sluice.policy.contract import numpy_dtype
from sluice.policy.errors import SessionClosed, SessionNotFound, SluiceError, StepMismatch
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import DTYPE_NUMBERS
from tests.gateway.puppet import CONTRACT

__all__ = ["CONTRACT", "Cut", "Sums", "Total", "view"]


class Cut(Enum):
    """The connection breaks: before the call runs, or after it has run and before it is answered."""

    BEFORE = auto()
    AFTER = auto()


Fault = Cut | SluiceError | None


@dataclass
class Total:
    """A session: what came so far, and the last answered call."""

    value: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    step: int = 0
    last: tuple[int, Any] | None = None


@dataclass
class Sums:
    """`faults` are what happens to the next calls that step or close, one each, None for nothing."""

    faults: list[Fault] = field(default_factory=list)
    totals: dict[str, Total] = field(default_factory=lambda: {"a": Total(), "b": Total()})
    calls: list[tuple[str, Any, int | None]] = field(default_factory=list)  # (session, x, number), as they came

    dtype: str = "float32"
    factor: float = 1.5
    predicts: list[Any] = field(default_factory=list)  # x, as it came
    described: int = 0  # how often the metadata were asked for

    def fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else None

    def find(self, session: str) -> Total:
        if session not in self.totals:
            raise SessionNotFound(f"There is no session {session!r}.")
        return self.totals[session]

    def close(self, session: str) -> None:
        if session not in self.totals:
            raise SessionClosed(f"Session {session!r} was closed.")
        del self.totals[session]

    def metadata(self) -> tfs.GetModelMetadataResponse:
        self.described += 1
        signatures = tfs.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for info in (signature.inputs["x"], signature.outputs["y"]):
            info.dtype = DTYPE_NUMBERS[self.dtype]  # type: ignore[assignment]
            info.tensor_shape.dim.add().size = -1
        signatures.signature_def["__saved_model_init_op"].method_name = "init"  # as TensorFlow tells it
        reply = tfs.GetModelMetadataResponse()
        reply.metadata["signature_def"].value = signatures.SerializeToString()
        return reply

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.predicts.append(x.tolist())
        return (x * self.factor).astype(numpy_dtype(self.dtype))

    def step(self, session: str, x: Sequence[float], number: int | None) -> tuple[np.ndarray, int, bool]:
        """One step: the total, the number of steps done, and whether it was answered before."""
        total, row = self.find(session), np.asarray(x, np.float32)
        self.calls.append((session, row.tolist(), number))
        if total.last == (number, row.tolist()):
            return total.value, total.step, True
        if number not in (None, total.step):
            raise StepMismatch(f"It is at {total.step}; {number} came.", current=total.step)
        total.last = (total.step, row.tolist())
        total.value, total.step = total.value + row, total.step + 1
        return total.value, total.step, False


def view(session: str, total: Total) -> dict[str, Any]:
    """What `GET /v1/sessions/{id}` answers."""
    at = "2026-01-02T03:04:05.678+00:00"
    return {
        "session": session, "model": "sum", "version": "1", "step": total.step, "waiting": 0, "opened_at": at,
        "last_used_at": at, "expires_at": at, "state_bytes": 8,
    }  # fmt: skip
