"""Everything at once: steps, scans and rows under cancels, failures, deadlines and ends, against a diary per session.

The machine never predicts how batches form. It looks at every settled ticket in the order in which it was settled, asks
the diary whether that outcome was right, and moves the diary along.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.policy.batching import Batch, BatchingOptions, Ticket
from services.policy.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    InputRejected,
    QueueFull,
    SessionClosed,
    SessionEnded,
    SessionEvicted,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SessionVersionGone,
    SluiceError,
    StateNotFinite,
    StepMismatch,
)
from services.policy.scheduler import Cancelled
from services.policy.sessions import Answer, Event, Phase, Session, SessionOptions, Step

from .oracle import Call, Diary
from .puppet import FAR, POISON, SPOIL, Puppet

IDS = "abcdef"
LIFE_S = 60.0
MODELS = ("m", "n")
WHY = {
    Event.CLOSE: SessionClosed,
    Event.EXPIRE: SessionExpired,
    Event.EVICT: SessionEvicted,
    Event.RETIRE: SessionVersionGone,
}
PAIRS = st.sampled_from([1.0, 2.0, 3.0, 4.0] * 4 + [SPOIL, POISON])
ALLOWED_S = st.sampled_from([FAR] * 6 + [-1, 0, 1, 2, 5, 12])
KIND = st.sampled_from(["step", "step", "scan"])
SPOILED: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "too few rows": lambda outputs: outputs.update({name: array[:-1] for name, array in outputs.items()}),
    "too many rows": lambda outputs: outputs.update({name: np.concatenate([a, a]) for name, a in outputs.items()}),
    "no rows": lambda outputs: outputs.update(y=np.float64(1)),
}
SPOILED_STATES = {
    "a state is missing": lambda outputs: outputs.pop("count_out"),
    "an output is missing": lambda outputs: outputs.pop("y"),
    "a state of another shape": lambda outputs: outputs.update(hash_out=outputs["hash_out"][:, :1]),
    "a state of another dtype": lambda outputs: outputs.update(count_out=outputs["count_out"].astype(float)),
}


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        sizes=st.sampled_from([(1, 2, 4), (1, 2, 4, 8), (3, 6), (1,)]),
        in_flight=st.integers(1, 3),
        linger_s=st.sampled_from([0.0, 0.0, 2.0]),
        queue_rows=st.sampled_from([1, 3, 100, 100, 100]),
        idle_s=st.sampled_from([5.0, 20.0, 1000.0, 1000.0]),
        per_model=st.sampled_from([1, 2, 4, 4]),
        evict=st.booleans(),
        queue_steps=st.sampled_from([1, 3, 8, 8]),
        remembered=st.sampled_from([0, 1, 2, 100]),
    )
    def begin(self, sizes: tuple[int, ...], in_flight: int, linger_s: float, queue_rows: int, **sessions: Any) -> None:
        self.options = SessionOptions(life_s=LIFE_S, remembered_s=1e6, **sessions)
        self.puppet = Puppet(BatchingOptions(sizes, in_flight, linger_s, queue_rows), self.options)
        self.scheduler = self.puppet.scheduler
        self.diaries: dict[str, Diary] = {}  # of the open sessions
        self.diary_of: dict[Session, Diary] = {}  # of all sessions that ever were
        self.ended: dict[str, Event] = {}  # why others ended, the oldest first, as far as remembered
        self.why: dict[Session, Event] = {}
        self.calls: dict[Step, Call] = {}
        self.rows: dict[Ticket, list[float]] = {}
        self.outcomes: dict[Ticket, Any] = {}
        self.cancelled: set[Ticket] = set()
        self.running: list[Batch] = []
        self.runs: dict[Ticket, int] = {}
        self.fastest: dict[tuple[Any, ...], float] = {}  # (model, version, signature) → seconds
        self.uses = count()
        for id in IDS[: self.options.per_model]:
            self.open(id, "m", 1, None, None)

    # What clients do

    @rule(
        id=st.sampled_from(IDS), model=st.sampled_from(MODELS), version=st.integers(1, 2),
        ttl_s=st.sampled_from([None, None, 2.0, 30.0]),
        first=st.sampled_from([None, 5.0]),
    )  # fmt: skip
    def open(self, id: str, model: str, version: int, ttl_s: float | None, first: float | None) -> None:
        here = [diary for diary in self.diaries.values() if diary.session.model == model]
        idle = [diary for diary in here if not diary.calls] if self.options.evict else []
        rows = {} if first is None else {"hash": np.array([first, first])}
        if id in self.diaries:
            self.refused(SessionExists, lambda: self.puppet.open(id, model, version))
            return
        if len(here) >= self.options.per_model and not idle:
            self.refused(SessionsFull, lambda: self.puppet.open(id, model, version))
            return
        session = self.puppet.open(id, model, version, ttl_s=ttl_s, rows=rows)
        if len(here) >= self.options.per_model:
            self.has_ended(min(idle, key=lambda diary: diary.use).session, Event.EVICT)
        self.collect()
        now = self.puppet.now
        state = [1.0, 2.0] if first is None else [first, first]
        diary = Diary(session, state, ttl_s or self.options.idle_s, now + LIFE_S, now, version, next(self.uses))
        self.diaries[id] = self.diary_of[session] = diary
        self.ended.pop(id, None)

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=8), kind=KIND)
    def many_clients_call(self, data: st.DataObject, ids: list[str], kind: str) -> None:
        for id in ids:
            if id in self.diaries:
                self.call(data, self.diaries[id], kind, data.draw(ALLOWED_S), "none")

    @precondition(lambda self: self.diaries)
    @rule(
        data=st.data(), kind=KIND, allowed_s=ALLOWED_S,
        numbering=st.sampled_from(["none", "current", "after those waiting", "repeat", "repeat", "wrong"]),
    )  # fmt: skip
    def one_client_calls(self, data: st.DataObject, kind: str, allowed_s: float, numbering: str) -> None:
        self.call(data, self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))], kind, allowed_s, numbering)

    def call(self, data: st.DataObject, diary: Diary, kind: str, allowed_s: float, numbering: str) -> None:
        xs = [data.draw(PAIRS) for _ in range(1 if kind == "step" else data.draw(st.integers(1, 5)))]
        number = {
            "none": None,
            "current": diary.current,
            "after those waiting": diary.current + sum(len(call.xs) for call in diary.calls),
            "repeat": diary.last[0] if diary.last else 0,
            "wrong": diary.current + 7,
        }[numbering]
        if numbering == "repeat" and diary.last and data.draw(st.booleans()):
            kind, xs = diary.last[1], [x for x, _ in diary.last[2]]
        deadline = self.puppet.now + allowed_s
        if len(diary.calls) >= self.options.queue_steps:
            self.refused(SessionQueueFull, lambda: self.puppet.step(diary.session))
            return
        # The call is written down before it is offered, as it may be settled at once.
        if kind == "step":
            step = self.puppet.step(diary.session, xs[0], number, deadline)
        else:
            step = self.puppet.scan(diary.session, xs, number, deadline)
        self.calls[step] = call = Call(kind, [[x, x] for x in xs], number, step)
        diary.calls.append(call)
        self.use(diary)
        self.collect()

    @rule(values=st.lists(PAIRS, min_size=1, max_size=3), allowed_s=ALLOWED_S, model=st.sampled_from(MODELS))
    def predict(self, values: list[float], allowed_s: float, model: str) -> None:
        try:
            ticket = self.puppet.rows(*values, deadline=self.puppet.now + allowed_s, model=model)
        except SluiceError as error:
            assert error.code in {"batch_too_large", "queue_full"}
        else:
            self.rows[ticket] = values
        self.collect()

    @precondition(lambda self: self.calls or self.rows)
    @rule(data=st.data(), wanted=st.booleans())
    def cancel(self, data: st.DataObject, wanted: bool) -> None:
        """At any stage: while it waits behind others, waits, runs, or when it is settled already."""
        tickets: list[Ticket] = [*self.calls, *self.rows]
        open_ones = [ticket for ticket in tickets if ticket not in self.outcomes]
        ticket = data.draw(st.sampled_from(open_ones if wanted and open_ones else tickets))
        self.cancelled.add(ticket)
        self.puppet.cancel(ticket)
        self.collect()
        assert ticket in self.outcomes

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), ttl_s=st.sampled_from([None, 1.0, 50.0]))
    def renew(self, data: st.DataObject, ttl_s: float | None) -> None:
        diary = self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))]
        self.scheduler.sessions.renew(diary.session, self.puppet.now, ttl_s)
        diary.ttl_s = ttl_s or diary.ttl_s
        self.use(diary)

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), event=st.sampled_from([Event.CLOSE, Event.EXPIRE, Event.EVICT]))
    def end(self, data: st.DataObject, event: Event) -> None:
        diary = self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))]
        if event is Event.EVICT and diary.calls:
            self.refused(ValueError, lambda: self.scheduler.end(diary.session, event, self.puppet.now))
            return
        self.scheduler.end(diary.session, event, self.puppet.now)
        self.has_ended(diary.session, event)
        self.collect()

    # What happens to the gateway

    @rule(model=st.sampled_from(MODELS), version=st.integers(1, 2), sure=st.integers(0, 3))
    def retire(self, model: str, version: int, sure: int) -> None:
        if sure:  # not too often
            return
        self.scheduler.retire(model, version, self.puppet.now)
        expected = {d.session for d in self.diaries.values() if (d.session.model, d.version) == (model, version)}
        self.have_ended(expected, Event.RETIRE)
        self.collect()

    @rule(seconds=st.sampled_from([1, 1, 1, 2, 5, 11]))
    def pass_time(self, seconds: int) -> None:
        self.puppet.pass_time(seconds)
        expected = {diary.session for diary in self.diaries.values() if diary.expires_at <= self.puppet.now}
        self.have_ended(expected, Event.EXPIRE)
        self.collect()
        left = [ticket for ticket in [*self.calls, *self.rows] if ticket not in self.outcomes]
        assert all(ticket.deadline > self.puppet.now for ticket in left)
        self.take_all()
        assert self.scheduler.next_wakeup() > self.puppet.now  # or the engine's timer would spin

    @rule(feed=st.booleans(), batches=st.integers(1, 4))
    def take(self, feed: bool, batches: int) -> None:
        """`feed` now or when the batch comes back: it must make no difference."""
        for _ in range(batches):
            self.took(feed)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["", "", "", "", "", "fail", *SPOILED, *SPOILED_STATES]))
    def finish(self, data: st.DataObject, how: str) -> None:
        batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if how == "fail":
            self.come_back(batch, BackendUnavailable("The model server went away."), BackendUnavailable)
            return
        result = self.puppet.answer(batch)
        spoil = SPOILED.get(how) or (SPOILED_STATES.get(how) if batch.lane.signature != "serving_default" else None)
        if isinstance(result, dict) and spoil:
            spoil(result)
            self.come_back(batch, result, BackendError)
        else:
            self.come_back(batch, result, InputRejected if isinstance(result, SluiceError) else None)

    @rule(rounds=st.integers(1, 4))
    def run_what_waits(self, rounds: int) -> None:
        for _ in range(rounds):
            self.take_all()
            while self.running:
                self.run_one(0)

    def take_all(self) -> None:
        while self.took(feed=True):
            pass

    def run_one(self, which: int) -> None:
        batch = self.running.pop(which)
        result = self.puppet.answer(batch)
        self.come_back(batch, result, InputRejected if isinstance(result, SluiceError) else None)

    def took(self, feed: bool) -> bool:
        batch = self.puppet.take()
        self.collect()
        if batch is None:
            return False
        self.running.append(batch)
        if feed:
            self.puppet.feed(batch)
        sessions = [ticket.session for ticket in batch.tickets if isinstance(ticket, Step)]
        assert len(sessions) == len(set(sessions))
        for ticket in batch.tickets:
            assert ticket not in self.outcomes
            assert ticket.deadline > self.puppet.now + self.fastest.get(batch.lane[:3], 0)
            self.runs[ticket] = self.runs.get(ticket, 0) + 1
        return True

    def come_back(self, batch: Batch, result: Any, verdict: type[SluiceError] | None) -> None:
        """`verdict` is the error that the tickets of the batch shall get, if any."""
        self.verdict = verdict
        if verdict is None:
            self.fastest[batch.lane[:3]] = min(
                self.puppet.now - batch.started_at, self.fastest.get(batch.lane[:3], inf)
            )
        unsettled = [ticket for ticket in batch.tickets if ticket not in self.outcomes]
        self.puppet.finish(batch, result)
        self.collect(batch)
        again = verdict is InputRejected and len(batch.tickets) > 1
        assert all(ticket in self.outcomes or (again and ticket.queue is not None) for ticket in unsettled)

    # What must be true of every outcome

    def collect(self, finished: Batch | None = None) -> None:
        settled, self.scheduler.settled = self.scheduler.settled, []
        ended, self.scheduler.ended = self.scheduler.ended, []
        assert [(session, self.why[session]) for session, _ in ended] == ended
        for ticket in settled:
            assert ticket not in self.outcomes
            self.outcomes[ticket] = ticket.outcome
            if isinstance(ticket, Step):
                self.check_step(ticket, ticket.outcome, finished)
            else:
                self.check_rows(ticket, ticket.outcome, finished)
        for session, event in ended:
            self.refused(ValueError, lambda session=session: self.scheduler.end(session, Event.CLOSE, self.puppet.now))
            self.refused(WHY[event], lambda session=session: self.puppet.step(session))

    def check_rows(self, ticket: Ticket, outcome: Any, finished: Batch | None) -> None:
        if isinstance(outcome, dict):
            assert finished is not None
            assert ticket in finished.tickets
            assert self.verdict is None
            assert outcome["y"].tolist() == [[value * 2 + 1] * 2 for value in np.array(self.rows[ticket])] or (
                SPOIL in self.rows[ticket]
            )
        else:
            self.check_common(ticket, outcome, finished)

    def check_common(self, ticket: Ticket, outcome: Any, finished: Batch | None) -> None:
        """The outcomes that rows and steps share."""
        if isinstance(outcome, Cancelled):
            assert ticket in self.cancelled
        elif isinstance(outcome, DeadlineExceeded):
            assert ticket.deadline <= self.puppet.now + self.fastest.get(ticket.lane[:3], 0)
        else:
            assert finished is not None
            assert ticket in finished.tickets
            assert type(outcome) is self.verdict
            if isinstance(outcome, InputRejected):
                assert len(finished.tickets) == 1
                assert (ticket.inputs["x"] == POISON).any()

    def check_step(self, step: Step, outcome: Any, finished: Batch | None) -> None:
        call, diary = self.calls[step], self.diary_of[step.session]
        if isinstance(outcome, SessionEnded):
            assert type(outcome) is WHY[self.why[step.session]]
            return
        first = diary.calls[0] is call
        diary.calls.remove(call)
        if not diary.calls:
            self.use(diary)
        if isinstance(outcome, Answer | StateNotFinite | StepMismatch | QueueFull):
            assert first  # in order of arrival
        if isinstance(outcome, Answer) and outcome.replayed:
            assert diary.is_repeat(call)
            assert step not in self.runs
            assert outcome.step == diary.current
            assert outcome.outputs["y"].tolist() == self.shaped(call, diary.last_outputs)
        elif isinstance(outcome, Answer):
            assert finished is not None
            assert step in finished.tickets
            assert self.verdict is None
            assert diary.may_run(call)
            assert diary.stays_finite(call)
            diary.do(call)
            assert outcome.step == diary.current
            assert outcome.outputs.keys() == {"y"}
            assert outcome.outputs["y"].tolist() == self.shaped(call, diary.last_outputs)
        elif isinstance(outcome, StateNotFinite):
            assert finished is not None
            assert step in finished.tickets
            assert self.verdict is None
            assert not diary.stays_finite(call)
        elif isinstance(outcome, StepMismatch):
            assert not diary.may_run(call)
            assert not diary.is_repeat(call)
            assert outcome.details == {"current": diary.current}
            assert step not in self.runs
        elif isinstance(outcome, QueueFull):
            assert self.scheduler.dispatchers[step.session.model].options.queue_rows < 100
            assert step not in self.runs
        else:
            self.check_common(step, outcome, finished)

    # What must be true after every move

    @invariant()
    def states_are_the_diaries_bit_for_bit(self) -> None:
        for diary in self.diaries.values():
            session = diary.session
            assert session.step == diary.current
            assert session.slab.arrays["hash"][session.slot].tolist() == diary.hash
            assert session.slab.arrays["count"][session.slot] == diary.count

    @invariant()
    def only_the_first_step_of_a_session_can_wait_for_a_slot_or_run(self) -> None:
        running = [ticket for batch in self.running for ticket in batch.tickets]
        for diary in self.diaries.values():
            active = [call.step.queue is not None or call.step in running for call in diary.calls]
            assert active == [True] * len(active[:1]) + [False] * len(active[1:])
            assert diary.session.steps == [call.step for call in diary.calls]
            assert len(diary.calls) <= self.options.queue_steps
            assert diary.session.phase is (Phase.STEPPING if diary.calls else Phase.IDLE)

    @invariant()
    def every_id_says_what_became_of_it(self) -> None:
        table = self.scheduler.sessions
        for id in IDS:
            if id in self.diaries:
                assert table.get(id) is self.diaries[id].session
            else:
                self.raises(WHY[self.ended[id]] if id in self.ended else SessionNotFound, partial(table.get, id))

    @invariant()
    def open_sessions_are_counted_listed_and_never_share_a_slot(self) -> None:
        table = self.scheduler.sessions
        assert len(table) == len(self.diaries)
        for model in MODELS:
            here = sorted(diary.session.id for diary in self.diaries.values() if diary.session.model == model)
            assert [session.id for session in table.of_model(model)] == here
            assert len(here) == table.counts().get(model, 0) <= self.options.per_model
        slots = [(id(diary.session.slab), diary.session.slot) for diary in self.diaries.values()]
        assert len(slots) == len(set(slots))

    @invariant()
    def it_wakes_up_in_time_for_every_deadline_and_expiry(self) -> None:
        left = [ticket.deadline for ticket in [*self.calls, *self.rows] if ticket not in self.outcomes]
        expiries = [diary.expires_at for diary in self.diaries.values()]
        assert self.scheduler.next_wakeup() <= min([*left, *expiries, inf])

    @invariant()
    def outcomes_are_final(self) -> None:
        assert all(ticket.outcome is outcome for ticket, outcome in self.outcomes.items())
        assert self.scheduler.settled == []
        assert self.scheduler.ended == []

    @invariant()
    def it_is_busy_while_anything_waits_or_runs(self) -> None:
        left = any(ticket not in self.outcomes for ticket in [*self.calls, *self.rows])
        assert self.scheduler.busy == (left or bool(self.running))

    def teardown(self) -> None:
        """In the end everything runs, and every ticket has its outcome."""
        if not hasattr(self, "puppet"):
            return
        for _ in range(1000):
            self.puppet.now += 2.0  # nothing lingers for longer
            self.take_all()
            if not self.running:
                break
            self.run_one(-1)
        assert all(ticket in self.outcomes for ticket in [*self.calls, *self.rows])
        assert not self.scheduler.busy

    def use(self, diary: Diary) -> None:
        diary.used_at = self.puppet.now
        diary.use = next(self.uses)

    def have_ended(self, sessions: set[Session], event: Event) -> None:
        """All of them together, in whatever order."""
        ended = [session for session, _ in self.scheduler.ended]
        assert set(ended) == sessions
        for session in ended:
            self.has_ended(session, event)

    def has_ended(self, session: Session, event: Event) -> None:
        del self.diaries[session.id]
        self.ended[session.id] = event
        self.why[session] = event
        while len(self.ended) > self.options.remembered:
            del self.ended[next(iter(self.ended))]

    def shaped(self, call: Call, outputs: list[list[float]]) -> Any:
        return outputs if call.kind == "scan" else outputs[0]

    def refused(self, error: type[Exception], act: Callable[[], object]) -> None:
        """`act` raises `error` and changes nothing."""
        before = self.seen()
        self.raises(error, act)
        assert self.seen() == before

    @staticmethod
    def raises(error: type[Exception], act: Callable[[], object]) -> None:
        with pytest.raises(error) as caught:
            act()
        assert type(caught.value) is error

    def seen(self) -> Any:
        sessions = [diary.session for diary in self.diaries.values()]
        return (
            [
                (s.phase, s.step, list(s.steps), s.last, s.last_used_at, s.ttl_s, s.until, s.slot, s.alarm_at)
                for s in sessions
            ],
            [(d.waiting_rows, list(d.running), d.next_wakeup()) for d in self.scheduler.dispatchers.values()],
            [list(session.slab._free) for session in sessions],
            [list(self.scheduler.settled), list(self.scheduler.ended), self.scheduler.next_wakeup()],
            [session.id for model in MODELS for session in self.scheduler.sessions.of_model(model)],
        )


SchedulerMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, report_multiple_bugs=False)
TestScheduler = SchedulerMachine.TestCase
