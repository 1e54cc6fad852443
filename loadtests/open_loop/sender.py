"""Sends requests when they are due, over the first connection that is free, and notes when each is answered.

It does not know what is asked, nor what an answer has to be.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from loadtests.open_loop.connection import Answer, Connection, Line
from loadtests.open_loop.schedule import Array

IN_FLIGHT = 256  # requests that are sent and not answered: as many as there are connections
WAITING = 1024  # requests that are due and cannot be sent yet
_TICK_S = 1e-5  # no timer is finer
_DRAIN_S, _POLL_S = 20.0, 0.005  # how long the last answers may take, and how often is looked


class Unanswered(Exception):
    """The server has left a request without an answer."""


class Request(Protocol):
    """What is sent, and how its answer is judged."""

    def whole(self) -> bytes:
        """As it goes over a connection that stays open."""
        ...

    @property
    def check(self) -> Callable[[bytes], None]:
        """Takes the body of an answer that is no error, and raises `WrongAnswer` if it is not right."""
        ...


class Turn(Protocol):
    """What is done when one request is due."""

    @property
    def request(self) -> Request: ...

    def answered(self, answer: Answer) -> Request | None:
        """What the same connection sends next, which is not timed; None: it is free."""
        ...


class Source(Protocol):
    def take(self) -> Turn | None:
        """The turn of the request that is due; None while there is none, as every session waits for an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A request that was sent, and what was answered."""

    request: Request
    answer: Answer


@dataclass(frozen=True, slots=True)
class Offered:
    """What became of a schedule, request by request; times are in seconds from its begin.

    due, sent_at, answered_at: float64 `[n]`; NaN where a request was skipped, as too many were waiting.
    exchanges: None for the same ones. untimed: those that followed from others. cpu_s: what the client itself took.
    """

    due: Array
    sent_at: Array
    answered_at: Array
    exchanges: list[Exchanged | None]
    untimed: list[Exchanged]
    seconds: float
    cpu_s: float


@dataclass(slots=True)
class _Flight:
    """A request that is under way; `place` is that in the schedule, None if it is not timed."""

    turn: Turn
    request: Request
    place: int | None


class Sender:
    """Sends the requests of one schedule after the other.

    At most as many are in flight as there are connections. Beyond them `waiting` requests wait here, counting from when
    they are due, and what finds as many waiting is skipped.
    """

    def __init__(self, *, waiting: int = WAITING, clock: Callable[[], float] = time.perf_counter) -> None:
        self._waiting = waiting
        self._clock = clock
        self._lines: list[Line] = []
        self._free: deque[Line] = deque()
        self._flights: dict[Line, _Flight] = {}
        self._due: deque[int] = deque()
        self._failure: Exception | None = None
        self._began = 0.0

    async def connect(self, address: str, connections: int = IN_FLIGHT) -> None:
        """Raises: OSError: the server cannot be reached."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(partial(Connection, self), host.strip("[]"), int(port))
            self.join(connection)

    def join(self, line: Line) -> None:
        """One more that requests can be sent over."""
        self._lines.append(line)
        self._free.append(line)

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def answered(self, line: Line, answer: Answer) -> None:
        flight = self._flights.pop(line)
        if flight.place is None:
            self._untimed.append(Exchanged(flight.request, answer))
        else:
            self._answered_at[flight.place] = self._clock() - self._began
            self._exchanges[flight.place] = Exchanged(flight.request, answer)
        if follows := flight.turn.answered(answer):
            self._send(line, _Flight(flight.turn, follows, None))
            return
        self._free.append(line)
        self._send_due()

    def lost(self, line: Line, reason: Exception) -> None:
        self._failure = self._failure or reason

    async def offer(self, due: Array, source: Source) -> Offered:
        """Send a request at each of these times, in seconds from now, and wait for the answers.

        Raises:
            OSError: a connection was lost.
            Unanswered: an answer did not come, long after the last request was sent.
        """
        self._source = source
        self._sent_at, self._answered_at = np.full(len(due), np.nan), np.full(len(due), np.nan)
        self._exchanges: list[Exchanged | None] = [None] * len(due)
        self._untimed: list[Exchanged] = []
        self._began, cpu = self._clock(), time.process_time()
        at = 0
        while at < len(due):
            now = self._clock() - self._began
            while at < len(due) and due[at] <= now:
                self._arrive(at)
                at += 1
            if at < len(due):
                await self._sleep(max(due[at] - now, _TICK_S))
        await self._drain()
        seconds, cpu_s = self._clock() - self._began, time.process_time() - cpu
        return Offered(due, self._sent_at, self._answered_at, self._exchanges, self._untimed, seconds, cpu_s)

    def _arrive(self, place: int) -> None:
        self._due.append(place)
        self._send_due()
        if len(self._due) > self._waiting:
            self._due.pop()

    def _send_due(self) -> None:
        while self._due and self._free and (turn := self._source.take()):
            place = self._due.popleft()
            self._sent_at[place] = self._clock() - self._began
            self._send(self._free.popleft(), _Flight(turn, turn.request, place))

    def _send(self, line: Line, flight: _Flight) -> None:
        self._flights[line] = flight
        line.send(flight.request.whole())

    async def _drain(self) -> None:
        until = self._clock() + _DRAIN_S
        while self._due or self._flights:
            await self._sleep(_POLL_S)
            if self._clock() > until:
                left = len(self._due) + len(self._flights)
                raise Unanswered(f"{left} requests were not answered {_DRAIN_S:g} s after the last one was sent")

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._failure is not None:
            raise self._failure
