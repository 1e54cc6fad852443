"""Warms a version up: the requests recorded with its model run before anybody else's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from sluice.model_server.calls import INFERENCE
from sluice.model_server.errors import InvalidArgument, ServingError, from_tensorflow
from sluice.model_server.runtime import prediction_log_pb2, tf
from sluice.model_server.servable import Servable
from sluice.model_server.versions import Available

log = structlog.get_logger()

_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_METHODS = {
    "predict_log": "Predict",
    "classify_log": "Classify",
    "regress_log": "Regress",
    "multi_inference_log": "MultiInference",
}
_RECORDS = 1000


def requests_of(path: Path) -> Path | None:
    """The file of recorded requests of the version in `path`, if it has one."""
    file = path / _FILE
    return file if file.is_file() else None


def warm_up(servable: Servable, file: Path, times: int = 1) -> None:
    """Run each request in a file of `PredictionLog` records, so many `times`.

    Raises:
        ServingError: the file cannot be read, or a request in it fails: such a version is not served.
    """
    version, number = Available(0, "LOADING", servable), 0
    for number, (method, request) in enumerate(_requests(file), 1):
        if number > _RECORDS:
            raise InvalidArgument(f"{file} has more than the {_RECORDS} records that a warm-up may have")
        for _ in range(times):
            _run(method, request, version, f"{file}: record {number}, a {method}")
    log.info("warmed up", file=str(file), requests=number)


def _run(method: str, request: Any, version: Available, said: str) -> None:
    try:
        INFERENCE[method][1](request, lambda _: version)
    except ServingError as error:
        raise ServingError(error.status, f"{said}: {error.message}") from None
    except Exception as error:  # whatever was recorded there, the server goes on
        raise ServingError("INTERNAL", f"{said}: {error!r}") from error


def _requests(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            logged = prediction_log_pb2.PredictionLog.FromString(record)
            kind = logged.WhichOneof("log_type")
            if kind not in _METHODS:
                raise ServingError("UNIMPLEMENTED", f"{file}: a record of the kind {kind} cannot be run")
            yield _METHODS[kind], getattr(logged, kind).request
    except DecodeError:
        raise InvalidArgument(f"{file} has a record that is no PredictionLog") from None
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from None
