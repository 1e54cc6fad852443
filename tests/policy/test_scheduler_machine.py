"""Everything at once: steps, scans and rows under cancels, failures, deadlines and ends, against a diary per session.

The machine never predicts how batches form. It looks at all that was settled and all that ended in the order in which
it happened, asks the diaries whether that outcome was right, and moves them along. What a session's client hears
without its step having run (a repeat, a wrong number, an end) the diaries say beforehand.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sluice.policy.batch import Batch, Ticket
from sluice.policy.batching import BatchingOptions
from sluice.policy.columnar import Columns, divided
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    BatchCollision,
    BatchTooLarge,
    DeadlineExceeded,
    InputRejected,
    QueueFull,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    SessionQueueFull,
    SessionsFull,
    SluiceError,
    StateNotFinite,
    StepMismatch,
)
from sluice.policy.scheduler import Cancelled
from sluice.policy.session import Answers, Event, Phase, Session, Step
from sluice.policy.sessions import SessionOptions
from tests.size import size

from .oracle import WHY, Call, Diary, Refusal, Told
from .puppet import FAR, POISON, SPOIL, STEP, Puppet, scan_ticket, step_ticket

IDS = "abcdef"
LIFE_S = 60.0
MODELS = ("m", "n")
PAIRS = st.sampled_from([1.0, 2.0, 3.0, 4.0] * 4 + [SPOIL, POISON])
MOSTLY_GOOD = st.sampled_from([1.0, 2.0, 3.0, 4.0] * 10 + [SPOIL, SPOIL, POISON])  # of many at once
ALLOWED_S = st.sampled_from([FAR] * 6 + [-1, 0, 1, 2, 5, 12])
NUMBERINGS = ["none", "current", "after those waiting", "repeat", "repeat", "wrong"]
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


class Journal(list[Any]):
    """One of the scheduler's two lists; `log` knows the order across both."""

    def __init__(self, log: list[Any]) -> None:
        super().__init__()
        self.log = log

    def append(self, entry: Any) -> None:
        super().append(entry)
        self.log.append(entry)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        sizes=st.sampled_from([(1, 2, 4), (1, 2, 4, 8), (3, 6), (1,)]),
        in_flight=st.integers(1, 3),
        linger_s=st.sampled_from([0.0, 0.0, 2.0]),
        queue_rows=st.sampled_from([1, 3, 100, 100, 100]),
        idle_s=st.sampled_from([5.0, 20.0, 1000.0, 1000.0]),
        per_model=st.sampled_from([1, 2, 4, 6, 6]),
        evict=st.booleans(),
        queue_steps=st.sampled_from([1, 3, 8, 8]),
        remembered=st.sampled_from([0, 1, 2, 100]),
    )
    def begin(self, sizes: tuple[int, ...], in_flight: int, linger_s: float, queue_rows: int, **sessions: Any) -> None:
        self.options = SessionOptions(life_s=LIFE_S, remembered_s=1e6, **sessions)
        self.puppet = Puppet(BatchingOptions(sizes, in_flight, linger_s, queue_rows), self.options)
        self.scheduler = self.puppet.scheduler
        self.max_rows = sizes[-1]
        self.log: list[Any] = []
        self.scheduler.settled, self.scheduler.ended = Journal(self.log), Journal(self.log)
        self.diaries: dict[str, Diary] = {}  # of the open sessions
        self.diary_of: dict[Session, Diary] = {}  # of all sessions that ever were
        self.ended: dict[str, Event] = {}  # why others ended, the oldest first, as far as remembered
        self.why: dict[Session, Event] = {}
        self.calls: dict[Step, list[Call]] = {}  # by row
        self.left: dict[Step, list[Call]] = {}  # those that are not settled
        self.judged: set[Step] = set()  # whose turn it was in all their sessions
        self.turned_away: dict[Step, SluiceError] = {}
        self.columns: list[Columns] = []
        self.rows: dict[Ticket, list[float]] = {}
        self.outcomes: dict[Ticket, Any] = {}
        self.cancelled: set[Ticket] = set()
        self.running: list[Batch] = []
        self.runs: dict[Ticket, int] = {}
        self.fastest: dict[tuple[Any, ...], float] = {}  # (model, version, signature) → seconds
        for id in IDS[: self.options.per_model]:
            self.open(id, "m", 1, None, None)

    # What clients do

    @rule(
        id=st.sampled_from(IDS), model=st.sampled_from(["m", "m", "n"]), version=st.integers(1, 2),
        ttl_s=st.sampled_from([None, None, 2.0, 30.0]),
        first=st.sampled_from([None, 5.0]),
    )  # fmt: skip
    def open(self, id: str, model: str, version: int, ttl_s: float | None, first: float | None) -> None:
        rows = {} if first is None else {"hash": np.array([first, first])}
        begin = partial(self.puppet.open, id, model, version, ttl_s=ttl_s, rows=rows)
        diary = self.opened(begin, id, model, version, ttl_s)
        if diary is not None and first is not None:
            diary.hash = [first, first]

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), id=st.sampled_from(IDS))
    def fork(self, data: st.DataObject, id: str) -> None:
        parent = self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))]
        begin = partial(self.puppet.fork, parent.session, id, ttl_s=parent.ttl_s)
        diary = self.opened(begin, id, parent.session.model, parent.version, parent.ttl_s)
        if diary is not None:
            diary.hash, diary.count, diary.current = parent.hash, parent.count, parent.current

    def opened(
        self, begin: Callable[[], Session], id: str, model: str, version: int, ttl_s: float | None
    ) -> Diary | None:
        here = [diary for diary in self.diaries.values() if diary.session.model == model]
        idle = [diary for diary in here if not diary.calls] if self.options.evict else []
        full = len(here) >= self.options.per_model
        if id in self.diaries:
            self.refused(SessionExists, begin)
            return None
        if full and not idle:
            self.refused(SessionsFull, begin)
            return None
        session = begin()
        evicted = [session for session, _ in self.scheduler.ended]
        assert len(evicted) == full
        for each in evicted:
            assert self.diary_of[each].used_at == min(diary.used_at for diary in idle)
        self.collect(ends=dict.fromkeys(evicted, Event.EVICT))
        now = self.puppet.now
        diary = Diary(session, [1.0, 2.0], ttl_s or self.options.idle_s, now + LIFE_S, now, version)
        self.diaries[id] = self.diary_of[session] = diary
        self.ended.pop(id, None)
        return diary

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=8), kind=KIND)
    def many_clients_call(self, data: st.DataObject, ids: list[str], kind: str) -> None:
        for id in ids:
            if id in self.diaries:
                self.call(data, self.diaries[id], kind, data.draw(ALLOWED_S), "none")

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), kind=KIND, allowed_s=ALLOWED_S, numbering=st.sampled_from(NUMBERINGS))
    def one_client_calls(self, data: st.DataObject, kind: str, allowed_s: float, numbering: str) -> None:
        self.call(data, self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))], kind, allowed_s, numbering)

    def call(self, data: st.DataObject, diary: Diary, kind: str, allowed_s: float, numbering: str) -> None:
        xs = [data.draw(PAIRS) for _ in range(1 if kind == "step" else data.draw(st.integers(1, 5)))]
        number = self.number(diary, numbering)
        if numbering == "repeat" and diary.last and data.draw(st.booleans()):
            kind, xs = diary.last[1], [x for x, _ in diary.last[2]]
        deadline = self.puppet.now + allowed_s
        if kind == "step":
            step = step_ticket([diary.session], xs, None if number is None else [number], deadline)
        else:
            step = scan_ticket(diary.session, xs, number, deadline)
        self.offer(step, [Call(diary.session, kind, [[x, x] for x in xs], number, step)])

    @precondition(lambda self: self.diaries)
    @rule(
        data=st.data(), allowed_s=st.sampled_from([FAR] * 6 + [1, 5]), numbered=st.booleans(),
        others=st.sampled_from(["none", "none", "unknown", "stale"]), oversized=st.integers(0, 5),
    )  # fmt: skip
    def one_client_steps_many(
        self, data: st.DataObject, allowed_s: float, *, numbered: bool, others: str, oversized: int
    ) -> None:
        """`others` that are not open are errors of their rows or, if they are stale, ended just before the call."""
        model = self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))].session.model
        here = sorted(id for id, diary in self.diaries.items() if diary.session.model == model)
        known = st.sampled_from(here if others == "none" else IDS)
        ids = data.draw(st.lists(known, unique=True, min_size=min(2, len(here))))
        sessions = [self.known(id, model, stale=others == "stale") for id in ids]
        xs, numbers = [data.draw(MOSTLY_GOOD) for _ in ids], [-1] * len(ids)
        for row, session in enumerate(sessions):
            if not numbered or isinstance(session, SluiceError):
                continue
            diary, numbering = self.diary_of[session], data.draw(st.sampled_from(NUMBERINGS))
            number = self.number(diary, numbering)
            numbers[row] = -1 if number is None else number
            if numbering == "repeat" and diary.last and data.draw(st.booleans()):
                xs[row] = diary.last[2][0][0]
        x = np.array([[x, x] for x in xs])
        columns = divided(
            sessions, lambda slab: (STEP, {"x": x}), self.puppet.now + allowed_s, numbers if numbered else None,
            self.max_rows if oversized else 100,
        )  # fmt: skip
        assert sorted(row for own, _ in columns.steps for row in own) == [
            row for row, session in enumerate(sessions) if isinstance(session, Session)
        ]
        self.columns.append(columns)
        for own, step in columns.steps:
            calls = [(sessions[row], xs[row], None if numbers[row] == -1 else numbers[row]) for row in own]
            self.offer(step, [Call(session, "step", [[x, x]], number, step) for session, x, number in calls])

    def known(self, id: str, model: str, *, stale: bool) -> Session | SluiceError:
        diary = self.diaries.get(id)
        if diary is not None and diary.session.model == model:
            return diary.session
        gone = [session for session in self.why if (session.id, session.model) == (id, model)]
        return gone[-1] if stale and gone else SessionNotFound(f"{id} is not there.")

    def number(self, diary: Diary, numbering: str) -> int | None:
        return {
            "none": None,
            "current": diary.current,
            "after those waiting": diary.current + sum(len(call.xs) for call in diary.calls),
            "repeat": diary.last[0] if diary.last else 0,
            "wrong": diary.current + 7,
        }[numbering]

    def offer(self, step: Step, calls: list[Call]) -> None:
        limit = self.options.queue_steps
        for call in calls:
            if call.session in self.why:
                call.told = Refusal(WHY[self.why[call.session]], {})
            elif len(self.diary_of[call.session].calls) >= limit:
                call.told = Refusal(SessionQueueFull, {"limit": limit})
        if len(calls) == 1 and isinstance(calls[0].told, Refusal):
            self.refused(calls[0].told.error, lambda: self.puppet.offered(step))
            self.turned_away[step] = step.errors[0]
            return
        self.puppet.offered(step)
        self.calls[step] = self.left[step] = calls
        for call in calls:
            if call.told is None:
                diary = self.diary_of[call.session]
                diary.calls.append(call)
                self.use(diary)
        self.judge()
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

    @precondition(lambda self: any(not diary.calls for diary in self.diaries.values()))
    @rule(data=st.data(), value=st.integers(0, 9), step=st.integers(0, 3), count=st.sampled_from([None, 50]))
    def replace(self, data: st.DataObject, value: int, step: int, count: int | None) -> None:
        idle = sorted(id for id, diary in self.diaries.items() if not diary.calls)
        diary = self.diaries[data.draw(st.sampled_from(idle))]
        rows = {"hash": np.array([value, value], float)} | ({} if count is None else {"count": np.array(count)})
        self.scheduler.sessions.replace(diary.session, rows, step, self.puppet.now)
        diary.hash, diary.current, diary.last = [float(value)] * 2, step, None
        diary.count = diary.count if count is None else count
        self.use(diary)

    @precondition(lambda self: self.diaries)
    @rule(data=st.data(), event=st.sampled_from([Event.CLOSE, Event.EXPIRE, Event.EVICT]))
    def end(self, data: st.DataObject, event: Event) -> None:
        diary = self.diaries[data.draw(st.sampled_from(sorted(self.diaries)))]
        if event is Event.EVICT and diary.calls:
            self.refused(ValueError, lambda: self.scheduler.end(diary.session, event, self.puppet.now))
            return
        self.scheduler.end(diary.session, event, self.puppet.now)
        self.collect(ends={diary.session: event})

    # What happens to the gateway

    @rule(model=st.sampled_from(MODELS), version=st.integers(1, 2), sure=st.integers(0, 3))
    def retire(self, model: str, version: int, sure: int) -> None:
        if sure:  # not too often
            return
        self.scheduler.retire(model, version, self.puppet.now)
        expected = [d.session for d in self.diaries.values() if (d.session.model, d.version) == (model, version)]
        self.collect(ends=dict.fromkeys(expected, Event.RETIRE))

    @rule(seconds=st.sampled_from([1, 1, 1, 2, 5, 11]))
    def pass_time(self, seconds: int) -> None:
        self.puppet.pass_time(seconds)
        expected = [diary.session for diary in self.diaries.values() if diary.expires_at <= self.puppet.now]
        self.collect(ends=dict.fromkeys(expected, Event.EXPIRE))
        left = [ticket for ticket in [*self.calls, *self.rows] if ticket not in self.outcomes]
        assert all(ticket.deadline > self.puppet.now for ticket in left)
        self.take_all()
        assert self.scheduler.next_wakeup() > self.puppet.now  # or the engine's timer would spin

    @rule(batches=st.integers(1, 4))
    def take(self, batches: int) -> None:
        for _ in range(batches):
            self.took()

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        how=st.sampled_from([""] * 5 + ["fail", "collide", "collide", *SPOILED, *SPOILED_STATES]),
    )
    def finish(self, data: st.DataObject, how: str) -> None:
        batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if how == "fail":
            self.come_back(batch, BackendUnavailable("The model server went away."), BackendUnavailable)
            return
        if how == "collide":
            self.come_back(batch, BatchCollision("Batches of different shape have met."), BatchCollision)
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
        while self.took():
            pass

    def run_one(self, which: int) -> None:
        batch = self.running.pop(which)
        result = self.puppet.answer(batch)
        self.come_back(batch, result, InputRejected if isinstance(result, SluiceError) else None)

    def took(self) -> bool:
        batch = self.puppet.take()
        self.collect()
        if batch is None:
            return False
        self.running.append(batch)
        beside = [other for other in self.running if other.lane.model == batch.lane.model]
        assert len(beside) == 1 or not any(other.lane.exclusive for other in beside)
        steps = [ticket for ticket in batch.tickets if isinstance(ticket, Step)]
        sessions = [session for step in steps for _, session in step.living()]
        assert len(sessions) == len(set(sessions))
        assert {session.slab for session in sessions} <= {sessions[0].slab} if sessions else not steps
        self.check_fed(batch)
        busy = len(self.scheduler.dispatchers[batch.lane.model].running) > 1  # an idle model server is always tried
        horizon = self.puppet.now + (self.fastest.get(batch.lane[:3], 0) if busy else 0)
        for ticket in batch.tickets:
            assert ticket not in self.outcomes
            assert ticket.deadline > horizon
            self.runs[ticket] = self.runs.get(ticket, 0) + 1
        return True

    def check_fed(self, batch: Batch) -> None:
        """Who is still to be answered was fed the state that the session has, when the batch left and ever since."""
        fed = self.puppet.feed(batch)
        assert {len(array) for array in fed.values()} == {batch.size}
        for ticket, span in batch.spans():
            if isinstance(ticket, Step) and ticket.outcome is None:
                for row, session in ticket.living():
                    assert fed["hash_in"][span.start + row].tolist() == self.diary_of[session].hash

    def come_back(self, batch: Batch, result: Any, verdict: type[SluiceError] | None) -> None:
        """`verdict` is the error that the tickets of the batch shall get, if any."""
        self.verdict = verdict
        if verdict is None:
            self.fastest[batch.lane[:3]] = min(
                self.puppet.now - batch.started_at, self.fastest.get(batch.lane[:3], inf)
            )
        unsettled = [ticket for ticket in batch.tickets if ticket not in self.outcomes]
        self.check_fed(batch)
        self.puppet.finish(batch, result)
        self.collect(batch)
        again = verdict is InputRejected and len(batch.tickets) > 1
        again |= verdict is BatchCollision and batch.lane.exclusive < 3
        assert all(ticket in self.outcomes or (again and ticket.queue is not None) for ticket in unsettled)

    # What must be true of every outcome

    def collect(self, finished: Batch | None = None, ends: Mapping[Session, Event] = MappingProxyType({})) -> None:
        """Go through what has happened, in order; `ends` are the sessions that must have ended."""
        log, settled, ended = list(self.log), list(self.scheduler.settled), list(self.scheduler.ended)
        self.log.clear()
        self.scheduler.settled, self.scheduler.ended = Journal(self.log), Journal(self.log)
        assert settled == [entry for entry in log if isinstance(entry, Ticket)]
        assert ended == [entry for entry in log if not isinstance(entry, Ticket)]
        assert (dict(ended), len(ended)) == (ends, len(ends))
        for entry in log:
            if not isinstance(entry, Ticket):
                self.has_ended(*entry)
                continue
            assert entry not in self.outcomes
            self.outcomes[entry] = entry.outcome
            if isinstance(entry, Step):
                self.check_step(entry, entry.outcome, finished)
            else:
                self.check_rows(entry, entry.outcome, finished)
        for session, event in ended:
            self.refused(ValueError, lambda session=session: self.scheduler.end(session, Event.CLOSE, self.puppet.now))
            self.refused(WHY[event], lambda session=session: self.puppet.step(session))
        self.check_columns()

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
        calls = self.left.pop(step)
        living = [call for call in calls if call.told is None]
        if isinstance(outcome, SessionEnded | StepMismatch | StateNotFinite):  # the answer of its only row
            assert len(calls) == 1
            outcome = Answers({}, [-1], {0: outcome})
        if isinstance(outcome, Answers):
            if living:
                assert finished is not None
                assert step in finished.tickets
                assert self.verdict is None
                assert step in self.judged  # in order of arrival
            for call in living:
                diary = self.diary_of[call.session]
                call.told = diary.do(call) if diary.stays_finite(call) else Refusal(StateNotFinite, {})
            told = [call.told for call in calls]
            self.check_told(outcome, [(call.kind, each) for call, each in zip(calls, told, strict=True)])
            assert outcome.replayed == (not living and any(isinstance(each, Told) for each in told))
        else:
            assert living
            self.check_whole(step, outcome, finished)
        for call in living:
            self.leave(call)
        self.judge()

    def check_told(self, answers: Answers, told: list[tuple[str, Any]]) -> None:
        """Each row has what its client must be told, and where it has an error nothing of anyone else."""
        assert answers.errors.keys() == {row for row, (_, each) in enumerate(told) if not isinstance(each, Told)}
        assert answers.outputs.keys() == {"y"} or len(answers.errors) == len(told)
        assert len(answers.steps) == len(told)
        for row, (kind, each) in enumerate(told):
            if isinstance(each, Told):
                assert answers.steps[row] == each.step
                assert answers.outputs["y"][row].tolist() == shaped(kind, each.y)
                continue
            assert answers.steps[row] == -1
            assert not any(array[row].any() for array in answers.outputs.values())
            if isinstance(each, Refusal):
                assert type(answers.errors[row]) is each.error
                assert answers.errors[row].details == each.details
            else:
                assert answers.errors[row] in each

    def check_whole(self, step: Step, outcome: Any, finished: Batch | None) -> None:
        """The outcomes of all rows of a step together."""
        if isinstance(outcome, QueueFull | BatchTooLarge):
            options = self.scheduler.dispatchers[step.lane.model].options
            assert options.queue_rows < 100 if isinstance(outcome, QueueFull) else step.rows > options.max_rows
            assert step in self.judged
            assert step not in self.runs
        else:
            self.check_common(step, outcome, finished)

    def check_columns(self) -> None:
        """The steps of one call together answer it row by row."""
        waiting = []
        for columns in self.columns:
            outcomes = [self.turned_away.get(step, self.outcomes.get(step)) for _, step in columns.steps]
            if None in outcomes:
                waiting.append(columns)
            elif not any(isinstance(outcome, Cancelled) for outcome in outcomes):  # nobody else would ask
                self.check_joined(columns, outcomes)
        self.columns = waiting

    def check_joined(self, columns: Columns, outcomes: list[Any]) -> None:
        told: list[tuple[str, Any]] = [("step", (columns.errors.get(row),)) for row in range(columns.rows)]
        for (own, step), outcome in zip(columns.steps, outcomes, strict=True):
            if len(columns.steps) == 1 and not (columns.errors or step.errors) and isinstance(outcome, SluiceError):
                self.raises(type(outcome), lambda: columns.joined(outcomes))
                return
            for at, row in enumerate(own):
                whole = isinstance(outcome, SluiceError)
                told[row] = ("step", (outcome, step.errors.get(at)) if whole else self.calls[step][at].told)
        self.check_told(columns.joined(outcomes), told)

    # What must be true after every move

    @invariant()
    def states_are_the_diaries_bit_for_bit(self) -> None:
        for diary in self.diaries.values():
            session = diary.session
            assert session.step == diary.current
            state = session.slab.read(session.slot)
            assert state["hash"].tolist() == diary.hash
            assert state["count"] == diary.count

    @invariant()
    def last_answers_are_remembered(self) -> None:
        for diary in self.diaries.values():
            if diary.last:
                assert diary.session.last_answer()["y"].tolist() == shaped(diary.last[1], diary.last_outputs)

    @invariant()
    def a_step_waits_for_a_slot_or_runs_once_it_is_the_first_of_all_its_sessions(self) -> None:
        running = {ticket for batch in self.running for ticket in batch.tickets}
        for step, calls in self.left.items():
            living = [call for call in calls if call.told is None]
            assert living
            behind = sum(self.diary_of[call.session].calls[0] is not call for call in living)
            assert step.blocked == behind
            assert (step.queue is not None or step in running) == (behind == 0)
        for diary in self.diaries.values():
            assert list(diary.session.steps) == [call.step for call in diary.calls]
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
        assert (self.left, self.columns) == ({}, [])
        assert not self.scheduler.busy

    # The diaries

    def judge(self) -> None:
        """Whose turn it is in all their sessions: say what the numbered calls hear whose number is not the current."""
        undecided = [step for step in self.left if step not in self.judged]
        for step in undecided:
            living = [(self.diary_of[call.session], call) for call in self.left[step] if call.told is None]
            if all(diary.calls[0] is call for diary, call in living):
                self.judged.add(step)
                for diary, call in living:
                    if not diary.may_run(call):
                        mismatch = Refusal(StepMismatch, {"current": diary.current})
                        call.told = Told(diary.current, diary.last_outputs) if diary.is_repeat(call) else mismatch
                        self.leave(call)
                self.judge()  # those behind
                return

    def leave(self, call: Call) -> None:
        diary = self.diary_of[call.session]
        diary.calls.remove(call)
        if not diary.calls:
            self.use(diary)

    def use(self, diary: Diary) -> None:
        diary.used_at = self.puppet.now

    def has_ended(self, session: Session, event: Event) -> None:
        diary = self.diaries.pop(session.id)
        assert diary.session is session
        self.ended[session.id] = event
        self.why[session] = event
        while len(self.ended) > self.options.remembered:
            del self.ended[next(iter(self.ended))]
        for call in diary.calls:
            call.told = Refusal(WHY[event], {})
        diary.calls = []
        self.judge()

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
                (s.phase, s.step, s.steps, s.last_start, s.last_call, s.last_used_at, s.ttl_s, s.slot, s.alarm_at)
                for s in sessions
            ],
            [(d.waiting_rows, list(d.running), d.next_wakeup()) for d in self.scheduler.dispatchers.values()],
            [list(self.scheduler.settled), list(self.scheduler.ended), self.scheduler.next_wakeup()],
            [session.id for model in MODELS for session in self.scheduler.sessions.of_model(model)],
        )


def shaped(kind: str, y: list[list[float]]) -> Any:
    return y if kind == "scan" else y[0]


SchedulerMachine.TestCase.settings = settings(
    max_examples=size(150, 3000), stateful_step_count=50, report_multiple_bugs=False
)
TestScheduler = SchedulerMachine.TestCase
