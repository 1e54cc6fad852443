"""Evaluations run in order, so many at once, and every way in which one can end leaves it as it should be."""

import asyncio
import errno
import sqlite3
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from sluice.client import NoAnswer
from sluice.evaluator.document import Document
from sluice.evaluator.jobs import runner
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.jobs.tables import Part
from sluice.policy.errors import (
    BackendUnavailable,
    BadRequest,
    DeadlineExceeded,
    Internal,
    ModelNotFound,
    TooLarge,
    VersionNotFound,
)
from tests.evaluator.puppet import PARTS, PATIENCE_S, ROWS, Puppet, refused, running
from tests.gateway.here import eventually


async def test_an_evaluation_runs_part_by_part_to_its_report(here):
    id = await here.ask()
    assert (await here.until(id, status="running"))["rows_done"] == 0
    here.puppet.do(3)
    found = await here.until(id, rows_done=30)
    assert (found["rows"], found["rows_per_s"], found["eta_s"]) == (40, 100.0, 0.1)
    here.puppet.do(1)
    found = await here.until(id, status="done")
    assert (found["rows_done"], found["rows"], found["eta_s"]) == (40, 40, None)
    assert found["metrics"]["mean"]["value"] == 19.5
    assert [[file.name for file in files] for files in here.puppet.given] == [["a.csv"]]


async def test_one_runs_at_a_time_and_the_others_wait_in_order(here):
    ids = [await here.ask(model=model) for model in ("c", "a", "b")]
    await here.until(ids[0], status="running")
    assert [(await here.get(id))["status"] for id in ids[1:]] == ["queued", "queued"]
    for model, id in zip(("c", "a", "b"), ids, strict=True):
        here.puppet.do(model=model)
        await here.until(id, status="done")
    assert here.puppet.begun == ["c", "a", "b"]


async def test_as_many_run_at_once_as_may(tmp_path):
    async with running(tmp_path, at_once=2) as here:
        ids = [await here.ask(model=model) for model in "abc"]
        for id in ids[:2]:
            await here.until(id, status="running")
        assert (await here.get(ids[2]))["status"] == "queued"
        here.puppet.do(model="b")
        await here.until(ids[2], status="running")
        assert (await here.get(ids[0]))["status"] == "running"


