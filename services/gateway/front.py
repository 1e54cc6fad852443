"""The ASGI application in front of FastAPI: answers the hot paths (step, scan, predict) itself and passes on the rest.

It knows HTTP and JSON; what a call means is the gateway's.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.answers import error_body, error_headers, is_tf_serving, step_body, tf_serving_error_body
from services.gateway.gateway import Gateway
from services.gateway.metrics import Metrics
from services.policy.errors import BadRequest, BodyTooLarge, DtypeMismatch, Internal, MissingInput, SluiceError
from services.wire.rest import encode_predict, mixes_words, parse_json, parse_predict

log = structlog.get_logger()

Header = tuple[bytes, bytes]

_JSON = (b"content-type", b"application/json")
_SESSION_CALL = re.compile(r"/v1/sessions/([A-Za-z0-9._~-]{1,128}):(step|scan)")
_PREDICT_CALL = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?:predict")
_STEP_FIELDS = {"inputs", "step", "outputs"}
_REQUEST_ID_LIMIT = 128
_LARGE_BODY = 64 * 1024  # bytes whose parsing other clients would notice
_TIMEOUT_DIGITS = 9


_BUG = "Something went wrong inside the gateway; it has been logged with the request id."


class ClientGone(Exception):
    """The client closed the connection before it was answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the hot paths need of a request; `deadline` in the engine's seconds."""

    target: re.Match[str]
    body: bytes
    deadline: float
    session_header: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    headers: tuple[Header, ...] = ()


