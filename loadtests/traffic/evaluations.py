"""The requests of an evaluation, and what Keras makes of the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from loadtests.traffic.checks import check_evaluation, check_nothing, check_started
from loadtests.traffic.exchange import Exchange

_ALL = "/v1/evaluations"


@dataclass(frozen=True, eq=False, slots=True)
class Evaluated:
    """A file of labelled rows, what its evaluation is asked with, and by metric what Keras makes of the same rows."""

    file: str
    rows: bytes
    request: Mapping[str, Any]
    metrics: Mapping[str, float]


def uploading(evaluated: Evaluated) -> Exchange:
    """Send the rows; the answer's `upload` is their id."""
    path, binary = f"{_ALL}/uploads?name={evaluated.file}", "application/octet-stream"
    return Exchange(path, evaluated.rows, partial(check_started, "upload"), binary, status=201)


def asking(evaluated: Evaluated, upload: str) -> Exchange:
    """Begin; the answer's `evaluation` is its id."""
    body = orjson.dumps({**evaluated.request, "metrics": [*evaluated.metrics], "data": {"upload": upload}})
    return Exchange(_ALL, body, partial(check_started, "evaluation"), status=202)


def looking(evaluated: Evaluated, evaluation: str) -> Exchange:
    """How far it is; once it is done, its metrics must be Keras'."""
    check = partial(check_evaluation, evaluated.metrics)
    return Exchange(f"{_ALL}/{evaluation}", b"", check, method="GET")


def resuming(evaluation: str) -> Exchange:
    """Go on with one that is paused, as the model or the gateway was away."""
    return Exchange(f"{_ALL}/{evaluation}:resume", b"", partial(check_started, "evaluation"))


def forgetting(evaluation: str) -> Exchange:
    """Delete it, and the rows with it."""
    return Exchange(f"{_ALL}/{evaluation}", b"", check_nothing, method="DELETE", status=204)
