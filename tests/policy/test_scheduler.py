"""What happens next: failures, cancels, deadlines and ends at every stage. Each test is one promise."""

import math

import numpy as np
import pytest

from sluice.policy.batch import Course, Lane, Rows, Stage, Ticket
from sluice.policy.batching import BatchingOptions
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    BatchCollision,
    BatchRefused,
    BatchTooLarge,
    DeadlineExceeded,
    Draining,
    InputRejected,
    Internal,
    QueueFull,
    SessionClosed,
    SluiceError,
    StateNotFinite,
)
from sluice.policy.scheduler import Cancelled, feeds
from sluice.policy.session import Event, Phase, Session, Step

from .puppet import FAR, POISON, SPOIL, Puppet, row_ticket


def puppet_of(**options: object) -> Puppet:
    return Puppet(BatchingOptions(**{"allowed_batch_sizes": (1, 2, 4), "in_flight": 2, **options}))


def state(session: Session) -> list[float]:
    return session.slab.read(session.slot)["hash"].tolist()


UNTOUCHED = [1.0, 2.0]
STEPPED = [39.0, 70.0]  # after one step with x = 1


# Rows


def test_rows_of_several_clients_share_a_batch_and_each_gets_its_own(puppet: Puppet) -> None:
    one, two = puppet.rows(1.0, 2.0), puppet.rows(3.0)
    batch = puppet.taken()
    puppet.finish(batch)
    assert (batch.rows, batch.size) == (3, 4)
    assert one.outcome["y"].tolist() == [[3, 3], [5, 5]]
    assert two.outcome["y"].tolist() == [[7, 7]]
    assert puppet.scheduler.settled == [one, two]


def test_filler_never_reaches_a_client() -> None:
    puppet = puppet_of(allowed_batch_sizes=(8,))
    ticket = puppet.rows(1.0)
    puppet.run()
    assert ticket.outcome["y"].shape == (1, 2)


def test_models_have_slots_of_their_own() -> None:
    puppet = puppet_of(in_flight=1)
    puppet.rows(1.0, model="m")
    puppet.rows(1.0, model="n")
    assert [puppet.taken().lane.model, puppet.taken().lane.model] == ["m", "n"]


def test_a_refused_ticket_has_no_outcome_and_leaves_no_alarm(puppet: Puppet) -> None:
    with pytest.raises(BatchTooLarge):
        puppet.rows(*range(129))
    assert puppet.scheduler.settled == []
    assert puppet.scheduler.next_wakeup() == math.inf
    assert not puppet.scheduler.busy


def test_a_full_queue_refuses_rows_at_the_door() -> None:
    puppet = puppet_of(queue_rows=2)
    waiting = puppet.rows(1.0, 2.0)
    with pytest.raises(QueueFull):
        puppet.rows(3.0)
    puppet.run()
    assert waiting.outcome["y"].tolist() == [[3, 3], [5, 5]]


class Again:
    """A course of some runs more, each of what the one before gave; `seen` are their outputs."""

    def __init__(self, runs: int, failure: SluiceError | None = None) -> None:
        self.seen: list[float] = []
        self._runs = runs
        self._failure = failure

    def advance(self, outputs: Rows) -> Stage | str:
        self.seen.append(float(outputs["y"][0, 0]))
        if len(self.seen) <= self._runs:
            following = row_ticket(self.seen[-1])
            return Stage(following.lane, following.inputs, following.rows)
        if self._failure is not None:
            raise self._failure
        return "the end"


def on_course(puppet: Puppet, value: float, course: Course, **more: float) -> Ticket:
    ticket = row_ticket(value, **more)
    ticket.course = course
    puppet.scheduler.offer(ticket, puppet.now)
    return ticket


