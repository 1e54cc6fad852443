"""What is written down about evaluations is true after each call, whatever database it is in."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from sqlalchemy import event as events
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sluice.evaluator.jobs.kept import NoLongerRuns, pack, unpack
from sluice.evaluator.jobs.life_cycle import ENDED, LIFE_CYCLE, Event, Status
from sluice.evaluator.jobs.tables import Evaluation, Upload
from sluice.evaluator.progress import Progress
from sluice.evaluator.spec import Spec
from sluice.policy.errors import BadRequest, EvaluationConflict, EvaluationNotFound

# How an evaluation gets to each status.
WAYS = {
    Status.QUEUED: (),
    Status.RUNNING: (Event.START,),
    Status.PAUSED: (Event.START, Event.PAUSE),
    Status.DONE: (Event.START, Event.FINISH),
    Status.FAILED: (Event.START, Event.FAIL),
    Status.CANCELLED: (Event.CANCEL,),
}
VALUES = {
    "file": np.array([[0.1, np.nan], [np.inf, 3]], np.float32),  # names that numpy has arguments of
    "names": np.array([7, 2**62]),
    "allow_pickle": np.array(["ä", ""]),
    "": np.zeros((2, 0)),
}


def spec(model="digits", **data) -> Spec:
    return Spec.model_validate({"model": model, "task": "classification", "data": data or {"path": "a.csv"}})


def running(store, id="a") -> Evaluation:
    store.add(id, spec(), 1.0)
    found = store.start_next(2.0)
    assert found is not None
    return found


def test_every_event_does_to_every_status_what_the_table_says_and_else_nothing(store):
    for status, event in product(Status, Event):
        id = f"{status}-{event}"
        store.add(id, spec(), 1.0)
        for each in WAYS[status]:
            store.move(id, each, 2.0)
        before = vars(store.get(id)).copy()
        after = LIFE_CYCLE[status].get(event)
        if after is None:
            with pytest.raises(EvaluationConflict, match=f"cannot {event}; its status is '{status}'"):
                store.move(id, event, 3.0, reason="never written")
            now = vars(store.get(id))
            assert {name: now[name] for name in before if name[0] != "_"} == {
                name: value for name, value in before.items() if name[0] != "_"
            }
        else:
            store.move(id, event, 3.0, reason="why")
            moved = store.get(id)
            assert (moved.status, moved.reason) == (after, "why")
            assert (moved.finished_at == 3.0) == (after in ENDED)


def test_they_start_in_the_order_in_which_they_were_asked_for(store):
    for id in "bca":
        store.add(id, spec(), 1.0)
    assert [store.start_next(2.0).id for _ in range(3)] == ["b", "c", "a"]
    assert store.start_next(2.0) is None


def test_what_was_running_is_queued_again_and_starts_first(store):
    for id in "abc":
        store.add(id, spec(), 1.0)
    store.start_next(2.0)
    store.start_next(2.0)
    store.move("b", Event.PAUSE, 3.0)
    assert store.restart(4.0) == 1
    assert [store.get(id).status for id in "abc"] == ["queued", "paused", "queued"]
    again = store.start_next(5.0)
    assert (again.id, again.started_at) == ("a", 2.0)


def test_what_is_asked_for_is_what_is_found(store):
    asked = spec(path="s3://bucket/ä.parquet").model_copy(update={"fail_if": ("accuracy < 0.97",), "exact": True})
    store.add("a", asked, 1.5)
    found = store.get("a")
    assert Spec.model_validate(found.spec) == asked
    assert (found.model, found.created_at, found.rows_done, found.rows, found.started_at) == (
        "digits", 1.5, 0, None, None
    )  # fmt: skip


def test_the_values_of_parts_come_back_as_they_were(store):
    kept = store.kept(running(store))
    assert kept.numbers("main") == set()
    kept.keep("main", 3, 2, VALUES)
    kept.keep("batch-7", 0, 2, {"y": np.arange(2)})
    assert (kept.numbers("main"), kept.numbers("batch-7")) == ({3}, {0})
    read = kept.read("main", 3)
    assert [*read] == [*VALUES]
    for name, array in VALUES.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    with pytest.raises(KeyError, match="part 0 of main"):
        kept.read("main", 0)


def test_parts_and_rows_done_are_of_one_evaluation(store):
    first, second = running(store, "a"), running(store, "b")
    store.kept(first).keep("main", 0, 10, {"y": np.zeros(10)})
    assert store.kept(second).numbers("main") == set()
    assert (store.get("a").rows_done, store.get("b").rows_done) == (10, 0)


def test_a_part_that_is_kept_twice_counts_once(store):
    kept = store.kept(running(store))
    kept.latest = Progress(10, 40, 2.5, 12.0)
    for y in (1.0, 2.0):
        kept.keep("main", 0, 10, {"y": np.full(10, y)})
    found = store.get("a")
    assert (found.rows_done, found.rows, found.rows_per_s) == (10, 40, 2.5)
    assert kept.read("main", 0)["y"][0] == 1.0


def test_parts_that_are_written_at_the_same_time_all_count(store):
    kept = store.kept(running(store))
    with ThreadPoolExecutor(4) as threads:
        written = [threads.submit(kept.keep, "main", number, 10, {"y": np.zeros(10)}) for number in range(24)]
    assert [each.exception() for each in written] == [None] * 24
    assert (kept.numbers("main"), store.get("a").rows_done) == ({*range(24)}, 240)


def test_a_part_that_cannot_be_written_is_not_there_and_does_not_count(store, database):
    kept = store.kept(running(store))

    def refuse(connection, cursor, statement, *_):
        if statement.startswith("UPDATE evaluations"):
            raise OperationalError(statement, {}, Exception("disk full"))

    events.listen(database.engine, "before_cursor_execute", refuse)
    with pytest.raises(OperationalError, match="disk full"):
        kept.keep("main", 0, 10, {"y": np.zeros(10)})
    events.remove(database.engine, "before_cursor_execute", refuse)
    assert (kept.numbers("main"), store.get("a").rows_done) == (set(), 0)


@pytest.mark.parametrize("event", [event for event in LIFE_CYCLE[Status.RUNNING] if event != Event.RESTART])
def test_values_are_kept_only_while_it_runs_and_while_it_may_run_again(store, event):
    kept = store.kept(running(store))
    kept.keep("main", 0, 10, {"y": np.zeros(10)})
    store.move("a", event, 3.0)
    with pytest.raises(NoLongerRuns):
        kept.keep("main", 1, 10, {"y": np.zeros(10)})
    assert kept.numbers("main") == ({0} if event == Event.PAUSE else set())


def test_values_that_would_have_to_be_pickled_are_refused():
    with pytest.raises(ValueError, match=r"'y'.*Python objects"):
        pack({"y": np.array([b"a", None], object)})
    assert unpack(pack({})) == {}


def test_the_newest_are_listed_first_a_page_at_a_time_and_by_model(store):
    for number in range(5):
        store.add(f"e{number}", spec("dates" if number % 2 else "digits"), float(number))
    first = store.newest(2)
    assert [each.id for each in first] == ["e4", "e3"]
    store.remove("e3")  # the page after it is the same
    assert [each.id for each in store.newest(9, before=first[-1].number)] == ["e2", "e1", "e0"]
    assert [each.id for each in store.newest(9, model="dates")] == ["e1"]


def test_a_report_is_there_once_it_is_done(store):
    running(store)
    with pytest.raises(EvaluationConflict, match="has no report; its status is 'running'"):
        store.document("a")
    store.move("a", Event.FINISH, 3.0, document={"metrics": {"ä": 0.1}})
    assert store.document("a") == {"metrics": {"ä": 0.1}}
    running(store, "b")
    store.move("b", Event.FAIL, 3.0, reason="no column y")
    with pytest.raises(EvaluationConflict, match=r"its status is 'failed'\. no column y"):
        store.document("b")


def test_what_is_deleted_is_gone_with_its_values(store, database):
    store.kept(running(store)).keep("main", 0, 10, {"y": np.zeros(10)})
    store.remove("a")
    for call in (store.get, store.document, store.remove):
        with pytest.raises(EvaluationNotFound, match="no evaluation 'a'"):
            call("a")
    with database.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM parts")) == 0


def upload(id, at=0.0) -> Upload:
    return Upload(id=id, name="a.csv", path=f"/uploads/{id}", bytes=2**40, sha256="0" * 64, created_at=at)


def test_an_upload_goes_with_the_last_evaluation_of_it(store):
    store.add_upload(upload("u"))
    assert store.upload("u").bytes == 2**40
    for id in "ab":
        store.add(id, spec(upload="u"), 1.0)
    assert store.remove_unused(before=100.0) == []
    assert store.remove("a") is None
    assert store.remove("b").path == "/uploads/u"
    assert store.upload("u") is None


def test_an_upload_without_an_evaluation_goes_when_it_is_old(store):
    for id, at in (("old", 1.0), ("used", 1.0), ("new", 5.0)):
        store.add_upload(upload(id, at))
    store.add("a", spec(upload="used"), 2.0)
    assert [each.id for each in store.remove_unused(before=5.0)] == ["old"]
    assert store.upload("new")


def test_an_upload_that_is_not_there_is_refused_and_nothing_is_queued(store):
    with pytest.raises(BadRequest, match=r"no upload 'u'.*Send the file again"):
        store.add("a", spec(upload="u"), 1.0)
    assert store.newest(9) == []


def test_evaluations_are_counted_by_status(store):
    running(store)
    store.add("b", spec(), 1.0)
    assert {status: count for status, count in store.counts().items() if count} == {"running": 1, "queued": 1}
