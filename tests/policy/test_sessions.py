"""Sessions: their life, their limits, their numbers. Each test is one promise."""

import math

import numpy as np
import pytest

from services.policy.errors import (
    SessionClosed,
    SessionEnded,
    SessionEvicted,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SessionVersionGone,
    StepMismatch,
)
from services.policy.scheduler import Scheduler
from services.policy.sessions import (
    LIFE_CYCLE,
    Answer,
    Event,
    Phase,
    Session,
    SessionOptions,
    SessionTable,
    Slab,
    digest,
    ended_error,
    finite_rows,
)

from .puppet import CONTRACT, STEP, Puppet

ENDS = {
    Event.CLOSE: SessionClosed,
    Event.EXPIRE: SessionExpired,
    Event.EVICT: SessionEvicted,
    Event.RETIRE: SessionVersionGone,
}


def puppet_of(**options: object) -> Puppet:
    return Puppet(sessions=SessionOptions(**options))


def slab_of(slots: int = 3) -> Slab:
    return Slab("m", 1, STEP.states, slots)


# The life cycle


def test_the_life_cycle_speaks_of_every_phase_and_of_known_events_only() -> None:
    assert set(LIFE_CYCLE) == set(Phase)
    assert {event for row in LIFE_CYCLE.values() for event in row} == set(Event)


def test_a_session_that_has_ended_stays_ended() -> None:
    ends = {row[event] for row in LIFE_CYCLE.values() for event in ENDS if event in row}
    assert ends == set(Phase) - {Phase.IDLE, Phase.STEPPING}
    assert all(LIFE_CYCLE[phase] == {} for phase in ends)


def test_a_session_that_steps_is_never_evicted() -> None:
    assert Event.EVICT not in LIFE_CYCLE[Phase.STEPPING]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_moves_along_the_table_or_is_refused_and_nothing_happens(phase: Phase, event: Event) -> None:
    session = Session("a", slab_of(), 0, 1.0, 5.0, 50.0)
    session.phase = phase
    if event in LIFE_CYCLE[phase]:
        session.advance(event)
        assert session.phase is LIFE_CYCLE[phase][event]
    else:
        with pytest.raises(ValueError, match=f"session 'a' is {phase}: {event} cannot happen"):
            session.advance(event)
        assert session.phase is phase


@pytest.mark.parametrize("phase", [phase for phase, row in LIFE_CYCLE.items() if not row])
def test_every_end_has_a_sentence_and_says_what_to_do(phase: Phase) -> None:
    error = ended_error("a", phase)
    assert isinstance(error, SessionEnded)
    assert error.message.startswith("Session 'a' ")
    assert error.message.endswith("Open a new one.")


@pytest.mark.parametrize("event", ENDS)
def test_an_ended_session_says_why_to_who_asks_and_to_who_steps(puppet: Puppet, event: Event) -> None:
    session = puppet.open()
    puppet.scheduler.end(session, event, 1.0)
    with pytest.raises(ENDS[event]):
        puppet.scheduler.sessions.get("a")
    with pytest.raises(ENDS[event]):
        puppet.step(session)


