"""Alarms: the earliest first, those that no longer count never, and memory for no more than twice those that do."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from sluice.policy.alarms import Alarms


def test_without_alarms_nothing_is_ever_due() -> None:
    alarms: Alarms[str] = Alarms(lambda _, item: True)
    assert alarms.next_wakeup() == inf
    assert list(alarms.due(1e9)) == []


def test_an_alarm_at_now_is_due_and_one_after_it_is_not() -> None:
    alarms: Alarms[str] = Alarms(lambda _, item: True)
    for when, item in [(3.0, "later"), (2.0, "now"), (1.0, "before")]:
        alarms.set(when, item)
    assert list(alarms.due(2.0)) == ["before", "now"]
    assert alarms.next_wakeup() == 3.0


def test_items_with_the_same_time_come_in_the_order_they_were_set_and_are_not_compared() -> None:
    alarms: Alarms[object] = Alarms(lambda _, item: True)
    items = [object() for _ in range(5)]
    for item in items:
        alarms.set(1.0, item)
    assert list(alarms.due(1.0)) == items


def test_an_item_may_set_an_alarm_while_it_is_dealt_with() -> None:
    alarms: Alarms[str] = Alarms(lambda _, item: True)
    alarms.set(1.0, "first")
    found = []
    for item in alarms.due(2.0):
        found.append(item)
        if item == "first":
            alarms.set(1.5, "second")
    assert found == ["first", "second"]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60), st.integers(0, 50))
def test_due_are_the_current_ones_in_order(alarms: list[tuple[int, bool]], now: int) -> None:
    current = {number for number, (_, counts) in enumerate(alarms) if counts}
    heap: Alarms[int] = Alarms(lambda when, number: number in current and alarms[number][0] == when)
    for number, (when, _) in enumerate(alarms):
        heap.set(float(when), number)
    expected = sorted((alarms[number][0], number) for number in current)
    assert heap.next_wakeup() == (expected[0][0] if expected else inf)
    assert list(heap.due(float(now))) == [number for when, number in expected if when <= now]


def test_abandoned_alarms_do_not_pile_up_behind_one_that_counts() -> None:
    current = {-1}
    alarms: Alarms[int] = Alarms(lambda _, number: number in current)
    alarms.set(0.0, -1)
    for number in range(20_000):
        current.add(number)
        alarms.set(float(number), number)
        current.discard(number)
    assert len(alarms) <= 1025
    assert list(alarms.due(1e9)) == [-1]


def test_sweeping_loses_none_that_counts() -> None:
    alarms: Alarms[int] = Alarms(lambda _, number: number % 3 == 0)
    for number in range(9000):
        alarms.set(float(-number), number)
    assert list(alarms.due(0.0)) == list(range(8997, -1, -3))
