"""Sessions: who is open, their limits, their numbers. Each test is one promise."""

import math

import numpy as np
import pytest

from sluice.policy.errors import (
    SessionClosed,
    SessionEvicted,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SessionVersionGone,
    StepMismatch,
)
from sluice.policy.scheduler import Scheduler
from sluice.policy.session import Answers, Event, Phase, Session
from sluice.policy.sessions import SessionOptions, SessionTable

from .oracle import WHY
from .puppet import CONTRACT, STEP, Puppet


def puppet_of(**options: object) -> Puppet:
    return Puppet(sessions=SessionOptions(**options))


def same(one: Answers, other: Answers) -> bool:
    """Whether a client gets the same: outputs bit for bit, and time steps."""
    outputs = [{name: (array.shape, array.tobytes()) for name, array in each.outputs.items()} for each in (one, other)]
    return outputs[0] == outputs[1] and one.steps == other.steps and one.errors == other.errors == {}


def state(session: Session) -> dict[str, object]:
    return {name: row.tolist() for name, row in session.slab.read(session.slot).items()}


# Ends


@pytest.mark.parametrize("event", WHY)
def test_an_ended_session_says_why_to_who_asks_and_to_who_steps(puppet: Puppet, event: Event) -> None:
    session = puppet.open()
    puppet.scheduler.end(session, event, 1.0)
    with pytest.raises(WHY[event]):
        puppet.scheduler.sessions.get("a")
    with pytest.raises(WHY[event]):
        puppet.step(session)


