"""How a request of a user can fail: each kind is a class, and a line of its own among Locust's failures.

It does not import Locust, which would patch the process.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locust.env import Environment

SHOWN = 3  # wrong answers that are kept whole
LOST = frozenset(
    (
        "session_not_found",
        "session_lost",
        "session_closed",
        "session_expired",
        "session_evicted",
        "session_version_gone",
    )
)
_REPORT = "wrong_answers"


class Failure(Exception):
    """A request that failed; failures of one text are counted together."""

    def __repr__(self) -> str:
        """What Locust shows and tells failures apart by."""
        return f"{type(self).__name__}: {self}" if self.args else type(self).__name__


class WrongAnswer(Failure):
    """The gateway answered, and it is not what Keras says: `request` and `difference` say what was asked and came."""

    def __init__(self, request: str, difference: str) -> None:
        super().__init__()
        self.request = request
        self.difference = difference


class SessionLost(Failure):
    """The session is gone, as after a restart of the gateway, or when it expired; the text is the error's code."""


class Refused(Failure):
    """Any other error of the API; the text is its code."""


class Unreachable(Failure):
    """There was no answer; the text says why not."""


NO_CONNECTION = "no connection"
NO_ANSWER = "no answer in time"
BROKEN = "the connection broke"


def refused(code: str, request: str, sentence: str = "") -> Failure:
    """The failure that an error of the API is.

    A session has one client here, so a number that the gateway does not expect is a step too few or too many.
    """
    if code in LOST:
        return SessionLost(code)
    return WrongAnswer(request, sentence or code) if code == "step_mismatch" else Refused(code)


def unreachable(error: BaseException) -> Unreachable:
    """The failure that an error of the connection is."""
    cause = getattr(error, "original", None) or error  # geventhttpclient wraps what it could not send again
    if isinstance(cause, ConnectionRefusedError):
        return Unreachable(NO_CONNECTION)
    return Unreachable(NO_ANSWER if isinstance(cause, TimeoutError) else BROKEN)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong answer: the name of the request in Locust's statistics, what was asked, and how the answer differs."""

    scenario: str
    request: str
    difference: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.difference}\n  asked: {self.request}"


class WrongAnswers:
    """How many answers were wrong, and the first of them; a worker tells its master.

    Made by the process's `init`, it counts from each start of a test anew.
    """

    def __init__(self, environment: "Environment") -> None:
        self.count = 0
        self.first: list[Wrong] = []
        self._untold: list[Wrong] = []
        self._told = 0
        events = environment.events
        events.request.add_listener(self._requested)
        events.report_to_master.add_listener(self._report)
        events.worker_report.add_listener(self._reported)
        events.test_start.add_listener(self._started)

    def _started(self, **_: Any) -> None:
        self.count = self._told = 0
        self.first.clear()
        self._untold.clear()

    def _requested(self, name: str, exception: BaseException | None, **_: Any) -> None:
        if isinstance(exception, WrongAnswer):
            self.count += 1
            if len(self.first) < SHOWN:
                self.first.append(Wrong(name, exception.request, exception.difference))
                self._untold.append(self.first[-1])

    def _report(self, client_id: str, data: dict[str, Any]) -> None:
        data[_REPORT] = {"count": self.count - self._told, "first": [asdict(each) for each in self._untold]}
        self._told = self.count
        self._untold.clear()

    def _reported(self, client_id: str, data: Mapping[str, Any]) -> None:
        found = data.get(_REPORT, {"count": 0, "first": ()})
        self.count += found["count"]
        self.first += [Wrong(**each) for each in found["first"]][: SHOWN - len(self.first)]
