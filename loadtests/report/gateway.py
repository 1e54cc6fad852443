"""What the gateway counts, read from its /metrics once a second, and what that says over a run's time.

Reading is cheap, as it happens beside the load: the lines that are needed are kept as they came, and are understood
when the run is over.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from itertools import pairwise
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

WINDOW_S = 5  # rates and means are those of so many seconds

_TIMEOUT_S = 2
_open = build_opener(ProxyHandler({})).open  # the load goes through no proxy either
_READ = (
    "process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total",
    "sluice_requests_total", "sluice_rows_total", "sluice_batches_total", "sluice_filler_rows_total",
    "sluice_elements_total", "sluice_queue_wait_seconds", "sluice_run_seconds", "sluice_backend_errors_total",
    "sluice_queue_rows", "sluice_sessions_active",
)  # fmt: skip
_GAUGES = frozenset(_READ[:3] + _READ[-2:])
_EXTRA = ("le", "outcome", "reason", "kind")  # the labels that are told apart, beside the model
_NO_FAILURE = frozenset(("ok", "client_gone"))

Key = tuple[str, str, str]  # a metric's name, a model or "", and one more label's value or ""
Reading = Mapping[Key, float]
Line = list[tuple[float, float | None]]
Lines = dict[str, dict[str, Line]]  # by what they show, and by model, by code, or by nothing ("")

_STARTED: Key = ("process_start_time_seconds", "", "")


def scrape(url: str) -> bytes | None:
    """What is needed of the gateway's metrics, packed; None if there is no answer."""
    try:
        with _open(f"{url}/metrics", timeout=_TIMEOUT_S) as answer:
            text = answer.read()
    except (OSError, HTTPException):
        return None
    return packed(text)


def packed(text: bytes) -> bytes:
    """The lines that are needed."""
    needed = tuple(name.encode() for name in _READ)
    return zlib.compress(b"".join(line for line in text.splitlines(keepends=True) if line.startswith(needed)), level=1)


def read(scraped: bytes) -> Reading:
    """The values, summed over versions and signatures."""
    found: dict[Key, float] = {}
    for line in zlib.decompress(scraped).decode().splitlines():
        series, _, value = line.rpartition(" ")
        key = _key(series)
        found[key] = found.get(key, 0.0) + float(value)
    return found


@cache
def _key(series: str) -> Key:
    """Of a metric with its labels as they are written, which is the same from reading to reading."""
    (family,) = text_string_to_metric_families(f"{series} 0\n")
    (sample,) = family.samples
    extra = next((sample.labels[each] for each in _EXTRA if each in sample.labels), "")
    return sample.name, sample.labels.get("model", ""), extra


def continued(readings: Iterable[Reading | None]) -> Iterator[Reading | None]:
    """The readings, with counters that go on where they were when the gateway was started again."""
    lost: dict[Key, float] = {}
    last: Reading = {}
    started: float | None = None
    for reading in readings:
        if reading is None:
            yield None
            continue
        if started is not None and reading.get(_STARTED) != started:
            lost = {key: value for key, value in last.items() if key[0] not in _GAUGES}
        started = reading.get(_STARTED)
        last = {key: reading.get(key, 0.0) + lost.get(key, 0.0) for key in {**lost, **reading}}
        yield last


