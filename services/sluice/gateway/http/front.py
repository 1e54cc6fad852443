"""The ASGI application in front of FastAPI: request ids, counts and the limit of bodies, for all but the hot calls.

It knows HTTP; what a call means is the application's behind it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.pending import BUG
from sluice.gateway.http.answers import OUTCOME, is_tf_serving, plain_body
from sluice.gateway.http.body import body_too_large
from sluice.gateway.http.cors import Cors
from sluice.gateway.http.evaluations import is_evaluation
from sluice.gateway.http.headers import Header, RequestIds
from sluice.gateway.metrics.metrics import Metrics
from sluice.gateway.trace import enter
from sluice.policy.errors import BodyTooLarge, Draining, Internal, SluiceError
from sluice.wire.answers import error_headers
from sluice.wire.content import check_plain, inflate
from sluice.wire.trace_context import read_trace

log = structlog.get_logger()

_BYTES = b"application/octet-stream"
_STOPS = "This gateway has stopped before the answer came."


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class Front:
    """Between the server and `app`."""

    def __init__(
        self, app: ASGIApp, gateway: Callable[[], Gateway], metrics: Metrics, ids: RequestIds, cors: Cors | None
    ) -> None:
        self._app = app
        self._gateway = gateway
        self._metrics = metrics
        self._ids = ids
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; one about evaluations as it comes."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if (trace := read_trace(scope["headers"])) is not None:
            enter(trace)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        request_id = self._ids(scope["headers"])
        bind_contextvars(request_id=request_id.decode("latin-1"))
        if self._cors is not None:
            send = _saying(self._cors.headers(scope["headers"]), send)
            if said := self._cors.preflight(scope["method"].encode(), scope["headers"]):
                self._metrics.request("preflight", "", "ok")
                await _answer(send, 200, [*said, (b"x-request-id", request_id)], b"")
                return
        if is_evaluation(scope["path"]):  # whose bodies may be large, and are the evaluator's to read
            others = [header for header in scope["headers"] if header[0] != b"x-request-id"]
            scope = {**scope, "headers": [*others, (b"x-request-id", request_id)]}
            await self._pass_on(scope, receive, send, request_id)
        else:
            await self._pass_on_whole(scope, receive, send, request_id)

    async def _pass_on_whole(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        """Pass a request on, its body whole, within the limit, and called JSON unless the header says bytes."""
        headers = dict(scope["headers"])
        try:
            body = await self._body(receive, headers)
        except ClientGone:
            return
        except asyncio.CancelledError:  # by the server, which stops
            await refuse(scope, send, Draining(f"{_STOPS} Send the whole request again."), request_id, close=True)
            return
        except SluiceError as error:
            self._metrics.request("unknown", "", error.code)
            # Whether the body of who expects 100 still comes is not known: RFC 9110, section 10.1.1.
            close = isinstance(error, BodyTooLarge) and b"expect" in headers
            await refuse(scope, send, error, request_id, close=close)
            return
        if scope["method"] == "HEAD" and not is_tf_serving(scope["path"]):
            scope = {**scope, "method": "GET"}  # the server, which sees HEAD, leaves the body out
        if body and headers.get(b"content-type") != _BYTES:
            others = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def read_already() -> Message:
            return next(parts, None) or await receive()

        await self._pass_on(scope, read_already, send, request_id)

    async def _body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """The whole body, inflated.

        Raises:
            SluiceError: it is too large, or compressed in another way than the headers say.
            ClientGone: it does not come.
        """
        limit = self._gateway().settings.body_bytes
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        body = inflate(await read_body(receive, limit, headers.get(b"content-length")), encoding, limit)
        if not encoding and headers.get(b"content-type") != _BYTES:
            check_plain(body)
        return body

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        """Have the application answer; count the request when its answer's last part goes out, or it is given up."""
        start: Message | None = None  # of the answer
        ended = False

        async def noting_send(message: Message) -> None:
            nonlocal start, ended
            if start is None:
                start = message
                message.setdefault("headers", []).append((b"x-request-id", request_id))
            elif not message.get("more_body"):
                ended = True
                self._note(scope, start)
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except asyncio.CancelledError:  # by the server, which stops
            scope[OUTCOME] = Draining.code
            if start is None:
                await refuse(scope, send, Draining(f"{_STOPS} Try again."), request_id, close=True)
        except Exception:
            if start is not None:
                scope[OUTCOME] = Internal.code
                raise
            log.exception("request failed", path=scope["path"], request_id=request_id.decode("latin-1"))
            self._metrics.request("unknown", "", Internal.code)
            await refuse(scope, send, Internal(BUG), request_id)
        finally:
            if start is not None and not ended:
                scope.setdefault(OUTCOME, "client_gone")
                self._note(scope, start)

    def _note(self, scope: Scope, start: Message) -> None:
        """Count a request that FastAPI answered, by the name of its route and by how its answer ended."""
        route = scope.get("route")
        code = dict(start["headers"]).get(b"sluice-code", b"ok" if start["status"] < 400 else b"refused").decode()
        model = self._gateway().known(scope.get("path_params", {}).get("model", ""))
        self._metrics.request(getattr(route, "name", "unknown"), model, scope.get(OUTCOME, code))


async def read_body(receive: Receive, limit: int, declared: bytes | None) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: more than `limit` bytes, declared or sent.
        ClientGone: the client left in the middle.
    """
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise body_too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise body_too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _saying(headers: Iterable[Header], send: Send) -> Send:
    """As `send`, with more headers."""

    async def saying(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return saying


async def refuse(scope: Scope, send: Send, error: SluiceError, request_id: bytes, *, close: bool = False) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in error_headers(error).items()]
    headers += [(b"content-type", b"application/json"), (b"x-request-id", request_id)]
    if close:
        headers.append((b"connection", b"close"))
    await _answer(send, error.http_status, headers, orjson.dumps(plain_body(error, scope["path"])))


async def _answer(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
