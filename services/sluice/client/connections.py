"""HTTP connections to one gateway: each carries one request at a time, and the one that was used last goes first.

httpx's own pool looks at every connection for every request, which takes longer than the request where hundreds run at
the same time. It does not know what is asked.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

_AT_ONCE = 256
_IDLE_S = 5.0  # after which a connection is not used again


def through_proxy(url: str) -> bool:
    """Whether the environment sends requests to `url` through a proxy."""
    parts, proxies = urlsplit(url), getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or "")


class Connections(httpx.AsyncBaseTransport):
    """What httpx sends requests to one gateway by; failures are `httpcore`'s.

    A request waits while 256 others run.
    """

    def __init__(self, certificates: ssl.SSLContext) -> None:
        self._certificates = certificates
        self._idle: deque[httpcore.AsyncHTTPConnection] = deque()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        await self._room.acquire()
        try:
            connection = await self._taken(httpcore.Origin(url.raw_scheme, url.raw_host, _port(url)))
            try:
                response = await connection.handle_async_request(_plain(request))
            except BaseException:
                await connection.aclose()
                raise
        except BaseException:
            self._room.release()
            raise
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(self, connection, response),
            extensions=response.extensions,
        )  # fmt: skip

    async def give_back(self, connection: httpcore.AsyncHTTPConnection) -> None:
        """Its answer has been read, or given up, which closes it."""
        self._room.release()
        if self._closed:
            await connection.aclose()
        elif connection.is_idle():
            self._idle.append(connection)

    async def aclose(self) -> None:
        self._closed = True  # what still runs closes its connection when it has been answered
        while self._idle:
            await self._idle.pop().aclose()

    async def _taken(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        if self._idle and self._idle[0].has_expired():  # the one that has been idle longest
            await self._idle.popleft().aclose()
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(origin, ssl_context=self._certificates, keepalive_expiry=_IDLE_S)


class _Body(httpx.AsyncByteStream):
    """An answer's body; its end gives the connection back."""

    def __init__(
        self, connections: Connections, connection: httpcore.AsyncHTTPConnection, response: httpcore.Response
    ) -> None:
        self._connections, self._connection = connections, connection
        self._stream: Any = response.stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._connections.give_back(self._connection)


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _plain(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        request.method, httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw, content=request.stream, extensions=request.extensions,
    )  # fmt: skip
