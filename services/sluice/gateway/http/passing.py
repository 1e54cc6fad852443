"""Passes requests on to the evaluator, and its answers back, part by part.

It does not know what is asked or answered.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack

import httpcore
from starlette.types import Message, Receive, Scope, Send

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.http.answers import OUTCOME
from sluice.gateway.http.generate import client_gone
from sluice.gateway.http.headers import Header, read_headers
from sluice.gateway.upstream.evaluator import Evaluator
from sluice.policy.errors import BackendUnavailable, DeadlineExceeded

_HTTP_PORT = 80
_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
# Of one connection, not of a message: RFC 9110, section 7.6.1.
_OF_A_CONNECTION = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_OURS = frozenset((b"host", b"expect"))  # of a request, as the gateway answers to them itself
_OURS_TOO = frozenset((b"date", b"server", b"x-request-id"))  # of an answer, as the gateway says them itself


async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Have the evaluator answer a request.

    It has `Sluice-Timeout-Ms`, or the setting, to take a part of the request, and from its last part to begin the
    answer. How long that takes then is its own affair.

    Raises:
        BackendUnavailable, DeadlineExceeded, BadRequest: it is refused, and nothing has been sent.
    """
    exchange = _Exchange(scope, receive, send)
    passing, leaving = asyncio.ensure_future(exchange.run()), asyncio.ensure_future(exchange.left())
    try:
        await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if passing.done():
            passing.result()
            return
    except _ClientGone:
        pass
    finally:
        passing.cancel()
        leaving.cancel()
        await asyncio.gather(passing, leaving, return_exceptions=True)
    if not exchange.answering:
        await client_gone()(scope, receive, send)


class _ClientGone(Exception):
    """It has left in the middle of its request."""


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].state.gateway
        self._evaluator: Evaluator = scope["app"].state.evaluator
        self._scope = scope
        self._receive = receive
        self._send = send
        said_s = read_headers(scope["headers"]).timeout_s
        self._timeout_s = gateway.timeout_s if said_s is None else said_s
        self._whole = asyncio.Event()  # the request has come
        self.answering = False

    async def run(self) -> None:
        """Raises: BackendUnavailable, DeadlineExceeded: the answer has not begun."""
        async with AsyncExitStack() as stack:
            response = await self._asked(stack)
            try:
                await self._answer(response)
            except _FAILURES:
                self._scope[OUTCOME] = BackendUnavailable.code  # the server cuts the connection, as there is no end

    async def _asked(self, stack: AsyncExitStack) -> httpcore.Response:
        """The answer as it begins; `stack` closes its connection."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                host, origin, socket = _way(await self._evaluator.address())
                connection = httpcore.AsyncHTTPConnection(origin, uds=socket)
                stack.push_async_callback(connection.aclose)
                return await connection.handle_async_request(self._request(host, origin, limit))
        except TimeoutError:
            name, why = self._evaluator.name, self._evaluator.trouble and f": {self._evaluator.trouble}"
            raise DeadlineExceeded(
                f"{name} did not answer within {self._timeout_s:g} s{why}. Allow more with Sluice-Timeout-Ms."
            ) from None
        except _FAILURES as error:
            raise self._unavailable(error) from None

    async def left(self) -> None:
        """Wait until the client leaves that has sent its request."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _request(self, host: bytes, origin: httpcore.Origin, limit: asyncio.Timeout) -> httpcore.Request:
        scope = self._scope
        query = scope["query_string"]
        headers = [*_passed(scope["headers"], _OURS), (b"Host", host)]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        content: AsyncIterator[bytes] | None = None
        sizes = dict(scope["headers"])
        if b"transfer-encoding" in sizes:
            headers.append((b"Transfer-Encoding", b"chunked"))
        if b"transfer-encoding" in sizes or sizes.get(b"content-length", b"0") != b"0":
            content = self._body(limit)
        else:
            self._whole.set()
        url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target)
        return httpcore.Request(scope["method"], url, headers=headers, content=content)

    async def _body(self, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
        loop, more = asyncio.get_running_loop(), True
        while more:
            limit.reschedule(None)  # the connection has its own limit for what the client sends
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            more = message.get("more_body", False)
            limit.reschedule(loop.time() + self._timeout_s)
            if part := message.get("body", b""):
                yield part
        self._whole.set()

    async def _answer(self, response: httpcore.Response) -> None:
        self.answering = True
        headers = list(_passed(response.headers, _OURS_TOO))
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        async for part in response.aiter_stream():
            await self._send(_part(part, more=True))
        await self._send(_part(b"", more=False))

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        name = self._evaluator.name
        if isinstance(error, httpcore.ConnectError):
            return BackendUnavailable(f"{name} cannot be reached: {error}. Is it running? Try again later.")
        return BackendUnavailable(
            f"{name} went away before it answered; it may have done what was asked. Look, and try again."
        )


def _part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _passed(headers: Iterable[Header], ours: frozenset[bytes]) -> Iterator[Header]:
    """Those headers that go from one side to the other, with their names in lower case."""
    given = [(name.lower(), value) for name, value in headers]
    named = {each.strip().lower() for name, value in given if name == b"connection" for each in value.split(b",")}
    for name, value in given:
        if name not in _OF_A_CONNECTION and name not in ours and name not in named:
            yield name, value


def _way(address: str) -> tuple[bytes, httpcore.Origin, str | None]:
    """The header `Host`, whom to connect to, and the socket if it is there."""
    if address.startswith("unix:"):
        return b"evaluator", httpcore.Origin(b"http", b"evaluator", _HTTP_PORT), address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    return address.encode(), httpcore.Origin(b"http", host.strip("[]").encode(), int(port)), None
