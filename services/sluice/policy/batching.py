"""Decides which waiting rows of one model run together, and when.

It does not know what rows mean, who asked, how a model is called, or what time it is: time is an argument.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from sluice.policy.batch import Batch, Lane, Ticket
from sluice.policy.cost import RunCost
from sluice.policy.errors import BatchTooLarge, QueueFull

_SWEEP_FROM = 64
# Rows of low priority are offered in parts of so many at most. Where filler would be there is room for a part now and
# then, and whoever comes while one runs alone does not notice much of it.
LOW_ROWS = 8
_LIVE_S = 1.0  # after a batch of other rows, they are expected to come again for so long


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How one model's rows are batched.

    allowed_batch_sizes: increasing row counts that the model server sees; a batch is filled up to the next one.
        Few sizes suit a GPU, many sizes a CPU. The last one is the largest batch.
    in_flight: batches that may run at the same time. Two hide the time on the wire; more make batches smaller.
    linger_s: how long the oldest row waits for company while the model server is idle, in seconds. While the server
        is busy batches grow by themselves, so 0 is right unless requests are rare and running one is dear.
    queue_rows: rows that may wait; beyond it a request is refused at once.
    low_priority_share: while other rows come, the share of one slot's time that batches of low priority may take, more
        than 0 and at most 1. The less, the less the others notice.
    """

    allowed_batch_sizes: tuple[int, ...] = (
        *range(1, 9),
        *range(10, 17, 2),
        *range(20, 33, 4),
        *range(40, 65, 8),
        80,
        96,
        112,
        128,
    )
    in_flight: int = 2
    linger_s: float = 0.0
    queue_rows: int = 4096
    low_priority_share: float = 0.5

    @property
    def max_rows(self) -> int:
        return self.allowed_batch_sizes[-1]

    def size_for(self, rows: int) -> int:
        """The smallest allowed batch size that holds `rows` rows."""
        return self.allowed_batch_sizes[bisect_left(self.allowed_batch_sizes, rows)]


