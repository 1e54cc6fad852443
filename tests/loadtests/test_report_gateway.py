"""The gateway's metrics over a run: read from its text, over restarts and gaps, against sums that are plain to see."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loadtests.report.gateway import WINDOW_S, Span, continued, over_time, packed, read, scrape

LANE = ("model", "version", "signature")
BOUNDS = (0.01, 0.02, 0.05)


class Gateway:
    """Counts as the gateway does, under the names of its metrics."""

    def __init__(self, started: float = 1.0) -> None:
        self.registry = registry = CollectorRegistry()
        Gauge("process_start_time_seconds", "", registry=registry).set(started)
        self.rows = Counter("sluice_rows", "", LANE, registry=registry)
        self.batches = Counter("sluice_batches", "", LANE, registry=registry)
        self.filler = Counter("sluice_filler_rows", "", LANE, registry=registry)
        self.elements = Counter("sluice_elements", "", (*LANE, "bucket", "kind"), registry=registry)
        self.wait = Histogram("sluice_queue_wait_seconds", "", LANE, buckets=BOUNDS, registry=registry)
        self.requests = Counter("sluice_requests", "", ("call", "model", "outcome"), registry=registry)
        self.sessions = Gauge("sluice_sessions_active", "", ("model",), registry=registry)
        self.p_values = Histogram("sluice_recognition_p_values", "", ("model",), registry=registry)

    def batch(self, rows: int, waited_s: float, signature: str = "step") -> None:
        lane = ("temperature", "1", signature)
        self.rows.labels(*lane).inc(rows)
        self.batches.labels(*lane).inc()
        self.filler.labels(*lane).inc(8 - rows)
        for _ in range(rows):
            self.wait.labels(*lane).observe(waited_s)

    def scraped(self) -> bytes:
        return packed(generate_latest(self.registry))


def test_signatures_and_versions_of_a_model_are_one() -> None:
    gateway = Gateway()
    gateway.batch(3, 0.001, "step")
    gateway.batch(4, 0.001, "scan")
    assert read(gateway.scraped())["sluice_rows_total", "temperature", ""] == 7


def test_means_and_shares_are_those_of_what_ran_in_between() -> None:
    gateway = Gateway()
    gateway.batch(1, 0.001)
    before = read(gateway.scraped())
    gateway.batch(6, 0.015)
    gateway.batch(2, 0.015)
    gateway.elements.labels("temperature", "1", "sequences", "32", "real").inc(30)
    gateway.elements.labels("temperature", "1", "sequences", "64", "padding").inc(10)
    span = Span(before, read(gateway.scraped()))
    assert span.models == ["temperature"]
    assert span.batch_rows("temperature") == 4
    assert span.filler("temperature") == 8 / 16
    assert span.padding("temperature") == 10 / 40
    assert span.mean("sluice_queue_wait_seconds", "temperature") == pytest.approx(0.015)


def test_what_did_not_happen_has_no_mean() -> None:
    gateway = Gateway()
    gateway.batch(3, 0.001)
    still = read(gateway.scraped())
    span = Span(still, still)
    assert span.batch_rows("temperature") is None
    assert span.padding("temperature") is None
    assert span.quantile("sluice_queue_wait_seconds", "temperature", 0.99) is None


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.125, 0.005), (0.25, 0.01), (0.375, 0.015), (0.5, 0.02), (0.99, 0.05)]
)
def test_a_quantile_is_interpolated_between_the_bounds_of_its_bucket(share: float, seconds: float) -> None:
    gateway = Gateway()
    empty = read(gateway.scraped())
    for rows, waited_s in ((4, 0.001), (4, 0.012), (8, 1.0)):  # half of them beyond the last bound
        gateway.batch(rows, waited_s)
    span = Span(empty, read(gateway.scraped()))
    assert span.quantile("sluice_queue_wait_seconds", "temperature", share) == pytest.approx(seconds)


def test_counters_go_on_when_the_gateway_was_started_again() -> None:
    old, new = Gateway(started=1), Gateway(started=2)
    old.batch(5, 0.001)
    old.sessions.labels("temperature").set(9)
    new.batch(2, 0.001)
    new.sessions.labels("temperature").set(1)
    readings = [*continued([read(old.scraped()), None, read(new.scraped()), read(new.scraped())])]
    rows = [each and each["sluice_rows_total", "temperature", ""] for each in readings]
    assert rows == [5, None, 7, 7]
    assert readings[-1] is not None
    assert readings[-1]["sluice_sessions_active", "temperature", ""] == 1


def test_a_line_has_a_gap_where_the_gateway_did_not_answer() -> None:
    gateway, scraped = Gateway(), []
    for second in range(10):
        gateway.batch(2 if second < 5 else 4, 0.001)
        scraped.append((float(second), None if second == 6 else gateway.scraped()))
    lines, whole = over_time(scraped)
    rows = dict(lines["batch_rows"]["temperature"])
    assert rows[1.0] == 2
    assert rows[6.0] is None
    assert rows[9.0] == pytest.approx(4)
    assert whole is not None
    assert whole.increase("sluice_rows_total", "temperature") == 4 * 2 + 5 * 4


def test_a_rate_is_that_of_the_last_seconds_and_begins_at_nothing() -> None:
    gateway, scraped = Gateway(), []
    for second in range(30):
        if 10 < second <= 20:
            gateway.requests.labels("step", "temperature", "overloaded").inc(5)
        gateway.requests.labels("step", "temperature", "ok").inc(100)
        scraped.append((float(second), gateway.scraped()))
    lines, whole = over_time(scraped)
    assert [*lines["refused_per_s"]] == ["overloaded"]
    rates = dict(lines["refused_per_s"]["overloaded"])
    assert min(rates) == 10
    assert rates[10.0] == 0
    assert rates[11.0] == 5 / WINDOW_S
    assert rates[20.0] == 5
    assert rates[29.0] == 0
    assert whole is not None
    assert whole.by_label("sluice_requests_total") == {"overloaded": 50, "ok": 2900}


def test_a_gateway_that_was_never_reached_has_no_lines() -> None:
    assert over_time([(0.0, None), (1.0, None)]) == ({}, None)
    assert over_time([]) == ({}, None)


def test_nothing_is_scraped_where_nobody_listens() -> None:
    assert scrape("http://127.0.0.1:9") is None
