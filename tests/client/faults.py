"""What tests of faults have in common: a clock that they turn, refusals, and a client of `Sums`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sluice.client import AsyncClient, SluiceError
from sluice.policy.errors import QueueFull
from tests.client.sums import Sums

Serve = Callable[[Sums], AbstractAsyncContextManager[tuple[str, Any]]]


@dataclass
class Time:
    """A clock that moves when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@asynccontextmanager
async def calling(served: Serve, sums: Sums, time: Time, **options: Any) -> AsyncIterator[AsyncClient]:
    async with (
        served(sums) as (url, _),
        AsyncClient(url, sleep=time.sleep, clock=time.clock, **options) as client,
    ):
        yield client


def waits(seconds: int, kind: type[SluiceError] = QueueFull) -> SluiceError:
    """A refusal that says how long to wait."""
    error = kind("Not now.")
    vars(error)["retry_after_s"] = seconds
    return error