class Queue:
    """The waiting tickets of one lane, oldest deadline first, as their priorities count it.

    A withdrawn ticket's entry stays until it comes up. `oldest_at`, since when one of them has been on its way, and
    `deadline` are no later than those of any ticket that waits.
    """

    __slots__ = ("deadline", "heap", "oldest_at", "rows", "stale")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Ticket]] = []
        self.rows = 0
        self.stale = False  # a ticket has left since `oldest_at` and `deadline` were found
        self.oldest_at = self.deadline = inf

    def push(self, ticket: Ticket, arrival: int) -> None:
        heapq.heappush(self.heap, (ticket.urgency, arrival, ticket))
        ticket.queue = self
        self.oldest_at = min(self.oldest_at, ticket.began_at)
        self.deadline = min(self.deadline, ticket.deadline)
        self.rows += ticket.rows

    def pop(self) -> Ticket:
        ticket = heapq.heappop(self.heap)[2]
        self.remove(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        ticket.queue = None
        self.stale = True
        self.rows -= ticket.rows
        while self.heap and self.heap[0][2].queue is None:
            heapq.heappop(self.heap)
        if len(self.heap) > 2 * self.rows + _SWEEP_FROM:  # mostly withdrawn, behind one that still waits
            self.heap = [entry for entry in self.heap if entry[2].queue is self]
            heapq.heapify(self.heap)

    def refresh(self) -> None:
        """Find `oldest_at` and `deadline` of those that wait now."""
        if self.stale:
            waiting = self.tickets()
            self.oldest_at = min(ticket.began_at for ticket in waiting)
            self.deadline = min(ticket.deadline for ticket in waiting)
            self.stale = False

    def tickets(self) -> list[Ticket]:
        return [ticket for _, _, ticket in self.heap if ticket.queue is self]

    def due(self, horizon: float) -> list[Ticket]:
        """The tickets whose deadline is no later."""
        if self.deadline > horizon:
            return []
        waiting = self.tickets()
        self.deadline = min(ticket.deadline for ticket in waiting)
        return [ticket for ticket in waiting if ticket.deadline <= horizon]


class Dispatcher:
    """The lanes of one model, which share its model server: oldest deadline first, so no lane starves.

    Rows of low priority wait in lanes of their own. They take the place of filler in others' batches. While other rows
    come, their own batches are small and run one at a time, with a rest after each, so that they keep to their share;
    while none come they run as any do.

    `offer` and `withdraw` tickets, `take` batches until it gives none, and say `finished` for each of them.
    """

    def __init__(self, options: BatchingOptions) -> None:
        self.options = options
        self.waiting_rows = 0
        self._further_rows = 0  # of these, those whose tickets have run before
        self.running: list[Batch] = []
        self._queues: dict[Lane, Queue] = {}
        self._exclusive: set[Lane] = set()  # those of the lanes that run while nothing else does
        self._low: set[Lane] = set()  # those of the lanes that are of low priority
        self._low_from = -inf  # when a batch of theirs may start while other rows come
        self._live_until = -inf  # until then other rows are expected, should none run
        self._arrivals = 0
        # (version, signature) → the shortest run so far: what no deadline can beat.
        self._fastest_run_s: dict[tuple[int, str], float] = {}
        # (version, signature) → what runs take, where rows are padded to buckets.
        self._costs: dict[tuple[int, str], RunCost] = {}

    def offer(self, ticket: Ticket, now: float) -> None:
        """Queue a ticket.

        Raises:
            BatchTooLarge: more rows than the largest batch, and they are no batch of their own.
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
            if ticket.lane.exclusive:
                self._exclusive.add(ticket.lane)
            if ticket.lane.low:
                self._low.add(ticket.lane)
        ticket.queued_at = ticket.queued_at or now  # a step has waited behind others of its session before
        ticket.began_at = ticket.began_at or ticket.queued_at
        self._arrivals += 1
        queue.push(ticket, self._arrivals)
        self._count(ticket, ticket.rows)

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a ticket if it still waits; one that runs keeps its rows in the batch."""
        if ticket.queue is not None:
            queue = ticket.queue
            queue.remove(ticket)
            self._count(ticket, -ticket.rows)
            self._tidy(ticket.lane, queue)

    def take(self, now: float) -> Batch | None:
        """The next batch to run, or None while no slot is free or no lane is ready."""
        if self._full:
            return None
        ready = [lane for lane, queue in self._queues.items() if self._ready_at(lane, queue) <= now]
        if not ready:
            return None
        ready = [*self._exclusive] or ready
        lane = min(ready, key=lambda lane: self._queues[lane].heap[0][:2])  # the oldest deadline
        batch = self._form(lane, now)
        self.running.append(batch)
        return batch

    def finished(self, batch: Batch, now: float, *, succeeded: bool) -> None:
        """Free the slot of a batch that has ended."""
        self.running.remove(batch)
        if batch.lane.low:
            self._low_from = now + (now - batch.started_at) * (1 / self.options.low_priority_share - 1)
        else:
            self._live_until = now + _LIVE_S
        if succeeded:
            key = (batch.lane.version, batch.lane.signature)
            self._fastest_run_s[key] = min(now - batch.started_at, self._fastest_run_s.get(key, inf))
            if batch.lane.bounds and not batch.lane.exact:  # which says nothing of how many rows share a run
                cost = self._costs.setdefault(key, RunCost())
                cost.observe(batch.size, batch.lane.elements, now - batch.started_at, batch.rows)

    def hopeless(self, now: float) -> list[Ticket]:
        """Waiting tickets whose deadline has passed or is nearer than the fastest run seen: they get no slot.

        While nothing runs only the past counts: a first run that was slow must not shut out all that would be quick.
        """
        found: list[Ticket] = []
        for lane, queue in self._queues.items():
            found += queue.due(now + self._fastest(lane) if self.running else now)
        return found

    def cost(self, version: int, signature: str) -> RunCost:
        """What runs of a signature take whose rows are padded; nothing is known of it at first."""
        return self._costs.get((version, signature), RunCost())

    def next_wakeup(self) -> float:
        """When a lane that lingers becomes ready, if nothing else happens; `inf`: never by time alone."""
        if self._full:
            return inf
        return min((self._ready_at(lane, queue) for lane, queue in self._queues.items()), default=inf)

    @property
    def _full(self) -> bool:
        """Whether no batch may start before one has ended."""
        running = self.running
        alone = running and (self._exclusive or running[0].lane.exclusive)
        return bool(alone) or len(running) >= self.options.in_flight

    def _ready_at(self, lane: Lane, queue: Queue) -> float:
        """When a lane may run: at once; after lingering, which must not cost the oldest deadline; or at its share."""
        ready_at, options = queue.oldest_at, self.options
        lingers = options.linger_s > 0 and not self.running and queue.rows < options.max_rows
        if lingers and not lane.exclusive and not lane.exact:
            queue.refresh()
            ready_at = min(queue.oldest_at + options.linger_s, queue.deadline - 2 * self._fastest(lane))
        return max(ready_at, self._low_at) if lane.low else ready_at

    @property
    def _low_at(self) -> float:
        """When a batch of low priority may start; `inf`: not before another has ended."""
        low_runs, until = any(batch.lane.low for batch in self.running), self._others_until
        return until if low_runs else min(self._low_from, until)

    @property
    def _others_until(self) -> float:
        """Until when other rows than those of low priority are expected."""
        return inf if any(not batch.lane.low for batch in self.running) else self._live_until

    def _fastest(self, lane: Lane) -> float:
        return self._fastest_run_s.get((lane.version, lane.signature), 0.0)

    def _admit(self, ticket: Ticket) -> None:
        options, model = self.options, ticket.lane.model
        if ticket.rows > options.max_rows and not ticket.lane.exact:
            raise BatchTooLarge(
                f"A request of {ticket.rows} rows does not fit: the largest batch of model {model!r} has "
                f"{options.max_rows}. Send fewer rows, or raise allowed_batch_sizes.",
                limit=options.max_rows,
            )
        waiting = self.waiting_rows - self._further_rows
        if waiting + ticket.rows > options.queue_rows:
            raise QueueFull(
                f"The queue of model {model!r} is full: {waiting} of {options.queue_rows} rows wait and "
                f"{ticket.rows} more came. Try again later, or raise queue_rows.",
                limit=options.queue_rows,
            )

    def _count(self, ticket: Ticket, rows: int) -> None:
        self.waiting_rows += rows
        if ticket.has_run:
            self._further_rows += rows

    def _form(self, lane: Lane, now: float) -> Batch:
        """The requests whose deadlines come first, as many as fit; then riders from shorter buckets, and fillers."""
        first, room = self._queues[lane].heap[0][2].rows, self.options.max_rows
        if not lane.shared:
            room = first
        elif lane.low and now < self._others_until:
            room = max(first, self.options.size_for(min(LOW_ROWS, room)))
        tickets, rows = self._popped(lane, room)
        if not lane.shared:
            return Batch(lane, tickets, rows, rows, now)
        if lane.bounds and not lane.alone:
            rows = self._add_riders(lane, tickets, rows, room)
        size = self.options.size_for(rows)
        if self._low and not lane.low:
            rows = self._add_fillers(lane, tickets, rows, size)
        return Batch(lane, tickets, rows, size, now)

    def _add_riders(self, lane: Lane, tickets: list[Ticket], rows: int, most: int) -> int:
        """Add tickets of shorter buckets that had better run in this batch, of `rows` rows and of `most`, than later.

        In the place of filler rows they cost nothing. Beyond that a whole queue rides along if that is cheaper than a
        batch of its own. Whose first deadline is older goes first.
        """
        cost = self.cost(lane.version, lane.signature)
        for other in self._by_deadline(other for other in self._queues if lane.carries(other)):
            waiting = self._queues[other].rows
            rides = rows + waiting <= most and cost.rides(waiting, other.elements, lane.elements)
            riders, more = self._popped(other, (most if rides else self.options.size_for(rows)) - rows)
            tickets += riders
            rows += more
        return rows

    def _add_fillers(self, lane: Lane, tickets: list[Ticket], rows: int, size: int) -> int:
        """Add tickets of low priority in the place of filler rows, where they cost nothing."""
        for low in self._by_deadline(low for low in self._low if lane.fills(low)):
            fillers, more = self._popped(low, size - rows)
            tickets += fillers
            rows += more
        return rows

    def _by_deadline(self, lanes: Iterable[Lane]) -> list[Lane]:
        return sorted(lanes, key=lambda lane: self._queues[lane].heap[0][:2])

    def _popped(self, lane: Lane, room: int) -> tuple[list[Ticket], int]:
        """The first tickets of a lane, as many as have room for their rows, and how many rows these are."""
        queue = self._queues[lane]
        tickets: list[Ticket] = []
        rows = 0
        while queue.rows and rows + queue.heap[0][2].rows <= room:
            tickets.append(queue.pop())
            rows += tickets[-1].rows
            self._count(tickets[-1], -tickets[-1].rows)
        self._tidy(lane, queue)
        return tickets, rows

    def _tidy(self, lane: Lane, queue: Queue) -> None:
        """After tickets have left: a lane exists only while something waits in it."""
        if not queue.rows:
            del self._queues[lane]
            if lane.exclusive:
                self._exclusive.discard(lane)
            if lane.low:
                self._low.discard(lane)
