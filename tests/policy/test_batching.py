"""Batching: which rows run together and when, as sentences."""

from itertools import groupby

import pytest

from sluice.policy.batch import Batch, Lane, Ticket, too_late
from sluice.policy.batching import BatchingOptions, Dispatcher
from sluice.policy.errors import BatchTooLarge, QueueFull

from .lanes import EXACT, LANES, ticket_of


def dispatcher_of(**options: object) -> Dispatcher:
    return Dispatcher(BatchingOptions(**{"allowed_batch_sizes": (1, 2, 4), "in_flight": 1, **options}))


def offered(dispatcher: Dispatcher, *tickets: Ticket, now: float = 1.0) -> Dispatcher:
    for ticket in tickets:
        dispatcher.offer(ticket, now)
    return dispatcher


def batch_of(*tickets: Ticket, size: int) -> Batch:
    return Batch(tickets[0].lane, list(tickets), sum(ticket.rows for ticket in tickets), size, 1.0)


def test_what_waits_runs_as_soon_as_a_slot_is_free() -> None:
    batch = offered(dispatcher_of(), ticket_of()).take(1.0)
    assert batch is not None
    assert (batch.rows, batch.size) == (1, 1)


def test_while_all_slots_are_taken_batches_grow_by_themselves() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of())
    first = dispatcher.take(1.0)
    offered(dispatcher, ticket_of(), ticket_of(), ticket_of())
    assert dispatcher.take(1.0) is None
    dispatcher.finished(first, 2.0, succeeded=True)
    assert dispatcher.take(2.0).rows == 3


def test_lingering_counts_from_the_oldest_row() -> None:
    dispatcher = offered(dispatcher_of(linger_s=5.0), ticket_of(), now=1.0)
    offered(dispatcher, ticket_of(), now=5.0)
    assert dispatcher.take(5.9) is None
    assert dispatcher.next_wakeup() == 6.0
    assert dispatcher.take(6.0).rows == 2


def test_lingering_counts_anew_when_the_oldest_row_is_withdrawn() -> None:
    oldest = ticket_of()
    dispatcher = offered(dispatcher_of(linger_s=5.0), oldest, now=1.0)
    offered(dispatcher, ticket_of(), now=4.0)
    dispatcher.withdraw(oldest)
    assert dispatcher.next_wakeup() == 9.0


def test_lingering_ends_in_time_for_the_oldest_deadline() -> None:
    dispatcher = dispatcher_of(linger_s=50.0)
    quick = offered(dispatcher, *(ticket_of() for _ in range(4))).take(1.0)
    assert quick is not None
    dispatcher.finished(quick, 3.0, succeeded=True)
    offered(dispatcher, ticket_of(deadline=20.0), now=5.0)
    assert dispatcher.take(15.0) is None
    assert dispatcher.next_wakeup() == 16.0
    assert dispatcher.take(16.0) is not None


def test_withdrawn_tickets_do_not_pile_up_behind_one_that_waits() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of(deadline=1.0))
    first = dispatcher.take(1.0)
    kept = ticket_of(deadline=2.0)
    offered(dispatcher, kept)
    for _ in range(1000):
        gone = ticket_of(deadline=3.0)
        offered(dispatcher, gone)
        dispatcher.withdraw(gone)
    assert kept.queue is not None
    assert len(kept.queue.heap) < 100
    dispatcher.finished(first, 2.0, succeeded=True)
    assert dispatcher.take(2.0).tickets == [kept]


def test_nothing_lingers_beside_a_running_batch() -> None:
    dispatcher = offered(dispatcher_of(linger_s=5.0, in_flight=2), ticket_of(4))
    assert dispatcher.take(1.0) is not None
    assert offered(dispatcher, ticket_of()).take(1.0) is not None


def test_a_full_batch_does_not_linger() -> None:
    dispatcher = offered(dispatcher_of(linger_s=5.0), ticket_of(2), ticket_of(2))
    assert dispatcher.take(1.0).rows == 4


