"""What a gateway did at one rate: every answer judged, latencies in an HdrHistogram, and whether it held the rate."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtests.open_loop.schedule import Array
from loadtests.open_loop.sender import Exchanged, Offered
from loadtests.traffic.exchange import WrongAnswer

SHARE_HELD = 0.99  # of the offered requests that are answered in time at a rate that is held
TOLD = 3  # wrong answers whose sentences are kept
_US = 1_000_000
_LONGEST_US, _DIGITS = 120 * _US, 3  # what a histogram can hold, and how exactly


@dataclass(frozen=True, slots=True)
class Probe:
    """`rate` is what was asked for, a second; `due` requests were drawn for it, which is not exactly as many.

    right, wrong, skipped, and those `refused` by their code: what became of them. told: the first wrong answers.
    in_time: right answers that came until the latency limit after the last request was due.
    late: the 99th percentile of how long after it was due a request was sent, in seconds. cpu_share: of a core, which
    the client took for itself. latency: of right answers, in µs from when they were due.
    """

    rate: float
    seconds: float
    due: int
    right: int
    wrong: int
    refused: dict[str, int]
    skipped: int
    told: tuple[str, ...]
    in_time: int
    late_s: float
    cpu_share: float
    latency: HdrHistogram

    def ms(self, percentile: float) -> float | None:
        """A latency; None if there was no right answer."""
        return self.latency.get_value_at_percentile(percentile) / 1000 if self.right else None

    @property
    def achieved_per_s(self) -> float:
        return self.in_time / self.seconds

    def trouble(self, limit_s: float) -> str:
        """Why the rate was not held with its p99 under the limit; empty if it was."""
        found = [f"{self.wrong:,} wrong"] if self.wrong else []
        found += [f"{count:,} {code}" for code, count in self.refused.items()]
        found += [f"{self.skipped:,} skipped"] if self.skipped else []
        p99 = self.ms(99)
        if p99 is None or p99 > limit_s * 1000:
            found.append("p99 over the limit")
        if self.in_time < SHARE_HELD * self.due:
            found.append(f"{self.in_time / self.due:.0%} answered in time")
        return ", ".join(found)


def judged(offered: Offered, rate: float, seconds: float, limit_s: float) -> Probe:
    """Check every answer of a schedule, which is over, so that checking takes nobody's time."""
    wrong: list[str] = []
    refused: Counter[str] = Counter()

    def is_right(exchanged: Exchanged | None) -> bool:
        if exchanged is None:
            return False
        if refusal := exchanged.answer.refusal:
            refused[refusal] += 1
            return False
        try:
            exchanged.request.check(exchanged.answer.body)
        except WrongAnswer as error:
            wrong.append(str(error))
            return False
        return True

    right = np.fromiter(map(is_right, offered.exchanges), bool)
    for exchanged in offered.untimed:
        is_right(exchanged)
    sent = ~np.isnan(offered.sent_at)
    late = (offered.sent_at - offered.due)[sent]
    return Probe(
        rate=rate,
        seconds=seconds,
        due=len(offered.due),
        right=int(right.sum()),
        wrong=len(wrong),
        refused=dict(refused),
        skipped=int((~sent).sum()),
        told=tuple(wrong[:TOLD]),
        in_time=int((offered.answered_at[right] <= seconds + limit_s).sum()),
        late_s=float(np.percentile(late, 99)) if late.size else 0.0,
        cpu_share=offered.cpu_s / offered.seconds,
        latency=histogram((offered.answered_at - offered.due)[right]),
    )


def histogram(latencies_s: Array) -> Any:
    """Latencies, float64 `[n]` in seconds, as whole microseconds."""
    found = HdrHistogram(1, _LONGEST_US, _DIGITS)
    for value in np.clip(np.rint(latencies_s * _US), 1, _LONGEST_US).astype(int).tolist():
        found.record_value(value)
    return found
