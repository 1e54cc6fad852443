"""Low priority: its rows fill gaps, keep to a share while others come, and take everything while none do."""

from math import inf
from random import Random

import pytest

from sluice.policy.batch import Batch, Lane, Ticket
from sluice.policy.batching import LOW_ROWS, BatchingOptions, Dispatcher
from tests.size import size

from .lanes import LANES, ticket_of

LIVE = LANES[0]
LOW = LIVE._replace(low=True)
LONGEST_S = 0.03  # that a batch runs
DENSE = tuple(range(1, 65))


def low(rows: int = 1, lane: Lane = LOW, deadline: float = 30.0) -> Ticket:
    return ticket_of(rows, lane, deadline, "low")


def live(rows: int = 1, lane: Lane = LIVE, deadline: float = 30.0) -> Ticket:
    return ticket_of(rows, lane, deadline)


def dispatcher_of(*tickets: Ticket, now: float = 1.0, **options: object) -> Dispatcher:
    found = Dispatcher(BatchingOptions(**{"allowed_batch_sizes": DENSE, **options}))
    for ticket in tickets:
        found.offer(ticket, now)
    return found


def ran(dispatcher: Dispatcher, begin: float, end: float, lane: Lane = LIVE) -> None:
    """A batch of one row has run."""
    dispatcher.offer(low() if lane.low else live(), begin)
    batch = dispatcher.take(begin)
    assert batch is not None and batch.lane == lane
    dispatcher.finished(batch, end, succeeded=True)


def test_low_priority_takes_the_place_of_filler_and_no_more() -> None:
    tickets = [low(2), low(1), low(1)]
    batch = dispatcher_of(live(5), *tickets, allowed_batch_sizes=(1, 8)).take(1.0)
    assert (batch.lane, batch.rows, batch.size) == (LIVE, 8, 8)
    assert batch.tickets[1:] == tickets[:2]
    batch = dispatcher_of(live(5), *tickets).take(1.0)
    assert (batch.rows, batch.size) == (5, 5)


def test_only_rows_that_could_share_a_batch_fill_it_and_shorter_ones_where_buckets_differ() -> None:
    short, long = (Lane("m", 1, "a", bounds=(bound,)) for bound in (4, 8))
    others = [low(1, lane._replace(low=True)) for lane in (short, long, LANES[1], LIVE._replace(bounds=(16,)))]
    batch = dispatcher_of(live(4, long), *others, allowed_batch_sizes=(8,)).take(1.0)
    assert {ticket.lane for ticket in batch.tickets} == {
        each._replace(low=low) for each, low in ((long, False), (long, True), (short, True))
    }
    alone = [
        low(1, LOW._replace(exact=True)),
        ticket_of(3, LIVE._replace(exact=True)),
        ticket_of(3, LIVE._replace(alone=1)),
    ]
    dispatcher = dispatcher_of(*alone, low(1), allowed_batch_sizes=(8,), in_flight=9)
    assert [len(dispatcher.take(1.0).tickets) for _ in range(4)] == [1, 1, 1, 1]


def test_while_no_others_come_low_priority_has_every_slot_and_whole_batches() -> None:
    dispatcher = dispatcher_of(*(low(8) for _ in range(20)))
    assert [dispatcher.take(1.0).rows for _ in range(2)] == [64, 64]
    first = dispatcher.running[0]
    dispatcher.finished(first, 2.0, succeeded=True)
    assert dispatcher.take(2.0).rows == 32


