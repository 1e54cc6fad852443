"""Batching: which rows run together and when. One machine against a sorted list that is looked through each time."""

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sluice.policy.batch import Batch, Lane, Ticket
from sluice.policy.batching import LOW_ROWS, BatchingOptions, Dispatcher
from sluice.policy.errors import BatchTooLarge, QueueFull
from tests.size import size

from .lanes import EXACT, LANES, LOW, ticket_of
from .puppet import FAR

SIZES = ((1,), (1, 2, 4), (2, 3, 8), (1, 2, 3, 4, 5, 16), (1, 4, 8, 32))


def fitting(tickets: list[Ticket], room: int) -> list[Ticket]:
    """As many of the first tickets as have room for their rows."""
    fit = [sum(ticket.rows for ticket in tickets[: n + 1]) <= room for n in range(len(tickets))]
    return tickets[: fit.count(True)]


class DispatcherMachine(RuleBasedStateMachine):
    """The oracle is the list of waiting tickets in order, looked through from the start each time.

    They are ordered by deadline, as their priority counts it, then by arrival. Whether low priority rests is found from
    the history of all batches.
    """

    @initialize(
        sizes=st.sampled_from(SIZES),
        in_flight=st.integers(1, 3),
        linger_s=st.sampled_from([0.0, 4.0, 20.0]),
        queue_rows=st.integers(1, 30),
        share=st.sampled_from([1.0, 0.5, 0.25]),
    )
    def begin(self, sizes: tuple[int, ...], in_flight: int, linger_s: float, queue_rows: int, share: float) -> None:
        self.options = BatchingOptions(sizes, in_flight, linger_s, queue_rows, share)
        self.dispatcher = Dispatcher(self.options)
        self.now = 1.0
        self.waiting: list[Ticket] = []
        self.running: list[Batch] = []
        self.gone: list[Ticket] = []
        self.offered = 0
        self.fastest: dict[tuple[int, str], float] = {}
        self.ended: list[tuple[float, float, bool]] = []  # begin, end, and whether it was of low priority

    @rule(
        rows=st.sampled_from([1, 1, 2, 3, 5, 7]),
        lane=st.sampled_from([*LANES, EXACT, *LOW]),
        allowed_s=st.one_of(st.integers(-3, 12), st.just(FAR)),
        priority=st.sampled_from(["normal", "normal", "high", "low"]),
    )
    def offer(self, rows: int, lane: Lane, allowed_s: float, priority: str) -> None:
        ticket = ticket_of(rows, lane, self.now + allowed_s, priority)
        refusal = None
        if rows > self.options.max_rows and not lane.exact:
            refusal = BatchTooLarge
        elif sum(each.rows for each in self.waiting) + rows > self.options.queue_rows:
            refusal = QueueFull
        if refusal is None:
            self.dispatcher.offer(ticket, self.now)
            self.offered += 1
            self.waiting.append(ticket)
            self.waiting.sort(key=lambda each: each.deadline + each.priority_s)  # stable: arrival decides among equals
        else:
            before = self.seen()
            with pytest.raises(refusal):
                self.dispatcher.offer(ticket, self.now)
            assert self.seen() == before

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.dispatcher.withdraw(ticket)
        self.waiting.remove(ticket)
        self.gone.append(ticket)

    @precondition(lambda self: self.running or self.gone)
    @rule(data=st.data())
    def withdraw_what_does_not_wait(self, data: st.DataObject) -> None:
        before = self.seen()
        self.dispatcher.withdraw(data.draw(st.sampled_from(self.gone + [t for b in self.running for t in b.tickets])))
        assert self.seen() == before

    @rule()
    def take(self) -> None:
        expected = self.expected()
        batch = self.dispatcher.take(self.now)
        if expected is None:
            assert batch is None
            return
        assert batch is not None
        assert batch.tickets == expected
        assert {ticket.lane._replace(low=batch.lane.low) for ticket in batch.tickets} == {batch.lane}
        assert batch.rows == sum(ticket.rows for ticket in expected)
        if batch.lane.exact:
            assert batch.size == batch.rows
        else:
            assert batch.size == min(size for size in self.options.allowed_batch_sizes if size >= batch.rows)
        assert batch.started_at == self.now
        self.waiting = [ticket for ticket in self.waiting if ticket not in expected]
        self.running.append(batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), succeeded=st.booleans())
    def finish(self, data: st.DataObject, succeeded: bool) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.dispatcher.finished(batch, self.now, succeeded=succeeded)
        self.running.remove(batch)
        self.gone += batch.tickets
        self.ended.append((batch.started_at, self.now, batch.lane.low))
        if succeeded:
            key, run_s = (batch.lane.version, batch.lane.signature), self.now - batch.started_at
            self.fastest[key] = min(run_s, self.fastest.get(key, inf))

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def counts_are_the_oracles(self) -> None:
        assert self.dispatcher.waiting_rows == sum(ticket.rows for ticket in self.waiting) <= self.options.queue_rows
        assert self.dispatcher.running == self.running
        assert len(self.running) <= self.options.in_flight
        assert [ticket.queue is not None for ticket in self.waiting] == [True] * len(self.waiting)

    @invariant()
    def hopeless_are_those_that_no_run_was_ever_fast_enough_for(self) -> None:
        late = [ticket for ticket in self.waiting if ticket.deadline <= self.now + self.horizon(ticket.lane)]
        found = self.dispatcher.hopeless(self.now)
        assert len(found) == len(late)
        assert set(found) == set(late)

    @invariant()
    def it_wakes_up_when_a_lane_becomes_ready(self) -> None:
        wakeup = self.dispatcher.next_wakeup()
        if len(self.running) >= self.options.in_flight or not self.waiting:
            assert wakeup == inf
        elif self.expected() is not None:
            assert wakeup <= self.now
        else:
            assert wakeup == min(self.ready_at(lane) for lane in self.lanes()) > self.now

    def teardown(self) -> None:
        """Everything that was taken on comes out, exactly once."""
        if not hasattr(self, "dispatcher"):
            return
        self.now += self.options.linger_s
        while self.waiting or self.running:
            while self.expected() is not None:
                self.take()
            if not self.running:  # low priority rests
                self.now = self.dispatcher.next_wakeup()
                assert self.now < inf
                continue
            batch = self.running.pop()
            self.dispatcher.finished(batch, self.now, succeeded=True)
            self.ended.append((batch.started_at, self.now, batch.lane.low))
            self.gone += batch.tickets
        assert self.dispatcher.take(self.now) is None
        assert len(self.gone) == len(set(self.gone)) == self.offered

    def expected(self) -> list[Ticket] | None:
        """The tickets of the batch that must be given now."""
        if len(self.running) >= self.options.in_flight:
            return None
        ready = (lane for lane in self.lanes() if self.ready_at(lane) <= self.now)
        lane = next(ready, None)  # the lane with the oldest deadline comes first, as its first ticket does
        return None if lane is None else self.formed(lane)

    def ready_at(self, lane: list[Ticket]) -> float:
        full = sum(ticket.rows for ticket in lane) >= self.options.max_rows
        ready_at = self.lingers_until(lane)
        if self.running or full:
            ready_at = min(ticket.queued_at for ticket in lane)
        return max(ready_at, self.low_at()) if lane[0].lane.low else ready_at

    def low_at(self) -> float:
        """When a batch of low priority may start, as the batches were that ran before."""
        if any(batch.lane.low for batch in self.running):
            return self.others_until()
        share = self.options.low_priority_share
        rested = [end + (end - begin) * (1 / share - 1) for begin, end, low in self.ended if low]
        return min([self.others_until(), *rested[-1:]]) if rested else -inf

    def others_until(self) -> float:
        """They run, or ran within a second."""
        if any(not batch.lane.low for batch in self.running):
            return inf
        return max((end + 1 for _, end, low in self.ended if not low), default=-inf)

    def formed(self, lane: list[Ticket]) -> list[Ticket]:
        options, form = self.options, lane[0].lane
        if form.exact:
            return lane[:1]
        room = options.max_rows
        if form.low and self.now < self.others_until():
            few = min(size for size in options.allowed_batch_sizes if size >= min(LOW_ROWS, room))
            room = max(few, lane[0].rows)
        found = fitting(lane, room)
        rows = sum(ticket.rows for ticket in found)
        filler = min(size for size in options.allowed_batch_sizes if size >= rows) - rows
        twins = [other for other in self.lanes() if other[0].lane == form._replace(low=True)]
        return found + [ticket for twin in twins if not form.low for ticket in fitting(twin, filler)]

    def horizon(self, lane: Lane) -> float:
        """While nothing runs only the past counts."""
        return self.fastest.get((lane.version, lane.signature), 0) if self.running else 0

    def lanes(self) -> list[list[Ticket]]:
        lanes: dict[Lane, list[Ticket]] = {}
        for ticket in self.waiting:
            lanes.setdefault(ticket.lane, []).append(ticket)
        return list(lanes.values())

    def lingers_until(self, lane: list[Ticket]) -> float:
        """Counted from the oldest row, but never so long that the oldest deadline could not be met."""
        oldest = min(ticket.queued_at for ticket in lane)
        if not self.options.linger_s or lane[0].lane.exact:
            return oldest
        fastest = self.fastest.get((lane[0].lane.version, lane[0].lane.signature), 0)
        return min(oldest + self.options.linger_s, min(ticket.deadline for ticket in lane) - 2 * fastest)

    def seen(self) -> tuple[object, ...]:
        found = self.dispatcher
        return (
            found.waiting_rows,
            list(found.running),
            found.next_wakeup(),
            found.hopeless(self.now),
            found.hopeless(FAR * 2),
        )


DispatcherMachine.TestCase.settings = settings(max_examples=size(100, 3000), stateful_step_count=40)
TestDispatcher = DispatcherMachine.TestCase
