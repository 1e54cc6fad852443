"""`:predict` as server-sent events: each part of an answer as soon as the model has given it.

It is for models whose sequences run in chunks; it does not know how.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from sluice.gateway.core.backlog import Backlog
from sluice.gateway.core.predict import Cancel, Outcome, Predict
from sluice.gateway.http.answers import ended_with, error_body, sse
from sluice.gateway.http.generate import client_gone, unless_left
from sluice.gateway.http.headers import read_headers
from sluice.gateway.http.hot import read_rows, target_of, wants_events
from sluice.gateway.http.rest import Here
from sluice.policy.errors import SluiceError
from sluice.policy.scanning import Part
from sluice.wire.rest import encode_part, parse_predict

router = APIRouter(include_in_schema=False)
_MODEL = "/v1/models/{model:model_name}"
_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]  # those but POST are no call, as of any path


@router.api_route(_MODEL + ":predict", methods=_METHODS)
@router.api_route(_MODEL + "/versions/{version}:predict", methods=_METHODS)
@router.api_route(_MODEL + "/labels/{label}:predict", methods=_METHODS)
async def predict(gateway: Here, request: Request) -> Response:
    """Answer once the first part is there, or with what is wrong before."""
    path, query = request.scope["raw_path"], request.scope["query_string"]
    headers = request.headers.raw
    target = target_of(request.method.encode(), path + b"?" + query if query else path)
    if target is None or not wants_events(target, headers):
        raise HTTPException(404)
    said = read_headers(headers)
    deadline = gateway.deadline(said.timeout_ms, gateway.now())
    body = parse_predict(await request.body())
    events: Backlog[Part | Outcome] = Backlog(gateway.settings.queue_rows)
    asked = Predict(
        target.name, body.signature_name, partial(read_rows, body), target.version, target.label,
        priority_s=said.priority_s, tell=events.offer,
    )  # fmt: skip
    cancel = gateway.predictions.begin(asked, deadline, events.put_nowait)
    try:
        first = await unless_left(request, events.get())
        if isinstance(first, SluiceError):
            raise first
    except BaseException:
        cancel()
        raise
    if first is None:
        cancel()
        return client_gone()
    written = _written(first, events, cancel, partial(ended_with, request))
    return StreamingResponse(written, media_type="text/event-stream")


async def _written(
    first: Part | Outcome, events: Backlog[Part | Outcome], cancel: Cancel, failed: Callable[[SluiceError], None]
) -> AsyncIterator[bytes]:
    event = first
    try:
        while isinstance(event, Part):
            yield sse("part", encode_part(event.row, event.start, event.outputs))
            event = await events.get()
        if isinstance(event, SluiceError):
            raise event
        yield sse("done", b"{}")
    except SluiceError as error:
        failed(error)
        yield sse("error", orjson.dumps(error_body(error)))
    finally:
        cancel()
