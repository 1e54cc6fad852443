"""Decides which waiting rows of one model run together, and when.

It does not know what rows mean, who asked, how a model is called, or what time it is: time is an argument.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.policy.errors import BatchTooLarge, DeadlineExceeded, QueueFull, SluiceError

Array = NDArray[Any]
Rows = Mapping[str, Array]

_SWEEP_FROM = 64


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How one model's rows are batched.

    allowed_batch_sizes: increasing row counts that the model server sees; a batch is filled up to the next one.
        Few sizes suit a GPU, many sizes a CPU. The last one is the largest batch.
    in_flight: batches that may run at the same time. Two hide the time on the wire; more make batches smaller.
    linger_s: how long the oldest row waits for company while the model server is idle, in seconds. While the server
        is busy batches grow by themselves, so 0 is right unless requests are rare and running one is dear.
    queue_rows: rows that may wait; beyond it a request is refused at once.
    """

    allowed_batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
    in_flight: int = 2
    linger_s: float = 0.0
    queue_rows: int = 4096

    @property
    def max_rows(self) -> int:
        return self.allowed_batch_sizes[-1]

    def size_for(self, rows: int) -> int:
        """The smallest allowed batch size that holds `rows` rows."""
        return self.allowed_batch_sizes[bisect_left(self.allowed_batch_sizes, rows)]


class Lane(NamedTuple):
    """What rows must agree in to share a batch."""

    model: str
    version: int
    signature: str
    rows_like: tuple[tuple[str, Any, tuple[int, ...]], ...] = ()  # (input, numpy dtype, row shape)
    outputs: tuple[str, ...] = ()  # the outputs asked for; none: all of them
    time_bound: int | None = None  # rows are padded to this many time steps
    alone: int = 0  # tells apart the lanes of tickets that must run alone


def rows_like(inputs: Rows) -> tuple[tuple[str, Any, tuple[int, ...]], ...]:
    """The form of rows, name → `[rows, ...]`, for `Lane`: only rows of one form can be stacked."""
    return tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])


class Ticket:
    """One request's rows: waiting, running, or settled with an outcome, which is given exactly once.

    inputs: name → `[rows, ...]`, one row or more; `deadline` and `queued_at`, since when it waits (wherever that was),
    in the caller's monotonic seconds. `reply` is the caller's own and never looked at here.
    """

    __slots__ = ("deadline", "inputs", "lane", "outcome", "queue", "queued_at", "reply", "rows")

    def __init__(self, lane: Lane, inputs: Rows, rows: int, deadline: float) -> None:
        self.lane = lane
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.queued_at = 0.0
        self.queue: Queue | None = None  # where it waits
        self.outcome: Any = None
        self.reply: Any = None


@dataclass(slots=True, eq=False)
class Batch:
    """Rows that run together: `tickets` in order, `size` rows on the wire of which `rows` are real."""

    lane: Lane
    tickets: list[Ticket]
    rows: int
    size: int
    started_at: float

    def spans(self) -> Iterator[tuple[Ticket, slice]]:
        """Each ticket with the rows of the batch that are its own."""
        start = 0
        for ticket in self.tickets:
            yield ticket, slice(start, start + ticket.rows)
            start += ticket.rows

    def stacked(self) -> dict[str, Array]:
        """The tickets' inputs, name → `[size, ...]`. Filler rows repeat the last real one, so that they are valid."""
        return {name: self._stack([ticket.inputs[name] for ticket in self.tickets]) for name in self.tickets[0].inputs}

    def _stack(self, parts: list[Array]) -> Array:
        filler = self.size - self.rows
        if filler:
            parts.append(np.repeat(parts[-1][-1:], filler, axis=0))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


