"""The bars: what the gateway is asked to reach, as ratios within one run wherever speed is meant.

A ratio is taken round by round, as the speed of a shared machine wanders, and the median of the rounds counts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.bench.cases.lengths import BUCKETS, POLICIES, case_name
from loadtests.bench.report.results import Outcomes, Spread
from loadtests.bench.workloads.lengths import BIMODAL, MIXES, Mix
from loadtests.bench.workloads.steps import NARROW

_LIMITS = ("limit-default-128", "limit-embedded-128")


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing asked, and what the run has reached of it; None: a case that it needs has not been measured."""

    title: str
    asked: float
    unit: str
    at_least: bool
    reached: Spread | None

    @property
    def holds(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached.median >= self.asked if self.at_least else self.reached.median <= self.asked

    def document(self) -> dict[str, Any]:
        """For the JSON file."""
        reached = self.reached
        return {
            "title": self.title,
            "asked": self.asked,
            "at_least": self.at_least,
            "unit": self.unit,
            "reached": reached and {"median": reached.median, "least": reached.least, "most": reached.most},
            "holds": self.holds,
        }


def bars(outcomes: Outcomes) -> list[Bar]:
    """Every bar, with what these outcomes say about it."""

    def rates(name: str) -> list[float]:
        return values(name, "steps_per_s")

    def values(name: str, figure: str) -> list[float]:
        return outcomes[name].by_round(figure) if name in outcomes else []

    limit = _each(max, *(rates(name) for name in _LIMITS))
    http = rates("http-128")

    def ratio(title: str, above: list[float], below: list[float], asked: float) -> Bar:
        return Bar(title, asked, "", True, _spread(_each(lambda a, b: a / b, above, below)))

    def most(title: str, found: list[float], asked: float, unit: str) -> Bar:
        return Bar(title, asked, unit, False, _spread(found))

    added_ms = _each(lambda a, b: a - b, values("http-1", "p50_ms"), values("predict-1", "p50_ms"))
    direct_ms = values("predict-direct-1", "p50_ms")

    def added(name: str) -> list[float]:
        return _each(lambda a, b: a - b, values(f"predict-{name}-1", "p50_ms"), direct_ms)

    def lengths(mix: Mix) -> Iterator[Bar]:
        """The best way is the faster of 8 buckets and chunks, round by round."""
        ways = {way: rates(case_name(mix, way)) for way in POLICIES}
        best = _each(max, ways["learned8"], ways["scanned"])
        yield ratio(f"{mix.name}: 8 learned buckets / padded to the longest", ways["learned8"], ways["longest"], 3.0)
        yield ratio(f"{mix.name}: 8 learned buckets / arrival order", ways["learned8"], ways["arrival"], 1.3)
        yield ratio(f"{mix.name}: the best / the offline ideal", best, ways["offline"], 0.8)
        for count in BUCKETS:
            padding = values(case_name(mix, f"learned{count}"), "padding_over_optimum")
            yield most(f"{mix.name}: padding of {count} learned buckets / optimum", padding, 1.05, "")
        share = values(case_name(mix, "scanned"), "padding_share_over_optimum")
        yield most(f"{mix.name}: share of padding in chunks / optimum of 8 buckets", share, 1.0, "")
        if mix is BIMODAL:
            short = [values(case_name(mix, way), "open70_short_p99_ms") for way in ("scanned", "learned8")]
            times = _each(lambda a, b: a / b, *short)
            yield most(f"{mix.name}: the shortest quarter's p99, chunks / 8 learned buckets", times, 0.5, "")

    waiting = rates("generation-static")
    predicted = rates("recognition-predict-64")
    recognition_ms = [values(f"recognition-{kind}-1", "p50_ms") for kind in ("logits", "predict")]
    recognized_ms = _each(lambda a, b: a - b, *recognition_ms)

    return [
        ratio("HTTP, 128 clients / echo, 128 clients", http, rates("echo-128"), 0.33),
        ratio("gRPC stream, 1 step a message / HTTP, 128 clients", rates("grpc-1"), http, 0.7),
        ratio("gRPC stream, 128 rows a message / bare model, batch 128", rates("grpc-128"), limit, 0.6),
        ratio("columnar, 128 rows, 4 callers / bare model, batch 128", rates("columnar-128x4"), limit, 0.6),
        ratio("100,000 open sessions / 100", rates("open-100000"), rates("open-100"), 0.9),
        most(
            "an idle session beside its state of 2 KiB",
            values("open-100000", "bytes_per_session"),
            NARROW.state_bytes + 1024,
            "bytes",
        ),
        most("added to one client's p50", added_ms, 1.0, "ms"),
        ratio("predict, HTTP, 64 clients / echo", rates("predict-rest-64"), rates("predict-rest-echo"), 0.3),
        ratio("predict, gRPC, 64 at a time / gRPC echo", rates("predict-grpc-64"), rates("predict-grpc-echo"), 0.5),
        most("added over HTTP to one predict's p50", added("rest"), 1.0, "ms"),
        most("added over gRPC to one predict's p50", added("grpc"), 1.0, "ms"),
        ratio("predict of 1 MiB, gRPC / gRPC echo", rates("predict-grpc-1m"), rates("predict-echo-1m"), 0.3),
        ratio("infer of 1 MiB, v2 binary / gRPC echo", rates("predict-v2-1m"), rates("predict-echo-1m"), 0.3),
        most("start to ready", values("start", "ready_s"), 1.0, "s"),
        *(bar for mix in MIXES for bar in lengths(mix)),
        ratio("generation, running batch / clients that wait", rates("generation-running"), waiting, 2.0),
        ratio("recognize by logits / predict, 64 clients", rates("recognition-logits-64"), predicted, 0.95),
        ratio("recognize by nearest neighbours / predict", rates("recognition-knn-64"), predicted, 0.85),
        ratio("recognize with a detector / predict", rates("recognition-detector-64"), predicted, 0.5),
        most("added by recognize to one predict's p50", recognized_ms, 0.3, "ms"),
        most("live p99 beside an evaluation / alone", values("neighbour", "beside_over_alone_p99"), 1.2, ""),
    ]


def _each(combine: Callable[..., float], *columns: Sequence[float]) -> list[float]:
    """Combine the values of each round; nothing if a column is empty."""
    return [combine(*row) for row in zip(*columns, strict=False)]


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread.of(values) if values else None
