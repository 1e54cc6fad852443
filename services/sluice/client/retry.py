"""When a call is sent again, and after how long. It does not know what a call is or how it travels."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from sluice.client.errors import NoAnswer
from sluice.policy.errors import DeadlineExceeded, TooMany, Unavailable

T = TypeVar("T")

_BACKOFF = wait_random_exponential(multiplier=0.1, max=5.0)
_SHORTEST_S = 0.001


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client goes on.

    `attempts` bounds how often a call is sent; `timeout_s` is what the gateway gets for each attempt, in seconds (raise
    it for long scans); no attempt begins later than `total_s` seconds after the first. `sleep` and `clock` (seconds)
    are asyncio's and the system's, except in tests.

    Raises:
        ValueError: there is no attempt, `timeout_s` is no positive number, or `total_s` none.
    """

    attempts: int = 8
    timeout_s: float = 10.0
    total_s: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, Integral) or self.attempts < 1:
            raise ValueError(f'"attempts" is a whole number from 1; got {self.attempts!r:.80}.')
        if not isinstance(self.timeout_s, Real) or not 0 < self.timeout_s < math.inf:
            raise ValueError(f'"timeout_s" is a positive number of seconds; got {self.timeout_s!r:.80}.')
        if not isinstance(self.total_s, Real) or math.isnan(self.total_s):
            raise ValueError(f'"total_s" is a number of seconds; got {self.total_s!r:.80}.')


def worth_repeating(error: BaseException | None, *, repeatable: bool) -> bool:
    """Whether the same call may be answered later, and can be sent again without harm.

    429, 503 and 504 moved no state. Without an answer nobody knows, so the call itself must be `repeatable`.
    """
    return isinstance(error, TooMany | Unavailable | DeadlineExceeded) or (repeatable and isinstance(error, NoAnswer))


async def persistently(attempt: Callable[[float], Awaitable[T]], patience: Patience, *, repeatable: bool = True) -> T:
    """The result of `attempt`, which gets its time limit in seconds and is made again while that is worth it.

    Raises:
        SluiceError: the last attempt's.
    """
    give_up_at = patience.clock() + patience.total_s

    async def once() -> T:
        left_s = max(give_up_at - patience.clock(), _SHORTEST_S)
        return await attempt(min(patience.timeout_s, left_s))

    retrying = AsyncRetrying(
        sleep=patience.sleep,
        stop=stop_after_attempt(patience.attempts) | _TooLate(patience.clock, give_up_at),
        wait=_wait_s,
        retry=retry_if_exception(lambda error: worth_repeating(error, repeatable=repeatable)),
        reraise=True,
    )
    return await retrying(once)


class _TooLate(stop_base):
    """The next attempt would begin too late, in the clock's seconds."""

    def __init__(self, clock: Callable[[], float], give_up_at: float) -> None:
        self._clock = clock
        self._give_up_at = give_up_at

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._clock() + retry_state.upcoming_sleep >= self._give_up_at


def _wait_s(state: RetryCallState) -> float:
    """As long as the gateway says; else longer after each attempt, by chance, so that clients do not come together."""
    error = state.outcome.exception() if state.outcome else None
    told: int | None = getattr(error, "retry_after_s", None)
    return _BACKOFF(state) if told is None else told