def test_a_session_ends_once(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scheduler.end(session, Event.CLOSE, 1.0)
    with pytest.raises(ValueError, match="close cannot happen"):
        puppet.scheduler.end(session, Event.CLOSE, 2.0)
    assert puppet.scheduler.ended == [(session, Event.CLOSE)]
    assert session.slab._free.count(session.slot) == 1


# Opening


def test_a_session_opens_with_the_contracts_initial_state(puppet: Puppet) -> None:
    session = puppet.open()
    assert session.slab.arrays["hash"][session.slot].tolist() == [1.0, 2.0]
    assert (session.step, session.phase, session.model) == (0, Phase.IDLE, "m")


def test_an_explicit_state_stands_in_for_the_initial_one_where_it_is_given(puppet: Puppet) -> None:
    session = puppet.open(rows={"hash": np.array([7.0, 8.0])})
    assert session.slab.arrays["hash"][session.slot].tolist() == [7.0, 8.0]
    assert session.slab.arrays["count"][session.slot] == 0


def test_a_reused_slot_starts_afresh(puppet: Puppet) -> None:
    first = puppet.open()
    puppet.step(first)
    puppet.run()
    puppet.scheduler.end(first, Event.CLOSE, 1.0)
    second = puppet.open("b")
    assert second.slot == first.slot
    assert second.slab.arrays["hash"][second.slot].tolist() == [1.0, 2.0]


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
    assert puppet.open(ttl_s=3.0).expires_at == 4.0
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
    assert session.expires_at == puppet.scheduler.next_wakeup() == 17.0
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
    assert session.expires_at == 61.0


def test_no_session_outlives_its_total_life_even_while_it_steps() -> None:
    puppet = puppet_of(idle_s=10.0, life_s=30.0)
    session = puppet.open()
    step = puppet.step(session)
    assert session.expires_at == 31.0
    puppet.pass_time(30.0)
    assert isinstance(step.outcome, SessionExpired)


def test_no_session_outlives_its_total_life_however_often_it_is_used() -> None:
    puppet = puppet_of(idle_s=10.0, life_s=30.0)
    session = puppet.open()
    for _ in range(4):
        puppet.pass_time(7.0)
        puppet.step(session)
        puppet.run()
    assert session.expires_at == 31.0


def test_renewing_counts_as_use_and_may_change_the_idle_time(puppet: Puppet) -> None:
    session = puppet.open(ttl_s=10.0)
    puppet.pass_time(5.0)
    puppet.scheduler.sessions.renew(session, puppet.now, None)
    assert session.expires_at == 16.0
    puppet.scheduler.sessions.renew(session, puppet.now, 2.0)
    assert session.expires_at == puppet.scheduler.next_wakeup() == 8.0


def test_a_shorter_idle_time_given_while_a_step_runs_holds_once_it_is_answered() -> None:
    puppet = puppet_of(idle_s=600.0)
    session = puppet.open()
    puppet.step(session)
    puppet.scheduler.sessions.renew(session, puppet.now, 5.0)
    puppet.run()
    assert puppet.scheduler.next_wakeup() <= session.expires_at == 6.0
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
    assert step.outcome.outputs["y"].tolist() == [41.0, 72.0]  # 31 h + x + 7
    assert (step.outcome.step, step.outcome.replayed) == (1, False)


def test_a_scan_is_as_many_steps(puppet: Puppet) -> None:
    session, other = puppet.open(), puppet.open("b")
    scan = puppet.scan(session, [1.0, 2.0, 3.0])
    steps = [puppet.step(other, x) for x in (1.0, 2.0, 3.0)]
    puppet.run()
    assert scan.outcome.step == steps[-1].outcome.step == 3
    assert scan.outcome.outputs["y"].tolist() == [step.outcome.outputs["y"].tolist() for step in steps]
    assert session.slab.arrays["hash"][session.slot].tolist() == other.slab.arrays["hash"][other.slot].tolist()


def test_scans_of_different_length_with_one_bound_share_a_batch_and_stop_at_their_own_length(puppet: Puppet) -> None:
    three, four = puppet.scan(puppet.open(), [1.0] * 3), puppet.scan(puppet.open("b"), [1.0] * 4)
    puppet.finish(puppet.taken())
    assert (len(three.outcome.outputs["y"]), len(four.outcome.outputs["y"])) == (3, 4)
    assert (three.session.step, four.session.step) == (3, 4)
    assert three.session.slab.arrays["count"][[three.session.slot, four.session.slot]].tolist() == [3, 4]


def test_so_many_steps_may_wait_and_no_more() -> None:
    puppet = puppet_of(queue_steps=2)
    session = puppet.open()
    steps = [puppet.step(session), puppet.step(session)]
    with pytest.raises(SessionQueueFull, match="'a' has 2 steps waiting, which is as many as it may have") as caught:
        puppet.step(session)
    assert caught.value.details == {"limit": 2}
    assert session.steps == steps


def test_the_current_number_runs(puppet: Puppet) -> None:
    session = puppet.open()
    first, second = puppet.step(session, number=0), puppet.step(session, number=1)
    puppet.run()
    assert [first.outcome.step, second.outcome.step] == [1, 2]


def test_a_repeat_of_the_last_answered_step_gets_the_same_answer_without_running(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.step(session, number=0)
    puppet.run()
    again = puppet.step(session, number=0)
    assert puppet.take() is None
    assert again.outcome == Answer(first.outcome.outputs, 1, replayed=True)
    assert again.outcome.outputs is first.outcome.outputs
    assert session.step == 1


def test_a_repeat_that_comes_while_the_first_runs_waits_and_gets_its_answer(puppet: Puppet) -> None:
    session = puppet.open()
    first, again = puppet.step(session, number=0), puppet.step(session, number=0)
    puppet.run()
    assert again.outcome.outputs is first.outcome.outputs
    assert len(puppet.ran) == 1


def test_a_repeat_of_a_scan_gets_the_same_answer(puppet: Puppet) -> None:
    session = puppet.open()
    first = puppet.scan(session, [1.0, 2.0], number=0)
    puppet.run()
    again = puppet.scan(session, [1.0, 2.0], number=0)
    assert again.outcome == Answer(first.outcome.outputs, 2, replayed=True)


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


@pytest.mark.parametrize("number", [0, 1, 3, -1, 99])
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
    assert (again.outcome.step, again.outcome.replayed) == (1, False)


def test_numbers_sent_ahead_are_told_the_truth_when_an_earlier_one_failed(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.step(session, number=0)
    ahead = puppet.step(session, number=1)
    puppet.finish(puppet.taken(), {})
    assert ahead.outcome.details == {"current": 0}


# Pieces


@pytest.mark.parametrize(
    "other",
    [
        ("scan", {"x": np.array([1.0])}),
        ("step", {"x": np.array([2.0])}),
        ("step", {"x": np.array([[1.0]])}),
        ("step", {"z": np.array([1.0])}),
        ("step", {"x": np.array([1.0]), "z": np.array([1.0])}),
        ("step", {"x": np.array([b"1.0"], object)}),
    ],
)
def test_calls_that_differ_in_anything_have_different_digests(other: tuple[str, dict[str, np.ndarray]]) -> None:
    assert digest("step", {"x": np.array([1.0])}) != digest(*other)


def test_equal_calls_have_equal_digests_text_included() -> None:
    one, two = ({"x": np.array([b"a", b"b"], object)} for _ in range(2))
    assert digest("step", one) == digest("step", two)


def test_rows_are_finite_if_every_state_of_theirs_is() -> None:
    hash_out = np.array([[0, 0], [0, math.nan], [math.inf, 0], [0, 0]])
    outputs = {"hash_out": hash_out, "count_out": np.array([1, 2, 3, 4])}
    assert finite_rows(STEP.states, outputs).tolist() == [True, False, False, True]


def test_states_that_cannot_be_infinite_are_finite() -> None:
    count = [state for state in STEP.states if state.name == "count"]
    assert finite_rows(count, {"count_out": np.array([1, 2])}).tolist() == [True, True]


def test_a_slab_gives_out_each_slot_once_and_knows_a_rows_bytes() -> None:
    slab = slab_of(3)
    assert sorted(slab.occupy({}) for _ in range(3)) == [0, 1, 2]
    slab.vacate(1)
    assert slab.occupy({}) == 1
    assert slab.row_bytes == 2 * 8 + 8


def test_a_slab_scatters_to_the_slots_asked_for_and_no_others() -> None:
    slab = slab_of(3)
    outputs = {"hash_out": np.array([[1.0, 1], [2, 2], [3, 3]]), "count_out": np.array([1, 2, 3])}
    slab.scatter(STEP.states, [2, 0], [0, 2], outputs)
    assert slab.arrays["count"].tolist() == [3, 0, 1]
    assert slab.gather(STEP.states, [0, 1, 2])["hash_in"].tolist() == [[3, 3], [0, 0], [1, 1]]


def test_a_table_begins_empty() -> None:
    table = SessionTable(SessionOptions())
    assert (len(table), table.counts(), table.next_wakeup()) == (0, {}, math.inf)
    assert list(table.overdue(1e9)) == []


def test_the_puppets_contract_can_be_stepped_and_scanned() -> None:
    assert CONTRACT.step is STEP
    assert isinstance(Puppet().scheduler, Scheduler)
