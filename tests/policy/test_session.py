"""One session: its life cycle, what it remembers of its last call, and how calls are told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.policy.errors import SessionEnded, SessionQueueFull, StepMismatch
from sluice.policy.session import LIFE_CYCLE, Answers, Event, Phase, Session, Step, ended_error
from sluice.policy.slab import Slab

from .oracle import WHY
from .puppet import FAR, SCAN, STEP, Puppet

SLAB = Slab("m", 1, STEP, 3)

# The life cycle


def test_the_life_cycle_speaks_of_every_phase_and_of_known_events_only() -> None:
    assert set(LIFE_CYCLE) == set(Phase)
    assert {event for row in LIFE_CYCLE.values() for event in row} == set(Event)


def test_a_session_that_has_ended_stays_ended() -> None:
    ends = {row[event] for row in LIFE_CYCLE.values() for event in WHY if event in row}
    assert ends == set(Phase) - {Phase.IDLE, Phase.STEPPING}
    assert all(LIFE_CYCLE[phase] == {} for phase in ends)


def test_a_session_that_steps_is_never_evicted() -> None:
    assert Event.EVICT not in LIFE_CYCLE[Phase.STEPPING]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_moves_along_the_table_or_is_refused_and_nothing_happens(phase: Phase, event: Event) -> None:
    session = Session("a", SLAB, 0, 1.0, 5.0)
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


# What a session remembers


def test_a_new_session_remembers_nothing() -> None:
    session = Session("a", SLAB, 0, 1.0, 5.0, step=4)
    assert (session.step, session.last_start, session.last_call, session.last_outputs) == (4, -1, b"", None)


def test_what_is_remembered_is_a_copy_and_no_part_of_a_batch(puppet: Puppet) -> None:
    stepped, scanned = puppet.open("a"), puppet.open("b")
    puppet.step(stepped)
    puppet.scan(scanned, [1.0, 2.0])
    puppet.run()
    for session in (stepped, scanned):
        assert session.last_answer()["y"].base is None


def test_a_session_that_forgets_its_last_call_takes_no_call_for_a_repeat(puppet: Puppet) -> None:
    session = puppet.open()
    puppet.scan(session, [1.0], number=0)
    puppet.run()
    session.forget_last()
    assert (session.last_start, session.last_call, session.last_outputs) == (-1, b"", None)
    assert isinstance(puppet.scan(session, [1.0], number=0).outcome, StepMismatch)


# Which calls are equal


def call(x: np.ndarray, kind: str = "step", length: int = 1, **more: np.ndarray) -> Step:
    """A call with a session for each row of `x`."""
    session = Session("a", SLAB, 0, 1.0, 5.0)
    signature = STEP if kind == "step" else SCAN
    return Step([session] * len(x), signature, {"x": x, **more}, FAR, slab=SLAB, length=length)


def text(*values: bytes) -> np.ndarray:
    array = np.empty((1, len(values)), object)
    array[0] = values
    return array


LONG = np.arange(50.0)[np.newaxis]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (call(np.array([[1.0]])), call(np.array([[2.0]]))),
        (call(np.array([[0.0]])), call(np.array([[-0.0]]))),
        (call(np.array([[1.0]])), call(np.array([[1.0, 0.0]]))),
        (call(np.array([[1.0]])), call(np.array([[1.0]]), z=np.array([[1.0]]))),
        (call(LONG), call(np.where(LONG == 49, 0.0, LONG))),
        (call(LONG), call(LONG, kind="scan")),
        (call(LONG.reshape(1, 5, 10)), call(LONG.reshape(1, 10, 5))),
        (call(np.ones((1, 2, 1))), call(np.ones((1, 1, 2)))),
        (call(np.ones((1, 4, 1)), "scan", 3, n=np.array([3])), call(np.ones((1, 4, 1)), "scan", 4, n=np.array([4]))),
        (call(np.ones((1, 1, 1)), "scan", n=np.array([1])), call(np.ones((1, 1)))),
        (call(np.array([[1.0, 2]]), z=np.array([[3.0]])), call(np.array([[1.0]]), z=np.array([[2.0, 3]]))),
        (call(np.array([[1.0]]), z=np.array([[2.0]])), call(np.array([[2.0]]), z=np.array([[1.0]]))),
        (call(np.array([[1.0]]), z=np.array([[1.0]])), call(np.array([[1.0]]), w=np.array([[1.0]]))),
        (call(text(b"a", b"bc")), call(text(b"ab", b"c"))),
        (call(text(b"1.0")), call(np.array([[1.0]]))),
    ],
)
def test_calls_that_differ_in_anything_have_different_fingerprints(one: Step, other: Step) -> None:
    assert one.fingerprints()[0] != other.fingerprints()[0]


ROWS = st.sampled_from([(), (3,), (20,), (2, 2), (4, 5)]).flatmap(
    lambda shape: st.lists(hnp.arrays(np.float32, shape), min_size=2, max_size=3).map(np.stack)
)


@given(x=ROWS, data=st.data())
def test_rows_have_equal_fingerprints_exactly_if_they_are_equal_bit_for_bit(x: np.ndarray, data: st.DataObject) -> None:
    x[-1] = x[0] if data.draw(st.booleans()) else x[-1]
    together = call(x)
    for i, one in enumerate(x):
        assert call(one[np.newaxis]).fingerprints()[0] == together.fingerprints()[i]
        for j, other in enumerate(x):
            assert (together.fingerprints()[i] == together.fingerprints()[j]) == (one.tobytes() == other.tobytes())


def test_equal_texts_have_equal_fingerprints() -> None:
    assert call(text(b"a", b"b")).fingerprints()[0] == call(text(b"a", b"b")).fingerprints()[0]


def test_a_fingerprint_is_short_however_long_the_inputs_are() -> None:
    assert len(call(np.zeros((1, 10_000))).fingerprints()[0]) <= 64


# What the caller of a step gets


def test_the_rows_of_a_step_that_need_nothing_more_are_not_among_the_living() -> None:
    step = call(np.zeros((3, 2)))
    first, _, last = step.sessions
    step.refuse(1, SessionQueueFull("wait"))
    assert step.living() == [(0, first), (2, last)]


def test_what_ran_as_filler_is_left_out_of_the_answers() -> None:
    step = call(np.zeros((3, 2)))
    refusal = SessionQueueFull("wait")
    step.refuse(1, refusal)
    outcome = step.outcome_with({"y": np.array([[1, 2], [3, 4], [5, 6]], np.int16)})
    assert isinstance(outcome, Answers)
    assert outcome.outputs["y"].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert outcome.outputs["y"].dtype == np.int16
    assert (outcome.errors, outcome.replayed) == ({1: refusal}, False)


def test_answers_without_errors_are_not_copied() -> None:
    ran = {"y": np.zeros((2, 2))}
    assert call(np.zeros((2, 2))).outcome_with(ran).outputs is ran
