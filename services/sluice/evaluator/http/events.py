"""How an evaluation goes, as server-sent events: each change, some a second at most, until its end or the client's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson

from sluice.evaluator.http.views import EvaluationInfo
from sluice.evaluator.jobs.changes import Changes
from sluice.evaluator.jobs.life_cycle import ENDED
from sluice.policy.errors import SluiceError
from sluice.wire.answers import error_body, sse

LEAST_S = 0.25  # between two events
HEARTBEAT_S = 15.0
_HEARTBEAT = b": still here\n\n"  # a comment, so that nobody between us takes the connection for dead


async def events(
    id: str,
    view: Callable[[str], Awaitable[EvaluationInfo]],
    changes: Changes,
    *,
    least_s: float = LEAST_S,
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncIterator[bytes]:
    before = None
    with changes.of(id) as changed:
        while not changes.ended:
            changed.clear()
            try:
                found = await view(id)
            except SluiceError as error:  # it was deleted
                yield sse("error", orjson.dumps(error_body(error)))
                return
            body = found.model_dump_json(exclude_unset=True).encode()
            if body != before:
                yield sse("progress", body)
                before = body
            if found.status in ENDED:
                yield sse("done", body)
                return
            await asyncio.sleep(least_s)
            while not await _within(changed, heartbeat_s):
                yield _HEARTBEAT


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
