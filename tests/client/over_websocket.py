"""`Sums` over WebSockets, with the paths beside them that a client asks first."""

import contextlib
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from sluice.policy.errors import SluiceError
from tests.client.sums import CONTRACT, Cut, Sums, view


@contextlib.asynccontextmanager
async def served(sums: Sums) -> AsyncIterator[tuple[str, list[str]]]:
    """Its URL, and the sessions whose sockets were opened."""
    opened: list[str] = []

    def asked(connection: ServerConnection, request: Request) -> Response | None:
        parts = request.path.split("/")
        if request.path.startswith("/v1/models/"):
            return connection.respond(HTTPStatus.OK, json.dumps({"contract": CONTRACT}))
        if request.path.endswith("/stream"):
            return None
        return connection.respond(HTTPStatus.OK, json.dumps(view(parts[3], sums.find(parts[3]))))

    async def connected(connection: ServerConnection) -> None:
        session = connection.request.path.split("/")[3]
        opened.append(session)
        async for message in connection:
            fault = sums.fault()
            answer = json.dumps(_run(sums, session, json.loads(message), fault))
            if isinstance(fault, Cut):
                connection.transport.abort()
                return
            await connection.send(answer)

    async with serve(connected, "127.0.0.1", 0, process_request=asked) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", opened


def _run(sums: Sums, session: str, body: Any, fault: Any) -> Any:
    try:
        if isinstance(fault, SluiceError):
            raise fault
        if fault is Cut.BEFORE:
            return None
        total, step, _ = sums.step(session, body["inputs"]["x"], body.get("step"))
        return {"outputs": {"total": total.tolist()}, "step": step}
    except SluiceError as error:
        return {"error": error.message, "code": error.code, "details": dict(error.details)}
