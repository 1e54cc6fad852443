"""A request of the load and how its answer is judged; every generator of load sends these."""

from collections.abc import Callable
from dataclasses import dataclass


class WrongAnswer(Exception):
    """The gateway answered, and what it said is not what Keras says alone; the sentence has both."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request over HTTP, and the check of its answer.

    `check(body)` takes the body of an answer with the status `status`, and raises `WrongAnswer` if it is not right.
    """

    path: str
    body: bytes
    check: Callable[[bytes], None]
    content_type: str = "application/json"
    method: str = "POST"
    status: int = 200

    def whole(self) -> bytes:
        """The request as it goes over a connection that stays open."""
        return (
            f"{self.method} {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\n\r\n"
        ).encode() + self.body
