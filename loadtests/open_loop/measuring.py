"""Finds the highest rate of each scenario: probes of a gateway, one after the other, until the search has enough."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import cast
from uuid import uuid4

import numpy as np

from loadtests.open_loop.probe import Probe, judged
from loadtests.open_loop.schedule import Array, arrivals
from loadtests.open_loop.search import Bounds, Tried, next_rate
from loadtests.open_loop.sender import WAITING, Offered, Sender, Source, Unanswered
from loadtests.open_loop.sources import Cycle, Sessions
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.steps import Series

SEED = 20  # of the first schedule of a scenario; each one after it has the next
SESSIONS = "sessions"  # the scenario whose requests are steps of sessions; any other sends what it has in order
OPEN_SESSIONS = 256
WARM_UP_S = 2.0
_TOLD = 300  # characters of an answer that an error shows


Pool = Sequence[Exchange] | Sequence[Series]  # what a scenario sends, again and again


class Failed(Exception):
    """A scenario cannot be measured, or not any longer; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a scenario is probed: each rate for so many `seconds`, after a first one that warms up and does not count.

    limit_s: what the 99th percentile may be. sessions: how many are open at a time.
    """

    limit_s: float
    seconds: float
    bounds: Bounds
    sessions: int = OPEN_SESSIONS
    warm_up_s: float = WARM_UP_S


@dataclass(slots=True)
class Found:
    """What was found of a scenario so far; `ended` says why it was given up, if it was."""

    scenario: str
    limit_s: float
    probes: list[Probe] = field(default_factory=list)
    ended: str = ""

    @property
    def tried(self) -> list[Tried]:
        return [Tried(probe.rate, not probe.trouble(self.limit_s)) for probe in self.probes]

    @property
    def decisive(self) -> list[Probe]:
        """Of each rate the best probe, from the lowest rate to the highest."""
        ranked = sorted(self.probes, key=lambda probe: (probe.trouble(self.limit_s) != "", probe.ms(99) or inf))
        by_rate = {probe.rate: probe for probe in reversed(ranked)}
        return [by_rate[rate] for rate in sorted(by_rate)]

    @property
    def best(self) -> Probe | None:
        """That of the highest rate which was held."""
        return next((probe for probe in reversed(self.decisive) if not probe.trouble(self.limit_s)), None)


async def measure(address: str, found: Found, pool: Pool, plan: Plan, tell: Callable[[Probe], None]) -> None:
    """Probe one scenario at `address`, HOST:PORT, until its highest rate is found; probes are in `found` at once.

    Raises:
        Failed: the gateway is gone, or leaves requests without an answer.
    """
    try:
        async with _source(address, found.scenario, pool, plan) as source:
            await offered(address, arrivals(plan.bounds.start, plan.warm_up_s, SEED), source)
            while (rate := next_rate(found.tried, plan.bounds)) is not None:
                due = arrivals(rate, plan.seconds, SEED + 1 + len(found.probes))
                probe = judged(await offered(address, due, source), rate, plan.seconds, plan.limit_s)
                found.probes.append(probe)
                tell(probe)
    except (OSError, Unanswered) as error:
        raise Failed(str(error)) from None


@asynccontextmanager
async def _source(address: str, scenario: str, pool: Pool, plan: Plan) -> AsyncIterator[Source]:
    if scenario != SESSIONS:
        yield Cycle(cast("Sequence[Exchange]", pool))
        return
    prefix = f"open-loop-{uuid4().hex[:8]}"
    sessions = Sessions(cast("Sequence[Series]", pool), [f"{prefix}-{number}" for number in range(plan.sessions)])
    for exchanged in (await _each(address, sessions.openings)).exchanges:
        if exchanged and (refusal := exchanged.answer.refusal):
            raise Failed(f"a session could not be opened: {refusal} {exchanged.answer.body[:_TOLD]!r}")
    yield sessions
    await _each(address, sessions.closings)


async def _each(address: str, exchanges: Sequence[Exchange]) -> Offered:
    """All of them at once."""
    return await offered(address, np.zeros(len(exchanges)), Cycle(exchanges), len(exchanges))


async def offered(address: str, due: Array, source: Source, waiting: int = WAITING) -> Offered:
    """A schedule at `address`, over connections of its own, so that none has been idle for long.

    Raises:
        OSError, Unanswered: as `Sender.offer`.
    """
    sender = Sender(waiting=waiting)
    try:
        await sender.connect(address)
        return await sender.offer(due, source)
    finally:
        sender.close()
