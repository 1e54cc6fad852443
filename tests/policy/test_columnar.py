"""Calls of many sessions: how they are divided into steps, and how the steps' answers become the call's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sluice.policy.batch import Rows
from sluice.policy.batching import BatchingOptions
from sluice.policy.columnar import Columns, divided
from sluice.policy.contract import Signature
from sluice.policy.errors import (
    BackendUnavailable,
    SessionClosed,
    SessionNotFound,
    SessionQueueFull,
    SluiceError,
    StateNotFinite,
    StepMismatch,
)
from sluice.policy.session import Answers, Event, Session
from sluice.policy.sessions import SessionOptions
from sluice.policy.slab import Slab

from .puppet import FAR, SPOIL, STEP, Puppet

MISSING = SessionNotFound("There is none.")
GONE = BackendUnavailable("gone")


class Reader:
    """Gives every version the same inputs, and remembers which versions were asked about."""

    def __init__(self, xs: Sequence[float]) -> None:
        self.inputs = {"x": np.array([[x, x] for x in xs])}
        self.versions: list[int] = []

    def __call__(self, slab: Slab) -> tuple[Signature, Rows]:
        self.versions.append(slab.version)
        return STEP, self.inputs


def columns_of(
    sessions: Sequence[Session | SluiceError], numbers: Sequence[int] | None = None, largest: int = 100
) -> Columns:
    return divided(sessions, Reader([float(row + 1) for row in range(len(sessions))]), FAR, numbers, largest)


def offered(puppet: Puppet, columns: Columns) -> list[Any]:
    """The outcomes of the steps of a call, as far as they have any; what is refused at once is one."""
    outcomes = []
    for _, step in columns.steps:
        try:
            puppet.offered(step)
        except SluiceError as error:
            outcomes.append(error)
        else:
            puppet.run()
            outcomes.append(step.outcome)
    return outcomes


def xs(columns: Columns) -> list[list[float]]:
    return [step.inputs["x"][:, 0].tolist() for _, step in columns.steps]


def rows(columns: Columns) -> list[list[int]]:
    return [list(own) for own, _ in columns.steps]


# Divided


def test_sessions_of_one_version_make_one_step_of_the_inputs_as_they_came(puppet: Puppet) -> None:
    sessions, read, numbers = [puppet.open(id) for id in "abc"], Reader([1.0, 2.0, 3.0]), [-1, 0, 5]
    columns = divided(sessions, read, 7.0, numbers, 3)
    ((own, step),) = columns.steps
    assert (columns.rows, list(own), columns.errors) == (3, [0, 1, 2], {})
    assert (step.sessions, step.numbers, step.rows, step.deadline, step.length) == (sessions, numbers, 3, 7.0, 1)
    assert step.inputs is read.inputs
    assert step.signature is STEP
    assert (step.lane.model, step.lane.version, step.lane.signature) == ("m", 1, "step")


def test_sessions_of_several_versions_make_a_step_of_each(puppet: Puppet) -> None:
    sessions = [puppet.open(id, version=version) for id, version in zip("abcd", [1, 2, 1, 3], strict=True)]
    read = Reader([1.0, 2.0, 3.0, 4.0])
    columns = divided(sessions, read, FAR, [10, 11, 12, 13], 100)
    assert rows(columns) == [[0, 2], [1], [3]]
    assert xs(columns) == [[1, 3], [2], [4]]
    assert [list(step.numbers) for _, step in columns.steps] == [[10, 12], [11], [13]]
    assert [step.lane.version for _, step in columns.steps] == read.versions == [1, 2, 3]


def test_more_rows_than_the_largest_batch_make_several_steps(puppet: Puppet) -> None:
    sessions = [puppet.open(id) for id in "abcde"]
    columns = columns_of(sessions, [1, 2, 3, 4, 5], largest=2)
    assert rows(columns) == [[0, 1], [2, 3], [4]]
    assert xs(columns) == [[1, 2], [3, 4], [5]]
    assert [list(step.numbers) for _, step in columns.steps] == [[1, 2], [3, 4], [5]]
    assert [step.sessions for _, step in columns.steps] == [sessions[:2], sessions[2:4], sessions[4:]]


def test_a_call_that_is_not_numbered_has_no_numbers_however_it_is_divided(puppet: Puppet) -> None:
    columns = columns_of([puppet.open(id) for id in "abc"], largest=2)
    assert [step.numbers for _, step in columns.steps] == [None, None]


def test_a_session_that_is_not_there_is_in_no_step(puppet: Puppet) -> None:
    a, b = puppet.open("a"), puppet.open("b")
    columns = columns_of([MISSING, a, MISSING, b], [0, 1, 2, 3])
    assert columns.errors == {0: MISSING, 2: MISSING}
    assert (rows(columns), xs(columns)) == ([[1, 3]], [[2, 4]])
    assert columns.steps[0][1].numbers == [1, 3]


def test_a_call_of_sessions_that_are_not_there_reads_nothing() -> None:
    read = Reader([1.0])
    columns = divided([MISSING], read, FAR, None, 100)
    assert (columns.steps, read.versions) == ([], [])
    answers = columns.joined([])
    assert (answers.outputs, answers.steps, answers.errors, answers.replayed) == ({}, [-1], {0: MISSING}, False)


def test_what_cannot_be_read_fails_the_call(puppet: Puppet) -> None:
    def read(slab: Slab) -> tuple[Signature, Rows]:
        raise StepMismatch("no")

    with pytest.raises(StepMismatch):
        divided([puppet.open()], read, FAR, None, 100)


# Joined


def test_the_answers_of_the_only_step_are_the_calls(puppet: Puppet) -> None:
    columns = columns_of([puppet.open(id) for id in "ab"])
    outcomes = offered(puppet, columns)
    assert columns.joined(outcomes) is outcomes[0]


@pytest.mark.parametrize("largest", [1, 2, 3, 100])
def test_however_it_is_divided_the_answers_stand_in_the_rows_of_the_call(largest: int) -> None:
    puppet = Puppet()
    sessions = [
        puppet.open(id, version=i % 2 + 1, rows={"hash": np.array([i, i * 10.0])}) for i, id in enumerate("abcde")
    ]
    columns = columns_of(sessions, largest=largest)
    answers = columns.joined(offered(puppet, columns))
    assert answers.outputs["y"].tolist() == [[i * 31 + i + 8, i * 310 + i + 8] for i in range(5)]
    assert (answers.steps, answers.errors) == ([1] * 5, {})


def test_what_is_wrong_with_a_session_is_an_error_of_its_row_and_zeros(puppet: Puppet) -> None:
    sessions = [puppet.open(id, version=version) for id, version in zip("abcd", [1, 2, 2, 1], strict=True)]
    columns = divided([sessions[0], MISSING, *sessions[1:]], Reader([1.0, 1.0, 1.0, SPOIL, 1.0]), FAR, None, 100)
    puppet.scheduler.end(sessions[3], Event.CLOSE, puppet.now)
    answers = columns.joined(offered(puppet, columns))
    assert answers.outputs["y"].tolist() == [[39, 70], [0, 0], [39, 70], [0, 0], [0, 0]]
    assert answers.steps == [1, -1, 1, -1, -1]
    assert {row: type(error) for row, error in answers.errors.items()} == {
        1: SessionNotFound,
        3: StateNotFinite,
        4: SessionClosed,
    }


def test_the_failure_of_the_only_step_is_the_calls(puppet: Puppet) -> None:
    columns = columns_of([puppet.open(id) for id in "ab"])
    with pytest.raises(BackendUnavailable):
        columns.joined([GONE])


def test_the_failure_of_one_step_of_several_is_an_error_of_its_rows(puppet: Puppet) -> None:
    columns = columns_of([puppet.open(id) for id in "abc"], largest=2)
    puppet.offered(columns.steps[0][1])
    puppet.run()
    answers = columns.joined([columns.steps[0][1].outcome, GONE])
    assert answers.outputs["y"].tolist() == [[39, 70], [40, 71], [0, 0]]
    assert (answers.steps, answers.errors) == ([1, 1, -1], {2: GONE})


def test_the_failure_of_all_of_several_steps_leaves_no_outputs(puppet: Puppet) -> None:
    answers = columns_of([puppet.open(id) for id in "abc"], largest=2).joined([GONE, GONE])
    assert (answers.outputs, answers.steps, answers.errors) == ({}, [-1] * 3, dict.fromkeys(range(3), GONE))


def test_the_failure_of_the_only_step_beside_a_session_that_is_not_there_is_an_error_of_its_rows(
    puppet: Puppet,
) -> None:
    answers = columns_of([puppet.open(), MISSING]).joined([GONE])
    assert (answers.outputs, answers.steps, answers.errors) == ({}, [-1, -1], {0: GONE, 1: MISSING})


def test_a_call_of_one_session_that_refuses_it_has_the_error_in_its_row() -> None:
    """Whether it is refused at the door, at its turn, or once it has run."""
    puppet = Puppet(sessions=SessionOptions(queue_steps=1))
    busy, other, spoiled, closed = (puppet.open(id) for id in "abcd")
    puppet.step(busy, deadline=1.0)
    puppet.scheduler.end(closed, Event.CLOSE, puppet.now)
    calls = [
        (divided([busy], Reader([1.0]), FAR, None, 100), SessionQueueFull),
        (divided([closed], Reader([1.0]), FAR, None, 100), SessionClosed),
        (divided([other], Reader([1.0]), FAR, [9], 100), StepMismatch),
        (divided([spoiled], Reader([SPOIL]), FAR, None, 100), StateNotFinite),
    ]
    for columns, error in calls:
        answers = columns.joined(offered(puppet, columns))
        assert (answers.outputs, answers.steps) == ({}, [-1])
        assert [type(each) for each in answers.errors.values()] == [error]
        assert list(answers.errors) == [0]


def test_a_call_of_one_session_that_fails_for_another_reason_fails(puppet: Puppet) -> None:
    columns = columns_of([puppet.open()])
    puppet.offered(columns.steps[0][1])
    puppet.finish(puppet.taken(), GONE)
    with pytest.raises(BackendUnavailable):
        columns.joined([columns.steps[0][1].outcome])


def test_rows_keep_the_dtype_of_the_outputs(puppet: Puppet) -> None:
    columns = columns_of([puppet.open(), MISSING])
    given = Answers({"n": np.array([7], np.int16), "flag": np.array([[True]])}, [1], {})
    answers = columns.joined([given])
    assert {name: array.dtype for name, array in answers.outputs.items()} == {"n": np.int16, "flag": np.bool_}
    assert (answers.outputs["n"].tolist(), answers.outputs["flag"].tolist()) == ([7, 0], [[True], [False]])


def test_answers_from_memory_are_marked_where_nothing_ran(puppet: Puppet) -> None:
    sessions = [puppet.open(id) for id in "ab"]
    first, again = (columns_of(sessions, [0, 0]) for _ in range(2))
    answers = [columns.joined(offered(puppet, columns)) for columns in (first, again)]
    assert [each.replayed for each in answers] == [False, True]
    assert answers[0].outputs["y"].tolist() == answers[1].outputs["y"].tolist()


def test_a_call_of_more_sessions_than_the_largest_batch_shares_batches_with_others() -> None:
    puppet = Puppet(BatchingOptions((1, 2, 4), in_flight=9))
    columns = columns_of([puppet.open(id) for id in "abcdef"], largest=4)
    for _, step in columns.steps:
        puppet.offered(step)
    single = puppet.step(puppet.open("g"))
    batches = [puppet.taken(), puppet.taken()]
    assert [batch.rows for batch in batches] == [4, 3]
    assert batches[1].tickets == [columns.steps[1][1], single]