def test_a_ticket_on_a_course_runs_until_it_gives_the_outcome_however_full_the_queue_is() -> None:
    puppet = puppet_of(queue_rows=2, allowed_batch_sizes=(1,))
    course = Again(3)
    ticket = on_course(puppet, 1.0, course)
    first = puppet.taken()
    puppet.rows(5.0)
    puppet.rows(7.0)
    puppet.finish(first)
    assert puppet.scheduler.dispatchers["m"].waiting_rows == 3
    puppet.run()
    assert (ticket.outcome, course.seen) == ("the end", [3, 7, 15, 31])


def test_tickets_on_a_course_take_turns_with_those_that_come_later() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1,), in_flight=1)
    long = on_course(puppet, 1.0, Again(5), deadline=50.0)
    for n in range(3):
        later = puppet.rows(float(n), deadline=puppet.now + 49.0)
        for _ in range(2):
            puppet.pass_time(0.5)
            puppet.finish(puppet.taken())
        assert later.outcome is not None
    assert long.outcome is None
    puppet.run()
    assert long.outcome == "the end"


def test_a_course_that_fails_settles_its_ticket_and_nobody_elses() -> None:
    puppet = puppet_of()
    failing = on_course(puppet, 1.0, Again(1, BackendError("no state")))
    other = on_course(puppet, 2.0, Again(2))
    puppet.run()
    assert (failing.outcome.code, other.outcome) == ("backend_error", "the end")


class Broken:
    """A course with a fault."""

    def advance(self, outputs: Rows) -> Stage:
        raise KeyError("h")


def test_a_fault_on_one_course_keeps_nobody_else_from_an_outcome() -> None:
    puppet = puppet_of()
    broken = on_course(puppet, 1.0, Broken())
    other, plain = on_course(puppet, 2.0, Again(1)), puppet.rows(3.0)
    puppet.run()
    assert isinstance(broken.outcome, Internal)
    assert isinstance(broken.outcome.__cause__, KeyError)
    assert (other.outcome, plain.outcome["y"].tolist()) == ("the end", [[7, 7]])


def test_who_is_on_the_way_does_not_fill_the_queue_for_others() -> None:
    puppet = puppet_of(queue_rows=2, in_flight=1)
    for value in (1.0, 2.0):
        on_course(puppet, value, Again(3))
    puppet.pass_time(1.0)
    puppet.finish(puppet.taken())
    assert puppet.scheduler.dispatchers["m"].waiting_rows == 2
    puppet.rows(5.0, 6.0)
    with pytest.raises(QueueFull, match="2 of 2"):
        puppet.rows(7.0)
    puppet.run()
    puppet.rows(5.0, 6.0)


def test_who_has_been_long_on_the_way_gains_a_lead_over_who_comes() -> None:
    ticket = row_ticket(1.0, deadline=100.0)
    ticket.began_at, ticket.queued_at = 10.0, 11.0
    assert ticket.urgency == 101.0
    ticket.queued_at = 12.0
    assert ticket.urgency == 102.0
    ticket.queued_at = 20.0  # 8 s beyond the first 2: a lead of 1 s
    assert ticket.urgency == 109.0


def test_low_priority_is_paid_once() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1,), in_flight=1)
    low = row_ticket(1.0, deadline=100.0)
    low.course, low.priority_s = Again(2), 10.0
    puppet.offered(low)
    normal = puppet.rows(2.0, deadline=105.0)
    puppet.finish(puppet.taken())
    assert normal.outcome is not None
    puppet.finish(puppet.taken())
    puppet.rows(3.0, deadline=105.0)
    puppet.finish(puppet.taken())
    puppet.finish(puppet.taken())
    assert low.outcome == "the end"


def test_a_further_run_does_not_linger() -> None:
    puppet = puppet_of(linger_s=0.5)
    ticket = on_course(puppet, 1.0, Again(2))
    assert puppet.take() is None
    puppet.pass_time(0.5)
    for _ in range(3):
        puppet.pass_time(0.01)
        puppet.finish(puppet.taken())
    assert ticket.outcome == "the end"