def test_the_lane_with_the_oldest_deadline_goes_first() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of(lane=LANES[0], deadline=9), ticket_of(lane=LANES[1], deadline=8))
    assert dispatcher.take(1.0).lane == LANES[1]


def test_high_priority_goes_first_and_low_priority_last_unless_they_are_ten_seconds_older() -> None:
    low, normal, high = (ticket_of(2, deadline=20.0, priority=name) for name in ("low", "normal", "high"))
    dispatcher = offered(dispatcher_of(in_flight=9), low, normal, high)
    assert dispatcher.take(1.0).tickets == [high, normal]
    later = offered(dispatcher, ticket_of(4, deadline=29.0), ticket_of(4, deadline=31.0))
    assert [later.take(1.0).tickets[0].deadline for _ in range(3)] == [29.0, 20.0, 31.0]


def test_a_deadline_that_is_hopeless_is_found_behind_others_of_higher_priority() -> None:
    late = ticket_of(deadline=12.0, priority="low")
    dispatcher = offered(dispatcher_of(), ticket_of(deadline=15.0, priority="high"), late)
    assert dispatcher.hopeless(11.0) == []
    assert dispatcher.hopeless(12.0) == [late]


def test_rows_that_do_not_fit_wait_and_are_not_overtaken() -> None:
    first, large, small = ticket_of(3), ticket_of(2), ticket_of(1)
    dispatcher = offered(dispatcher_of(), first, large, small)
    assert dispatcher.take(1.0).tickets == [first]


@pytest.mark.parametrize("other", LANES[1:])
def test_different_lanes_never_share_a_batch(other: Lane) -> None:
    dispatcher = offered(dispatcher_of(in_flight=2), ticket_of(), ticket_of(lane=other))
    assert [dispatcher.take(1.0).rows, dispatcher.take(1.0).rows] == [1, 1]


def test_a_batch_with_more_rows_than_fit_is_refused_with_the_limit() -> None:
    with pytest.raises(BatchTooLarge, match="5 rows does not fit: the largest batch of model 'm' has 4") as caught:
        dispatcher_of().offer(ticket_of(5), 1.0)
    assert caught.value.details == {"limit": 4}


def test_an_exact_request_runs_alone_and_as_large_as_it_is_whatever_else_waits() -> None:
    exact = [ticket_of(rows, EXACT, deadline) for rows, deadline in ((3, 2.0), (7, 3.0), (1, 4.0))]
    dispatcher = offered(dispatcher_of(linger_s=5.0), *exact, ticket_of(deadline=5.0), ticket_of(deadline=6.0))
    found = []
    for _ in range(4):
        found.append(dispatcher.take(7.0))
        dispatcher.finished(found[-1], 7.0, succeeded=True)
    assert [batch.tickets for batch in found[:3]] == [[each] for each in exact]
    assert [(batch.rows, batch.size) for batch in found] == [(3, 3), (7, 7), (1, 1), (2, 2)]


def test_an_exact_request_takes_no_riders_and_is_none() -> None:
    short, long = (Lane("m", 1, "a", bounds=(bound,)) for bound in (4, 8))
    dispatcher = offered(dispatcher_of(), ticket_of(3, long._replace(exact=True), 2.0), ticket_of(1, short, 4.0))
    first = dispatcher.take(1.0)
    assert (first.rows, first.size) == (3, 3)
    dispatcher.finished(first, 1.0, succeeded=True)
    offered(dispatcher, ticket_of(3, long, 3.0), ticket_of(1, short._replace(exact=True), 3.5))
    assert [ticket.lane for ticket in dispatcher.take(1.0).tickets] == [long, short]


