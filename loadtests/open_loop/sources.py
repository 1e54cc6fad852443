"""What is sent when a request is due: the next of a row of requests, or the next step of a session that is free."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from loadtests.open_loop.connection import Answer
from loadtests.open_loop.sender import Request, Turn
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.steps import Series, closing, opening, stepping

_GONE = (404, 410)  # the session is unknown, or was ended


@dataclass(frozen=True, slots=True)
class Single:
    """A request by itself."""

    request: Request

    def answered(self, answer: Answer) -> None:
        return


class Cycle:
    """The same requests, in order, again and again."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._turns = [Single(request) for request in requests]
        self.taken = 0

    def take(self) -> Turn:
        turn = self._turns[self.taken % len(self._turns)]
        self.taken += 1
        return turn


class Sessions:
    """Sessions that are stepped along series, each by the next request that is due once its last answer has come.

    A session that has reached the end of its series is closed, and opened anew for the next one; one that the gateway
    has lost is opened anew, too. A step that is refused is made again in its next turn, as it has changed nothing.
    """

    def __init__(self, series: Sequence[Series], names: Sequence[str]) -> None:
        self._series = cycle(series)
        self._sessions = [_Session(self._free, self._series, name) for name in names]
        self._waiting = deque(self._sessions)

    @property
    def openings(self) -> list[Exchange]:
        """What has to be sent, and answered, before the first turn."""
        return [session.opening for session in self._sessions]

    @property
    def closings(self) -> list[Exchange]:
        return [session.closing for session in self._sessions]

    def take(self) -> Turn | None:
        return self._waiting.popleft() if self._waiting else None

    def _free(self, session: "_Session") -> None:
        self._waiting.append(session)


class _Session:
    """A session, as the turn of its next step."""

    def __init__(self, free: Callable[["_Session"], None], every: Iterator[Series], name: str) -> None:
        self._free, self._every, self._name = free, every, name
        self._stepping, self._rest = True, deque[Exchange]()  # what was sent is a step; what follows before it is free
        self._begin()

    def _begin(self) -> None:
        self._series, self._step = next(self._every), 0

    @property
    def request(self) -> Exchange:
        return stepping(self._series, self._name, self._step)

    @property
    def opening(self) -> Exchange:
        return opening(self._series, self._name, again=True)

    @property
    def closing(self) -> Exchange:
        return closing(self._name)

    def answered(self, answer: Answer) -> Exchange | None:
        if self._stepping:
            self._rest.extend(self._after(answer))
        self._stepping = not self._rest
        if self._rest:
            return self._rest.popleft()
        self._free(self)
        return None

    def _after(self, answer: Answer) -> Sequence[Exchange]:
        """What has to follow the answer to a step, before there can be another."""
        if answer.status in _GONE:
            self._begin()
            return [self.opening]
        if answer.refusal:
            return []
        self._step += 1
        if self._step < len(self._series):
            return []
        self._begin()
        return [self.closing, self.opening]