async def test_an_evaluator_that_is_stopped_goes_on_at_its_next_start_where_it_was(tmp_path):
    puppet = Puppet()
    async with running(tmp_path, puppet) as here:
        id = await here.ask()
        puppet.do(2)
        await here.until(id, rows_done=20)
        waiting = await here.ask(model="other")
    assert puppet.running == 0
    async with running(tmp_path, puppet) as here:
        assert (await here.until(id, status="running"))["rows_done"] == 20
        puppet.do(2)
        found = await here.until(id, status="done")
        assert found["metrics"]["mean"]["value"] == 19.5
        await here.until(waiting, status="running")
    assert [number for model, number in puppet.asked if model == "digits"] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoAnswer("The gateway could not be reached."), "The gateway could not be reached."),
        (BackendUnavailable("No version can be called."), "No version can be called."),
        (ModelNotFound("There is no model 'digits'."), "There is no model 'digits'."),
        (VersionNotFound("It has no version 3."), "It has no version 3."),
        (DeadlineExceeded("It took too long."), "It took too long."),
        (Internal("A bug in the gateway."), "A bug in the gateway."),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "The disk is full: /a: No space left on device. Make"),
        (ConnectionResetError("reset"), "A file or a connection failed: reset. Resume it"),
        (
            OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
            "The database does not take or give values: database or disk is full. Resume it",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_can_be_mended_pauses_it_and_it_goes_on_when_told_to(here, error, reason):
    id = await here.ask()
    here.puppet.do(1)
    here.puppet.fail(error)
    found = await here.until(id, status="paused")
    assert found["reason"].startswith(reason)
    assert (found["rows_done"], found["rows"]) == (10, 40)
    answer = await here.http.post(f"/v1/evaluations/{id}:resume")
    assert answer.json()["status"] in {"queued", "running"}
    assert "reason" not in answer.json()
    here.puppet.do(3)
    assert (await here.until(id, status="done"))["metrics"]["mean"]["value"] == 19.5
    assert [number for _, number in here.puppet.asked] == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadRequest("Row 7 has no label."), "Row 7 has no label."),
        (TooLarge("It is too large."), "It is too large."),
        (
            ZeroDivisionError("by zero"),
            "This is a bug in the evaluator, which its log tells more of: ZeroDivisionError",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_would_be_refused_again_fails_it_and_the_next_one_runs(here, error, reason, logs):
    id, other = await here.ask(), await here.ask(model="other")
    here.puppet.do(1)
    here.puppet.fail(error)
    found = await here.until(id, status="failed")
    assert found["reason"].startswith(reason)
    answer = await here.http.get(f"/v1/evaluations/{id}/report")
    assert "its status is 'failed'. " in refused(answer, 409, "evaluation_conflict")
    refused(await here.http.post(f"/v1/evaluations/{id}:resume"), 409, "evaluation_conflict")
    await here.until(other, status="running")
    assert any("exc_info" in each for each in logs) == isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(
    "error", [ModelNotFound("There is no model 'digits'."), VersionNotFound("It has no version 3.")]
)
async def test_a_model_that_was_never_there_fails_it(here, error):
    id = await here.ask()
    here.puppet.fail(error)
    assert (await here.until(id, status="failed"))["reason"] == error.message


async def test_a_model_that_is_away_at_a_restart_pauses_what_has_rows(tmp_path):
    puppet = Puppet()
    async with running(tmp_path, puppet) as here:
        id = await here.ask()
        puppet.do(1)
        await here.until(id, rows_done=10)
    puppet.fail(ModelNotFound("There is no model 'digits'."))
    async with running(tmp_path, puppet) as here:
        await here.until(id, status="paused")


async def test_a_bug_behind_the_engine_fails_it_and_the_next_one_runs(here, monkeypatch):
    def refuse(*_, **options):
        raise TypeError("a bug")

    id, other = await here.ask(), await here.ask(model="other")
    with monkeypatch.context() as patch:
        patch.setattr(Document, "model_dump", refuse)
        here.puppet.do()
        assert "a bug in the evaluator" in (await here.until(id, status="failed"))["reason"]
    await here.until(other, status="running")


async def test_what_keeps_an_evaluator_from_going_on_is_told_and_tried_again(tmp_path, monkeypatch, logs):
    faults, restart = iter([RuntimeError("a bug")]), Store.restart

    def refuse(store, now):
        if fault := next(faults, None):
            raise fault
        return restart(store, now)

    monkeypatch.setattr(runner, "RETRY_S", 0.0)
    monkeypatch.setattr(Store, "restart", refuse)
    async with running(tmp_path) as here:
        await here.until(await here.ask(), status="running")
    assert ["exc_info" in each for each in logs if each["event"] == "cannot start evaluations"] == [True]


async def test_a_disk_that_is_really_full_pauses_it_and_it_goes_on_when_there_is_room(here):
    id = await here.ask()
    here.puppet.do(1)
    await here.until(id, rows_done=10)
    database = here.database

    room = 0

    def limit(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + room}")

    fill = {"evaluation": 1, "run": "fill", "rows": 0, "values": b"0" * 4000}
    with database.begin() as connection:  # so that no free page is left
        connection.execute(Part.__table__.insert(), [fill | {"number": number} for number in range(8)])
    event.listen(database, "begin", limit)
    here.puppet.do(3)
    found = await here.until(id, status="paused")
    assert "database or disk is full" in found["reason"]
    room = 1000
    answer = await here.http.post(f"/v1/evaluations/{id}:resume")
    assert answer.status_code == 200, answer.text
    here.puppet.do(3)
    assert (await here.until(id, status="done"))["metrics"]["mean"]["value"] == 19.5


async def test_a_database_that_is_away_when_it_ends_is_told_when_it_is_back(here, logs, monkeypatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.0)
    id = await here.ask()
    here.puppet.do(3)
    await here.until(id, rows_done=30)
    database = here.database
    refusals = iter([True, True])

    def refuse(connection, cursor, statement, *_):
        if statement.startswith("UPDATE evaluations SET status") and next(refusals, False):
            raise OperationalError(statement, {}, Exception("gone"))

    event.listen(database, "before_cursor_execute", refuse)
    here.puppet.do(1)
    await here.until(id, status="done")
    assert [each["reason"] for each in logs if each["event"] == "database"] == ["gone", "gone"]


@pytest.mark.parametrize("parts", [None, 0, 2])
async def test_a_cancelled_evaluation_stops_at_once_and_leaves_no_values(here, parts):
    first = await here.ask(model="first")
    await here.until(first, status="running")
    id = await here.ask()  # queued
    if parts is not None:
        here.puppet.do(model="first")
        here.puppet.do(parts)
        await here.until(id, status="running", rows_done=parts * ROWS)
    answer = await here.http.post(f"/v1/evaluations/{id}:cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert here.puppet.running == (parts is None)
    again = await here.http.post(f"/v1/evaluations/{id}:cancel")
    assert "its status is 'cancelled'" in refused(again, 409, "evaluation_conflict")
    refused(await here.http.post(f"/v1/evaluations/{id}:resume"), 409, "evaluation_conflict")
    with here.database.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM parts, evaluations WHERE evaluation = evaluations.number "
                                   "AND status = 'cancelled'")) == 0  # fmt: skip
    here.puppet.do(model="first")
    await here.until(first, status="done")


