"""`Sums` over HTTP/1.1 on a plain socket, which can be cut at any moment."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from sluice.policy.errors import SluiceError
from sluice.wire.model_json import encode_metadata
from tests.client.sums import CONTRACT, Cut, Sums, view

_SESSION = re.compile(r"/v1/sessions/(\w+)(:step)?")


class _Broken(Exception):
    pass


@contextlib.asynccontextmanager
async def served(sums: Sums) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Its URL, and the headers of the requests that came, with the `peer` of the connection on which each did."""
    seen: list[dict[str, str]] = []
    connections: set[asyncio.Task[Any] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with contextlib.suppress(_Broken, asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(await _answer(sums, reader, seen, str(writer.get_extra_info("peername"))))
                await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        await asyncio.gather(*connections)


async def _answer(sums: Sums, reader: asyncio.StreamReader, seen: list[dict[str, str]], peer: str) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    method, path, _ = head[0].split()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    seen.append({**headers, "peer": peer})
    try:
        return _reply(200, *_run(sums, method, path, json.loads(body) if body else {}))
    except SluiceError as error:
        told = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        shown = {"error": error.message, "code": error.code, "details": dict(error.details)}
        return _reply(error.http_status, shown, {"Sluice-Code": error.code, **told})


def _run(sums: Sums, method: str, path: str, body: Any) -> tuple[Any, dict[str, str]]:
    if path.startswith("/v1/models/sum/contract"):
        return {"contract": CONTRACT, "shapes": {}}, {}
    if path == "/v1/models/sum/metadata":
        return json.loads(encode_metadata(sums.metadata())), {}
    if path == "/v1/models/sum:predict":
        return _predict(sums, body), {}
    session, verb = _SESSION.fullmatch(path).groups()
    if method == "GET":
        return view(session, sums.find(session)), {}
    fault = sums.fault()
    if fault is Cut.BEFORE:
        raise _Broken
    if isinstance(fault, SluiceError):
        raise fault
    if verb:
        total, step, replayed = sums.step(session, body["inputs"]["x"], body.get("step"))
        result = {"outputs": {"total": total.tolist()}, "step": step}, {"Sluice-Replayed": "true"} if replayed else {}
    else:
        sums.close(session)
        result = {}, {}
    if fault is Cut.AFTER:
        raise _Broken
    return result


def _predict(sums: Sums, body: Any) -> Any:
    fault = sums.fault()
    if isinstance(fault, SluiceError):
        raise fault
    answer = {"outputs": sums.predict(np.array(body["inputs"]["x"])).tolist()}
    if fault is not None:
        raise _Broken
    return answer


def _reply(status: int, body: Any, headers: dict[str, str]) -> bytes:
    text = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text