def test_while_others_come_low_priority_runs_small_batches_one_at_a_time_and_rests() -> None:
    dispatcher = dispatcher_of(in_flight=3, low_priority_share=0.25)
    ran(dispatcher, 1.0, 1.1)
    for _ in range(9):
        dispatcher.offer(low(LOW_ROWS // 2), 1.1)
    batch = dispatcher.take(1.1)
    assert (batch.lane, batch.rows) == (LOW, LOW_ROWS)
    assert dispatcher.take(1.1) is None
    assert dispatcher.next_wakeup() == 2.1, "then others have not come for a second"
    dispatcher.finished(batch, 1.3, succeeded=False)
    assert dispatcher.take(1.5) is None
    assert dispatcher.next_wakeup() == pytest.approx(1.9), "it has run for 0.2 s, and rests for 0.6 s"
    assert dispatcher.take(1.95).rows == LOW_ROWS


def test_while_others_come_no_queue_rides_in_a_batch_of_low_priority_that_is_not_small() -> None:
    short, long = (Lane("m", 1, "a", bounds=(bound,), low=True) for bound in (4, 8))
    dispatcher = dispatcher_of(low_priority_share=1.0)
    for n in range(48):  # what a run costs is learned: always the same, so that it is cheaper to share one
        dispatcher.offer(low(4, (short, long)[n % 2]), 1.0)
        dispatcher.finished(dispatcher.take(1.0), 2.0, succeeded=True)
    for rows, others in ((4 + 2 * LOW_ROWS, False), (LOW_ROWS, True)):
        if others:
            ran(dispatcher, 1.0, 1.0)
        dispatcher.offer(low(4, long), 1.0)
        for _ in range(LOW_ROWS):
            dispatcher.offer(low(2, short, 31.0), 1.0)
        batch = dispatcher.take(1.0)
        assert (batch.lane, batch.rows) == (long, rows if not others else 4)
        dispatcher.finished(batch, 1.0, succeeded=True)


def test_a_rest_ends_when_others_have_not_come_for_a_second() -> None:
    dispatcher = dispatcher_of(low_priority_share=0.01)
    ran(dispatcher, 1.0, 9.0, LOW)
    ran(dispatcher, 9.5, 9.6)
    dispatcher.offer(low(), 9.7)
    assert dispatcher.take(9.7) is None
    assert dispatcher.next_wakeup() == pytest.approx(10.6)
    assert dispatcher.take(10.7) is not None


def test_while_a_batch_of_others_runs_for_long_they_count_as_coming() -> None:
    dispatcher = dispatcher_of(live(deadline=90.0), in_flight=3)
    dispatcher.take(1.0)
    for _ in range(2):
        dispatcher.offer(low(deadline=90.0), 50.0)
    assert dispatcher.take(50.0).lane == LOW
    dispatcher.offer(low(deadline=90.0), 50.0)
    assert dispatcher.take(50.0) is None
    assert dispatcher.next_wakeup() == inf


def test_a_request_that_cannot_be_cut_runs_whole() -> None:
    dispatcher = dispatcher_of()
    ran(dispatcher, 1.0, 1.1)
    dispatcher.offer(low(40), 1.1)
    dispatcher.offer(low(30, LOW._replace(exact=True), 31.0), 1.1)
    batch = dispatcher.take(1.1)
    assert batch.rows == 40
    dispatcher.finished(batch, 1.1, succeeded=True)
    assert dispatcher.take(1.1).rows == 30


class Server:
    """Runs batches in made-up time, while an open loop of others' rows comes at `rate` a second until `until`."""

    def __init__(self, seed: int, rate: float, until: float, share: float, in_flight: int) -> None:
        self.random = Random(seed)
        sizes = self.random.choice([DENSE, (4, 16), (8, 32, 128)])
        self.dispatcher = dispatcher_of(low_priority_share=share, in_flight=in_flight, allowed_batch_sizes=sizes)
        self.now = 0.0
        self.rate, self.until = rate, until
        self.ran: list[tuple[Batch, float]] = []
        self.late: list[Ticket] = []
        self.wasted_s = 0.0  # that a slot was free while rows waited
        self._running: list[tuple[float, Batch]] = []
        self._next = self._gap()

    def _gap(self) -> float:
        return self.random.expovariate(self.rate) if self.rate else inf

    def run(self, outstanding: int, end: float) -> None:
        """Have so many requests of low priority wait or run at any time."""
        running = self._running
        for _ in range(outstanding):
            self.dispatcher.offer(low(self.random.randint(1, LOW_ROWS), deadline=self.now + 30), self.now)
        while self.now < end:
            while self.now < end and (batch := self.dispatcher.take(self.now)) is not None:
                running.append((self.now + self.random.uniform(0.002, LONGEST_S), batch))
            self.late += self.dispatcher.hopeless(self.now)
            done = min((at for at, _ in running), default=inf)
            until = min(self._next, done, self.dispatcher.next_wakeup(), end)
            if len(running) < self.dispatcher.options.in_flight and self.dispatcher.waiting_rows:
                self.wasted_s += until - self.now
            self.now = until
            for at, batch in [each for each in running if each[0] == self.now]:
                running.remove((at, batch))
                self.dispatcher.finished(batch, self.now, succeeded=True)
                self.ran.append((batch, self.now))
                for ticket in batch.tickets:
                    if ticket.lane.low:
                        self.dispatcher.offer(low(self.random.randint(1, LOW_ROWS), deadline=self.now + 30), self.now)
            if self.now == self._next:
                self.dispatcher.offer(live(deadline=self.now + 30), self.now)
                self._next = self.now + self._gap() if self.now < self.until else inf

    def took_s(self, begin: float) -> float:
        """What batches of low priority took that began then or later."""
        took = (end - batch.started_at for batch, end in self.ran if batch.lane.low and batch.started_at >= begin)
        return sum(took)


SEEDS = range(size(12, 200))


@pytest.mark.parametrize("seed", SEEDS)
def test_while_others_come_batches_of_low_priority_keep_to_their_share(seed: int) -> None:
    random = Random(f"share {seed}")
    share, in_flight = random.choice([0.1, 0.5, 0.9]), random.randint(1, 3)
    server = Server(seed, random.choice([10, 60, 300]), inf, share, in_flight)
    server.run(outstanding=20, end=8.0)
    begin = next(end for batch, end in server.ran if not batch.lane.low)
    assert 0 < server.took_s(begin) <= share * (8.0 - begin) + LONGEST_S


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_without_others_no_slot_is_free_while_low_priority_waits(seed: int) -> None:
    server = Server(seed, rate=50, until=1.0, share=0.1, in_flight=2)
    server.run(outstanding=40, end=1.0)
    alone_from = 1.0 + 1.5  # a second after the last of the others has run
    server.run(outstanding=0, end=alone_from)
    server.wasted_s = 0.0
    server.run(outstanding=0, end=alone_from + 2)
    assert server.wasted_s == 0


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_however_many_others_wait_low_priority_is_answered_in_the_end(seed: int) -> None:
    server = Server(seed, rate=3000, until=inf, share=0.5, in_flight=1)
    server.dispatcher.options = BatchingOptions(tuple(range(1, 17)), 1, queue_rows=10**9, low_priority_share=0.5)
    server.run(outstanding=2, end=12.0)
    first = min(end for batch, end in server.ran if any(ticket.lane.low for ticket in batch.tickets))
    assert any(batch.lane.low for batch, _ in server.ran)
    assert first < 12.0
    assert server.late == []