class Front:
    """Request ids, metrics and the hot paths; everything else is `app`'s."""

    def __init__(self, app: ASGIApp, gateway: Callable[[], Gateway], metrics: Metrics) -> None:
        self._app = app
        self._gateway = gateway
        self._metrics = metrics
        self._id_prefix = secrets.token_hex(4)
        self._ids = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if target := _SESSION_CALL.fullmatch(path):
            await self._hot(scope, receive, send, target, target[2], self._session_call)
        elif target := _PREDICT_CALL.fullmatch(path):
            await self._hot(scope, receive, send, target, "predict", self._predict)
        else:
            await self._cold(scope, receive, send)

    async def _hot(
        self, scope: Scope, receive: Receive, send: Send, target: re.Match[str], call: str,
        answer: Callable[[Request], Coroutine[Any, Any, Reply]],
    ) -> None:  # fmt: skip
        gateway, status, outcome = self._gateway(), 200, "ok"
        arrived_at, request_id = gateway.now(), self._request_id(scope)
        own: tuple[Header, ...] = ((b"x-request-id", request_id),)
        if call != "predict":
            own += ((b"sluice-session", target[1].encode()),)
        try:
            if scope["method"] != "POST":
                raise _MethodNotAllowed(f"{scope['path']} takes POST; got {scope['method']}.")
            request = await self._read(scope, receive, target, arrived_at)
            reply = await or_gone(answer(request), receive)
        except ClientGone:
            self._metrics.request(call, gateway.model_of(call, target[1]), "client_gone")
            return
        except SluiceError as error:
            status, outcome, reply = error.http_status, error.code, error_reply(error, tf_serving=call == "predict")
        except Exception:
            log.exception("request failed", path=scope["path"], request_id=request_id.decode("latin-1"))
            bug = Internal(_BUG)
            status, outcome, reply = bug.http_status, bug.code, error_reply(bug, tf_serving=call == "predict")
        self._metrics.request(call, gateway.model_of(call, target[1]), outcome)
        await respond(send, status, reply, own)

    async def _read(self, scope: Scope, receive: Receive, target: re.Match[str], arrived_at: float) -> Request:
        gateway, headers = self._gateway(), dict(scope["headers"])
        timeout_ms = read_timeout(headers.get(b"sluice-timeout-ms"))
        body = await read_body(receive, gateway.settings.body_bytes, headers.get(b"content-length"))
        session = headers.get(b"sluice-session")
        return Request(target, body, gateway.deadline(timeout_ms, arrived_at), session and session.decode("latin-1"))

    async def _session_call(self, request: Request) -> Reply:
        id, verb = request.target.groups()
        check_session_header(request.session_header, id)
        gateway = self._gateway()
        if len(request.body) > _LARGE_BODY:
            gateway.session(id)  # before it is parsed for nothing
        inputs, number, wanted = read_step(request.body)
        run = gateway.step if verb == "step" else gateway.scan
        answer = await run(id, inputs, number, wanted, request.deadline)
        headers = ((b"sluice-replayed", b"true"),) if answer.replayed else ()
        return Reply(step_body(answer, wanted), headers)

    async def _predict(self, request: Request) -> Reply:
        name, version = request.target.groups()
        gateway = self._gateway()
        asked = parse_predict(request.body)
        outputs = await gateway.predict(
            name, int(version) if version else None, asked.signature_name, asked.tensors, request.deadline
        )
        return Reply(encode_predict(outputs, row_format=asked.row_format))

    async def _cold(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to FastAPI, its body read within the limit and called JSON whatever the header says."""
        request_id = self._request_id(scope)
        headers = dict(scope["headers"])
        try:
            body = await read_body(receive, self._gateway().settings.body_bytes, headers.get(b"content-length"))
        except ClientGone:
            return
        except SluiceError as error:
            self._metrics.request("unknown", "", error.code)
            reply = error_reply(error, tf_serving=is_tf_serving(scope["path"]))
            await respond(send, error.http_status, reply, ((b"x-request-id", request_id),))
            return
        if body:
            scope = {**scope, "headers": [*({**headers, b"content-type": b"application/json"}).items()]}
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def read_already() -> Message:
            return next(parts, None) or await receive()

        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"x-request-id", request_id))
                self._note(scope, message)
            await send(message)

        try:
            await self._app(scope, read_already, noting_send)
        except Exception:
            if started:
                raise
            log.exception("request failed", path=scope["path"], request_id=request_id.decode("latin-1"))
            self._metrics.request("unknown", "", Internal.code)
            reply = error_reply(Internal(_BUG), tf_serving=False)
            await respond(send, Internal.http_status, reply, ((b"x-request-id", request_id),))

    def _note(self, scope: Scope, start: Message) -> None:
        """Count a request that FastAPI answered, by the name of its route."""
        route = scope.get("route")
        code = dict(start["headers"]).get(b"sluice-code", b"ok" if start["status"] < 400 else b"refused")
        model = scope.get("path_params", {}).get("model", "") if start["status"] < 400 else ""
        self._metrics.request(getattr(route, "name", "unknown"), model, code.decode())

    def _request_id(self, scope: Scope) -> bytes:
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                return bytes(value[:_REQUEST_ID_LIMIT])
        return f"{self._id_prefix}-{next(self._ids):x}".encode()


class _MethodNotAllowed(BadRequest):
    http_status = 405


async def or_gone(work: Coroutine[Any, Any, Any], receive: Receive) -> Any:
    """The result of `work`, which is cancelled when the client closes the connection first.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = over = False

    def leave(_: "asyncio.Task[Message]") -> None:
        nonlocal gone
        if not over:
            gone = True
            task.cancel()

    listener = asyncio.ensure_future(receive())
    listener.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            raise ClientGone from None
        raise
    finally:
        over = True
        listener.cancel()


async def read_body(receive: Receive, limit: int, declared: bytes | None) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: more than `limit` bytes, declared or sent.
        ClientGone: the client left in the middle.
    """
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
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
            raise _too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"A request body may have {limit} bytes; a larger one came. Send it in parts.", limit=limit)


def read_timeout(value: bytes | None) -> int | None:
    """`Sluice-Timeout-Ms`: whole milliseconds, more than 0."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > _TIMEOUT_DIGITS or int(value) == 0:
        raise BadRequest(
            f"Sluice-Timeout-Ms takes whole milliseconds, more than 0; got {value.decode('latin-1')!r:.80}."
        )
    return int(value)


def check_session_header(header: str | None, id: str) -> None:
    if header is not None and header != id:
        raise BadRequest(f"The header Sluice-Session must name the session of the path, {id!r}; it names {header!r}.")


def read_step(body: bytes) -> tuple[Any, int | None, list[str] | None]:
    """The fields of a step or scan: inputs, number, names of the outputs wanted.

    Raises:
        BadRequest, MissingInput: what is wrong with the body.
    """
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest('The body must be an object such as {"inputs": ...}.')
    if unknown := fields.keys() - _STEP_FIELDS:
        raise BadRequest(f"Unknown fields: {_listed(unknown)}. A step has inputs, step and outputs.")
    if "inputs" not in fields:
        raise MissingInput('The body must have "inputs": a row for each input, or the row itself.')
    if (b"true" in body or b"false" in body) and mixes_words(fields["inputs"]):
        raise DtypeMismatch("The inputs mix true or false with numbers; send one or the other.")
    return fields["inputs"], _number(fields.get("step")), _wanted(fields.get("outputs"))


def _number(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BadRequest(f'"step" is the number of time steps done so far, a whole number from 0; got {value!r:.80}.')


def _wanted(value: Any) -> list[str] | None:
    if value is None or (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        return value
    raise BadRequest(f'"outputs" is a list of output names; got {value!r:.80}.')


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:80]) for name in sorted(names))


def error_reply(error: SluiceError, *, tf_serving: bool) -> Reply:
    body = tf_serving_error_body(error) if tf_serving else error_body(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in error_headers(error).items()]
    if isinstance(error, _MethodNotAllowed):
        headers.append((b"allow", b"POST"))
    return Reply(orjson.dumps(body), tuple(headers))


async def respond(
    send: Callable[[Message], Awaitable[None]], status: int, reply: Reply, own: tuple[Header, ...]
) -> None:
    length = (b"content-length", str(len(reply.body)).encode())
    headers = [_JSON, length, *own, *reply.headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
