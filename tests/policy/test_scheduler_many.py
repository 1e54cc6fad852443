"""Steps of many sessions: turns, ends and failures of some of the rows. Each test is one promise."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.batching import BatchingOptions
from sluice.policy.errors import (
    BackendUnavailable,
    BatchTooLarge,
    DeadlineExceeded,
    Draining,
    InputRejected,
    QueueFull,
    SessionQueueFull,
    StateNotFinite,
    StepMismatch,
)
from sluice.policy.scheduler import Cancelled
from sluice.policy.session import Event, Phase, Session, Step
from sluice.policy.sessions import SessionOptions

from .oracle import WHY
from .puppet import POISON, PRIME, SPOIL, Puppet

UNTOUCHED, STEPPED, ZEROS = [1.0, 2.0], [39.0, 70.0], [0.0, 0.0]


def puppet_of(queue_steps: int = 16, **options: object) -> Puppet:
    return Puppet(BatchingOptions(**options), SessionOptions(queue_steps=queue_steps))


def state(session: Session) -> list[float]:
    return session.slab.read(session.slot)["hash"].tolist()


def states(*sessions: Session) -> list[list[float]]:
    return [state(session) for session in sessions]


def close(puppet: Puppet, session: Session) -> None:
    puppet.scheduler.end(session, Event.CLOSE, puppet.now)


def y(step: Step) -> list[list[float]]:
    return step.outcome.outputs["y"].tolist()


def errors(step: Step) -> dict[int, type[Exception]]:
    return {row: type(error) for row, error in step.outcome.errors.items()}


@pytest.fixture
def abc(puppet: Puppet) -> list[Session]:
    return [puppet.open(id) for id in "abc"]


# Rows


def test_each_session_of_a_step_moves_by_its_own_row(puppet: Puppet) -> None:
    sessions = [puppet.open(id, rows={"hash": np.array([i, i * 10.0])}) for i, id in enumerate("abc")]
    step = puppet.many(sessions[::-1], [1.0, 2.0, 3.0])
    puppet.run()
    assert y(step) == [[2 * 31 + 8, 20 * 31 + 8], [1 * 31 + 9, 10 * 31 + 9], [10, 10]] == states(*sessions[::-1])
    assert (step.outcome.steps, step.outcome.errors, step.outcome.replayed) == ([1] * 3, {}, False)
    assert [session.step for session in sessions] == [1] * 3


def test_it_shares_batches_with_steps_of_one_session(puppet: Puppet, abc: list[Session]) -> None:
    one, many = puppet.step(abc[0], 5.0), puppet.many(abc[1:], [6.0, 7.0])
    batch = puppet.taken()
    puppet.finish(batch)
    assert (batch.rows, batch.tickets) == (3, [one, many])
    assert y(one) + y(many) == states(*abc) == [[43, 74], [44, 75], [45, 76]]


def test_its_filler_reaches_nobody(puppet: Puppet, abc: list[Session]) -> None:
    step = puppet.many(abc, [1.0] * 3)
    batch = puppet.taken()
    puppet.finish(batch)
    assert (batch.rows, batch.size, len(y(step))) == (3, 4, 3)


def test_more_rows_than_the_largest_batch_are_too_many() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1, 2))
    sessions = [puppet.open(id) for id in "abc"]
    step, following = puppet.many(sessions, [1.0] * 3), puppet.step(sessions[0])
    puppet.run()
    assert isinstance(step.outcome, BatchTooLarge)
    assert (states(*sessions), following.outcome.steps) == ([STEPPED, UNTOUCHED, UNTOUCHED], [1])


@given(data=st.data())
def test_many_sessions_step_together_exactly_as_they_step_alone(data: st.DataObject) -> None:
    puppet, ids = Puppet(), "abcde"
    together, alone = [puppet.open(id) for id in ids], [puppet.open(id.upper()) for id in ids]
    for _ in range(data.draw(st.integers(1, 6))):
        rows = data.draw(st.lists(st.integers(0, 4), min_size=1, unique=True))
        xs = [float(data.draw(st.integers(0, 9))) for _ in rows]
        many = puppet.many([together[row] for row in rows], xs)
        singles = [puppet.step(alone[row], x) for row, x in zip(rows, xs, strict=True)]
        if data.draw(st.booleans()):
            puppet.run()
    puppet.run()
    assert y(many) == [y(single)[0] for single in singles]
    assert states(*together) == states(*alone)
    assert [session.step for session in together] == [session.step for session in alone]


# Turns


def test_it_waits_until_it_is_its_turn_in_all_its_sessions() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1, 2, 3), in_flight=9)
    a, b, c = (puppet.open(id) for id in "abc")
    puppet.step(a)
    first, second = puppet.taken(), (puppet.step(b), puppet.taken())[1]
    many = puppet.many([a, b, c], [1.0] * 3)
    assert (many.blocked, puppet.take()) == (2, None)
    puppet.finish(second)
    assert (many.blocked, puppet.take()) == (1, None)
    puppet.finish(first)
    assert (many.blocked, puppet.taken().tickets) == (0, [many])


def test_a_session_that_waits_for_others_lets_nobody_overtake(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.step(a, 1.0)
    batch = puppet.taken()
    many, behind = puppet.many([a, b], [2.0, 2.0]), puppet.step(b, 3.0)
    assert puppet.take() is None
    puppet.finish(batch)
    assert puppet.taken().tickets == [many]
    assert behind.blocked == 1


def test_steps_over_the_same_sessions_in_opposite_order_do_not_wait_for_each_other(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, _ = abc
    steps = [puppet.many(order, [1.0, 2.0]) for order in ([a, b], [b, a], [a, b])]
    assert [step.blocked for step in steps] == [0, 2, 2]
    puppet.run()
    assert [step.outcome.steps for step in steps] == [[1, 1], [2, 2], [3, 3]]
    assert [batch.tickets for batch in puppet.ran] == [[step] for step in steps]


@given(data=st.data())
def test_steps_over_any_sessions_all_run_and_each_session_keeps_their_order(data: st.DataObject) -> None:
    puppet = puppet_of(allowed_batch_sizes=(1, 2, 4, 8), in_flight=data.draw(st.integers(1, 3)), queue_steps=99)
    sessions = [puppet.open(id) for id in "abcd"]
    seen: dict[Session, list[float]] = {session: [1.0, 2.0] for session in sessions}
    steps, batches = list[tuple[Step, list[list[float]]]](), []
    for x in range(data.draw(st.integers(1, 12))):
        own = data.draw(st.permutations(sessions))[: data.draw(st.integers(1, 4))]
        for session in own:
            seen[session] = [(h * 31 + x + 7) % PRIME for h in seen[session]]
        steps.append((puppet.many(own, [float(x)] * len(own)), [seen[session] for session in own]))
        if data.draw(st.booleans()) and (batch := puppet.take()):
            batches.append(batch)
        if batches and data.draw(st.booleans()):
            puppet.finish(batches.pop(data.draw(st.integers(0, len(batches) - 1))))
    for batch in batches:
        puppet.finish(batch)
    puppet.run()
    assert all(y(step) == wanted for step, wanted in steps)


def test_cancelling_one_that_is_behind_in_some_sessions_and_first_in_others_lets_the_next_go(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, _ = abc
    puppet.step(a)
    batch = puppet.taken()
    many, behind_b, behind_a = puppet.many([a, b], [1.0, 1.0]), puppet.step(b), puppet.step(a)
    puppet.cancel(many)
    assert (behind_b.blocked, behind_a.blocked) == (0, 1)
    assert puppet.taken().tickets == [behind_b]
    puppet.finish(batch)
    assert puppet.taken().tickets == [behind_a]


def test_cancelling_a_step_behind_one_that_waits_does_not_let_that_one_go(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.step(a)
    puppet.taken()
    many, gone = puppet.many([a, b], [1.0, 1.0]), puppet.step(b)
    puppet.cancel(gone)
    assert (many.blocked, puppet.take()) == (1, None)


# Ends of single sessions


def queued(puppet: Puppet, step: Callable[[], Step]) -> Step:
    return step()


def running(puppet: Puppet, step: Callable[[], Step]) -> Step:
    taken = step()
    puppet.taken()
    return taken


def blocked(puppet: Puppet, step: Callable[[], Step]) -> Step:
    """It waits behind a running step of its last session."""
    puppet.step(puppet.scheduler.sessions.get("c"), 0.0)
    puppet.taken()
    return step()


STAGES = [queued, running, blocked]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("event", [Event.CLOSE, Event.EXPIRE, Event.RETIRE])
def test_a_row_whose_session_ends_gets_its_error_and_the_others_are_answered(
    puppet: Puppet, abc: list[Session], stage: Callable[..., Step], event: Event
) -> None:
    a, b, c = abc
    step = stage(puppet, lambda: puppet.many(abc, [1.0, 2.0, 3.0]))
    before = state(a)
    puppet.scheduler.end(b, event, puppet.now)
    assert step.outcome is None
    for batch in list(puppet.ran):
        puppet.finish(batch)
    puppet.run()
    assert errors(step) == {1: WHY[event]}
    assert y(step) == [[h * 31 + 8 for h in before], ZEROS, state(c)]
    assert step.outcome.steps == [1, -1, c.step]
    assert puppet.scheduler.ended == [(b, event)]


@pytest.mark.parametrize("stage", STAGES)
def test_when_all_its_sessions_end_each_row_has_its_reason_and_nothing_is_left(
    puppet: Puppet, abc: list[Session], stage: Callable[..., Step]
) -> None:
    step = stage(puppet, lambda: puppet.many(abc, [1.0] * 3))
    events = [Event.CLOSE, Event.EXPIRE, Event.RETIRE]
    for session, event in zip(abc, events, strict=True):
        assert step.outcome is None
        puppet.scheduler.end(session, event, puppet.now)
    assert errors(step) == {row: WHY[event] for row, event in enumerate(events)}
    assert (step.outcome.outputs, step.outcome.steps, step.outcome.replayed) == ({}, [-1] * 3, False)
    assert puppet.take() is None
    for batch in puppet.ran:
        puppet.finish(batch)
    assert not puppet.scheduler.busy


def test_a_session_that_ends_lets_a_step_go_that_waited_for_it_alone(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.step(a)
    puppet.taken()
    many, behind = puppet.many([a, b], [1.0, 1.0]), puppet.many([b, a], [2.0, 2.0])
    close(puppet, a)
    assert (many.blocked, behind.blocked) == (0, 1)
    assert puppet.taken().tickets == [many]


def test_a_session_that_ends_where_a_step_is_first_leaves_it_waiting_for_the_others(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, _ = abc
    puppet.step(a)
    puppet.taken()
    many = puppet.many([a, b], [1.0, 1.0])
    close(puppet, b)
    assert many.blocked == 1
    assert puppet.take() is None


def test_a_step_that_a_session_s_end_lets_go_is_settled_where_its_number_says_so(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, _ = abc
    puppet.step(a)
    puppet.taken()
    many, behind = puppet.many([a, b], [1.0, 1.0], [1, 9]), puppet.step(b)
    close(puppet, a)
    assert errors(many) == {0: WHY[Event.CLOSE], 1: StepMismatch}
    assert puppet.taken().tickets == [behind]


def test_a_session_that_is_opened_in_a_slot_of_an_ended_one_is_not_touched_and_not_shown(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, c = abc
    step = puppet.many(abc, [1.0, 2.0, 3.0])
    batch = puppet.taken()
    close(puppet, b)
    new = puppet.open("b", rows={"hash": np.array([8.0, 9.0])})
    assert new.slot == b.slot
    puppet.finish(batch)
    assert (state(new), new.step) == ([8, 9], 0)
    assert new.last_call == b""
    assert y(step) == [state(a), ZEROS, state(c)]


def test_a_row_that_needs_nothing_more_is_fed_another_rows_state(puppet: Puppet) -> None:
    a, b = (puppet.open(id, rows={"hash": np.array([n, n])}) for id, n in (("a", 5.0), ("b", 6.0)))
    puppet.many([a, b], [1.0, 2.0])
    close(puppet, a)
    puppet.open("c", rows={"hash": np.array([7.0, 7.0])})
    assert puppet.feed(puppet.taken())["hash_in"].tolist() == [[6, 6], [6, 6]]


# Sessions that cannot take a step


def test_a_session_with_as_many_steps_as_it_may_have_refuses_its_row_only() -> None:
    puppet = puppet_of(queue_steps=1)
    a, b = puppet.open("a"), puppet.open("b")
    puppet.step(a, 9.0)
    used_at, puppet.now = a.last_used_at, 2.0
    step = puppet.many([a, b], [1.0, 1.0])
    assert (step.blocked, len(a.steps), a.last_used_at) == (0, 1, used_at)
    puppet.run()
    assert errors(step) == {0: SessionQueueFull}
    assert step.outcome.errors[0].details == {"limit": 1}
    assert (y(step), step.outcome.steps) == ([ZEROS, STEPPED], [-1, 1])
    assert state(a) == [47, 78]


def test_a_step_that_all_its_sessions_refuse_is_answered_at_once() -> None:
    puppet = puppet_of(queue_steps=1)
    a, b, c = (puppet.open(id) for id in "abc")
    puppet.step(a), puppet.step(b)
    close(puppet, c)
    step = puppet.many([a, b, c], [1.0] * 3)
    assert errors(step) == {0: SessionQueueFull, 1: SessionQueueFull, 2: WHY[Event.CLOSE]}
    assert (step.outcome.outputs, step.outcome.steps, step.outcome.replayed) == ({}, [-1] * 3, False)
    assert puppet.scheduler.settled == [step]
    assert puppet.taken().rows == 2


def test_a_full_queue_refuses_the_whole_step_and_leaves_its_sessions_idle() -> None:
    puppet = puppet_of(queue_rows=2)
    a, b = puppet.open("a"), puppet.open("b")
    puppet.rows(1.0)
    step = puppet.many([a, b], [1.0, 1.0])
    assert isinstance(step.outcome, QueueFull)
    assert [a.phase, b.phase, a.steps, b.steps] == [Phase.IDLE, Phase.IDLE, (), ()]
    assert states(a, b) == [UNTOUCHED] * 2


def test_a_step_that_finds_its_queue_full_lets_the_steps_behind_it_try() -> None:
    puppet = puppet_of(queue_rows=2)
    a, b = puppet.open("a"), puppet.open("b")
    first = puppet.many([a, b], [1.0, 1.0])
    batch = puppet.taken()
    puppet.rows(1.0)
    many, single = puppet.many([a, b], [2.0, 2.0]), puppet.step(b, 3.0)
    puppet.finish(batch)
    assert first.outcome.steps == [1, 1]
    assert isinstance(many.outcome, QueueFull)
    puppet.run()
    assert (single.outcome.steps, a.step, b.step) == ([2], 1, 2)


# Numbers


def test_each_row_has_a_number_of_its_own(puppet: Puppet, abc: list[Session]) -> None:
    a, b, c = abc
    puppet.step(a), puppet.step(b)
    puppet.run()
    step = puppet.many(abc, [2.0, 2.0, 2.0], [1, -1, 5])
    puppet.run()
    assert errors(step) == {2: StepMismatch}
    assert step.outcome.errors[2].details == {"current": 0}
    assert (step.outcome.steps, y(step)) == ([2, 2, -1], [state(a), state(b), ZEROS])
    assert (state(c), c.phase) == (UNTOUCHED, Phase.IDLE)


def test_rows_that_are_repeats_get_the_same_answer_while_the_others_run(puppet: Puppet, abc: list[Session]) -> None:
    a, b, c = abc
    first = puppet.many(abc, [1.0, 2.0, 3.0], [0, 0, 0])
    puppet.run()
    puppet.step(c, 4.0)
    puppet.run()
    again = puppet.many([c, b, a], [5.0, 2.0, 9.0], [2, 0, 1])
    batch = puppet.taken()
    assert puppet.feed(batch)["hash_in"][[0, 2]].tolist() == [state(c), state(a)]
    puppet.finish(batch)
    assert y(again) == [state(c), y(first)[1], state(a)]
    assert (again.outcome.steps, again.outcome.errors, again.outcome.replayed) == ([3, 1, 2], {}, False)
    assert (b.step, state(b)) == (1, y(first)[1])


def test_if_all_rows_are_repeats_nothing_runs(puppet: Puppet, abc: list[Session]) -> None:
    first = puppet.many(abc, [1.0, 2.0, 3.0])
    puppet.run()
    again = puppet.many(abc, [1.0, 2.0, 3.0], [0, 0, 0])
    assert puppet.take() is None
    assert (y(again), again.outcome.steps, again.outcome.replayed) == (y(first), [1, 1, 1], True)


def test_repeats_and_refusals_alone_run_nothing(puppet: Puppet, abc: list[Session]) -> None:
    puppet.many(abc, [1.0, 2.0, 3.0])
    puppet.run()
    again = puppet.many(abc[:2], [7.0, 2.0], [0, 0])
    assert (errors(again), y(again)) == ({0: StepMismatch}, [ZEROS, state(abc[1])])
    assert again.outcome.replayed


def test_a_row_can_be_repeated_alone_and_a_single_step_as_a_row(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.step(a, 4.0), puppet.many([b], [5.0])
    puppet.run()
    assert puppet.step(b, 5.0, number=0).outcome.replayed
    assert puppet.many([b, a], [5.0, 4.0], [0, 0]).outcome.replayed


def test_a_scan_is_not_repeated_by_a_row(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.scan(a, [1.0])
    puppet.run()
    step = puppet.many([a, b], [1.0, 1.0], [0, 0])
    puppet.run()
    assert errors(step) == {0: StepMismatch}


def test_a_row_that_need_not_run_lets_its_session_go_on_before_the_others_are_answered(
    puppet: Puppet, abc: list[Session]
) -> None:
    a, b, _ = abc
    puppet.step(a, 1.0)
    puppet.run()
    many = puppet.many([a, b], [1.0, 1.0], [0, 0])
    following = puppet.step(a, 2.0)
    puppet.finish(puppet.taken())
    assert (following.outcome.steps, many.outcome.steps) == ([2], [1, 1])
    assert y(many)[0] == STEPPED


def test_a_repeat_that_waits_for_the_others_is_not_changed_by_what_its_session_does_then() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1, 2), in_flight=9)
    a, b = puppet.open("a"), puppet.open("b")
    puppet.step(a, 1.0)
    puppet.run()
    many = puppet.many([a, b], [1.0, 1.0], [0, 0])
    slow = puppet.taken()
    puppet.step(a, 2.0)
    puppet.finish(puppet.taken())
    close(puppet, a)
    puppet.finish(slow)
    assert (y(many), many.outcome.steps, many.outcome.errors) == ([STEPPED, STEPPED], [1, 1], {})


# Failures


def test_a_row_whose_state_would_become_nan_fails_alone(puppet: Puppet, abc: list[Session]) -> None:
    a, b, c = abc
    step, behind = puppet.many(abc, [1.0, SPOIL, 3.0]), puppet.step(b)
    puppet.finish(puppet.taken())
    assert (errors(step), y(step)) == ({1: StateNotFinite}, [state(a), ZEROS, state(c)])
    assert (state(b), b.step, step.outcome.steps) == (UNTOUCHED, 0, [1, -1, 1])
    puppet.run()
    assert behind.outcome.steps == [1]


def test_if_every_state_would_become_nan_each_row_says_so(puppet: Puppet, abc: list[Session]) -> None:
    step = puppet.many(abc, [SPOIL] * 3)
    puppet.run()
    assert errors(step) == dict.fromkeys(range(3), StateNotFinite)
    assert (states(*abc), y(step)) == ([UNTOUCHED] * 3, [ZEROS] * 3)


def test_nan_in_the_row_of_an_ended_session_harms_nobody(puppet: Puppet, abc: list[Session]) -> None:
    step = puppet.many(abc, [1.0, SPOIL, 1.0])
    close(puppet, abc[1])
    puppet.run()
    assert (errors(step), y(step)) == ({1: WHY[Event.CLOSE]}, [STEPPED, ZEROS, STEPPED])


def test_a_failed_batch_fails_all_its_rows_and_moves_nothing(puppet: Puppet, abc: list[Session]) -> None:
    step = puppet.many(abc, [1.0] * 3)
    puppet.finish(puppet.taken(), BackendUnavailable("gone"))
    assert isinstance(step.outcome, BackendUnavailable)
    assert (states(*abc), [session.phase for session in abc]) == ([UNTOUCHED] * 3, [Phase.IDLE] * 3)


def test_a_poisonous_row_fails_its_own_step_and_no_other(puppet: Puppet, abc: list[Session]) -> None:
    spoiled, fine = puppet.many(abc[:2], [POISON, 1.0]), puppet.step(abc[2])
    puppet.run()
    assert isinstance(spoiled.outcome, InputRejected)
    assert fine.outcome.steps == [1]
    assert states(*abc) == [UNTOUCHED, UNTOUCHED, STEPPED]


def test_a_step_that_runs_again_alone_still_leaves_out_who_has_ended(puppet: Puppet, abc: list[Session]) -> None:
    poison, many = puppet.step(abc[0], POISON), puppet.many(abc[1:], [1.0, 1.0])
    batch = puppet.taken()
    close(puppet, abc[1])
    puppet.finish(batch)
    puppet.run()
    assert isinstance(poison.outcome, InputRejected)
    assert (errors(many), y(many)) == ({0: WHY[Event.CLOSE]}, [ZEROS, STEPPED])


@pytest.mark.parametrize("running", [False, True])
def test_a_client_that_leaves_moves_none_of_its_sessions(puppet: Puppet, abc: list[Session], *, running: bool) -> None:
    step, behind = puppet.many(abc, [9.0] * 3), puppet.many(abc[:2], [1.0, 1.0])
    batch = puppet.taken() if running else None
    puppet.cancel(step)
    if batch:
        puppet.finish(batch)
    puppet.run()
    assert isinstance(step.outcome, Cancelled)
    assert (states(*abc), behind.outcome.steps) == ([STEPPED, STEPPED, UNTOUCHED], [1, 1])


def test_a_deadline_that_passes_is_told_for_the_whole_step(puppet: Puppet, abc: list[Session]) -> None:
    a, b, _ = abc
    puppet.step(a)
    batch = puppet.taken()
    late, behind = puppet.many([a, b], [1.0, 1.0], deadline=3.0), puppet.step(b)
    puppet.pass_time(2.0)
    assert isinstance(late.outcome, DeadlineExceeded)
    assert puppet.taken().tickets == [behind]
    puppet.finish(batch)
    assert (a.phase, state(a)) == (Phase.IDLE, STEPPED)


def test_refusing_all_settles_steps_that_wait_for_each_other(puppet: Puppet, abc: list[Session]) -> None:
    steps = [puppet.many(abc[:2], [1.0] * 2), puppet.many(abc, [1.0] * 3), puppet.many(abc[1:], [1.0] * 2)]
    batch = puppet.taken()
    stopping = Draining("as the test told me")
    puppet.scheduler.refuse_all(stopping, puppet.now)
    puppet.finish(batch)
    assert [step.outcome for step in steps] == [stopping] * 3
    assert {session.phase for session in abc} == {Phase.IDLE}
    assert not puppet.scheduler.busy