async def test_a_paused_one_can_be_cancelled(here):
    id = await here.ask()
    here.puppet.fail(NoAnswer("Nobody is there."))
    await here.until(id, status="paused")
    assert (await here.http.post(f"/v1/evaluations/{id}:cancel")).json()["status"] == "cancelled"


@pytest.mark.parametrize("status", ["queued", "running", "paused", "done"])
async def test_whatever_it_does_it_can_be_deleted(here, status):
    blocking = await here.ask(model="blocking") if status == "queued" else None
    id = await here.ask()
    if status == "paused":
        here.puppet.fail(NoAnswer("Nobody is there."))
    if status == "done":
        here.puppet.do()
    await here.until(id, status=status)
    assert (await here.http.delete(f"/v1/evaluations/{id}")).status_code == 204
    refused(await here.http.delete(f"/v1/evaluations/{id}"), 404, "evaluation_not_found")
    refused(await here.http.get(f"/v1/evaluations/{id}"), 404, "evaluation_not_found")
    assert here.puppet.running == (blocking is not None)


async def test_cancelling_all_at_once_while_they_start_leaves_none_running(tmp_path):
    async with running(tmp_path, at_once=3) as here:
        ids = [await here.ask() for _ in range(6)]
        answers = await asyncio.gather(*(here.http.post(f"/v1/evaluations/{id}:cancel") for id in ids))
        assert {answer.status_code for answer in answers} == {200}
        assert [(await here.get(id))["status"] for id in ids] == ["cancelled"] * 6
        assert (here.puppet.running, here.service.runner._tasks) == (0, {})
        again = await here.ask()
        here.puppet.do(PARTS)
        await here.until(again, status="done")


async def test_whatever_keeps_one_from_starting_the_next_look_starts_it(here, logs, monkeypatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.0)
    faults = iter([OperationalError("SELECT", {}, Exception("gone")), RuntimeError("a bug")])

    def refuse(connection, cursor, statement, *_):
        if "LIMIT" in statement and (fault := next(faults, None)):
            raise fault

    event.listen(here.database, "before_cursor_execute", refuse)
    await here.until(await here.ask(), status="running")
    told = [each for each in logs if each["event"] == "cannot start evaluations"]
    assert ["exc_info" in each for each in told] == [False, True]


async def test_one_that_is_cancelled_while_it_is_being_started_does_not_run(here, monkeypatch):
    started, go = threading.Event(), threading.Event()
    start_next = here.service.store.start_next

    def slow(now):
        found = start_next(now)
        if found is not None and found.model == "digits":
            started.set()
            go.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(here.service.store, "start_next", slow)
    id = await here.ask()
    await asyncio.to_thread(started.wait, PATIENCE_S)
    cancelling = asyncio.create_task(here.http.post(f"/v1/evaluations/{id}:cancel"))
    while not cancelling.done() and not here.service.runner._lock._waiters:
        await asyncio.sleep(0)
    go.set()
    assert (await cancelling).json()["status"] == "cancelled"
    other = await here.ask(model="other")
    await here.until(other, status="running")
    await eventually(lambda: here.puppet.running == 1)
