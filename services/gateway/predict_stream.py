"""`:predict` as server-sent events: each part of an answer as soon as the model has given it.

It is for models whose sequences run in chunks; it does not know how.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request
from fastapi.responses import StreamingResponse

from services.gateway.answers import error_body, sse
from services.gateway.calls import read_rows
from services.gateway.headers import read_headers
from services.gateway.predict import Outcome, Predict
from services.gateway.rest import Here, ModelName
from services.policy.errors import SluiceError
from services.policy.scanning import Part
from services.wire.rest import encode_part, parse_predict

router = APIRouter(include_in_schema=False, default_response_class=StreamingResponse)
_MODEL = "/v1/models/{model:model_name}"


@router.post(_MODEL + ":predict", name="predict")
async def predict(gateway: Here, model: ModelName, request: Request) -> StreamingResponse:
    return await _stream(gateway, model, request)


@router.post(_MODEL + "/versions/{version}:predict", name="predict")
async def predict_version(
    gateway: Here, model: ModelName, version: Annotated[int, Path(ge=0)], request: Request
) -> StreamingResponse:
    return await _stream(gateway, model, request, version=version)


@router.post(_MODEL + "/labels/{label}:predict", name="predict")
async def predict_label(gateway: Here, model: ModelName, label: str, request: Request) -> StreamingResponse:
    return await _stream(gateway, model, request, label=label)


async def _stream(gateway: Any, model: str, request: Request, **which: Any) -> StreamingResponse:
    said = read_headers(request.headers.raw)
    deadline = gateway.deadline(said.timeout_ms, gateway.now())
    body = parse_predict(await request.body())
    events: asyncio.Queue[Part | Outcome] = asyncio.Queue()
    asked = Predict(
        model, body.signature_name, partial(read_rows, body),
        handicap_s=said.handicap_s, tell=events.put_nowait, **which,
    )  # fmt: skip
    served = await gateway.predictions.find(model, asked.version, asked.label, deadline)
    cancel = gateway.predictions.submit(served, asked, deadline, events.put_nowait)
    return StreamingResponse(_written(events, cancel), media_type="text/event-stream")


async def _written(events: "asyncio.Queue[Part | Outcome]", cancel: Any) -> AsyncIterator[bytes]:
    try:
        while isinstance(event := await events.get(), Part):
            yield sse("part", encode_part(event.row, event.start, event.outputs))
        if isinstance(event, SluiceError):
            raise event
        yield sse("done", b"{}")
    except SluiceError as error:
        yield sse("error", orjson.dumps(error_body(error)))
    finally:
        cancel()