def test_a_session_ends_once(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scheduler.end(session, Event.CLOSE, 1.0)
    with pytest.raises(ValueError, match="close cannot happen"):
        puppet.scheduler.end(session, Event.CLOSE, 2.0)
    assert puppet.scheduler.ended == [(session, Event.CLOSE)]
    assert puppet.open("b").slot != puppet.open("c").slot


# Opening


def test_a_session_opens_with_the_contracts_initial_state(puppet: Puppet) -> None:
    session = puppet.open()
    assert state(session)["hash"] == [1.0, 2.0]
    assert (session.step, session.phase, session.model) == (0, Phase.IDLE, "m")


def test_an_explicit_state_stands_in_for_the_initial_one_where_it_is_given(puppet: Puppet) -> None:
    session = puppet.open(rows={"hash": np.array([7.0, 8.0])})
    assert state(session)["hash"] == [7.0, 8.0]
    assert state(session)["count"] == 0


def test_a_reused_slot_starts_afresh(puppet: Puppet) -> None:
    first = puppet.open()
    puppet.step(first)
    puppet.run()
    puppet.scheduler.end(first, Event.CLOSE, 1.0)
    second = puppet.open("b")
    assert second.slot == first.slot
    assert state(second)["hash"] == [1.0, 2.0]


def test_an_id_in_use_is_refused_and_says_where(puppet: Puppet) -> None:
    puppet.open()
    with pytest.raises(SessionExists, match=r"'a' is open already, on model 'm'\. Choose another id"):
        puppet.open(model="n")
    assert puppet.scheduler.sessions.counts() == {"m": 1}


def test_an_id_can_be_used_again_once_its_session_has_ended(puppet: Puppet) -> None:
    puppet.scheduler.end(puppet.open(), Event.CLOSE, 1.0)
    again = puppet.open()
    assert puppet.scheduler.sessions.get("a") is again


def test_a_model_that_is_full_refuses_and_names_the_limit() -> None:
    puppet = puppet_of(per_model=1)
    puppet.open()
    with pytest.raises(SessionsFull, match="Model 'm' has 1 open sessions") as caught:
        puppet.open("b")
    assert caught.value.details == {"limit": 1}
    puppet.open("b", model="n")  # another model has room of its own


def test_a_refused_session_takes_no_slot() -> None:
    puppet = puppet_of(per_model=2)
    puppet.open("a")
    for _ in range(3):
        with pytest.raises(SessionExists):
            puppet.open("a")
    assert puppet.open("b").slot == 1
    with pytest.raises(SessionsFull):
        puppet.open("c")
    puppet.scheduler.end(puppet.scheduler.sessions.get("a"), Event.CLOSE, 1.0)
    assert puppet.open("c").slot == 0


def test_by_configuration_the_longest_idle_session_makes_room() -> None:
    puppet = puppet_of(per_model=2, evict=True)
    first, second = puppet.open("a"), puppet.open("b")
    puppet.scheduler.sessions.renew(first, 2.0, None)
    puppet.open("c")
    assert puppet.scheduler.ended == [(second, Event.EVICT)]
    with pytest.raises(SessionEvicted, match="'b' was idle for longest when room was needed"):
        puppet.scheduler.sessions.get("b")


def test_a_session_with_a_waiting_step_does_not_make_room() -> None:
    puppet = puppet_of(per_model=1, evict=True)
    puppet.step(puppet.open())
    with pytest.raises(SessionsFull):
        puppet.open("b")


def test_the_first_in_line_for_eviction_is_the_one_used_least_recently_not_opened_first() -> None:
    puppet = puppet_of(per_model=2, evict=True)
    first, second = puppet.open("a"), puppet.open("b")
    puppet.step(first)
    puppet.run()
    puppet.open("c")
    assert puppet.scheduler.ended == [(second, Event.EVICT)]


def test_an_unknown_id_says_how_to_open_one(puppet: Puppet) -> None:
    with pytest.raises(SessionNotFound, match=r"no session 'x'\. Open one with POST /v1/models/{model}/sessions"):
        puppet.scheduler.sessions.get("x")


def test_who_only_looks_for_a_session_is_told_of_open_ones_and_of_no_others(puppet: Puppet) -> None:
    session = puppet.open()
    assert puppet.scheduler.sessions.find("a") is session
    puppet.scheduler.end(session, Event.CLOSE, 1.0)
    assert puppet.scheduler.sessions.find("a") is None
    assert puppet.scheduler.sessions.find("x") is None


def test_sessions_are_listed_in_order_of_id_page_by_page(puppet: Puppet) -> None:
    for id in "cab":
        puppet.open(id)
    puppet.open("d", model="n")
    table = puppet.scheduler.sessions
    assert [session.id for session in table.of_model("m", limit=2)] == ["a", "b"]
    assert [session.id for session in table.of_model("m", after="b")] == ["c"]
    assert table.of_model("unknown") == []
    assert len(table) == 4


# Time


def test_an_idle_session_expires_when_its_idle_time_is_over() -> None:
    puppet = puppet_of(idle_s=10.0)
    puppet.open()
    assert puppet.scheduler.next_wakeup() == 11.0
    puppet.pass_time(9.9)
    assert len(puppet.scheduler.sessions) == 1
    puppet.pass_time(0.1)
    with pytest.raises(SessionExpired, match=r"'a' was idle or open for too long and has expired\. Open a new one\."):
        puppet.scheduler.sessions.get("a")


def test_a_session_can_ask_for_an_idle_time_of_its_own(puppet: Puppet) -> None:
    assert puppet.scheduler.sessions.expires_at(puppet.open(ttl_s=3.0)) == 4.0
    puppet.pass_time(3.0)
    assert len(puppet.scheduler.sessions) == 0


def test_using_a_session_keeps_it() -> None:
    puppet = puppet_of(idle_s=10.0)
    session = puppet.open()
    puppet.pass_time(6.0)
    puppet.step(session)
    puppet.run()
    puppet.pass_time(9.0)
    assert session.phase is Phase.IDLE
    assert puppet.scheduler.sessions.expires_at(session) == puppet.scheduler.next_wakeup() == 17.0
    puppet.pass_time(1.0)
    assert session.phase is Phase.EXPIRED


def test_a_session_with_a_waiting_or_running_step_is_not_idle() -> None:
    puppet = puppet_of(idle_s=10.0)
    session = puppet.open()
    puppet.step(session)
    batch = puppet.taken()
    puppet.pass_time(50.0)
    assert session.phase is Phase.STEPPING
    puppet.finish(batch)
    assert puppet.scheduler.sessions.expires_at(session) == 61.0


def test_no_session_outlives_its_total_life_even_while_it_steps() -> None:
    puppet = puppet_of(idle_s=10.0, life_s=30.0)
    session = puppet.open()
    step = puppet.step(session)
    assert puppet.scheduler.sessions.expires_at(session) == 31.0
    puppet.pass_time(30.0)
    assert isinstance(step.outcome, SessionExpired)


def test_no_session_outlives_its_total_life_however_often_it_is_used() -> None:
    puppet = puppet_of(idle_s=10.0, life_s=30.0)
    session = puppet.open()
    for _ in range(4):
        puppet.pass_time(7.0)
        puppet.step(session)
        puppet.run()
    assert puppet.scheduler.sessions.expires_at(session) == 31.0


def test_renewing_counts_as_use_and_may_change_the_idle_time(puppet: Puppet) -> None:
    session = puppet.open(ttl_s=10.0)
    puppet.pass_time(5.0)
    puppet.scheduler.sessions.renew(session, puppet.now, None)
    assert puppet.scheduler.sessions.expires_at(session) == 16.0
    puppet.scheduler.sessions.renew(session, puppet.now, 2.0)
    assert puppet.scheduler.sessions.expires_at(session) == puppet.scheduler.next_wakeup() == 8.0


def test_a_shorter_idle_time_given_while_a_step_runs_holds_once_it_is_answered() -> None:
    puppet = puppet_of(idle_s=600.0)
    session = puppet.open()
    puppet.step(session)
    puppet.scheduler.sessions.renew(session, puppet.now, 5.0)
    puppet.run()
    assert puppet.scheduler.next_wakeup() <= puppet.scheduler.sessions.expires_at(session) == 6.0
    puppet.pass_time(5.0)
    assert session.phase is Phase.EXPIRED


def test_so_many_reasons_are_remembered_and_no_more() -> None:
    puppet = puppet_of(remembered=2)
    for id in "abc":
        puppet.scheduler.end(puppet.open(id), Event.CLOSE, 1.0)
    with pytest.raises(SessionNotFound):
        puppet.scheduler.sessions.get("a")
    for id in "bc":
        with pytest.raises(SessionClosed):
            puppet.scheduler.sessions.get(id)


def test_reasons_are_remembered_for_so_long_and_no_longer() -> None:
    puppet = puppet_of(remembered_s=10.0)
    puppet.scheduler.end(puppet.open("a"), Event.CLOSE, 1.0)
    puppet.scheduler.end(puppet.open("b"), Event.CLOSE, 5.0)
    puppet.scheduler.end(puppet.open("c"), Event.CLOSE, 11.0)
    with pytest.raises(SessionNotFound):
        puppet.scheduler.sessions.get("a")
    with pytest.raises(SessionClosed):
        puppet.scheduler.sessions.get("b")


def test_retiring_a_version_ends_its_sessions_and_no_others(puppet: Puppet) -> None:
    gone, stays, other = puppet.open("a", version=1), puppet.open("b", version=2), puppet.open("c", model="n")
    puppet.scheduler.retire("m", 1, 1.0)
    assert [gone.phase, stays.phase, other.phase] == [Phase.VERSION_GONE, Phase.IDLE, Phase.IDLE]
    with pytest.raises(SessionVersionGone, match="'a' belonged to a model version that is no longer served"):
        puppet.scheduler.sessions.get("a")


def test_retiring_what_nobody_uses_is_fine(puppet: Puppet) -> None:
    puppet.scheduler.retire("unknown", 1, 1.0)
    assert puppet.scheduler.ended == []


def test_a_version_that_comes_back_starts_with_states_of_its_own(puppet: Puppet) -> None:
    old = puppet.open()
    puppet.scheduler.retire("m", 1, 1.0)
    assert puppet.open().slab is not old.slab


# Steps


def test_a_step_gives_its_outputs_and_counts(puppet: Puppet) -> None:
    step = puppet.step(puppet.open(), x=3.0)
    puppet.run()
    assert step.outcome.outputs["y"].tolist() == [[41.0, 72.0]]  # 31 h + x + 7
    assert (step.outcome.steps, step.outcome.errors, step.outcome.replayed) == ([1], {}, False)


def test_a_scan_is_as_many_steps(puppet: Puppet) -> None:
    session, other = puppet.open(), puppet.open("b")
    scan = puppet.scan(session, [1.0, 2.0, 3.0])
    steps = [puppet.step(other, x) for x in (1.0, 2.0, 3.0)]
    puppet.run()
    assert scan.outcome.steps[0] == steps[-1].outcome.steps[0] == 3
    assert scan.outcome.outputs["y"].tolist() == [[step.outcome.outputs["y"][0].tolist() for step in steps]]
    assert state(session)["hash"] == state(other)["hash"]


def test_scans_of_different_length_with_one_bound_share_a_batch_and_stop_at_their_own_length(puppet: Puppet) -> None:
    a, b = puppet.open(), puppet.open("b")
    three, four = puppet.scan(a, [1.0] * 3), puppet.scan(b, [1.0] * 4)
    puppet.finish(puppet.taken())
    assert (three.outcome.outputs["y"].shape, four.outcome.outputs["y"].shape) == ((1, 3, 2), (1, 4, 2))
    assert (a.step, b.step) == (3, 4)
    assert (state(a)["count"], state(b)["count"]) == (3, 4)


def test_so_many_steps_may_wait_and_no_more() -> None:
    puppet = puppet_of(queue_steps=2)
    session = puppet.open()
    steps = [puppet.step(session), puppet.step(session)]
    with pytest.raises(SessionQueueFull, match="'a' has 2 steps waiting, which is as many as it may have") as caught:
        puppet.step(session)
    assert caught.value.details == {"limit": 2}
    assert list(session.steps) == steps


def test_the_current_number_runs(puppet: Puppet) -> None:
    session = puppet.open()
    first, second = puppet.step(session, number=0), puppet.step(session, number=1)
    puppet.run()
    assert [first.outcome.steps[0], second.outcome.steps[0]] == [1, 2]


def test_a_repeat_of_the_last_answered_step_gets_the_same_answer_without_running(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.step(session, number=0)
    puppet.run()
    again = puppet.step(session, number=0)
    assert puppet.take() is None
    assert same(again.outcome, first.outcome)
    assert (again.outcome.replayed, first.outcome.replayed) == (True, False)
    assert session.step == 1


def test_a_repeat_that_comes_while_the_first_runs_waits_and_gets_its_answer(puppet: Puppet) -> None:
    session = puppet.open()
    first, again = puppet.step(session, number=0), puppet.step(session, number=0)
    puppet.run()
    assert same(again.outcome, first.outcome)
    assert len(puppet.ran) == 1


def test_a_repeat_of_a_scan_gets_the_same_answer(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.scan(session, [1.0, 2.0], number=0)
    puppet.run()
    again = puppet.scan(session, [1.0, 2.0], number=0)
    assert same(again.outcome, first.outcome)
    assert (again.outcome.steps, again.outcome.replayed) == ([2], True)


def test_an_unnumbered_step_can_be_repeated_by_its_number(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session)
    puppet.run()
    assert puppet.step(session, number=0).outcome.replayed


def test_an_unnumbered_step_always_runs(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session)
    puppet.step(session)
    puppet.run()
    assert session.step == 2


@pytest.mark.parametrize("number", [0, 1, 3, 99])
def test_any_other_number_is_told_the_current_one(puppet: Puppet, number: int) -> None:
    session = puppet.open()
    for x in (1.0, 2.0):
        puppet.step(session, x)
        puppet.run()
    step = puppet.step(session, x=1.0, number=number)
    assert isinstance(step.outcome, StepMismatch)
    assert step.outcome.details == {"current": 2}
    assert f"'a' is at time step 2; a call numbered {number} came. Send 2 next" in step.outcome.message


def test_an_older_number_with_the_same_inputs_is_not_a_repeat(puppet: Puppet) -> None:
    session = puppet.open()
    for _ in range(2):
        puppet.step(session, x=1.0)
        puppet.run()
    assert isinstance(puppet.step(session, x=1.0, number=0).outcome, StepMismatch)


def test_the_last_number_with_other_inputs_is_not_a_repeat(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, x=1.0)
    puppet.run()
    assert isinstance(puppet.step(session, x=2.0, number=0).outcome, StepMismatch)


def test_a_scan_of_one_is_not_a_repeat_of_a_step(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, x=1.0)
    puppet.run()
    assert isinstance(puppet.scan(session, [1.0], number=0).outcome, StepMismatch)


def test_a_longer_scan_that_is_padded_to_the_same_values_is_not_a_repeat(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scan(session, [1.0, 2.0, 3.0])
    puppet.run()
    assert isinstance(puppet.scan(session, [1.0, 2.0, 3.0, 3.0], number=0).outcome, StepMismatch)


def test_a_failed_step_is_not_remembered_and_its_number_runs_again(puppet: Puppet) -> None:
    session = puppet.open()
    failed = puppet.step(session, number=0)
    puppet.finish(puppet.taken(), {})
    again = puppet.step(session, number=0)
    puppet.run()
    assert failed.outcome.code == "backend_error"
    assert (again.outcome.steps[0], again.outcome.replayed) == (1, False)


def test_a_step_that_is_not_numbered_may_say_so_with_minus_one(puppet: Puppet) -> None:
    session = puppet.open()
    steps = [puppet.step(session, number=-1) for _ in range(2)]
    puppet.run()
    assert [step.outcome.steps for step in steps] == [[1], [2]]


def test_a_repeat_gets_the_answer_that_was_given_whatever_the_session_did_before(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scan(session, [1.0, 2.0])
    step = puppet.step(session, number=2)
    puppet.run()
    assert same(puppet.step(session, number=2).outcome, step.outcome)
    scan = puppet.scan(session, [5.0, 6.0, 7.0], number=3)
    puppet.run()
    assert same(puppet.scan(session, [5.0, 6.0, 7.0], number=3).outcome, scan.outcome)


def test_an_answer_that_was_repeated_does_not_change_when_the_session_goes_on(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.step(session)
    puppet.run()
    again = puppet.step(session, number=0)
    puppet.step(session)
    puppet.run()
    assert same(again.outcome, first.outcome)


def test_numbers_sent_ahead_are_told_the_truth_when_an_earlier_one_failed(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, number=0)
    ahead = puppet.step(session, number=1)
    puppet.finish(puppet.taken(), {})
    assert ahead.outcome.details == {"current": 0}


# Forks and saved states


def test_a_fork_begins_where_its_parent_is_and_goes_its_own_way(puppet: Puppet) -> None:
    parent = puppet.open()
    puppet.scan(parent, [1.0, 2.0])
    puppet.run()
    fork = puppet.fork(parent, "b")
    assert (state(fork), fork.step) == (state(parent), 2)
    one, other = puppet.step(parent, 3.0, number=2), puppet.step(fork, 4.0, number=2)
    puppet.run()
    assert one.outcome.outputs["y"].tolist() != other.outcome.outputs["y"].tolist()
    assert (state(parent)["count"], state(fork)["count"]) == (3, 3)


def test_a_fork_does_not_repeat_its_parents_last_call(puppet: Puppet) -> None:
    parent = puppet.open()
    puppet.step(parent)
    puppet.run()
    assert puppet.step(puppet.fork(parent, "b"), number=0).outcome.details == {"current": 1}


def test_a_state_that_is_put_back_replaces_state_and_step_and_counts_as_use() -> None:
    puppet = puppet_of(idle_s=10.0, per_model=2, evict=True)
    session, other = puppet.open(), puppet.open("b")
    puppet.step(session)
    puppet.run()
    puppet.now += 5.0
    puppet.scheduler.sessions.replace(session, {"hash": np.array([8.0, 9.0]), "count": np.array(4)}, 4, puppet.now)
    assert (state(session), session.step) == ({"hash": [8, 9], "count": 4}, 4)
    assert puppet.scheduler.sessions.expires_at(session) == 16.0
    puppet.open("c")
    assert puppet.scheduler.ended == [(other, Event.EVICT)]


@pytest.mark.parametrize("kind", ["step", "scan"])
def test_after_a_state_was_put_back_no_call_is_a_repeat(puppet: Puppet, kind: str) -> None:
    session = puppet.open()
    call = {"step": lambda: puppet.step(session, number=0), "scan": lambda: puppet.scan(session, [1.0], number=0)}[kind]
    call()
    puppet.run()
    puppet.scheduler.sessions.replace(session, {}, 3, puppet.now)
    assert call().outcome.details == {"current": 3}


def test_numbered_steps_go_on_from_the_step_that_was_put_back(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scheduler.sessions.replace(session, {"hash": np.array([8.0, 9.0])}, 41, puppet.now)
    step = puppet.step(session, number=41)
    puppet.run()
    assert step.outcome.steps == [42]
    assert step.outcome.outputs["y"].tolist() == [[8 * 31 + 8, 9 * 31 + 8]]


# Pieces


def test_a_table_begins_empty() -> None:
    table = SessionTable(SessionOptions())
    assert (len(table), table.counts(), table.next_wakeup()) == (0, {}, math.inf)
    assert list(table.overdue(1e9)) == []


def test_the_puppets_contract_can_be_stepped_and_scanned() -> None:
    assert CONTRACT.step is STEP
    assert isinstance(Puppet().scheduler, Scheduler)
