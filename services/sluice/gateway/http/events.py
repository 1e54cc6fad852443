"""`:predict` as server-sent events: each part of an answer as soon as the model has given it.

It is for models whose sequences run in chunks; it does not know how.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from sluice.gateway.core.backlog import Backlog
from sluice.gateway.core.pending import Pending
from sluice.gateway.core.predict import Predict, Prediction
from sluice.gateway.http.answers import ended_with
from sluice.gateway.http.generate import client_gone, unless_left
from sluice.gateway.http.hot import inputs_of, target_of, wants_events
from sluice.gateway.http.rest import Here, terms_of
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.errors import SluiceError
from sluice.policy.scanning import Part
from sluice.wire.answers import error_body, sse
from sluice.wire.rest import encode_part, parse_predict

Outcome = Prediction | SluiceError

router = APIRouter(include_in_schema=False)
_MODEL = "/v1/models/{model:model_name}"
_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]  # those but POST are no call, as of any path


@router.api_route(_MODEL + ":predict", methods=_METHODS)
@router.api_route(_MODEL + "/versions/{version}:predict", methods=_METHODS)
@router.api_route(_MODEL + "/labels/{label}:predict", methods=_METHODS)
async def predict(gateway: Here, request: Request) -> Response:
    """Answer once the first part is there, or with what is wrong before."""
    path, query = request.scope["raw_path"], request.scope["query_string"]
    target = target_of(request.method.encode(), path + b"?" + query if query else path)
    if target is None or not wants_events(target, request.headers.raw):
        raise HTTPException(404)
    terms = terms_of(request)
    body = parse_predict(await request.body())
    events: Backlog[Part | Outcome] = Backlog(gateway.predictions.rows_limit)

    def begin(served: ServedVersion, pending: Pending) -> None:
        signature = served.predicted(body.signature_name)
        inputs = inputs_of(body, signature, gateway.predictions.rows_limit)
        gateway.predictions.submit(served, Predict(signature, inputs, tell=events.offer), terms, pending)

    pending = Pending(events.put_nowait)
    pending.begin(gateway.resolver.resolve, target.spec, terms.deadline, begin)
    try:
        first = await unless_left(request, events.get())
        if isinstance(first, SluiceError):
            raise first
    except BaseException:
        pending.cancel()
        raise
    if first is None:
        pending.cancel()
        return client_gone()
    written = _written(first, events, pending, partial(ended_with, request))
    return StreamingResponse(written, media_type="text/event-stream")


async def _written(
    first: Part | Outcome, events: Backlog[Part | Outcome], pending: Pending, failed: Callable[[SluiceError], None]
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
        pending.cancel()
