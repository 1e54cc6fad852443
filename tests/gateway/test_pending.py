"""A call is settled once, or cancelled; calls that are answered together are, and nothing is left running."""

import asyncio
import gc
import weakref
from itertools import permutations

import pytest

from sluice.gateway.core.pending import BUG, Pending, awaited, in_task
from sluice.policy.errors import BackendError, BadRequest


class Puppets:
    """The parts of a call, that a test settles by hand."""

    def __init__(self, count, **how):
        self.told, self.withdrawn = [], []
        self.whole = Pending(self.told.append)
        self.parts = self.whole.parts(count, **how)
        for index, part in enumerate(self.parts):
            part.runs(self.withdrawn.append, index)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_outcomes_are_told_in_order_when_all_are_there(order, each):
    calls = Puppets(3, each=each)
    for index in order:
        assert calls.told == []
        calls.parts[index].settle(f"outcome {index}")
    assert calls.told == [["outcome 0", "outcome 1", "outcome 2"]]
    calls.whole.cancel()
    assert calls.withdrawn == []


def test_the_first_error_is_the_answer_and_withdraws_those_that_run():
    calls, error = Puppets(3), BackendError("said no")
    calls.parts[0].settle("outcome")
    calls.parts[2].settle(error)
    assert (calls.told, calls.withdrawn) == ([error], [1])
    calls.parts[1].settle(BackendError("too late"))
    calls.parts[1].settle("too late")
    assert calls.told == [error]


def test_where_each_has_an_error_of_its_own_the_others_go_on():
    calls, error = Puppets(2, each=True), BackendError("said no")
    calls.parts[1].settle(error)
    assert (calls.told, calls.withdrawn) == ([], [])
    calls.parts[0].settle("outcome")
    assert calls.told == [["outcome", error]]


async def test_a_call_of_no_parts_is_settled_a_turn_later():
    calls = Puppets(0)
    assert calls.told == []
    await asyncio.sleep(0)
    assert calls.told == [[]]


def test_cancelling_withdraws_those_that_run_and_tells_nothing():
    calls = Puppets(2)
    calls.parts[1].settle("outcome")
    calls.whole.cancel()
    calls.parts[0].settle("too late")
    assert (calls.told, calls.withdrawn) == ([], [0])


def test_what_begins_for_a_call_that_was_cancelled_is_withdrawn_at_once():
    withdrawn, pending = [], Pending(lambda _: pytest.fail("told"))
    pending.cancel()
    pending.runs(withdrawn.append, "the run")
    pending.cancel()
    assert withdrawn == ["the run"]
    assert not pending.waits


def test_an_outcome_is_made_into_another_and_an_error_passes_as_it_is():
    told, error = [], BackendError("said no")
    for outcome in (2, error):
        Pending(told.append, make=lambda value: value + 1).then(lambda value: value * 10).settle(outcome)
    assert told == [21, error]


def test_cancelling_reaches_what_the_outcome_is_made_of():
    withdrawn, pending = [], Pending(lambda _: pytest.fail("told"))
    inner = pending.then(lambda value: value)
    inner.runs(withdrawn.append, "the run")
    pending.cancel()
    inner.settle("too late")
    assert withdrawn == ["the run"]


async def test_what_a_begin_raises_is_the_outcome_a_turn_later(logs):
    told = []

    def refuses(error, _):
        raise error

    for error in (BadRequest("not this"), ValueError("a bug")):
        Pending(told.append).begin(refuses, error)
    assert told == []
    await asyncio.sleep(0)
    assert [(each.code, each.message) for each in told] == [("bad_request", "not this"), ("internal", BUG)]
    assert [event["event"] for event in logs] == ["request failed"]


async def test_what_was_begun_before_a_refusal_is_withdrawn():
    def begins_and_refuses(pending):
        first, _ = pending.parts(2)
        first.runs(withdrawn.append, "the run")
        raise BadRequest("not the other one")

    told, withdrawn = [], []
    Pending(told.append).begin(begins_and_refuses)
    assert withdrawn == ["the run"]
    await asyncio.sleep(0)
    assert [each.code for each in told] == ["bad_request"]
    with pytest.raises(BadRequest):
        await awaited(begins_and_refuses)
    assert withdrawn == ["the run", "the run"]


def test_trouble_with_an_answer_is_told_instead_once(logs):
    told = []

    def done(outcome):
        told.append(outcome)
        if len(told) == 1:
            raise ValueError("cannot write it")

    def make(_):
        raise BadRequest("cannot be written")

    Pending(done).settle("outcome")
    assert [getattr(each, "code", each) for each in told] == ["outcome", "internal"]
    assert [event["event"] for event in logs] == ["an answer could not be given"]
    refused = []
    Pending(refused.append, make).settle("outcome")
    assert [each.code for each in refused] == ["bad_request"]


def test_an_error_that_cannot_be_told_is_not_told_again(logs):
    told = []

    def done(outcome):
        told.append(outcome)
        raise ValueError("the client is gone")

    error = BackendError("said no")
    Pending(done).settle(error)
    assert told == [error]


async def test_a_task_that_is_cancelled_cancels_the_call_it_awaits():
    withdrawn = []
    task = asyncio.create_task(awaited(lambda pending: pending.runs(withdrawn.append, "the run")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert withdrawn == ["the run"]


@pytest.mark.parametrize("error", [BadRequest("not this"), ValueError("a bug")])
async def test_a_call_ends_as_its_task_does(error, logs):
    async def work():
        await asyncio.sleep(0)
        raise error

    told = []
    in_task(work, pending=Pending(told.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [each.code for each in told] == ["bad_request" if isinstance(error, BadRequest) else "internal"]


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_call_that_is_cancelled_cancels_its_task(turns):
    async def work():
        await asyncio.Event().wait()

    pending = Pending(lambda _: pytest.fail("told"))
    in_task(work, pending=pending)
    for _ in range(turns):
        await asyncio.sleep(0)
    pending.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("end", [lambda calls: calls.parts[0].settle("outcome"), lambda calls: calls.whole.cancel()])
def test_what_has_ended_is_freed_without_the_garbage_collector(end):
    class Run:
        """What runs for a call, and knows it."""

    calls, run = Puppets(1), Run()
    run.pending = calls.parts[0]
    calls.parts[0].runs(lambda _: None, run)
    left = weakref.ref(run)
    gc.disable()
    try:
        end(calls)
        del run
        assert left() is None
    finally:
        gc.enable()