class Queue:
    """The waiting tickets of one lane, oldest deadline first. A withdrawn ticket's entry stays until it comes up."""

    __slots__ = ("heap", "oldest_at", "rows")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Ticket]] = []
        self.rows = 0
        self.oldest_at = inf

    def push(self, ticket: Ticket, arrival: int) -> None:
        heapq.heappush(self.heap, (ticket.deadline, arrival, ticket))
        ticket.queue = self
        self.oldest_at = min(self.oldest_at, ticket.queued_at)
        self.rows += ticket.rows

    def pop(self) -> Ticket:
        ticket = heapq.heappop(self.heap)[2]
        self.remove(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        ticket.queue = None
        self.rows -= ticket.rows
        while self.heap and self.heap[0][2].queue is None:
            heapq.heappop(self.heap)
        if len(self.heap) > 2 * self.rows + _SWEEP_FROM:  # mostly withdrawn, behind one that still waits
            self.heap = [entry for entry in self.heap if entry[2].queue is self]
            heapq.heapify(self.heap)

    def tickets(self) -> list[Ticket]:
        return [ticket for _, _, ticket in self.heap if ticket.queue is self]


class Dispatcher:
    """The lanes of one model, which share its model server: oldest deadline first, so no lane starves.

    `offer` and `withdraw` tickets, `take` batches until it gives none, and say `finished` for each of them.
    """

    def __init__(self, options: BatchingOptions) -> None:
        self.options = options
        self.waiting_rows = 0
        self.running: list[Batch] = []
        self._queues: dict[Lane, Queue] = {}
        self._arrivals = 0
        # (version, signature) → the shortest run so far: what no deadline can beat.
        self._fastest_run_s: dict[tuple[int, str], float] = {}

    def offer(self, ticket: Ticket, now: float) -> None:
        """Queue a ticket.

        Raises:
            BatchTooLarge: more rows than the largest batch.
            QueueFull: too many rows wait already.
        Nothing has changed then.
        """
        self._admit(ticket)
        self.offer_again(ticket, now)

    def offer_again(self, ticket: Ticket, now: float) -> None:
        """Queue a ticket that was admitted before, however many rows wait."""
        queue = self._queues.get(ticket.lane)
        if queue is None:
            queue = self._queues[ticket.lane] = Queue()
        ticket.queued_at = ticket.queued_at or now  # a step has waited behind others of its session before
        self._arrivals += 1
        queue.push(ticket, self._arrivals)
        self.waiting_rows += ticket.rows

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a ticket if it still waits; one that runs keeps its rows in the batch."""
        if ticket.queue is not None:
            queue = ticket.queue
            queue.remove(ticket)
            self.waiting_rows -= ticket.rows
            self._tidy(ticket.lane, queue)

    def take(self, now: float) -> Batch | None:
        """The next batch to run, or None while no slot is free or no lane is ready."""
        if len(self.running) >= self.options.in_flight:
            return None
        ready = [lane for lane, queue in self._queues.items() if self._ready_at(lane, queue) <= now]
        if not ready:
            return None
        lane = min(ready, key=lambda lane: self._queues[lane].heap[0][:2])  # the oldest deadline
        batch = self._form(lane, now)
        self.running.append(batch)
        return batch

    def finished(self, batch: Batch, now: float, *, succeeded: bool) -> None:
        """Free the slot of a batch that has ended."""
        self.running.remove(batch)
        if succeeded:
            key = (batch.lane.version, batch.lane.signature)
            self._fastest_run_s[key] = min(now - batch.started_at, self._fastest_run_s.get(key, inf))

    def hopeless(self, now: float) -> list[Ticket]:
        """Waiting tickets whose deadline has passed or is nearer than the fastest run seen: they get no slot.

        While nothing runs only the past counts: a first run that was slow must not shut out all that would be quick.
        """
        found: list[Ticket] = []
        for lane, queue in self._queues.items():
            horizon = now + self._fastest(lane) if self.running else now
            if queue.heap[0][0] <= horizon:
                found += [ticket for ticket in queue.tickets() if ticket.deadline <= horizon]
        return found

    def next_wakeup(self) -> float:
        """When a lane that lingers becomes ready, if nothing else happens; `inf`: never by time alone."""
        if len(self.running) >= self.options.in_flight:
            return inf
        return min((self._ready_at(lane, queue) for lane, queue in self._queues.items()), default=inf)

    def _ready_at(self, lane: Lane, queue: Queue) -> float:
        """When a lane may run: at once, or after lingering, which must not cost the oldest deadline."""
        lingers = self.options.linger_s > 0 and not self.running and queue.rows < self.options.max_rows
        if not lingers:
            return queue.oldest_at
        return min(queue.oldest_at + self.options.linger_s, queue.heap[0][0] - 2 * self._fastest(lane))

    def _fastest(self, lane: Lane) -> float:
        return self._fastest_run_s.get((lane.version, lane.signature), 0.0)

    def _admit(self, ticket: Ticket) -> None:
        options, model = self.options, ticket.lane.model
        if ticket.rows > options.max_rows:
            raise BatchTooLarge(
                f"A request of {ticket.rows} rows does not fit: the largest batch of model {model!r} has "
                f"{options.max_rows}. Send fewer rows, or raise allowed_batch_sizes.",
                limit=options.max_rows,
            )
        if self.waiting_rows + ticket.rows > options.queue_rows:
            raise QueueFull(
                f"The queue of model {model!r} is full: {self.waiting_rows} of {options.queue_rows} rows wait and "
                f"{ticket.rows} more came. Try again later, or raise queue_rows.",
                limit=options.queue_rows,
            )

    def _form(self, lane: Lane, now: float) -> Batch:
        queue = self._queues[lane]
        tickets: list[Ticket] = []
        rows = 0
        while queue.rows and rows + queue.heap[0][2].rows <= self.options.max_rows:
            tickets.append(queue.pop())
            rows += tickets[-1].rows
        self.waiting_rows -= rows
        self._tidy(lane, queue)
        return Batch(lane, tickets, rows, self.options.size_for(rows), now)

    def _tidy(self, lane: Lane, queue: Queue) -> None:
        """After tickets have left: a lane exists only while something waits in it."""
        if not queue.rows:
            del self._queues[lane]
        elif self.options.linger_s > 0:
            queue.oldest_at = min(ticket.queued_at for ticket in queue.tickets())


def too_late(ticket: Ticket, now: float) -> SluiceError:
    """The error of a ticket whose deadline has passed or cannot be met."""
    waited_ms = max(0, round((now - ticket.queued_at) * 1000)) if ticket.queued_at else 0
    return DeadlineExceeded(
        f"The answer of model {ticket.lane.model!r} did not come in time: {waited_ms} ms had passed when the deadline "
        "came or could no longer be met. Allow more with Sluice-Timeout-Ms, or send less at once."
    )
