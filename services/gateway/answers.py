"""Turns answers and errors into JSON bodies and headers: the same rules for hot paths and for FastAPI's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.policy.errors import SluiceError
from services.policy.sessions import Answer

Array = NDArray[Any]


def step_body(answer: Answer, wanted: list[str] | None) -> bytes:
    """`{"outputs": {name: row}, "step": n}`; a non-finite number is null."""
    outputs = answer.outputs
    names = outputs if wanted is None else wanted
    return orjson.dumps(
        {"outputs": {name: jsonable(outputs[name]) for name in names}, "step": answer.step},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def jsonable(array: Array) -> Any:
    """What orjson can write for an array: float32 round-trips, NaN and infinity become null."""
    if array.dtype.hasobject:
        return _texts(array.tolist())
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return array if array.ndim else array[()]


def _texts(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else [_texts(each) for each in value]


def is_tf_serving(path: str) -> bool:
    """Whether a path is one of TensorFlow Serving's own calls, well formed or not."""
    return path.endswith((":predict", ":classify", ":regress"))


def error_body(error: SluiceError) -> dict[str, Any]:
    """`{"error": sentence, "code": code, "details"?: {...}}`."""
    details = {"details": dict(error.details)} if error.details else {}
    return {"error": error.message, "code": error.code, **details}


def tf_serving_error_body(error: SluiceError) -> dict[str, Any]:
    """`{"error": sentence}`, as TensorFlow Serving's own paths answer."""
    return {"error": error.message}


def error_headers(error: SluiceError) -> Mapping[str, str]:
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return {"Sluice-Code": error.code, **retry}