def test_a_full_queue_says_how_many_wait_and_how_many_came() -> None:
    dispatcher = offered(dispatcher_of(queue_rows=4), ticket_of(3))
    with pytest.raises(QueueFull, match="'m' is full: 3 of 4 rows wait and 2 more came") as caught:
        dispatcher.offer(ticket_of(2), 1.0)
    assert caught.value.details == {"limit": 4}
    assert caught.value.retry_after_s == 1


def test_a_slot_is_freed_once() -> None:
    dispatcher = offered(dispatcher_of(in_flight=2), ticket_of(4), ticket_of(4))
    first, _ = dispatcher.take(1.0), dispatcher.take(1.0)
    dispatcher.finished(first, 2.0, succeeded=True)
    with pytest.raises(ValueError, match="not in list"):
        dispatcher.finished(first, 2.0, succeeded=True)
    assert len(dispatcher.running) == 1


def test_a_failed_run_says_nothing_about_how_fast_the_model_is() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of())
    dispatcher.finished(dispatcher.take(1.0), 9.0, succeeded=False)
    assert offered(dispatcher, ticket_of(deadline=12), now=9.0).hopeless(9.0) == []


def test_a_deadline_nearer_than_the_fastest_run_is_hopeless() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of())
    dispatcher.finished(dispatcher.take(1.0), 4.0, succeeded=True)
    assert offered(dispatcher, ticket_of(), now=4.0).take(4.0) is not None
    near, far = ticket_of(deadline=7), ticket_of(deadline=7.5)
    assert offered(dispatcher, far, near, now=4.0).hopeless(4.0) == [near]


def test_a_slow_first_run_shuts_nobody_out_once_nothing_runs() -> None:
    dispatcher = offered(dispatcher_of(), ticket_of())
    dispatcher.finished(dispatcher.take(1.0), 1000.0, succeeded=True)
    hurried = ticket_of(deadline=1001.0)
    assert offered(dispatcher, hurried, now=1000.0).hopeless(1000.0) == []
    assert dispatcher.take(1000.0).tickets == [hurried]


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_the_size_is_the_smallest_allowed_that_holds_the_rows(rows: int, size: int) -> None:
    assert BatchingOptions((1, 2, 4)).size_for(rows) == size


def test_filler_rows_repeat_the_last_real_one() -> None:
    batch = batch_of(ticket_of(1), ticket_of(2), size=5)
    assert batch.stacked()["x"].tolist() == [0, 0, 1, 1, 1]


def test_a_batch_without_filler_is_just_its_rows() -> None:
    assert batch_of(ticket_of(2), ticket_of(2), size=4).stacked()["x"].tolist() == [0, 1, 0, 1]
    assert batch_of(ticket_of(3), size=3).stacked()["x"].tolist() == [0, 1, 2]


def test_stacking_leaves_a_tickets_own_inputs_alone() -> None:
    ticket = ticket_of(3)
    batch_of(ticket, size=4).stacked()
    assert ticket.inputs["x"].tolist() == [0, 1, 2]


def test_spans_share_out_the_rows_without_gap_or_overlap() -> None:
    batch = batch_of(ticket_of(2), ticket_of(1), ticket_of(3), size=8)
    assert [(span.start, span.stop) for _, span in batch.spans()] == [(0, 2), (2, 3), (3, 6)]


def test_too_late_says_how_long_it_has_been() -> None:
    ticket = ticket_of()
    Dispatcher(BatchingOptions()).offer(ticket, 2.0)
    error = too_late(ticket, 3.5)
    assert "model 'm' did not come in time: 1500 ms had passed" in error.message
    assert "Sluice-Timeout-Ms" in error.message
    assert (error.code, error.http_status) == ("deadline_exceeded", 504)


def test_too_late_before_any_waiting_says_zero() -> None:
    assert "0 ms had passed" in too_late(ticket_of(), 77.0).message


def test_lanes_of_equal_tickets_are_equal() -> None:
    assert len([key for key, _ in groupby([Lane("m", 1, "a"), Lane("m", 1, "a"), Lane("m", 1, "a", alone=1)])]) == 2