def test_a_ticket_on_a_course_that_is_cancelled_or_late_runs_no_more() -> None:
    puppet = puppet_of()
    left, late = Again(5), Again(5)
    leaving = on_course(puppet, 1.0, left)
    hurried = on_course(puppet, 1.0, late, deadline=puppet.now + 0.5)
    puppet.finish(puppet.taken())
    running = puppet.taken()
    puppet.cancel(leaving)
    puppet.pass_time(1.0)
    puppet.finish(running)
    assert puppet.take() is None
    assert isinstance(leaving.outcome, Cancelled)
    assert isinstance(hurried.outcome, DeadlineExceeded)
    assert "1000 ms" in hurried.outcome.message
    assert len(left.seen) == len(late.seen) == 1


def test_a_full_queue_settles_a_step_and_leaves_its_session_idle() -> None:
    puppet = puppet_of(queue_rows=1)
    session = puppet.open()
    puppet.rows(1.0)
    step = puppet.step(session)
    assert isinstance(step.outcome, QueueFull)
    assert session.phase is Phase.IDLE


# Failures


def test_a_failed_batch_fails_its_own_rows_only() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1,))
    failed, fine = puppet.rows(1.0), puppet.rows(2.0)
    first, second = puppet.taken(), puppet.taken()
    puppet.finish(first, BackendUnavailable("gone"))
    puppet.finish(second)
    assert isinstance(failed.outcome, BackendUnavailable)
    assert fine.outcome["y"].tolist() == [[5, 5]]


def test_a_failed_step_leaves_the_state_as_it_was(puppet: Puppet) -> None:
    session = puppet.open()
    step = puppet.step(session)
    puppet.finish(puppet.taken(), BackendUnavailable("gone"))
    assert isinstance(step.outcome, BackendUnavailable)
    assert (state(session), session.step, session.phase) == (UNTOUCHED, 0, Phase.IDLE)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (0, 2), ()])
def test_an_answer_with_another_number_of_rows_is_a_back_end_error(puppet: Puppet, shape: tuple[int, ...]) -> None:
    ticket = puppet.rows(1.0, 2.0)
    puppet.finish(puppet.taken(), {"y": np.zeros(shape)})
    assert type(ticket.outcome) is BackendError
    assert "Model 'm' was given 2 rows" in ticket.outcome.message
    assert f"y {list(shape)}" in ticket.outcome.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("y", None),
        ("hash_out", None),
        ("hash_out", np.zeros((1, 1))),
        ("hash_out", np.zeros((1, 2), np.float32)),
        ("count_out", np.zeros((1, 1), np.int64)),
        ("count_out", np.zeros(1)),
        ("y", np.zeros((1, 3))),
    ],
)
def test_a_step_that_is_not_answered_as_promised_moves_nothing(
    puppet: Puppet, name: str, value: np.ndarray | None
) -> None:
    session = puppet.open()
    step = puppet.step(session)
    batch = puppet.taken()
    result = {**puppet.answer(batch), name: value}
    puppet.finish(batch, {key: array for key, array in result.items() if array is not None})
    assert type(step.outcome) is BackendError
    assert name in step.outcome.message
    assert "signature 'step'" in step.outcome.message
    assert (state(session), session.step) == (UNTOUCHED, 0)
    assert session.slab.read(session.slot)["count"] == 0


@pytest.mark.parametrize("refusal", [InputRejected("No such value."), BatchRefused("Not now.")])
def test_a_batch_that_is_refused_for_what_may_be_one_row_runs_again_row_by_row(
    puppet: Puppet, refusal: SluiceError
) -> None:
    one, other = puppet.rows(1.0), puppet.rows(2.0)
    puppet.finish(puppet.taken(), refusal)
    puppet.finish(puppet.taken(), refusal)
    puppet.run()
    assert {one.outcome is refusal, other.outcome is refusal} == {True, False}
    assert [batch.rows for batch in puppet.ran] == [2, 1, 1]


