"""The loop around the rules, which are `Scheduler`: offer → take → launch → finished → re-arm one timer.

It decides nothing. It tells the scheduler what has happened and does what the scheduler says.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Protocol

import structlog
from numpy.typing import NDArray

from sluice.gateway.core.pending import BUG, Pending, awaited
from sluice.gateway.trace import TRACE, enter
from sluice.policy.batch import Batch, Ticket
from sluice.policy.errors import Internal, SluiceError
from sluice.policy.scheduler import DELIVERED, Cancelled, Scheduler, feeds
from sluice.policy.session import Event, Session
from sluice.wire.trace_context import Trace

Array = NDArray[Any]
log = structlog.get_logger()


class Runner(Protocol):
    """What the engine asks of a back end; raises `SluiceError` when it cannot run a batch."""

    async def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        timeout_s: float,
    ) -> dict[str, Array]: ...


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """What observers are told of a batch. `run_s` is in seconds."""

    batch: Batch
    error: SluiceError | None
    run_s: float


class Observer(Protocol):
    """Hears what has happened; it must be quick and must not raise."""

    def batch_ended(self, event: BatchEnded) -> None: ...

    def session_ended(self, session: Session, event: Event) -> None: ...


class Engine:
    """Runs the scheduler's batches on a back end and hands every ticket's outcome to the one who waits for it."""

    def __init__(
        self, scheduler: Scheduler, runner: Runner, observer: Observer, clock: Callable[[], float] | None = None
    ) -> None:
        self.scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self.now = clock or self._loop.time
        self._runner = runner
        self._observer = observer
        self._runs: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._pumping = False
        self._idle = asyncio.Event()
        self._traces: dict[Ticket, Trace] = {}  # of tickets whose clients gave one
        self._context = copy_context()  # batches run in none of their requests'

    def submit(self, ticket: Ticket, pending: Pending) -> None:
        """Run `ticket`; the call's outcome is its outputs of rows, `Answers` of a step, or a `SluiceError`."""
        if not pending.waits:
            return
        ticket.reply = pending
        pending.runs(self.cancel, ticket)
        try:
            self.scheduler.offer(ticket, self.now())
        except SluiceError as error:
            self._loop.call_soon(pending.settle, error)
        else:
            if (trace := TRACE.get()) is not None:
                self._traces[ticket] = trace
        self._soon()

    def submit_all(self, tickets: Sequence[Ticket], pending: Pending, *, each: bool = False) -> None:
        """As `submit` for tickets that are answered together; see `Pending.parts`."""
        for ticket, part in zip(tickets, pending.parts(len(tickets), each=each), strict=True):
            self.submit(ticket, part)

    def cancel(self, ticket: Ticket) -> None:
        """Withdraw a ticket, which then has no effect; nothing happens if it is settled."""
        self.scheduler.cancel(ticket, self.now())
        self._soon()

    async def run(self, ticket: Ticket) -> Any:
        """As `submit`, awaited. If the waiting task is cancelled the ticket is, too.

        Raises:
            SluiceError: as the ticket was settled, or because it was refused.
        """
        return await awaited(partial(self.submit, ticket))

    def changed(self) -> None:
        """The scheduler was told something from outside, such as a closed session: act on it."""
        self._soon()

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self.scheduler.busy:
            self._idle.clear()
            await self._idle.wait()

    def refuse_all(self, error: SluiceError) -> None:
        """Answer everything that waits or runs with this error."""
        self.scheduler.refuse_all(error, self.now())
        self._deliver()

    async def close(self) -> None:
        """Stop at once: what runs is abandoned."""
        if self._timer is not None:
            self._timer.cancel()
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    def _soon(self) -> None:
        """Pump at the end of this turn of the loop, so that all requests read in it can share a batch."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump, context=self._context)

    def _pump(self) -> None:
        self._pumping = False
        now = self.now()
        self.scheduler.tick(now)
        while (batch := self.scheduler.take(now)) is not None:
            self._launch(batch)
        self._deliver()
        self._arm(self.scheduler.next_wakeup())

    def _launch(self, batch: Batch) -> None:
        run = self._loop.create_task(self._run(batch, self._feeds(batch)))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    def _feeds(self, batch: Batch) -> dict[str, Array] | SluiceError:
        try:
            return feeds(batch)
        except Exception:
            log.exception("batch cannot be put together", model=batch.lane.model, signature=batch.lane.signature)
            return Internal(BUG)

    async def _run(self, batch: Batch, inputs: dict[str, Array] | SluiceError) -> None:
        if self._traces and (trace := self._trace_of(batch)) is not None:
            enter(trace)
        result = inputs if isinstance(inputs, SluiceError) else await self._call(batch, inputs)
        now = self.now()
        try:
            failure = self.scheduler.finished(batch, result, now)
            self._observer.batch_ended(BatchEnded(batch, failure, now - batch.started_at))
        finally:
            self._soon()

    def _trace_of(self, batch: Batch) -> Trace | None:
        """The one trace that a batch's requests tell of; None: of none, or of several, and a call has one parent."""
        told = {self._traces[ticket] for ticket in batch.tickets if ticket in self._traces}
        return told.pop() if len(told) == 1 else None

    async def _call(self, batch: Batch, inputs: dict[str, Array]) -> dict[str, Array] | SluiceError:
        lane, timeout_s = batch.lane, max(ticket.deadline for ticket in batch.tickets) - self.now()
        try:
            return await self._runner.predict(lane.model, lane.version, lane.signature, inputs, lane.outputs, timeout_s)
        except SluiceError as error:
            return error
        except Exception:
            log.exception("batch failed", model=lane.model, signature=lane.signature)
            return Internal(BUG)

    def _deliver(self) -> None:
        settled, self.scheduler.settled = self.scheduler.settled, []
        for ticket in settled:
            pending, outcome = ticket.reply, ticket.outcome
            ticket.inputs, ticket.outcome, ticket.reply, ticket.course = {}, DELIVERED, None, None
            if self._traces:
                self._traces.pop(ticket, None)
            if isinstance(outcome, Internal) and outcome.__cause__ is not None:
                log.error("course failed", model=ticket.lane.model, exc_info=outcome.__cause__)
            if not isinstance(outcome, Cancelled):
                pending.settle(outcome)
        for session, event in self.scheduler.ended:
            self._observer.session_ended(session, event)
        self.scheduler.ended.clear()
        if not self.scheduler.busy:
            self._idle.set()

    def _arm(self, when: float) -> None:
        """Pump at `when`, or before: a timer that is set for an earlier time finds nothing to do and sets it again."""
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer = None if when == inf else self._loop.call_at(when, self._ring, context=self._context)
        self._timer_at = when

    def _ring(self) -> None:
        self._timer = None
        self._soon()