@dataclass(frozen=True, slots=True)
class Span:
    """What the gateway counted from one reading to a later one."""

    before: Reading
    after: Reading

    @property
    def models(self) -> list[str]:
        """Those of which batches are counted."""
        return sorted({key[1] for key in self.after if key[0] == "sluice_batches_total"})

    def increase(self, name: str, model: str, extra: str = "") -> float:
        return self._grown((name, model, extra))

    def by_label(self, name: str) -> dict[str, float]:
        """How much a counter grew, by its label beside the model."""
        grown: dict[str, float] = {}
        for key in self.after:
            if key[0] == name:
                grown[key[2]] = grown.get(key[2], 0.0) + self._grown(key)
        return grown

    def batch_rows(self, model: str) -> float | None:
        """The mean rows of a batch, without filler."""
        return _ratio(self.increase("sluice_rows_total", model), self.increase("sluice_batches_total", model))

    def filler(self, model: str) -> float | None:
        """The share of rows that only filled batches up."""
        filler = self.increase("sluice_filler_rows_total", model)
        return _ratio(filler, filler + self.increase("sluice_rows_total", model))

    def padding(self, model: str) -> float | None:
        """The share of padding, filler among it, of the elements along ragged axes; None if it has none."""
        padding = self.increase("sluice_elements_total", model, "padding")
        return _ratio(padding, padding + self.increase("sluice_elements_total", model, "real"))

    def mean(self, histogram: str, model: str) -> float | None:
        return _ratio(self.increase(f"{histogram}_sum", model), self.increase(f"{histogram}_count", model))

    def quantile(self, histogram: str, model: str, share: float) -> float | None:
        """Below which this share of what was observed lies, as Prometheus' `histogram_quantile` finds it."""
        name = f"{histogram}_bucket"
        buckets = sorted((float(key[2]), self._grown(key)) for key in self.after if key[:2] == (name, model))
        if not buckets or not buckets[-1][1]:
            return None
        rank = share * buckets[-1][1]
        for (lower, below), (upper, up_to) in pairwise([(0.0, 0.0), *buckets]):
            if up_to >= rank:
                return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / (up_to - below)
        raise AssertionError("the last bucket holds everything")

    def _grown(self, key: Key) -> float:
        return self.after.get(key, 0.0) - self.before.get(key, 0.0)


def over_time(scraped: Sequence[tuple[float, bytes | None]]) -> tuple[Lines, Span | None]:
    """Lines over the seconds of a run, and all of it; None if the gateway was never read."""
    lines: Lines = {}
    within: deque[tuple[float, Reading]] = deque()
    first: Reading | None = None
    readings = continued(None if text is None else read(text) for _, text in scraped)
    for (at_s, _), reading in zip(scraped, readings, strict=True):
        if reading is None:
            for line in (line for named in lines.values() for line in named.values()):
                line.append((at_s, None))
            continue
        first = first or reading
        while within and within[0][0] < at_s - WINDOW_S - 0.5:
            within.popleft()
        for figure, name, now in _now(reading):
            lines.setdefault(figure, {}).setdefault(name, []).append((at_s, now))
        if within:
            since_s = within[0][0]
            for figure, name, value in _lately(Span(within[0][1], reading), at_s - since_s):
                begun: Line = [(within[-1][0], 0.0)] if figure.endswith("_per_s") else []  # unknown until it is counted
                lines.setdefault(figure, {}).setdefault(name, begun).append((at_s, value))
        within.append((at_s, reading))
    return lines, Span(first, within[-1][1]) if first and within else None


def _now(reading: Reading) -> Iterator[tuple[str, str, float]]:
    for (metric, model, _), value in reading.items():
        match metric:
            case "process_resident_memory_bytes":
                yield "memory_mib", "", value / 2**20
            case "process_open_fds":
                yield "file_descriptors", "", value
            case "sluice_queue_rows":
                yield "queue_rows", model, value
            case "sluice_sessions_active":
                yield "sessions", model, value


def _lately(span: Span, seconds: float) -> Iterator[tuple[str, str, float | None]]:
    yield "cpu_cores", "", span.increase("process_cpu_seconds_total", "") / seconds
    for model in span.models:
        yield "batch_rows", model, span.batch_rows(model)
        yield "filler", model, span.filler(model)
        yield "padding", model, span.padding(model)
        for figure, histogram in (("queue_wait", "sluice_queue_wait_seconds"), ("run", "sluice_run_seconds")):
            yield f"{figure}_mean_s", model, span.mean(histogram, model)
            yield f"{figure}_p99_s", model, span.quantile(histogram, model, 0.99)
    for figure, metric in (("refused_per_s", "sluice_requests_total"), ("errors_per_s", "sluice_backend_errors_total")):
        for code, count in span.by_label(metric).items():
            if code not in _NO_FAILURE:
                yield figure, code, count / seconds


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