def test_a_poisonous_row_fails_alone_and_its_batch_mates_are_answered(puppet: Puppet) -> None:
    a, b, c = (puppet.open(id) for id in "abc")
    fine, poison, also_fine = puppet.step(a), puppet.step(b, POISON), puppet.step(c)
    puppet.run()
    assert isinstance(poison.outcome, InputRejected)
    assert state(b) == UNTOUCHED
    assert [fine.outcome.steps[0], also_fine.outcome.steps[0]] == [1, 1]
    assert [batch.rows for batch in puppet.ran] == [3, 1, 1, 1]


def test_a_request_refused_alone_is_not_run_again(puppet: Puppet) -> None:
    poison = puppet.rows(1.0, POISON)
    puppet.run()
    assert isinstance(poison.outcome, InputRejected)
    assert len(puppet.ran) == 1


def test_who_was_cancelled_meanwhile_is_not_run_again(puppet: Puppet) -> None:
    poison, gone = puppet.rows(POISON), puppet.rows(1.0)
    batch = puppet.taken()
    puppet.cancel(gone)
    puppet.finish(batch)
    puppet.run()
    assert isinstance(gone.outcome, Cancelled)
    assert isinstance(poison.outcome, InputRejected)
    assert [batch.rows for batch in puppet.ran] == [2, 1]


def test_who_was_admitted_once_runs_again_though_the_queue_is_full_meanwhile() -> None:
    puppet = puppet_of(queue_rows=2)
    poison, fine = puppet.rows(POISON), puppet.rows(1.0)
    batch = puppet.taken()
    puppet.rows(2.0)
    puppet.finish(batch)
    puppet.run()
    assert isinstance(poison.outcome, InputRejected)
    assert fine.outcome["y"].tolist() == [[3, 3]]


COLLISION = BatchCollision("Batches of different shape have met.")


def test_batches_that_met_in_the_model_server_run_again_while_nothing_else_does(puppet: Puppet) -> None:
    a, b, c = (puppet.open(id) for id in "abc")
    steps, scan = [puppet.step(a), puppet.step(b)], puppet.scan(c, [1.0, 2.0])
    met = [puppet.taken(), puppet.taken()]
    later = puppet.rows(5.0)
    for batch in met:
        puppet.finish(batch, COLLISION)
    for batch in met:
        again = puppet.taken()
        assert again.tickets == batch.tickets
        assert puppet.take() is None
        assert puppet.scheduler.next_wakeup() > puppet.now
        puppet.finish(again)
    assert later.outcome is None
    puppet.run()
    assert [step.outcome.steps for step in (*steps, scan)] == [[1], [1], [2]]
    assert state(a) == state(b) == STEPPED
    assert later.outcome["y"].tolist() == [[11, 11]]


def test_a_batch_that_met_others_waits_until_what_runs_has_ended(puppet: Puppet) -> None:
    first, second = puppet.rows(1.0), None
    batch = puppet.taken()
    second = puppet.rows(2.0)
    beside = puppet.taken()
    puppet.finish(batch, COLLISION)
    assert puppet.take() is None
    puppet.finish(beside)
    puppet.run()
    assert [ticket.outcome["y"].tolist() for ticket in (first, second)] == [[[3, 3]], [[5, 5]]]


def test_a_batch_that_meets_others_each_time_fails_at_last_and_moves_nothing(puppet: Puppet) -> None:
    session = puppet.open()
    step = puppet.step(session)
    for _ in range(4):
        assert step.outcome is None
        puppet.finish(puppet.taken(), COLLISION)
    assert step.outcome is COLLISION
    assert state(session) == UNTOUCHED
    assert puppet.take() is None


def test_who_was_cancelled_before_a_batch_runs_again_is_left_out(puppet: Puppet) -> None:
    a, b = puppet.open("a"), puppet.open("b")
    gone, wanted = puppet.step(a), puppet.step(b)
    batch = puppet.taken()
    puppet.cancel(gone)
    puppet.finish(batch, COLLISION)
    puppet.run()
    assert [each.rows for each in puppet.ran] == [2, 1]
    assert (state(a), wanted.outcome.steps) == (UNTOUCHED, [1])


