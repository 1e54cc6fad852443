"""What happens in a run of Locust, once a second: what its users see, and what the gateway counts at the same moment.

It does not import Locust, which would patch the process. Statistics are Locust's own.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loadtests.report.budgets import ALL
from loadtests.report.gateway import WINDOW_S, scrape

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.stats import RequestStats, StatsEntry

_EVERY_S = 1.0
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_KINDS = {"wrong_answers": "WrongAnswer", "sessions_lost": "SessionLost"}
_KIND_SHARES = {"refused": "Refused", "unreachable": "Unreachable"}

Figures = Mapping[str, Mapping[str, float]]  # by scenario or `all`, as budgets name them: in seconds, or a fraction


@dataclass(frozen=True, slots=True)
class Failed:
    """How many requests of a scenario failed, in which words; the first of them is the kind of failure."""

    scenario: str
    words: str
    count: int

    @property
    def kind(self) -> str:
        return self.words.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at a run.

    Attributes:
        at_s: since the run began.
        users: that are there.
        latencies_s: p50 and p99 of the last seconds by scenario, and of `all`; none while nothing is answered.
        failures: so far, by kind.
        scraped: the gateway's metrics, packed; None if it did not answer.
    """

    at_s: float
    users: int
    latencies_s: Mapping[str, tuple[float, float]]
    failures: Mapping[str, int]
    scraped: bytes | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over, or was broken off; `answered[i]` requests were answered in its second `i`."""

    began_at: datetime
    seconds: float
    figures: Figures
    failures: Sequence[Failed]
    answered: Sequence[int]
    moments: Sequence[Moment]


class Recording:
    """Looks at a run each second, from `start` to `stop`; in a master or a process that runs alone."""

    def __init__(self, environment: "Environment", url: str) -> None:
        self._environment, self._url = environment, url
        self._moments: list[Moment] = []
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._began_at, self._began = datetime.now(UTC), time.monotonic()

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> Run:
        """What was seen, with Locust's figures of the whole run."""
        self._over.set()
        self._looking.join()
        seconds = self._moments[-1].at_s
        stats = self._environment.stats
        answered = [
            stats.total.num_reqs_per_sec.get(int(self._began_at.timestamp()) + i, 0) for i in range(int(seconds))
        ]
        return Run(self._began_at, seconds, figures(stats), failures(stats), answered, self._moments)

    def _look(self) -> None:
        """At the beginning, then each second, and at the end."""
        over = False
        while not over:
            self._moments.append(self._moment())
            over = self._over.wait(_EVERY_S - (time.monotonic() - self._began) % _EVERY_S)
        self._moments.append(self._moment())

    def _moment(self) -> Moment:
        stats, runner = self._environment.stats, self._environment.runner
        at_s = time.monotonic() - self._began
        latencies = {name: found for name, entry in _entries(stats).items() if (found := _latencies(entry))}
        kinds: dict[str, int] = {}
        for failed in failures(stats):
            kinds[failed.kind] = kinds.get(failed.kind, 0) + failed.count
        users = runner.user_count if runner else 0
        return Moment(at_s, users, latencies, kinds, scrape(self._url))


def figures(stats: "RequestStats") -> Figures:
    """What budgets bound, of every scenario that was asked for and of all."""
    failed = failures(stats)
    return {
        name: _figures(entry, [each for each in failed if name in (each.scenario, ALL)])
        for name, entry in _entries(stats).items()
    }


def failures(stats: "RequestStats") -> list[Failed]:
    return [Failed(each.name, each.parse_error(each.error), each.occurrences) for each in stats.errors.values()]


def set_window(stats: Any) -> None:
    """Have Locust take percentiles of so many seconds as the gateway's rates are of; `stats` is its module."""
    stats.CURRENT_RESPONSE_TIME_PERCENTILE_WINDOW = WINDOW_S


def _entries(stats: "RequestStats") -> dict[str, "StatsEntry"]:
    return {ALL: stats.total} | {name: entry for (name, _), entry in [*stats.entries.items()] if entry.num_requests}


def _figures(entry: "StatsEntry", failed: Sequence[Failed]) -> dict[str, float]:
    requests = entry.num_requests
    found: dict[str, float] = {"requests": requests, "rate": entry.total_rps}
    if not requests:
        return found

    def count(kind: str) -> int:
        return sum(each.count for each in failed if each.kind == kind)

    if entry.response_times:
        found |= {name: entry.get_response_time_percentile(share) / 1000 for name, share in _SHARES.items()}
        found["max"] = entry.max_response_time / 1000
    found["errors"] = entry.num_failures / requests
    found |= {name: count(kind) for name, kind in _KINDS.items()}
    found |= {name: count(kind) / requests for name, kind in _KIND_SHARES.items()}
    return found


def _latencies(entry: "StatsEntry") -> tuple[float, float] | None:
    p50, p99 = (entry.get_current_response_time_percentile(share) or 0 for share in (0.5, 0.99))
    return (p50 / 1000, p99 / 1000) if p99 else None  # Locust has 0 for nothing
