"""Metrics under TensorFlow Serving's names, as a page for Prometheus.

prometheus_client ends the names of counters in `_total` and adds metrics of its own, which these do not have; so the
page is written here. It does not know what a request is.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from time import perf_counter

from sluice.model_server.errors import ServingError
from sluice.policy.errors import SluiceError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_US = [10 * 1.8**power for power in range(33)]  # as TensorFlow Serving's
_MICROSECONDS = 1e6


class Counter:
    """Counts by label values."""

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name, self._labels = name, labels
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, count: int = 1) -> None:
        self._counts[values] = self._counts.get(values, 0) + count

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} counter"
        for values, count in sorted(self._counts.items()):
            yield f"{self.name}{{{_written(self._labels, values)}}} {count}"


class Histogram:
    """How long things took, in microseconds, by label values."""

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name, self._labels = name, labels
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, *values: str, seconds: float) -> None:
        microseconds = seconds * _MICROSECONDS
        counts = self._counts.setdefault(values, [0] * (len(_BUCKETS_US) + 1))
        counts[bisect_left(_BUCKETS_US, microseconds)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + microseconds

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} histogram"
        for values, counts in sorted(self._counts.items()):
            labels = _written(self._labels, values)
            bounds = [*(f"{bound:g}" for bound in _BUCKETS_US), "+Inf"]
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                yield f'{self.name}_bucket{{{labels},le="{bound}"}} {count}'
            yield f"{self.name}_sum{{{labels}}} {self._sums[values]}"
            yield f"{self.name}_count{{{labels}}} {sum(counts)}"


class Monitoring:
    """Counts requests by model. `known`: whether there is a model of that name; requests for others have no name."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self._counting = threading.Lock()
        self._requests = Counter(":tensorflow:serving:request_count", ("model_name", "status"))
        self._latency = Histogram(":tensorflow:serving:request_latency", ("model_name", "API", "entrypoint"))
        self._loads = Counter(":tensorflow:cc:saved_model:load_attempt_count", ("model_path", "status"))
        self._load_latency = Counter(":tensorflow:cc:saved_model:load_latency", ("model_path",))
        self._warmup = Histogram(":tensorflow:serving:model_warmup_latency", ("model_path", "status"))

    @contextmanager
    def request(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count what happens inside as one request; `api` such as Predict, `entrypoint` GRPC or REST.

        How long it took is noted of those that succeed, as in TensorFlow Serving.
        """
        name, began, status = model if self._known(model) else "", perf_counter(), "INTERNAL"
        try:
            yield
            status = "OK"
        except ServingError as error:
            status = error.status
            raise
        except SluiceError as error:
            status = error.grpc_status
            raise
        finally:
            with self._counting:
                self._requests.add(name, status)
                if status == "OK":
                    self._latency.add(name, api, entrypoint, seconds=perf_counter() - began)

    @contextmanager
    def load(self, path: str) -> Iterator[None]:
        """Count what happens inside as an attempt to load the version in the folder `path`."""
        began, status = perf_counter(), "fail"
        try:
            yield
            status = "success"
        finally:
            with self._counting:
                self._loads.add(path, status)
                if status == "success":
                    self._load_latency.add(path, count=round((perf_counter() - began) * _MICROSECONDS))

    @contextmanager
    def warm_up(self, path: str) -> Iterator[None]:
        """Note how long the warm-up inside takes of the version in the folder `path`."""
        began, status = perf_counter(), "INTERNAL"
        try:
            yield
            status = "OK"
        except ServingError as error:
            status = error.status
            raise
        finally:
            with self._counting:
                self._warmup.add(path, status, seconds=perf_counter() - began)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        metrics = (self._loads, self._load_latency, self._warmup, self._requests, self._latency)
        with self._counting:
            return "".join(f"{line}\n" for metric in metrics for line in metric.lines()).encode()


def _written(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