def test_a_poisonous_row_is_found_also_in_a_batch_that_met_others(puppet: Puppet) -> None:
    fine, poison = puppet.rows(1.0), puppet.rows(POISON)
    puppet.finish(puppet.taken(), COLLISION)
    puppet.run()
    assert fine.outcome["y"].tolist() == [[3, 3]]
    assert isinstance(poison.outcome, InputRejected)


def test_an_exact_batch_that_met_others_runs_again_as_it_was_and_one_that_is_refused_does_not(puppet: Puppet) -> None:
    fine, poison = row_ticket(1.0, 2.0, 3.0), row_ticket(1.0, POISON, 3.0)
    for ticket in (fine, poison):
        ticket.lane = ticket.lane._replace(exact=True)
        puppet.offered(ticket)
    puppet.rows(1.0)
    puppet.finish(puppet.taken(), COLLISION)
    puppet.run()
    assert fine.outcome["y"].tolist() == [[3, 3], [5, 5], [7, 7]]
    assert isinstance(poison.outcome, InputRejected)
    assert [(batch.rows, batch.size) for batch in puppet.ran] == [(3, 3), (3, 3), (3, 3), (1, 1)]


def test_a_state_that_becomes_nan_marks_that_session_only(puppet: Puppet) -> None:
    a, b = puppet.open(), puppet.open("b")
    fine, spoiled = puppet.step(a), puppet.step(b, SPOIL)
    puppet.finish(puppet.taken())
    assert fine.outcome.steps[0] == 1
    assert state(a) == STEPPED
    assert isinstance(spoiled.outcome, StateNotFinite)
    assert "Step 0 of session 'b' would have made its state NaN or infinite" in spoiled.outcome.message
    assert (state(b), b.step, b.phase) == (UNTOUCHED, 0, Phase.IDLE)


def test_each_session_is_fed_and_given_its_own_state_whatever_slots_and_rows_they_have(puppet: Puppet) -> None:
    a, b, c = (puppet.open(id, rows={"hash": np.array([float(ord(id))] * 2)}) for id in "abc")
    puppet.step(c, 1.0, deadline=10.0), puppet.step(b, SPOIL, deadline=20.0), puppet.step(a, 3.0, deadline=30.0)
    puppet.finish(puppet.taken())
    assert [state(session)[0] for session in (a, b, c)] == [97 * 31 + 3 + 7, 98, 99 * 31 + 1 + 7]


def test_a_batch_in_which_every_state_becomes_nan_moves_nothing(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, SPOIL)
    puppet.run()
    assert state(session) == UNTOUCHED


def test_a_session_goes_on_after_a_step_that_would_have_spoiled_it(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, SPOIL, number=0)
    fine = puppet.step(session, number=0)
    puppet.run()
    assert fine.outcome.steps[0] == 1


# Order


def test_steps_of_one_session_run_one_at_a_time_in_order_of_arrival(puppet: Puppet) -> None:
    session = puppet.open()
    steps = [puppet.step(session, x) for x in (1.0, 2.0, 3.0)]
    for step in steps:
        batch = puppet.taken()
        assert batch.tickets == [step]
        assert puppet.take() is None
        puppet.finish(batch)
    assert [step.outcome.steps[0] for step in steps] == [1, 2, 3]


