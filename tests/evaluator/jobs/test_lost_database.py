"""An evaluator that loses its connection to PostgreSQL no longer keeps others out; it notices, and makes sure."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from sluice.evaluator.jobs import database, runner
from sluice.evaluator.jobs.database import CannotUse, opened, read_url
from sluice.evaluator.server import serve
from sluice.evaluator.settings import Settings
from tests.evaluator.puppet import Puppet, parts_of, running
from tests.gateway.here import eventually

pytestmark = pytest.mark.parametrize("address", ["postgresql"], indirect=True)


class Server:
    """The database's server, as one who looks after it sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def locks(self, **which: bool) -> list[Any]:
        """The processes that hold the evaluators' lock, or wait for it."""
        asked = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted = :granted")
        return [*self._connection.scalars(asked, which)]

    def break_connection(self) -> None:
        """That of the evaluator which has the database."""
        [pid] = self.locks(granted=True)
        assert self._connection.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})

    def wait_for_lock(self) -> None:
        """As another evaluator would that has just been started, and then have it."""
        self._connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": database._LOCK})


@pytest.fixture
def servers(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Server]]:
    """Two connections to one."""
    monkeypatch.setattr(runner, "HELD_S", 0.01)
    monkeypatch.setattr(database, "LEFT_MS", 200)  # one that is ended tells its client so before it lets the lock go
    engine = create_engine(read_url(address), isolation_level="AUTOCOMMIT")
    with engine.connect() as one, engine.connect() as other:
        yield Server(one), Server(other)
    engine.dispose()


async def test_what_runs_is_stopped_and_goes_on_once_the_database_is_the_evaluators_own_again(
    tmp_path: Path, address: str, servers: tuple[Server, Server], logs: list[Any]
) -> None:
    server, _ = servers
    async with running(tmp_path, database=address) as here:
        id = await here.ask()
        here.puppet.do(1)
        await here.until(id, rows_done=10)
        await asyncio.to_thread(server.break_connection)
        await eventually(lambda: len(here.puppet.begun) == 2)
        assert here.puppet.running == 1
        with pytest.raises(CannotUse, match="another evaluator uses it"), opened(address):
            pytest.fail("both have it")
        here.puppet.do(3)
        assert (await here.until(id, status="done"))["rows_done"] == 40
    assert [number for _, number in here.puppet.asked] == [0, 1, 1, 2, 3]
    assert [each["evaluations"] for each in logs if each["event"] == "database lost"] == [1]


async def test_an_evaluator_whose_database_another_one_has_taken_stops_what_runs_and_ends_with_a_sentence(
    tmp_path: Path, address: str, servers: tuple[Server, Server]
) -> None:
    server, another = servers
    puppet = Puppet()
    with opened(address):
        pass
    async with running(tmp_path, puppet, database=address) as here:
        id = await here.ask()
        await here.until(id, status="running")
        taking = asyncio.create_task(asyncio.to_thread(another.wait_for_lock))
        await eventually(lambda: server.locks(granted=False))
        await asyncio.to_thread(server.break_connection)
        await eventually(lambda: here.service.runner.refused)
        await taking
        assert (puppet.running, (await here.get(id))["status"]) == (0, "running")


async def test_a_process_whose_database_another_one_has_taken_ends_with_a_sentence(
    tmp_path: Path, address: str, servers: tuple[Server, Server]
) -> None:
    server, another = servers
    settings = Settings(http="127.0.0.1:0", database=address, _cli_parse_args=False)
    serving = asyncio.create_task(asyncio.to_thread(serve, settings, parts_of(Puppet(), tmp_path / "uploads")))
    await eventually(lambda: server.locks(granted=True))
    taking = asyncio.create_task(asyncio.to_thread(another.wait_for_lock))
    await eventually(lambda: server.locks(granted=False))
    await asyncio.to_thread(server.break_connection)
    with pytest.raises(CannotUse, match=r"another evaluator uses it\. End that one"):
        await serving
    await taking
