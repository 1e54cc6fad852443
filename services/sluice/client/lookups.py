"""What is asked for once for all callers. It does not know what that is or how it is asked."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from copy import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

from sluice.client.errors import NoAnswer
from sluice.policy.errors import SluiceError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_GRACE_S = 1.0  # for the gateway's own word that the time was over


@dataclass(slots=True)
class _Lookup(Generic[V]):
    task: "asyncio.Future[V]"
    timeout_s: float
    waiting: int = 0


class Lookups(Generic[K, V]):
    """`ask` looks a key up, within seconds. Neither answers nor failures are kept."""

    def __init__(self, ask: Callable[[K, float], Awaitable[V]]) -> None:
        self._ask = ask
        self._running: dict[K, _Lookup[V]] = {}

    async def of(self, key: K, timeout_s: float) -> V:
        """The answer; callers at the same time share a look-up, unless it may not take as long as a caller may wait.

        Raises:
            NoAnswer: none came within `timeout_s`.
        """
        lookup = self._running.get(key)
        if lookup is None or lookup.timeout_s < timeout_s:
            lookup = self._running[key] = _Lookup(asyncio.ensure_future(self._ask(key, timeout_s)), timeout_s)
        lookup.waiting += 1
        try:
            done, _ = await asyncio.wait([lookup.task], timeout=timeout_s + _GRACE_S)
            if not done:
                raise NoAnswer(f"The gateway did not answer within {timeout_s:g} s.")
            return lookup.task.result()
        except SluiceError as error:
            raise copy(error) from None  # each caller has a traceback of its own
        finally:
            lookup.waiting -= 1
            if not lookup.waiting:
                lookup.task.cancel()
                if self._running.get(key) is lookup:
                    del self._running[key]
