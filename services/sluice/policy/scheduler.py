"""Decides what happens next: events in (offer, cancel, finished, time), batches and settled tickets out.

It joins the rules of batching and of sessions; it does not know sockets, tasks or what time it is.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from numpy.typing import NDArray

from sluice.policy.alarms import Alarms
from sluice.policy.batch import Batch, Lane, Rows, Stage, Ticket, too_late
from sluice.policy.batching import BatchingOptions, Dispatcher
from sluice.policy.contract import BatchAxis, Signature
from sluice.policy.cost import RunCost
from sluice.policy.errors import (
    BackendError,
    BatchCollision,
    BatchRefused,
    InputRejected,
    Internal,
    SluiceError,
    StateNotFinite,
)
from sluice.policy.session import Answers, Event, Session, Step, ended_error
from sluice.policy.sessions import SessionOptions, SessionTable
from sluice.policy.slab import finite_rows

Array = NDArray[Any]


class Cancelled(Exception):
    """The outcome of a ticket whose client has gone."""


_TRIES = 3  # of a batch that meets others in the model server, which may have more clients than this gateway
_BUG = "Something went wrong inside the gateway while an answer was put together; it has been logged."

Outcome = Rows | Answers | SluiceError | Cancelled

# In place of an outcome that has been handed on, so that a ticket that is still listed somewhere holds nothing.
DELIVERED = Cancelled()


class Scheduler:
    """All models' queues and all sessions of one gateway.

    After every call, `settled` holds the tickets that were settled and not yet collected, and `ended` the sessions
    that ended, each with the event that ended it; `take` gives batches to run until it gives None; `next_wakeup` is
    when to call `tick` if nothing else happens.
    """

    def __init__(self, batching: BatchingOptions, sessions: SessionOptions) -> None:
        self.sessions = SessionTable(sessions)
        self.settled: list[Ticket] = []
        self.ended: list[tuple[Session, Event]] = []
        self.dispatchers: dict[str, Dispatcher] = {}
        self._batching = batching
        self._separated = 0
        self._deadlines: Alarms[Ticket] = Alarms(lambda _, ticket: ticket.outcome is None)

    def offer(self, ticket: Ticket, now: float) -> None:
        """Take on a ticket; it is settled later, perhaps at once, as a step is that finds its queue full.

        Raises:
            QueueFull, BatchTooLarge, SessionQueueFull, SessionEnded: it is refused and nothing has changed.
        """
        if isinstance(ticket, Step):
            self.sessions.join(ticket, now)
            if ticket.rows == 1 and ticket.errors:
                raise ticket.errors[0]
            if not ticket.blocked:
                self._start(ticket, now)
        else:
            self._dispatcher(ticket.lane).offer(ticket, now)
        if ticket.outcome is None:
            self._deadlines.set(ticket.deadline, ticket)

    def cancel(self, ticket: Ticket, now: float) -> None:
        """Its client has gone: what waits is dropped, what runs has no effect. Nothing happens if it is settled."""
        self._settle(ticket, Cancelled(), now)

    def take(self, now: float) -> Batch | None:
        """The next batch to run, if a model has rows waiting and a free slot."""
        for dispatcher in self.dispatchers.values():
            if not dispatcher.waiting_rows:
                continue
            while late := dispatcher.hopeless(now):  # the step behind one that is too late may be too late itself
                for ticket in late:
                    self._settle(ticket, too_late(ticket, now), now)
            batch = dispatcher.take(now)
            if batch is not None:
                return batch
        return None

    def finished(self, batch: Batch, result: Rows | SluiceError, now: float) -> SluiceError | None:
        """A batch has run: its outputs, name → `[size, ...]`, or why there are none. State moves here and only here.

        Returns:
            Why the batch failed: the error that came, or what is wrong with the outputs; None if it did not.
        """
        failure = result if isinstance(result, SluiceError) else _unlike_promised(batch, result)
        self.dispatchers[batch.lane.model].finished(batch, now, succeeded=failure is None)
        if isinstance(failure, BatchCollision) and batch.lane.exclusive < _TRIES:
            self._run_exclusively(batch, now)
        elif isinstance(failure, InputRejected | BatchRefused) and len(batch.tickets) > 1:
            self._separate(batch, now, batch.lane.batch_axis)
        elif failure is not result and failure is not None and batch.lane.batch_axis == "assumed":
            self._separate(batch, now, "none")
        elif failure is not None:
            for ticket in batch.tickets:
                self._settle(ticket, failure, now)
        elif isinstance(batch.tickets[0], Step):
            self._finish_steps(batch, result, now)  # type: ignore[arg-type]
        else:
            self._finish_rows(batch, result, now)  # type: ignore[arg-type]
        return failure

    def tick(self, now: float) -> None:
        """Time has passed: settle what is too late, and end sessions whose time is over."""
        for ticket in self._deadlines.due(now):
            self._settle(ticket, too_late(ticket, now), now)
        for session in self.sessions.overdue(now):
            self.end(session, Event.EXPIRE, now)

    def next_wakeup(self) -> float:
        """When `tick` and `take` want to be called next; `inf`: not by time alone."""
        lingering = (dispatcher.next_wakeup() for dispatcher in self.dispatchers.values())
        return min(self._deadlines.next_wakeup(), self.sessions.next_wakeup(), *lingering, inf)

    def open(
        self, id: str, model: str, version: int, signature: Signature, now: float,
        *, ttl_s: float | None = None, rows: Rows | None = None, step: int = 0,
    ) -> Session:  # fmt: skip
        """Open a session; see `SessionTable.open`."""
        session, evicted = self.sessions.open(id, model, version, signature, now, ttl_s=ttl_s, rows=rows, step=step)
        if evicted is not None:
            self.ended.append((evicted, Event.EVICT))
        return session

    def end(self, session: Session, event: Event, now: float) -> None:
        """End a session; its waiting and running steps are told why."""
        steps = self.sessions.end(session, event, now)
        self.ended.append((session, event))
        error = ended_error(session.id, session.phase)
        for i, step in enumerate(steps):
            step.refuse(step.sessions.index(session), error)
            unblocked = i > 0 and step.one_less() is not None
            if not any(step.sessions):
                self._close(step, step.outcome_with({}))
            elif unblocked:
                self._start(step, now)

    def refuse_all(self, error: SluiceError, now: float) -> None:
        """Settle everything that waits or runs with this error."""
        for ticket in self._deadlines.current():
            self._settle(ticket, error, now)

    def retire(self, model: str, version: int, now: float) -> None:
        """A model version is no longer served: its sessions end."""
        for session in self.sessions.retired(model, version):
            self.end(session, Event.RETIRE, now)

    def cost(self, model: str, version: int, signature: str) -> RunCost:
        """What runs of a signature take whose rows are padded."""
        dispatcher = self.dispatchers.get(model)
        return dispatcher.cost(version, signature) if dispatcher else RunCost()

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return any(each.waiting_rows or each.running for each in self.dispatchers.values())

    def _dispatcher(self, lane: Lane) -> Dispatcher:
        dispatcher = self.dispatchers.get(lane.model)
        if dispatcher is None:
            dispatcher = self.dispatchers[lane.model] = Dispatcher(self._batching)
        return dispatcher

    def _start(self, step: Step, now: float) -> None:
        """Let a step run whose turn it is, or settle it without running, and so on to those behind it."""
        ready = [step]
        while ready:
            step = ready.pop()
            spared = self.sessions.turn(step)
            ready += self._leave(step, spared, now)
            if any(step.sessions):
                try:
                    self._dispatcher(step.lane).offer(step, now)
                    continue
                except SluiceError as error:
                    outcome: Outcome = error
            else:
                outcome = step.outcome_with({})
            self._close(step, outcome)
            ready += self._leave(step, step.sessions, now)

    def _settle(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """The one way a ticket that was taken on ends, unless its sessions do: the first outcome counts."""
        if ticket.outcome is not None:
            return
        self._close(ticket, outcome)
        if isinstance(ticket, Step):
            for step in self._leave(ticket, ticket.sessions, now):
                self._start(step, now)

    def _leave(self, step: Step, sessions: Sequence[Session | None], now: float) -> list[Step]:
        """Take a step out of sessions; the steps whose turn it is now."""
        leave = self.sessions.leave
        left = [leave(step, session, now) for session in sessions if session is not None]
        return [following for following in left if following is not None]

    def _close(self, ticket: Ticket, outcome: Outcome) -> None:
        self._dispatcher(ticket.lane).withdraw(ticket)
        ticket.outcome = outcome
        self.settled.append(ticket)

    def _run_exclusively(self, batch: Batch, now: float) -> None:
        """The batch met another in the model server: run those of it that are still wanted while nothing else runs."""
        self._separated += 1
        lane = batch.lane._replace(alone=self._separated, exclusive=batch.lane.exclusive + 1)
        for ticket in batch.tickets:
            if ticket.outcome is None:
                ticket.lane = lane
                self._dispatcher(lane).offer_again(ticket, now)

    def _separate(self, batch: Batch, now: float, batch_axis: BatchAxis) -> None:
        """One row may have spoiled the batch: run each ticket that is still wanted once more, alone."""
        for ticket in batch.tickets:
            if ticket.outcome is None:
                self._separated += 1
                ticket.lane = ticket.lane._replace(alone=self._separated, batch_axis=batch_axis)
                self._dispatcher(ticket.lane).offer_again(ticket, now)

    def _finish_rows(self, batch: Batch, outputs: Rows, now: float) -> None:
        as_it_is = batch.lane.batch_axis == "none"
        for ticket, span in batch.spans():
            own = outputs if as_it_is else {name: array[span] for name, array in outputs.items()}
            if ticket.outcome is None:
                self._advance(ticket, own, now)

    def _advance(self, ticket: Ticket, outputs: Rows, now: float) -> None:
        """A ticket has run: it runs again, at once and however many wait, or is settled."""
        outcome: Outcome | Stage = outputs
        if ticket.course is not None:
            try:
                outcome = ticket.course.advance(outputs)
            except SluiceError as error:
                outcome = error
            except Exception as error:  # it must not keep the others of the batch from their outcomes
                outcome = Internal(_BUG)
                outcome.__cause__ = error
        if isinstance(outcome, Stage):
            ticket.turn_to(outcome)
            self._dispatcher(ticket.lane).offer_again(ticket, now)
        else:
            self._settle(ticket, outcome, now)

    def _finish_steps(self, batch: Batch, outputs: Rows, now: float) -> None:
        """Move the states of the steps that are still wanted and whose new state is finite, then answer all."""
        wanted = [(each, span) for each, span in batch.spans() if isinstance(each, Step) and each.outcome is None]
        if not wanted:
            return
        signature = wanted[0][0].signature
        finite = finite_rows(signature.states, outputs).tolist()
        living = [(span.start + row, session) for step, span in wanted for row, session in step.living()]
        slab, moved = living[0][1].slab, [(at, session.slot) for at, session in living if finite[at]]
        kept = slab.move(signature, [slot for _, slot in moved], [at for at, _ in moved], outputs)
        for step, span in wanted:
            own = _own_rows(signature, outputs, span, step.length)
            calls, spared = step.fingerprints(), list[Session]()
            for row, session in step.living():
                if finite[span.start + row]:
                    self.sessions.move(step, row, session, calls[row], None if kept else _copied(own, row))
                else:
                    step.refuse(row, _not_finite(session))
                    spared.append(session)
            following = self._leave(step, spared, now)
            self._settle(step, step.outcome_with(own), now)
            for each in following:
                self._start(each, now)


def feeds(batch: Batch) -> dict[str, Array]:
    """A batch's inputs for the model, name → `[size, ...]`, with the states of its sessions.

    A row that is answered without running, and filler, take some other row's state.
    """
    inputs = batch.stacked()
    steps = [step for step in batch.tickets if isinstance(step, Step)]
    if steps:
        living = [session for step in steps for session in step.sessions]
        some = next(session for session in living if session is not None)
        slots = [session.slot if session is not None else some.slot for session in living]
        slots += [some.slot] * (batch.size - batch.rows)
        inputs |= some.slab.gather(steps[0].signature.states, slots)
    return inputs


def _own_rows(signature: Signature, outputs: Rows, span: slice, length: int) -> dict[str, Array]:
    """One ticket's rows of a batch's outputs, of a scan its own time steps."""
    return {
        name: outputs[name][span, :length] if tensor.has_time else outputs[name][span]
        for name, tensor in signature.outputs.items()
    }


def _copied(outputs: Rows, row: int) -> dict[str, Array]:
    """One row, so that remembering it does not keep the batch."""
    return {name: array[row, ...].copy() for name, array in outputs.items()}


def _not_finite(session: Session) -> SluiceError:
    return StateNotFinite(
        f"Step {session.step} of session {session.id!r} would have made its state NaN or infinite; the state "
        "is as it was before. Look at the input, or open a new session."
    )


def _unlike_promised(batch: Batch, outputs: Rows) -> BackendError | None:
    """What is wrong with a batch's answer: as many rows as the batch, and all that the signature promised."""
    rows = () if batch.lane.batch_axis == "none" else (batch.size,)
    wrong = [f"{name} {list(array.shape)}" for name, array in outputs.items() if array.shape[: len(rows)] != rows]
    if not outputs:
        wrong.append("all of them")
    first = batch.tickets[0]
    if isinstance(first, Step):
        wrong += first.signature.unlike_promised(outputs, batch.size, batch.lane.time_bound)
    if not wrong:
        return None
    return BackendError(
        f"Model {batch.lane.model!r} was given {batch.size} rows and must answer as its signature "
        f"{batch.lane.signature!r} says; these outputs are missing or of another shape or dtype: {', '.join(wrong)}."
    )
