"""TensorFlow Serving's REST paths for predict, status and metadata, as one ASGI application."""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus

import structlog
from google.protobuf.json_format import MessageToDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.model_server.errors import InvalidArgument, NotFound, ServingError
from services.model_server.models import Models, Version
from services.model_server.rpc import signature_map
from services.policy.errors import SluiceError
from services.wire.rest import encode_predict, parse_predict

log = structlog.get_logger()

_ANY_CALL = re.compile(r"/v1/.*", re.IGNORECASE)
_CALL = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?", re.IGNORECASE)

Handler = Callable[[Models, str, int | None, bytes], Response]


def application(models: Models) -> ASGIApp:
    """The REST paths of a server; calls run in worker threads."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        response = await asyncio.shield(run_in_threadpool(_answer, models, request, body))
        await response(scope, receive, send)

    return answer


def _answer(models: Models, request: Request, body: bytes) -> Response:
    try:
        handler, name, number = _route(request)
        return handler(models, name, number, body)
    except (ServingError, SluiceError) as error:
        return _refusal(error.http_status, error.message)
    except Exception:
        log.exception("call failed", path=request.url.path)
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong inside the model server")


def _route(request: Request) -> tuple[Handler, str, int | None]:
    """What a request asks for: how it is answered, the model, and the version if one is named.

    Raises:
        ServingError: nothing that is here; TensorFlow Serving answers 404 outside of /v1/, and 400 inside.
    """
    path = request.url.path + ("?" + request.url.query if request.url.query else "")
    if not _ANY_CALL.fullmatch(path):
        raise NotFound(f"there is nothing at {path}")
    called = _CALL.match(path)
    handler = _HANDLERS.get((request.method, path[called.end() :])) if called else None
    if called is None or handler is None:
        raise InvalidArgument(f"malformed request: {request.method} {path}")
    name, number = called.groups()
    return handler, name, int(number) if number else None


def _predict(models: Models, name: str, number: int | None, body: bytes) -> Response:
    asked = parse_predict(body)
    servable = models.find(name, number).servable
    signature = servable.signatures.get(asked.signature_name)
    if signature is None:
        raise InvalidArgument(f"there is no signature {asked.signature_name!r}; {servable.listed()}")
    outputs = servable.predict(signature.name, asked.tensors(signature.inputs, any_shape=True))
    return Response(encode_predict(outputs, row_format=asked.row_format), media_type="application/json")


def _status(models: Models, name: str, number: int | None, _: bytes) -> Response:
    return JSONResponse({"model_version_status": [_version_status(each) for each in models.versions(name, number)]})


def _version_status(version: Version) -> dict[str, object]:
    code, message = (version.error.status, version.error.message) if version.error else ("OK", "")
    return {
        "version": str(version.number),
        "state": version.state,
        "status": {"error_code": code, "error_message": message},
    }


def _metadata(models: Models, name: str, number: int | None, _: bytes) -> Response:
    version = models.find(name, number)
    signatures = MessageToDict(
        signature_map(version), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return JSONResponse(
        {
            "model_spec": {"name": name, "version": str(version.number), "signature_name": ""},
            "metadata": {"signature_def": signatures},
        }
    )


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


_HANDLERS: dict[tuple[str, str], Handler] = {
    ("POST", ":predict"): _predict,
    ("GET", "/metadata"): _metadata,
    ("GET", ""): _status,
}
