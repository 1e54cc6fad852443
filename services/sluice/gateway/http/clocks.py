"""How long connections may wait for one thing: when one has waited too long something is done about it.

It does not know what they wait for.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")


class Clock(Generic[Waiting]):
    """Calls `over` with whoever has waited for `limit_s`, and with the longest waiting one while more than `most` do.

    All wait equally long, so that they stand in the order of their ends, and one timer does for all.
    """

    def __init__(self, limit_s: float, over: Callable[[Waiting], None], most: int = sys.maxsize) -> None:
        self.limit_s = limit_s
        self._over = over
        self._most = most
        self._since: dict[Waiting, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, waiting: Waiting) -> bool:
        return waiting in self._since

    def begin(self, waiting: Waiting) -> None:
        """It waits from now on; if it does so already, since then."""
        if waiting in self._since:
            return
        loop = asyncio.get_running_loop()
        self._since[waiting] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self.limit_s, self._look)
        if len(self._since) > self._most:
            self._end(next(iter(self._since)))

    def stop(self, waiting: Waiting) -> None:
        """It does not wait, or not any more."""
        self._since.pop(waiting, None)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while self._since:
            waiting, since = next(iter(self._since.items()))
            end = since + self.limit_s
            if end > loop.time():
                self._timer = loop.call_at(end, self._look)
                return
            self._end(waiting)

    def _end(self, waiting: Waiting) -> None:
        del self._since[waiting]
        self._over(waiting)
