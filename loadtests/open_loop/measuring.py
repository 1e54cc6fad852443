"""Finds the highest rate of each scenario: probes of a gateway, one after the other, until the search has enough."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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
    """What holds a rate, `limit_s` for the 99th percentile, how long each probe lasts, and which rates are tried."""

    limit_s: float
    seconds: float
    bounds: Bounds
    sessions: int = OPEN_SESSIONS


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
    def best(self) -> Probe | None:
        """The probe of the highest rate that was held."""
        held = [probe for probe in self.probes if not probe.trouble(self.limit_s)]
        return max(held, key=lambda probe: probe.rate, default=None)

    @property
    def decisive(self) -> list[Probe]:
        """Of each rate the probe that counts, the better one, from the lowest rate to the highest."""
        by_rate: dict[float, Probe] = {}
        for probe in self.probes:
            if probe.rate not in by_rate or by_rate[probe.rate].trouble(self.limit_s):
                by_rate[probe.rate] = probe
        return [by_rate[rate] for rate in sorted(by_rate)]


async def measure(address: str, found: Found, pool: Pool, plan: Plan, tell: Callable[[Probe], None]) -> None:
    """Probe one scenario at `address`, HOST:PORT, until its highest rate is found; probes are in `found` at once.

    Raises:
        Failed: the gateway is gone, or leaves requests without an answer.
    """
    try:
        async with _source(address, found.scenario, pool, plan) as source:
            await offered(address, arrivals(plan.bounds.start, WARM_UP_S, SEED), source)
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
    await _each(address, sessions.openings)
    yield sessions
    await _each(address, sessions.closings)


async def _each(address: str, exchanges: Sequence[Exchange]) -> None:
    """Raises: Failed: one of them was refused."""
    found = await offered(address, np.zeros(len(exchanges)), Cycle(exchanges), len(exchanges))
    for exchange, exchanged in zip(exchanges, found.exchanges, strict=True):
        assert exchanged is not None  # as many may wait as there are
        if refusal := exchanged.answer.refusal:
            raise Failed(f"{exchange.path} was refused: {refusal} {exchanged.answer.body[:_TOLD]!r}")


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
