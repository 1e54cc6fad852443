"""What is sent when a request is due: the next of a row of requests, or the next step of a session that is free."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.open_loop.connection import Answer
from loadtests.open_loop.sender import Request, Turn


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
