"""Calls over HTTP: paths, headers and JSON of the API."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import httpcore
import httpx

from sluice.client.connections import Connections, through_proxy
from sluice.client.contracts import OutputDtypes
from sluice.client.errors import NO_HOST, NOBODY, NoAnswer, OtherProtocol, error_of
from sluice.client.events import EventReader
from sluice.client.generation import generate_body, read_event, read_results
from sluice.client.paths import model_path, session_path, version_path
from sluice.client.predict_json import predict_body, read_outputs
from sluice.client.recognition import read_recognized, recognize_body
from sluice.client.refusals import read_fields, read_json, refusal
from sluice.client.rows import dumps, many_body, read_answer, read_array, step_body, write_inputs
from sluice.client.signatures import Signatures, read_metadata_json
from sluice.client.transport import Lane
from sluice.client.values import (
    Answer,
    Array,
    Call,
    Ended,
    GenerateCall,
    Kind,
    ManyCall,
    ModelSpec,
    Opened,
    Opening,
    Page,
    PredictCall,
    RecognizeCall,
    Recognized,
    Results,
    SessionView,
    Token,
)
from sluice.client.websocket import SocketLane
from sluice.policy.errors import SluiceError

T = TypeVar("T")

_GRACE_S = 1.0  # for the gateway's own word that the time was over
_ELSEWHERE = httpx.Timeout(None)  # each call has its own limit, from its beginning to its end
_CONNECTIONS = httpx.Limits(max_connections=256, max_keepalive_connections=256)
_NOT_HTTP = "illegal request line"  # what h11 says of an answer that is none
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"}  # OpenSSL's words for an answer without TLS
_JSON, _BYTES = "application/json", "application/octet-stream"


@cache
def _certificates() -> ssl.SSLContext:
    """Those that are trusted, read once: it takes longer than a call."""
    return httpx.create_ssl_context()


class HttpTransport:
    """One gateway at `url`, such as http://127.0.0.1:8080; `headers` go with every request."""

    def __init__(self, url: str, headers: Mapping[str, str], *, over: httpx.AsyncBaseTransport | None = None) -> None:
        self._url, self._headers = url, headers
        if over is None and not through_proxy(url):
            over = Connections(_certificates())
        self._http = httpx.AsyncClient(
            base_url=url, headers=dict(headers), timeout=_ELSEWHERE, limits=_CONNECTIONS, transport=over,
            verify=_certificates(),
        )  # fmt: skip
        self._dtypes = OutputDtypes(self._contract)

    async def open(self, opening: Opening, timeout_s: float) -> Opened:
        body = {
            "session": opening.session,
            "version": opening.version,
            "label": opening.label,
            "state": None if opening.state is None else write_inputs(opening.state),
            "ttl_s": opening.ttl_s,
            "if_exists": None if opening.if_exists == "error" else opening.if_exists,
        }
        return _opened(await self._post(f"{model_path(opening.model)}/sessions", body, timeout_s))

    async def view(self, session: str, timeout_s: float) -> SessionView:
        return _view(await self._json("GET", session_path(session), timeout_s, session=session))

    async def list(self, model: str, limit: int, after: str, timeout_s: float) -> Page:
        params = {"limit": limit} | ({"after": after} if after else {})
        body = await self._json("GET", f"{model_path(model)}/sessions", timeout_s, params=params)
        return Page([_view(each) for each in body["sessions"]], body.get("next"))

    async def run(self, kind: Kind, call: Call, timeout_s: float) -> Answer:
        dtypes = await self._dtypes.of(kind, call.model, call.version, timeout_s)
        path = f"{session_path(call.session)}:{kind}"
        response = await self._call("POST", path, timeout_s, content=step_body(call), session=call.session)
        replayed = response.headers.get("sluice-replayed") == "true"
        return read_answer(read_json(self._url, response.content), dtypes, replayed=replayed)

    async def step_many(self, call: ManyCall, timeout_s: float) -> Sequence[Answer | SluiceError]:
        dtypes = [await self._dtypes.of("step", call.model, version, timeout_s) for version in call.versions]
        path = f"{model_path(call.model)}/sessions:step"
        body = await self._json("POST", path, timeout_s, content=many_body(call))
        return [_row(body, index, dtypes[index]) for index in range(len(call.sessions))]

    async def fork(self, session: str, fork: str | None, timeout_s: float) -> Opened:
        return _opened(await self._post(f"{session_path(session)}:fork", {"session": fork}, timeout_s, session=session))

    async def renew(self, session: str, ttl_s: float | None, timeout_s: float) -> SessionView:
        return _view(await self._post(f"{session_path(session)}:renew", {"ttl_s": ttl_s}, timeout_s, session=session))

    async def get_state(self, session: str, timeout_s: float) -> bytes:
        return (await self._call("GET", f"{session_path(session)}/state", timeout_s, session=session)).content

    async def put_state(self, session: str, envelope: bytes, timeout_s: float) -> Opened:
        path = f"{session_path(session)}/state"
        body = await self._json("PUT", path, timeout_s, content=envelope, media_type=_BYTES, session=session)
        return _opened(body)

    async def close(self, session: str, timeout_s: float) -> None:
        await self._call("DELETE", session_path(session), timeout_s, session=session)

    async def answer(self, method: str, path: str, timeout_s: float) -> bytes:
        return (await self._call(method, path, timeout_s)).content

    async def signatures(self, spec: ModelSpec, timeout_s: float) -> Signatures:
        content = await self.answer("GET", f"{version_path(spec)}/metadata", timeout_s)
        return read_fields(self._url, content, read_metadata_json)

    async def predict(self, call: PredictCall, timeout_s: float) -> dict[str, Array]:
        path = f"{version_path(call.spec)}:predict"
        body = await self._json("POST", path, timeout_s, content=predict_body(call))
        return read_outputs(body, call.signature.outputs)

    async def recognize(self, call: RecognizeCall, timeout_s: float) -> Recognized:
        path = f"{version_path(call.spec)}:recognize"
        return read_recognized(await self._json("POST", path, timeout_s, content=recognize_body(call)))

    async def generate(self, call: GenerateCall, timeout_s: float) -> Results:
        path, body = f"{version_path(call.spec)}:generate", generate_body(call, stream=False)
        return read_results(await self._json("POST", path, timeout_s, content=body))

    async def generate_stream(self, call: GenerateCall, timeout_s: float) -> AsyncGenerator[Token | Ended]:
        body, until = generate_body(call, stream=True), asyncio.get_running_loop().time() + timeout_s + _GRACE_S
        headers = {**_limit(timeout_s), "Content-Type": _JSON}
        request = self._http.build_request("POST", f"{version_path(call.spec)}:generate", content=body, headers=headers)
        with self._answering(timeout_s):
            response = await _within(until, self._http.send(request, stream=True))
            async with aclosing(response):
                if not response.is_success:
                    content = await _within(until, response.aread())
                    raise refusal(response.status_code, response.headers, content)
                chunks, reader, done = response.aiter_bytes(), EventReader(), False
                while chunk := await _within(until, anext(chunks, b"")):
                    for name, data in reader.feed(chunk):
                        if name == "done":
                            done = True
                        else:
                            yield read_event(name, read_json(self._url, data))
        if not done:
            raise NoAnswer(f"{self._url} ended the stream before everything was generated.")

    def lane(self, timeout_s: float) -> Lane:
        return SocketLane(self._url, {**self._headers, **_limit(timeout_s)}, self._dtypes)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _contract(self, model: str, version: str, timeout_s: float) -> Any:
        params = {"version": version}
        return (await self._json("GET", f"{model_path(model)}/contract", timeout_s, params=params))["contract"]

    async def _post(self, path: str, fields: Mapping[str, Any], timeout_s: float, session: str | None = None) -> Any:
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._json("POST", path, timeout_s, content=dumps(given), session=session)

    async def _json(self, method: str, path: str, timeout_s: float, **more: Any) -> dict[str, Any]:
        return read_json(self._url, (await self._call(method, path, timeout_s, **more)).content)

    async def _call(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        media_type: str = _JSON,
        session: str | None = None,
    ) -> httpx.Response:
        headers = _limit(timeout_s)
        if content is not None:
            headers["Content-Type"] = media_type
        if session is not None:
            headers["Sluice-Session"] = session  # for a proxy that sends each session to its own gateway
        with self._answering(timeout_s):
            async with asyncio.timeout(timeout_s + _GRACE_S):
                response = await self._http.request(method, path, content=content, params=params, headers=headers)
        if not response.is_success:
            raise refusal(response.status_code, response.headers, response.content)
        return response

    @contextmanager
    def _answering(self, timeout_s: float) -> Iterator[None]:
        """What goes wrong on the way becomes `NoAnswer`."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException):
            raise NoAnswer(f"{self._url} did not answer within {timeout_s:g} s.") from None
        except (httpx.TransportError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            told = f"{self._url} did not answer: {str(error) or type(error).__name__}."
            if isinstance(error, httpx.ConnectError | httpcore.ConnectError):
                told += _unconnected(error.__cause__)
            elif _NOT_HTTP in told:
                told += " What listens there speaks another protocol: a gateway's gRPC port has a grpc:// URL."
                raise OtherProtocol(told) from error
            raise NoAnswer(told) from error


def _unconnected(cause: BaseException | None) -> str:
    """What to do about a connection that did not come about."""
    if isinstance(cause, socket.gaierror):
        return NO_HOST
    if isinstance(cause, ssl.SSLError):
        return " What listens there speaks no TLS: use an http:// URL." if cause.reason in _NO_TLS else ""
    return NOBODY


async def _within(until: float, work: Awaitable[T]) -> T:
    """What comes of work before `until`, in the loop's seconds.

    Raises:
        TimeoutError: nothing has.
    """
    async with asyncio.timeout_at(until):
        return await work


def _limit(timeout_s: float) -> dict[str, str]:
    return {"Sluice-Timeout-Ms": str(max(1, round(timeout_s * 1000)))}


def _opened(body: Mapping[str, Any]) -> Opened:
    return Opened(body["session"], body["model"], body["version"], body["step"])


def _view(body: Mapping[str, Any]) -> SessionView:
    times = {name: datetime.fromisoformat(body[name]) for name in ("opened_at", "last_used_at", "expires_at")}
    others = {name: body[name] for name in SessionView.__slots__ if name not in times}
    return SessionView(**others | times)


def _row(body: Mapping[str, Any], index: int, dtypes: Mapping[str, str]) -> Answer | SluiceError:
    """One session's part of a columnar answer."""
    error = body["errors"][index]
    if error is not None:
        return error_of(error["code"], error["error"], details=error.get("details"))
    outputs: dict[str, Array] = {
        name: read_array(column[index], dtypes[name]) for name, column in body["outputs"].items()
    }
    return Answer(outputs, body["steps"][index])
