"""The ASGI application in front of FastAPI: request ids, the limit of bodies, and answers where it has none."""

import secrets
from collections.abc import Mapping

import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from sluice.policy.errors import BodyTooLarge, Internal, SluiceError
from sluice.wire.answers import error_body, error_headers
from sluice.wire.trace_context import read_trace

log = structlog.get_logger()

BODY_BYTES = 1024 * 1024
UPLOADS = "/v1/evaluations/uploads"
HEAD = "sluice.head"  # of a request's scope: its answer has no body, and need not wait for one
_REQUEST_ID_LIMIT = 128
_JSON = (b"content-type", b"application/json")


class Front:
    """An upload's body is passed on as it comes; any other is read whole, and called JSON whatever its header says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", secrets.token_hex(8).encode())[:_REQUEST_ID_LIMIT]
        _name(scope, request_id)
        answering = False

        async def naming_send(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                message.setdefault("headers", []).append((b"x-request-id", request_id))
            await send(message)

        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", HEAD: True}  # the server, which sees HEAD, leaves the body out
        try:
            if scope["path"] != UPLOADS:
                scope, receive = await _read(scope, receive)
            await self._app(scope, receive, naming_send)
        except ClientDisconnect:
            return
        except Exception as error:
            if answering:
                raise
            if not isinstance(error, SluiceError):
                log.exception("request failed", path=scope["path"], request_id=request_id.decode("latin-1"))
                error = Internal("This is a bug in the evaluator. Its log says more, by the request id.")
            await _refuse(naming_send, error)


def _name(scope: Scope, request_id: bytes) -> None:
    """From here on lines in the log say which request they belong to, and which trace it."""
    trace = read_trace(scope["headers"])
    bind_contextvars(request_id=request_id.decode("latin-1"), **({} if trace is None else {"trace_id": trace.id}))


async def _read(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request with its body read.

    Raises:
        BodyTooLarge: it is.
        ClientDisconnect: the client left before it was whole.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > BODY_BYTES:
            raise BodyTooLarge(
                f"A request body may have {BODY_BYTES} bytes; a larger one came. Data goes to POST {UPLOADS}.",
                limit=BODY_BYTES,
            )
    whole = iter([{"type": "http.request", "body": b"".join(parts), "more_body": False}])

    async def read_already() -> Message:
        return next(whole, None) or await receive()

    others = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*others, _JSON]}, read_already


async def _refuse(send: Send, error: SluiceError) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in error_headers(error).items()]
    headers += [_JSON, (b"connection", b"close")]  # whether the rest of a body still comes is not known
    body = orjson.dumps(error_body(error))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
