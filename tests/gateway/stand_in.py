"""Stands in for the evaluator: a Starlette application on a Unix socket that notes what it is asked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.gateway.here import eventually

_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


class StandIn:
    """`asked` are the requests that came; `taken` the bytes of the last upload so far; `left` how many clients went."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "evaluator.sock"
        self.asked: list[Request] = []
        self.taken = 0
        self.left = 0
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()  # what is streamed; None: no more
        self.app = Starlette(
            routes=[
                Route("/v1/evaluations/uploads", self._upload, methods=["POST"]),
                Route("/v1/evaluations/{id}/events", self._events),
                Route("/v1/evaluations/silent", self._silent),
                Route("/v1/evaluations/none", self._none),
                Route("/v1/evaluations{rest:path}", self._echo, methods=_METHODS),
            ]
        )

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    async def _upload(self, request: Request) -> Response:
        seen, self.taken = hashlib.sha256(), 0
        try:
            async for part in request.stream():
                seen.update(part)
                self.taken += len(part)
        except ClientDisconnect:
            self.left += 1
            return Response()
        return JSONResponse({"upload": "u1", "bytes": self.taken, "sha256": seen.hexdigest()}, 201)

    async def _events(self, request: Request) -> Response:
        async def told() -> AsyncIterator[bytes]:
            try:
                while (event := await self.events.get()) is not None:
                    yield event
            except asyncio.CancelledError:
                self.left += 1
                raise

        return StreamingResponse(told(), media_type="text/event-stream")

    async def _silent(self, request: Request) -> Response:
        self.asked.append(request)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.left += 1
        return Response()

    async def _none(self, request: Request) -> Response:
        body = {"error": "There is no evaluation 'none'.", "code": "evaluation_not_found"}
        return JSONResponse(body, 404, {"Sluice-Code": "evaluation_not_found"})

    async def _echo(self, request: Request) -> Response:
        self.asked.append(request)
        body = await request.body()
        headers = {"X-Request-Id": "mine", "Keep-Alive": "timeout=5", "Sluice-Note": "kept", "ETag": '"a"'}
        return PlainTextResponse(b"asked: " + body, 202, headers)


@asynccontextmanager
async def standing_in(folder: Path) -> AsyncIterator[Any]:
    """A stand-in that listens, and its server, which may be stopped early."""
    stand_in = StandIn(folder)
    config = uvicorn.Config(stand_in.app, uds=str(stand_in.socket), log_config=None, lifespan="off")
    config.timeout_graceful_shutdown = 0
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined, method-assign]
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    try:
        yield stand_in
    finally:
        server.should_exit = True
        await serving
