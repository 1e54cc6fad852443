"""Turns answers and errors into JSON bodies and headers: the same rules for hot paths and for FastAPI's."""

import re
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request

from sluice.policy.contract import BFLOAT16
from sluice.policy.errors import SluiceError
from sluice.policy.session import Answers
from sluice.wire.answers import error_body

Array = NDArray[Any]

OUTCOME = "sluice.outcome"  # of a request's scope: the code of what ended an answer that began well

_TF_SERVING = re.compile(
    r"/v1/models/(?!.*(/(sessions|contract|buckets|calibration)\b|:(generate|recognize)$)).*", re.IGNORECASE | re.DOTALL
)


def step_body(answers: Answers, wanted: list[str] | None) -> bytes:
    """`{"outputs": {name: row}, "step": n}` of one session; a non-finite number is null."""
    outputs = answers.outputs
    names = outputs if wanted is None else wanted
    return orjson.dumps(
        {"outputs": {name: jsonable(outputs[name][0, ...]) for name in names}, "step": answers.steps[0]},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def many_body(answers: Answers, wanted: list[str] | None) -> bytes:
    """`{"outputs": {name: [row|null, …]}, "steps": [n|null, …], "errors": [null|{…}, …]}`, by session."""
    errors = [answers.errors.get(row) for row in range(len(answers.steps))]
    names = answers.outputs if wanted is None else wanted
    return orjson.dumps(
        {
            "outputs": {name: _column(answers.outputs.get(name), errors) for name in names},
            "steps": [None if error else step for step, error in zip(answers.steps, errors, strict=True)],
            "errors": [error and error_body(error) for error in errors],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _column(array: Array | None, errors: list[SluiceError | None]) -> Any:
    if array is None:
        return [None] * len(errors)
    if not any(errors):
        return jsonable(array)
    return [None if error else jsonable(row) for row, error in zip(array, errors, strict=True)]


def jsonable(array: Array) -> Any:
    """What orjson can write for an array: float32 round-trips, NaN and infinity become null."""
    if array.dtype.hasobject:
        return _texts(array.tolist())
    if array.dtype == BFLOAT16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _texts(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else [_texts(each) for each in value]


def is_tf_serving(path: str) -> bool:
    """Whether a path is one of TensorFlow Serving's own calls, well formed or not."""
    return _TF_SERVING.fullmatch(path) is not None


def ended_with(request: Request, error: SluiceError) -> None:
    """A stream of events has failed after it began: its request is counted by this error, the first one."""
    request.scope.setdefault(OUTCOME, error.code)


def plain_body(error: SluiceError, path: str) -> dict[str, Any]:
    """An error's body: on paths of other servers' protocols `{"error": sentence}`, as there."""
    theirs = is_tf_serving(path) or path.startswith("/v2/")
    return {"error": error.message} if theirs else error_body(error)
