"""Keeps things in order of the time at which they want attention, and lets them change their mind cheaply.

It does not know what the things are, nor what time it is.
"""

import heapq
from collections.abc import Callable, Iterator
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")
_SWEEP_FROM = 1024


class Alarms(Generic[T]):
    """A heap of `(when, item)`. `is_current(when, item)` says whether an alarm still counts.

    Alarms that no longer count are dropped when they come up, and all together when they are the majority, so that
    setting one costs O(log n) however many were abandoned.
    """

    def __init__(self, is_current: Callable[[float, T], bool]) -> None:
        self._is_current = is_current
        self._heap: list[tuple[float, int, T]] = []
        self._set = 0
        self._sweep_at = _SWEEP_FROM

    def set(self, when: float, item: T) -> None:
        self._set += 1
        heapq.heappush(self._heap, (when, self._set, item))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def due(self, now: float) -> Iterator[T]:
        """Take out the items whose time has come, the earliest first."""
        while self.next_wakeup() <= now:
            yield heapq.heappop(self._heap)[2]

    def next_wakeup(self) -> float:
        """When the first alarm that counts goes off; `inf`: there is none."""
        while self._heap and not self._is_current(*self._heap[0][::2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def current(self) -> list[T]:
        """The items whose alarms count, in no particular order."""
        return [item for when, _, item in self._heap if self._is_current(when, item)]

    def __len__(self) -> int:
        return len(self._heap)

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_current(entry[0], entry[2])]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._heap))
