"""What all users share: their traffic, their pauses, and how what they ask is judged and told to Locust."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from locust import FastHttpUser, User

from loadtests.locust import outcomes
from loadtests.locust.outcomes import Failure
from loadtests.traffic import exchange
from loadtests.traffic.exchange import Exchange
from loadtests.traffic.library import FOLDER, Traffic, load

TIMEOUT_S = 30.0
CONNECT_S = 5.0
_RETRY_AFTER_S = 1.0
_TOLD = 300  # characters of a request that a wrong answer shows

T = TypeVar("T")
loaded = cache(load)  # once in a process


class LoadUser(User):
    """A client; the attributes of the class hold for all users of a run, and are set before it.

    models: names of those that it asks.
    think_s: the mean of its pauses, which are exponential.
    folder: where its traffic lies.
    grpc: HOST:PORT of the gateway's gRPC, for those that use it.
    """

    abstract = True
    models: ClassVar[Sequence[str]]
    think_s: ClassVar[float] = 1.0
    folder: ClassVar[Path] = FOLDER
    grpc: ClassVar[str] = "127.0.0.1:8081"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.dice = random.Random()  # noqa: S311 - no secret
        self._turn = self.dice.randrange(1 << 20)
        self._least_pause_s = 0.0

    @property
    def traffic(self) -> Traffic:
        return loaded(self.folder)

    def wait_time(self) -> float:
        pause_s, self._least_pause_s = max(self._least_pause_s, self.dice.expovariate(1.0) * self.think_s), 0.0
        return pause_s

    def failed(self, failure: Failure) -> None:
        """Who is refused, or has no answer, waits as long as the gateway's `Retry-After` asks before the next try."""
        if not isinstance(failure, outcomes.WrongAnswer):
            self._least_pause_s = _RETRY_AFTER_S

    def following(self, pool: Sequence[T]) -> T:
        """The next of a pool, in which each user begins somewhere else."""
        self._turn += 1
        return pool[self._turn % len(pool)]

    @contextmanager
    def told(self, kind: str, name: str, request: str) -> Iterator["Call"]:
        """Tell Locust of a call that it does not make itself; what the block raises is how it failed.

        Raises:
            Failure: from the block; a `WrongAnswer` of the checks becomes one of the outcomes.
        """
        call, began_at = Call(), time.time()
        failure: Failure | None = None
        try:
            yield call
        except exchange.WrongAnswer as error:
            failure = outcomes.WrongAnswer(request[:_TOLD], str(error))
        except Failure as error:
            failure = error
        call.answered()
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=call.took_ms, response_length=call.bytes, exception=failure,
            context=self.context(), start_time=began_at, url=name, response=None,
        )  # fmt: skip
        if failure is not None:
            self.failed(failure)
            raise failure


class Call:
    """One call's time, from here until `answered`, without what judging the answer takes."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.took_ms: float | None = None
        self.bytes = 0

    def sent(self) -> None:
        """Count from here, for who has taken time to send."""
        self._began = time.perf_counter()

    def answered(self, size: int = 0) -> None:
        if self.took_ms is None:
            self.took_ms, self.bytes = (time.perf_counter() - self._began) * 1000, size


class HttpUser(LoadUser, FastHttpUser):
    """A client over HTTP, with a connection of its own."""

    abstract = True
    network_timeout = TIMEOUT_S
    connection_timeout = CONNECT_S
    max_redirects = 0

    def ask(self, asked: Exchange, name: str) -> bytes:
        """The body of the right answer.

        Raises:
            Failure: there was another answer, or none.
        """
        headers = {"Content-Type": asked.content_type}
        with self.client.request(
            asked.method, asked.path, name=name, data=asked.body, headers=headers, catch_response=True
        ) as answer:
            failure = _judged(asked, answer)
            if failure is None:
                answer.success()
            else:
                answer.failure(failure)
        if failure is not None:
            self.failed(failure)
            raise failure
        return answer.content or b""


def _judged(asked: Exchange, answer: Any) -> Failure | None:
    if not answer.status_code:
        return outcomes.unreachable(answer.error)
    try:
        body = answer.content or b""
    except Exception as error:  # of several libraries
        return outcomes.unreachable(error)
    if len(body) < int(answer.headers.get("content-length", 0)):  # which geventhttpclient takes for a whole answer
        return outcomes.Unreachable(outcomes.BROKEN)
    if code := answer.headers.get("sluice-code"):
        return outcomes.refused(code, _shown(asked), body.decode(errors="replace"))
    return _checked(asked, answer.status_code, body)


def _checked(asked: Exchange, status: int, body: bytes) -> Failure | None:
    if status != asked.status:
        return outcomes.Refused(f"status {status}")
    try:
        asked.check(body)
    except exchange.WrongAnswer as error:
        return outcomes.WrongAnswer(_shown(asked), str(error))
    return None


def _shown(asked: Exchange) -> str:
    return f"{asked.method} {asked.path} {asked.body[:_TOLD].decode(errors='replace')}"
