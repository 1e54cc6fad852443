"""Clients that open many sessions and vanish: what they took is given back, down to the pages of memory."""

import asyncio
import gc
import mmap
from pathlib import Path

import pytest

from sluice.policy.session import Session, Step
from tests.gateway.here import Gate, Here, eventually, running
from tests.gateway.raw import connected, request
from tests.gateway.stub import dialled, many, tensor

SESSIONS = 300
PAGEMAP = Path("/proc/self/pagemap")


def resident_pages(here: Here) -> int:
    """Pages of memory that the states of the model `wide` lie in now."""
    (slab,) = [each for (model, _), each in here.gateway.engine.scheduler.sessions._slabs.items() if model == "wide"]
    array = slab.states["h"]
    first, count = array.ctypes.data // mmap.PAGESIZE, array.nbytes // mmap.PAGESIZE
    with PAGEMAP.open("rb") as pages:
        pages.seek(8 * first)
        entries = pages.read(8 * count)
    return sum(entry >> 7 for entry in entries[7::8])  # the highest bit: it is in memory


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


def let_all_expire(here: Here) -> None:
    """Nobody comes again, and it is later than the sessions live."""
    engine = here.gateway.engine
    clock, later_s = engine.now, here.gateway.settings.session_idle_s + 1
    engine.now = lambda: clock() + later_s
    engine.changed()


@pytest.mark.skipif(not PAGEMAP.exists(), reason="which pages are in memory is told by Linux only")
async def test_the_memory_of_sessions_that_expire_is_given_back(puppet):
    async with running(puppet) as here:
        for _ in range(2):
            ids = [await here.opened("wide") for _ in range(SESSIONS)]
            response = await here.columns(ids, [[n, 1] for n in range(SESSIONS)], model="wide")
            assert response.json()["outputs"]["total"] == [[n, n] for n in range(SESSIONS)]
            assert resident_pages(here) >= SESSIONS
            assert alive(Session) == SESSIONS
            let_all_expire(here)
            await eventually(lambda: not here.gateway.engine.scheduler.sessions.of_model("wide"))
            assert resident_pages(here) == 0
            await eventually(lambda: alive(Session) == 0)


async def test_nothing_is_kept_of_clients_that_vanish_in_mid_call(puppet):
    async with running(puppet) as here:
        gate = Gate(puppet)
        ids = [await here.opened("wide") for _ in range(50)]
        async with connected(here) as one, connected(here) as columns, dialled(here) as stub:
            await one.send(request(f"/v1/sessions/{ids[0]}:step", {"inputs": [1, 1]}))
            body = {"sessions": ids, "inputs": [[1, 1]] * len(ids)}
            await columns.send(request("/v1/models/wide/sessions:step", body))
            unary = stub.Step(session=ids[1], inputs={"x": tensor([1, 1])})
            stream = stub.Stream()
            await stream.write(many(ids, [[1, 1]] * len(ids), model="wide", tag=1))
            sessions = here.gateway.engine.scheduler.sessions
            await eventually(lambda: [len(sessions.get(id).steps) for id in ids[:3]] == [3, 3, 2])
        await asyncio.gather(unary, stream.read(), return_exceptions=True)
        await eventually(lambda: not any(sessions.get(id).steps for id in ids))
        gate.open()
        await eventually(here.nothing_left)
        del unary, stream
        let_all_expire(here)
        # The last batches are kept nowhere: neither by a task, nor by a queue, an alarm or a connection.
        await eventually(lambda: alive(Step) == 0 and alive(Session) == 0)