def test_an_earlier_deadline_does_not_overtake_within_a_session(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.step(session, deadline=100.0)
    puppet.step(session, deadline=50.0)
    assert puppet.taken().tickets == [first]


def test_batches_may_come_back_in_any_order() -> None:
    puppet = puppet_of(allowed_batch_sizes=(1,))
    a, b = puppet.open(), puppet.open("b")
    puppet.step(a, 1.0), puppet.step(b, 2.0)
    first, second = puppet.taken(), puppet.taken()
    puppet.finish(second)
    puppet.finish(first)
    assert (state(a), state(b)) == (STEPPED, [40.0, 71.0])


def test_steps_and_rows_never_share_a_batch(puppet: Puppet) -> None:
    puppet.step(puppet.open("b"))
    puppet.rows(1.0)
    assert [puppet.taken().rows, puppet.taken().rows] == [1, 1]


# Cancelling


def test_cancelling_a_waiting_row_takes_it_out_of_the_queue(puppet: Puppet) -> None:
    gone, stays = puppet.rows(1.0), puppet.rows(2.0)
    puppet.cancel(gone)
    batch = puppet.taken()
    assert batch.tickets == [stays]
    assert isinstance(gone.outcome, Cancelled)


def test_cancelling_a_running_row_harms_nobody(puppet: Puppet) -> None:
    gone, stays = puppet.rows(1.0), puppet.rows(2.0)
    batch = puppet.taken()
    puppet.cancel(gone)
    puppet.finish(batch)
    assert isinstance(gone.outcome, Cancelled)
    assert stays.outcome["y"].tolist() == [[5, 5]]


def test_cancelling_what_is_settled_does_nothing(puppet: Puppet) -> None:
    step = puppet.step(puppet.open("b"))
    puppet.run()
    answer = step.outcome
    puppet.cancel(step)
    assert step.outcome is answer
    assert puppet.scheduler.settled == [step]


def test_cancelling_a_running_step_leaves_the_state_as_it_was(puppet: Puppet) -> None:
    a, b = puppet.open(), puppet.open("b")
    gone, stays = puppet.step(a), puppet.step(b)
    batch = puppet.taken()
    puppet.cancel(gone)
    puppet.finish(batch)
    assert (state(a), a.step) == (UNTOUCHED, 0)
    assert (state(b), stays.outcome.steps[0]) == (STEPPED, 1)


def test_a_batch_that_nobody_waits_for_any_more_has_no_effect(puppet: Puppet) -> None:
    session = puppet.open()
    step = puppet.step(session)
    batch = puppet.taken()
    puppet.cancel(step)
    puppet.finish(batch)
    assert state(session) == UNTOUCHED
    assert not puppet.scheduler.busy


def test_the_step_behind_a_cancelled_running_one_runs_at_once_from_the_old_state() -> None:
    puppet = puppet_of(in_flight=2)
    session = puppet.open()
    gone, following = puppet.step(session, 9.0), puppet.step(session, 1.0)
    abandoned = puppet.taken()
    puppet.cancel(gone)
    second = puppet.taken()
    puppet.finish(second)
    puppet.finish(abandoned)
    assert following.outcome.steps[0] == 1
    assert (state(session), session.step) == (STEPPED, 1)


def test_cancelling_a_step_behind_others_lets_them_be(puppet: Puppet) -> None:
    session = puppet.open()
    first, gone, last = (puppet.step(session, x) for x in (1.0, 9.0, 1.0))
    puppet.cancel(gone)
    puppet.run()
    assert (first.outcome.steps[0], last.outcome.steps[0]) == (1, 2)
    assert len(puppet.ran) == 2


# Deadlines


def test_a_deadline_that_passes_in_the_queue_is_told_at_once() -> None:
    puppet = puppet_of(in_flight=1)
    puppet.rows(1.0)
    puppet.taken()
    ticket = puppet.rows(1.0, deadline=3.0)
    assert puppet.scheduler.next_wakeup() == 3.0
    puppet.pass_time(2.0)
    assert isinstance(ticket.outcome, DeadlineExceeded)
    assert puppet.take() is None


def test_a_deadline_that_passes_while_running_is_told_at_once_and_the_state_stays(puppet: Puppet) -> None:
    session = puppet.open()
    step = puppet.step(session, deadline=3.0)
    batch = puppet.taken()
    assert puppet.scheduler.next_wakeup() == 3.0
    puppet.pass_time(2.0)
    assert isinstance(step.outcome, DeadlineExceeded)
    puppet.finish(batch)
    assert (state(session), session.step) == (UNTOUCHED, 0)
    assert puppet.scheduler.settled == [step]


def test_a_deadline_that_passes_behind_other_steps_is_told_with_all_its_waiting(puppet: Puppet) -> None:
    session = puppet.open()
    first, late = puppet.step(session), puppet.step(session, deadline=3.0)
    batch = puppet.taken()
    puppet.pass_time(2.0)
    assert "2000 ms had passed" in late.outcome.message
    puppet.finish(batch)
    assert first.outcome.steps[0] == 1


def test_a_step_is_told_how_long_it_waited_behind_others_too(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session)
    late = puppet.step(session, deadline=10.0)
    batch = puppet.taken()
    puppet.pass_time(4.0)
    puppet.finish(batch)
    puppet.pass_time(5.0)
    assert "9000 ms had passed" in late.outcome.message


def test_no_slot_is_spent_on_a_deadline_that_cannot_be_met(puppet: Puppet) -> None:
    puppet.rows(1.0)
    batch = puppet.taken()
    puppet.pass_time(5.0)
    puppet.finish(batch)
    puppet.rows(1.0)
    assert puppet.take() is not None
    hopeless = puppet.rows(1.0, deadline=puppet.now + 4.0)
    assert puppet.take() is None
    assert isinstance(hopeless.outcome, DeadlineExceeded)


def test_no_slot_is_spent_on_the_step_behind_a_hopeless_one_if_it_is_hopeless_too(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session)
    batch = puppet.taken()
    puppet.pass_time(5.0)
    puppet.finish(batch)
    puppet.step(puppet.open("b"))
    assert puppet.take() is not None
    steps = [puppet.step(session, deadline=puppet.now + 4.0) for _ in range(3)]
    assert puppet.take() is None
    assert [type(step.outcome) for step in steps] == [DeadlineExceeded] * 3


def test_refusing_all_settles_what_waits_and_what_runs(puppet: Puppet) -> None:
    session = puppet.open()
    first, second, rows = puppet.step(session), puppet.step(session), puppet.rows(1.0)
    batch = puppet.taken()
    stopping = Draining("as the test told me")
    puppet.scheduler.refuse_all(stopping, puppet.now)
    assert [ticket.outcome for ticket in (first, second, rows)] == [stopping] * 3
    puppet.finish(batch)
    assert session.step == 0
    assert not puppet.scheduler.busy


def test_steps_of_different_row_shapes_never_share_a_batch(puppet: Puppet) -> None:
    narrow, wide = puppet.step(puppet.open("b")), puppet.step(puppet.open("c"))
    wide.lane = Step(wide.sessions, wide.signature, {"x": np.zeros((1, 3))}, 9.0, slab=wide.sessions[0].slab).lane
    assert narrow.lane != wide.lane


def test_a_settled_ticket_wakes_nobody(puppet: Puppet) -> None:
    puppet.rows(1.0, deadline=3.0)
    puppet.run()
    assert puppet.scheduler.next_wakeup() == math.inf


def test_it_wakes_up_when_lingering_is_over() -> None:
    puppet = puppet_of(linger_s=5.0)
    ticket = puppet.rows(1.0)
    assert puppet.take() is None
    assert puppet.scheduler.next_wakeup() == 6.0
    puppet.pass_time(5.0)
    puppet.run()
    assert ticket.outcome["y"].tolist() == [[3, 3]]


# Ends


def test_closing_a_session_tells_all_its_steps(puppet: Puppet) -> None:
    session = puppet.open()
    steps = [puppet.step(session) for _ in range(3)]
    batch = puppet.taken()
    puppet.scheduler.end(session, Event.CLOSE, puppet.now)
    assert [type(step.outcome) for step in steps] == [SessionClosed] * 3
    puppet.finish(batch)
    assert puppet.take() is None
    assert puppet.scheduler.settled == steps


def test_closing_a_session_takes_its_waiting_step_out_of_the_queue(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session)
    puppet.scheduler.end(session, Event.CLOSE, puppet.now)
    assert not puppet.scheduler.busy


def test_an_old_batch_does_not_touch_the_new_session_in_its_slot(puppet: Puppet) -> None:
    old = puppet.open()
    puppet.step(old)
    batch = puppet.taken()
    puppet.feed(batch)
    puppet.scheduler.end(old, Event.CLOSE, puppet.now)
    new = puppet.open("b")
    assert new.slot == old.slot
    puppet.finish(batch)
    assert (state(new), new.step) == (UNTOUCHED, 0)


def test_retiring_a_version_tells_running_steps(puppet: Puppet) -> None:
    step = puppet.step(puppet.open("b"))
    batch = puppet.taken()
    puppet.scheduler.retire("m", 1, puppet.now)
    puppet.finish(batch)
    assert step.outcome.code == "session_version_gone"


def test_filler_rows_of_a_step_batch_repeat_the_last_session(puppet: Puppet) -> None:
    for id in "abc":
        puppet.step(puppet.open(id), x=float(ord(id)))
    fed = puppet.feed(puppet.taken())
    assert {name: len(array) for name, array in fed.items()} == {"x": 4, "hash_in": 4, "count_in": 4}
    assert fed["x"][2].tolist() == fed["x"][3].tolist() == [99.0, 99.0]


def test_it_is_busy_while_something_waits_or_runs(puppet: Puppet) -> None:
    assert not puppet.scheduler.busy
    step: Step = puppet.step(puppet.open("b"))
    assert puppet.scheduler.busy
    batch = puppet.taken()
    assert puppet.scheduler.busy
    puppet.cancel(step)
    assert puppet.scheduler.busy
    puppet.finish(batch)
    assert not puppet.scheduler.busy


def axis_ticket(axis: str, inputs: dict[str, np.ndarray], rows: int = 1) -> Ticket:
    return Ticket(Lane("m", 1, "serving_default", batch_axis=axis), inputs, rows, FAR)


def test_requests_without_a_batch_axis_run_as_they_are_one_by_one(puppet: Puppet) -> None:
    tickets = [puppet.offered(axis_ticket("none", {"x": np.float32(value).reshape(())})) for value in (1, 2)]
    for ticket, value in zip(tickets, (1.0, 2.0), strict=True):
        batch = puppet.taken()
        assert (feeds(batch)["x"].shape, feeds(batch)["x"], batch.size) == ((), value, 1)
        puppet.finish(batch, {"y": np.array(10 * value), "z": np.zeros((3, 2))})
        assert (ticket.outcome["y"], ticket.outcome["z"].shape) == (10 * value, (3, 2))


def test_a_request_without_a_batch_axis_gets_no_filler(puppet: Puppet) -> None:
    puppet.offered(axis_ticket("none", {"x": np.zeros((5, 2))}, rows=5))
    batch = puppet.taken()
    assert (batch.size, feeds(batch)["x"].shape) == (5, (5, 2))


def test_requests_whose_outputs_turn_out_to_have_other_rows_run_again_as_they_are(puppet: Puppet) -> None:
    first, second = (puppet.offered(axis_ticket("assumed", {"x": np.zeros((rows, 2))}, rows)) for rows in (1, 2))
    puppet.finish(puppet.taken(), {"y": np.zeros(7)})
    for ticket, total in ((first, 1.0), (second, 2.0)):
        assert ticket.outcome is None
        puppet.finish(puppet.taken(), {"y": np.array([total, total, total])})
        assert ticket.outcome["y"].tolist() == [total, total, total]


def test_an_error_of_the_model_server_does_not_make_requests_run_as_they_are(puppet: Puppet) -> None:
    ticket = puppet.offered(axis_ticket("assumed", {"x": np.zeros((1, 2))}))
    puppet.finish(puppet.taken(), BackendError("broken"))
    assert isinstance(ticket.outcome, BackendError)
