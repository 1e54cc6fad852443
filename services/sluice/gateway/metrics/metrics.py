"""What Prometheus sees: counts, waits and sizes by model, version, signature and outcome; never by session."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice.gateway.core.decisions import Verdicts
from sluice.gateway.core.engine import BatchEnded
from sluice.gateway.metrics.recognition import RecognitionMetrics
from sluice.policy.errors import BatchCollision
from sluice.policy.scheduler import Scheduler
from sluice.policy.session import Event, Session

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_LANE = ("model", "version", "signature")


class Ready(Protocol):
    """Says whether requests should be sent here."""

    @property
    def ready(self) -> bool: ...


class Troubles(Protocol):
    """Knows what is wrong with each model; "": nothing is."""

    def troubles(self) -> Mapping[str, str]: ...


class Metrics:
    """The gateway's metrics, in a registry of their own. Mean batch size = rows / batches."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "sluice_requests", "Requests answered, by outcome: ok or an error code.", ("call", "model", "outcome"),
            registry=registry,
        )  # fmt: skip
        self._counters: dict[tuple[str, str, str], Counter] = {}  # finding one by its labels takes longer than counting
        self._rows = Counter("sluice_rows", "Rows that ran, without filler.", _LANE, registry=registry)
        self._batches = Counter("sluice_batches", "Batches that ran.", _LANE, registry=registry)
        self._filler = Counter("sluice_filler_rows", "Rows that only filled a batch up.", _LANE, registry=registry)
        self._wait = Histogram(
            "sluice_queue_wait_seconds", "Time from queueing to launch.", _LANE, buckets=_SECONDS, registry=registry
        )
        self._run = Histogram(
            "sluice_run_seconds", "Time a batch took on the model server.", _LANE, buckets=_SECONDS, registry=registry
        )
        self._sizes = Histogram(
            "sluice_batch_rows", "Rows of a batch, without filler.", _LANE, buckets=_ROWS, registry=registry
        )
        self._elements = Counter(
            "sluice_elements",
            "Elements along ragged axes that ran, by bucket: real ones, and padding (filler rows among it).",
            (*_LANE, "bucket", "kind"), registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "sluice_backend_errors", "Batches that failed, by error code.", ("model", "reason"), registry=registry
        )
        self._collisions = Counter(
            "sluice_batch_collisions",
            "Batches that met others in a model server that batches, too, and were refused for it; they ran again.",
            ("model",), registry=registry,
        )  # fmt: skip
        self._ended = Counter(
            "sluice_sessions_ended", "Sessions that ended, by reason.", ("model", "reason"), registry=registry
        )

        self._generating = Gauge(
            "sluice_generating_instances", "Instances that are being generated.", ("model",), registry=registry
        )
        self._generated = Counter(
            "sluice_generations", "Instances generated, by outcome: end, length, an error code or client_gone.",
            ("model", "version", "outcome"), registry=registry,
        )  # fmt: skip
        self._steps = Counter(
            "sluice_generation_steps", "Decoder steps of the instances that ended.", ("model", "version"),
            registry=registry,
        )  # fmt: skip

        self._recognition = RecognitionMetrics()
        registry.register(self._recognition)

    def watch(self, scheduler: Scheduler) -> None:
        """Report queue depth, batches in flight and open sessions from now on."""
        self._registry.register(_Now(scheduler))

    def watch_readiness(self, gateway: Ready, models: Troubles) -> None:
        """Report from now on whether requests should be sent here, and which models are in trouble."""
        self._registry.register(_Readiness(gateway, models))

    def request(self, call: str, model: str, outcome: str) -> None:
        key = (call, model, outcome)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(*key)
        counter.inc()

    def batch_ended(self, event: BatchEnded) -> None:
        lane = event.batch.lane
        labels = (lane.model, str(lane.version), lane.signature)
        self._batches.labels(*labels).inc()
        self._rows.labels(*labels).inc(event.batch.rows)
        self._filler.labels(*labels).inc(event.batch.size - event.batch.rows)
        self._sizes.labels(*labels).observe(event.batch.rows)
        self._run.labels(*labels).observe(event.run_s)
        if lane.bounds:
            bucket, real = "x".join(map(str, lane.bounds)), event.batch.real_elements
            self._elements.labels(*labels, bucket, "real").inc(real)
            self._elements.labels(*labels, bucket, "padding").inc(event.batch.elements - real)
        wait = self._wait.labels(*labels)
        for waited_s in event.batch.waited_s:
            wait.observe(waited_s)
        if isinstance(event.error, BatchCollision):
            self._collisions.labels(lane.model).inc()
        elif event.error is not None:
            self._failures.labels(lane.model, event.error.code).inc()

    def generating(self, model: str, change: int) -> None:
        self._generating.labels(model).inc(change)

    def generated(self, model: str, version: int, outcome: str, steps: int) -> None:
        self._generated.labels(model, str(version), outcome).inc()
        self._steps.labels(model, str(version)).inc(steps)

    def recognized(self, verdicts: Verdicts) -> None:
        self._recognition.recognized(verdicts)

    def forget(self, model: str, version: int) -> None:
        """A version has gone: what is told of it as it is now is told no more."""
        self._recognition.forget(model, version)

    def session_ended(self, session: Session, event: Event) -> None:
        self._ended.labels(session.model, session.phase).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """Gauges that are read when somebody asks."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("sluice_queue_rows", "Rows that wait.", labels=["model"])
        flight = GaugeMetricFamily("sluice_in_flight_batches", "Batches that run.", labels=["model"])
        for model, dispatcher in self._scheduler.dispatchers.items():
            depth.add_metric([model], dispatcher.waiting_rows)
            flight.add_metric([model], len(dispatcher.running))
        active = GaugeMetricFamily("sluice_sessions_active", "Open sessions.", labels=["model"])
        for model, count in self._scheduler.sessions.counts().items():
            active.add_metric([model], count)
        yield from (depth, flight, active)


class _Readiness(Collector):
    """Whether requests should be sent here, looked at when somebody asks."""

    def __init__(self, gateway: Ready, models: Troubles) -> None:
        self._gateway = gateway
        self._models = models

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sluice_ready", "1 while requests should be sent here.", value=self._gateway.ready)
        troubled = GaugeMetricFamily(
            "sluice_model_troubled", "1 while a version of the model cannot be called that should be.", labels=["model"]
        )
        for name, trouble in self._models.troubles().items():
            troubled.add_metric([name], bool(trouble))
        yield troubled
