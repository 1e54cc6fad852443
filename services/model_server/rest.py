"""TensorFlow Serving's REST paths for predict, status and metadata."""

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.model_server.errors import NotFound, ServingError
from services.model_server.models import Models
from services.model_server.rpc import signature_map, status_message
from services.policy.errors import BadRequest, SluiceError
from services.wire.rest import encode_predict, parse_predict

_MODEL = "/v1/models/{model}"
_VERSION = _MODEL + "/versions/{version:int}"

Handler = Callable[[Models, str, int | None, bytes], Response]


def application(models: Models) -> Starlette:
    """The REST paths of a server; calls run in worker threads."""
    return Starlette(
        routes=[
            *(Route(path + ":predict", _handle(models, _predict), methods=["POST"]) for path in (_VERSION, _MODEL)),
            *(Route(path + "/metadata", _handle(models, _metadata), methods=["GET"]) for path in (_VERSION, _MODEL)),
            *(Route(path, _handle(models, _status), methods=["GET"]) for path in (_VERSION, _MODEL)),
        ],
        exception_handlers={
            ServingError: lambda _, error: _refusal(error.http_status, error.message),
            SluiceError: lambda _, error: _refusal(error.http_status, error.message),
            HTTPException: lambda request, error: _refusal(
                error.status_code, f"{request.method} {request.url.path} is not a path of this server"
            ),
        },
    )


def _handle(models: Models, handler: Handler) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        path = request.path_params
        body = await request.body()
        return await asyncio.shield(run_in_threadpool(handler, models, path["model"], path.get("version"), body))

    return handle


def _predict(models: Models, name: str, number: int | None, body: bytes) -> Response:
    servable = models.find(name, number).servable
    asked = parse_predict(body)
    signature = servable.signatures.get(asked.signature_name) if servable else None
    if servable is None or signature is None:
        raise BadRequest(f"Model {name!r} has no signature {asked.signature_name!r}.")
    outputs = servable.predict(signature.name, asked.tensors(signature.inputs))
    return Response(encode_predict(outputs, row_format=asked.row_format), media_type="application/json")


def _status(models: Models, name: str, number: int | None, _: bytes) -> Response:
    statuses = [status_message(version) for version in models.versions(name, number)]
    return JSONResponse(
        {
            "model_version_status": [
                {
                    "version": str(each.version),
                    "state": each.State.Name(each.state),
                    "status": {
                        "error_code": "UNKNOWN" if each.status.error_code else "OK",
                        "error_message": each.status.error_message,
                    },
                }
                for each in statuses
            ]
        }
    )


def _metadata(models: Models, name: str, number: int | None, _: bytes) -> Response:
    version = models.find(name, number)
    if version.servable is None:
        raise NotFound(f"model {name!r} is not served")
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
