"""A stream of events costs nothing while nothing changes, and is kept open meanwhile."""

import asyncio

from sluice.evaluator.http.events import events
from sluice.evaluator.http.views import EvaluationInfo
from sluice.evaluator.jobs.changes import Changes
from sluice.evaluator.jobs.life_cycle import Status


async def test_a_stream_looks_only_when_something_has_changed_and_says_meanwhile_that_it_is_there():
    changes, looked = Changes(), 0

    async def view(id: str) -> EvaluationInfo:
        nonlocal looked
        looked += 1
        return EvaluationInfo(
            evaluation=id, model="m", task="regression", status=Status.RUNNING, rows_done=0, rows=None,
            rows_per_s=None, eta_s=None, created_at="",
        )  # fmt: skip

    stream = events("a", view, changes, least_s=0, heartbeat_s=0.001)
    async with asyncio.timeout(10):
        assert (await anext(stream)).startswith(b"event: progress\ndata: {")
        changes.tell("a")
        changes.tell("b")
        assert [await anext(stream) for _ in range(3)] == [b": still here\n\n"] * 3
    assert looked == 2
    await stream.aclose()
