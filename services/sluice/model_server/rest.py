"""TensorFlow Serving's REST API, as one ASGI application: JSON to calls, and their answers to JSON."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sluice.model_server.calls import Calls, classify, metadata, regress
from sluice.model_server.errors import InvalidArgument, ServingError
from sluice.model_server.listening import error_page
from sluice.model_server.monitoring import CONTENT_TYPE
from sluice.model_server.runtime import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
)
from sluice.policy.errors import BadRequest, BodyTooLarge, SluiceError
from sluice.wire.content import inflate
from sluice.wire.examples import encode_classifications, encode_regressions, parse_examples
from sluice.wire.model_json import SIGNATURES, encode_metadata, encode_status
from sluice.wire.rest import WITHOUT_JSON, encode_predict, parse_predict
from sluice.wire.rest_paths import METHODS, BadTarget, BadVersion, RestCall, rest_call
from sluice.wire.statuses import http_status
from sluice.wire.tensors import dtype_name

log = structlog.get_logger()

Array = NDArray[Any]

_BODY_LIMIT = 1 << 28  # bytes
_SCHEME_AND_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^@/?#]*@)?[^:@/?#]*(?::[0-9]*)?(?=[/?#]|$)")
_ORIGIN = re.compile("https?://")
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True, slots=True)
class RestOptions:
    """`cors`: every answer says that pages from anywhere may read it. `metrics_path`: of the Prometheus page."""

    cors: bool = False
    metrics_path: str | None = None


def application(calls: Calls, options: RestOptions) -> ASGIApp:
    """The REST paths of a server; calls run in worker threads. What no call is asked for is answered in HTML."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _read(request)
        except BodyTooLarge as error:
            response = _refusal(error.http_status, error.message)
        else:
            response = await asyncio.shield(run_in_threadpool(_answer, calls, options, request, body))
        await response(scope, receive, send)

    return answer


async def _read(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_LIMIT:
            raise BodyTooLarge(f"a request body may have {_BODY_LIMIT} bytes; a larger one came", limit=_BODY_LIMIT)
        parts.append(part)
    return b"".join(parts)


def _answer(calls: Calls, options: RestOptions, request: Request, body: bytes) -> Response:
    if request.method not in METHODS:
        return _page(501)
    if options.metrics_path is not None and request.url.path == options.metrics_path:
        return _metrics(calls, request)
    call: RestCall | BadRequest | None
    try:
        call = rest_call(request.method, _target(request.scope))
    except BadTarget:
        return _page(400)
    except BadRequest as error:
        call = error
    if call is None:
        return _page(404)
    response = _preflight(request) if request.method == "OPTIONS" else _called(calls, call, request, body)
    response.headers.update(_CORS if options.cors else {})
    return response


def _target(scope: Scope) -> str:
    """What a request asks for, as it came, without the scheme and host that it may begin with."""
    target: str = scope["state"]["target"].decode("latin-1")
    found = _SCHEME_AND_HOST.match(target)
    return target[found.end() :] if found else target


def _page(status: int) -> Response:
    return Response(error_page(status), status, {"content-type": "text/html", "connection": "close"})


def _preflight(request: Request) -> Response:
    status = 200 if _ORIGIN.search(request.headers.get("origin", "")) else 400
    return Response(status_code=status, headers={"content-type": "text/html; charset=ISO-8859-1"})


def _metrics(calls: Calls, request: Request) -> Response:
    if request.url.query:
        return Response(f"the metrics are at {request.url.path}, without a query", 400, {"content-type": "text/plain"})
    return Response(calls.monitoring.page(), headers={"content-type": CONTENT_TYPE})


def _called(calls: Calls, call: RestCall | BadRequest, request: Request, body: bytes) -> Response:
    if isinstance(call, BadVersion):
        return Response(status_code=400, media_type="application/json")  # TensorFlow Serving says no more
    try:
        if isinstance(call, BadRequest):
            raise call
        # As in TensorFlow Serving, an encoding that is not known is no encoding.
        encoding = "gzip" if "gzip" in request.headers.get("content-encoding", "") else ""
        answer = _CALLS[call.verb](calls, call, inflate(body, encoding, _BODY_LIMIT))
    except SluiceError as error:
        return _refusal(error.http_status, error.message)
    except ServingError as error:
        return _refusal(http_status(error.status), error.message)
    except Exception:
        log.exception("call failed", path=request.url.path)
        return _refusal(500, "something went wrong inside the model server")
    return Response(answer, media_type="application/json")


def _predict(calls: Calls, call: RestCall, body: bytes) -> bytes:
    with calls.monitoring.request(call.model, "Predict", "REST"):
        asked = parse_predict(body)
        servable = calls.find(_spec(call)).servable
        signature = servable.signatures.get(asked.signature_name)
        if signature is None:
            raise InvalidArgument(f"there is no signature {asked.signature_name!r}; {servable.listed()}")
        outputs = servable.predict(signature.name, asked.tensors(signature.inputs, any_shape=True))
        _check_written(outputs)
        return encode_predict(outputs, row_format=asked.row_format)


def _check_written(outputs: Mapping[str, Array]) -> None:
    """Raises: InvalidArgument: TensorFlow Serving writes no JSON for an output."""
    for name, array in outputs.items():
        if array.size and (dtype := dtype_name(array.dtype)) in WITHOUT_JSON:
            raise InvalidArgument(f"output {name!r} is {dtype}, which JSON answers do not carry: use gRPC")


def _classify(calls: Calls, call: RestCall, body: bytes) -> bytes:
    return encode_classifications(_examined(classification_pb2.ClassificationRequest(), classify, calls, call, body))


def _regress(calls: Calls, call: RestCall, body: bytes) -> bytes:
    return encode_regressions(_examined(regression_pb2.RegressionRequest(), regress, calls, call, body))


def _examined(request: Any, run: Callable[..., Any], calls: Calls, call: RestCall, body: bytes) -> Any:
    with calls.monitoring.request(call.model, call.verb.capitalize(), "REST"):
        asked = parse_examples(body, call.verb)
        request.input.ParseFromString(asked.input.SerializeToString())
        _specify(request.model_spec, call, asked.signature_name)
        return run(request, calls.find).result


def _status(calls: Calls, call: RestCall, _: bytes) -> bytes:
    request = get_model_status_pb2.GetModelStatusRequest()
    _specify(request.model_spec, call)
    return encode_status(calls.status(request))


def _metadata(calls: Calls, call: RestCall, _: bytes) -> bytes:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURES])
    _specify(request.model_spec, call)
    return encode_metadata(metadata(request, calls.find))


_CALLS: Mapping[str, Callable[[Calls, RestCall, bytes], bytes]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
    "status": _status,
    "metadata": _metadata,
}


def _spec(call: RestCall) -> Any:
    spec = get_model_status_pb2.GetModelStatusRequest().model_spec
    _specify(spec, call)
    return spec


def _specify(spec: Any, call: RestCall, signature: str = "") -> None:
    spec.name, spec.signature_name = call.model, signature
    if call.version is not None:
        spec.version.value = call.version
    elif call.label is not None:
        spec.version_label = call.label


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
