"""What an open loop writes: a page, every probe as JSON, a line of the history for each scenario, and histograms."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from loadtests.open_loop.measuring import Found, Plan
from loadtests.open_loop.probe import Probe
from loadtests.report import history
from loadtests.report.history import Entry
from loadtests.report.plots import by_load
from loadtests.report.quantities import written
from sluice.evaluator.document import Table
from sluice.evaluator.report.page import Gallery, Picture, Shown, page

PROGRAM = "open_loop"
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
_MILLISECONDS = 1000.0  # to a µs of a histogram


@dataclass(slots=True)
class Results:
    """What was found so far, and what a reader has to know of it; `notes` are sentences."""

    plan: Plan
    url: str
    found: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def limit(self) -> str:
        return written(self.plan.limit_s, "duration")

    @property
    def failed(self) -> bool:
        """Whether an answer was wrong, or a scenario has no rate."""
        return any(found.ended or not found.best or _wrong(found) for found in self.found)

    def rate_of(self, found: Found) -> str:
        return written(found.best.rate, "rate") if found.best else "no rate"

    @property
    def sentence(self) -> str:
        rates = ", ".join(f"{found.scenario} {self.rate_of(found)}" for found in self.found)
        return f"Highest rate with a p99 of at most {self.limit}: {rates or 'nothing was measured'}."


def write(folder: Path, results: Results) -> Path:
    """Write everything into a folder; the page's file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"open_loop.json": "every probe, as JSON"}
    (folder / "open_loop.json").write_bytes(orjson.dumps(_document(results), option=orjson.OPT_INDENT_2))
    for found in results.found:
        if best := found.best:
            name = f"{found.scenario}.hgrm"
            with (folder / name).open("wb") as out:
                best.latency.output_percentile_distribution(out, _MILLISECONDS)
            files[name] = f"{found.scenario} at {results.rate_of(found)}, as HdrHistogram prints it, in ms"
    file = folder / "open_loop.html"
    file.write_text(_page(results, files), encoding="utf-8")
    return file


def table(results: Results) -> str:
    """The highest rates, in Markdown."""
    columns = ("scenario", "requests a second", *PERCENTILES, "longest")
    rows = (
        (found.scenario, f"{best.rate:,g}", *(f"{best.ms(each):,.3g} ms" for each in (*PERCENTILES.values(), 100.0)))
        for found in results.found
        if (best := found.best)
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def curves(results: Results) -> Picture:
    """The p99 of every scenario by the load that was offered."""
    series = {found.scenario: [(probe.rate, probe.ms(99)) for probe in found.decisive] for found in results.found}
    return by_load("p99 by offered load", "requests a second", series, limit_ms=results.plan.limit_s * 1000)


def entries(results: Results) -> Iterator[Entry]:
    """For the history: each scenario at its highest rate."""
    plan, commit, cpus = results.plan, history.commit(), history.cpus()
    words = (f"p99 of at most {results.limit}", f"probes of {plan.seconds:g} s", f"{plan.sessions} sessions")
    setting = ", ".join(filter(None, [*words, history.elsewhere(results.url)]))
    for found in results.found:
        if best := found.best:
            yield Entry(
                PROGRAM,
                setting,
                found.scenario,
                requests=best.due,
                failures=0,
                wrong_answers=_wrong(found),
                rate_per_s=best.rate,
                p50_ms=best.ms(50),
                p99_ms=best.ms(99),
                max_ms=best.ms(100),
                began_at=results.began_at,
                commit=commit,
                cpus=cpus,
            )


def _page(results: Results, files: dict[str, str]) -> str:
    return page(
        "Open loop",
        f"Poisson arrivals at {results.url}, sent when they are due; latencies count from then.",
        [*_sections(results)],
        verdict=results.sentence,
        failed=results.failed,
        facts=[*_facts(results)],
        notes=[*results.notes, *(f"{found.scenario}: {found.ended}." for found in results.found if found.ended)],
        files=files,
    )


def _facts(results: Results) -> Iterator[str]:
    plan = results.plan
    yield (
        f"{results.began_at:%Y-%m-%d %H:%M} UTC, {history.cpus()} processors, commit {history.commit()}; "
        f"{plan.seconds:g} s a probe, {plan.sessions} sessions."
    )
    yield (
        f"A rate is held if its p99 is at most {results.limit}, 99 % of the requests that were due are answered in "
        "time, and none is skipped, refused or wrong. A rate that is not held is tried "
        "once more, and the better probe counts: the machine may have been busy with something else."
    )
    yield (
        "The client shares the processors with the gateway. Its timers wake once a millisecond, so latencies are up to "
        "1 ms too high."
    )


def _sections(results: Results) -> Iterator[Shown]:
    wrong = [(found.scenario, sentence) for found in results.found for probe in found.probes for sentence in probe.told]
    if wrong:
        yield Table(title="The first wrong answers", columns=("scenario", "difference"), rows=tuple(wrong[:3]))
    columns = ("scenario", "highest rate, per second", *(f"{name}, ms" for name in PERCENTILES), "longest, ms")
    rows = tuple(
        (found.scenario, best.rate, *(best.ms(each) for each in PERCENTILES.values()), best.ms(100))
        for found in results.found
        if (best := found.best)
    )
    yield Table(title="Highest rates", columns=columns, rows=rows)
    pictures = [
        by_load(
            found.scenario,
            "requests a second",
            {
                name: [(probe.rate, probe.ms(percentile)) for probe in found.decisive]
                for name, percentile in PERCENTILES.items()
            },
            limit_ms=results.plan.limit_s * 1000,
        )
        for found in results.found
        if found.probes
    ]
    if pictures:
        yield Gallery("Latency by offered load", pictures)
    yield from (_probes(found) for found in results.found if found.probes)


def _probes(found: Found) -> Table:
    text = "Rates are requests a second. What is sent late was due while all connections, all sessions, or the client "
    columns = (
        "rate", "due", "answered in time", "p50, ms", "p99, ms", "sent late, p99, ms", "client, cores", "not held",
    )  # fmt: skip
    rows = tuple(
        (
            probe.rate, probe.due / probe.seconds, probe.achieved_per_s, probe.ms(50), probe.ms(99),
            probe.late_s * 1000, round(probe.cpu_share, 2), probe.trouble(found.limit_s),
        )
        for probe in found.probes
    )  # fmt: skip
    return Table(title=f"Probes: {found.scenario}", text=f"{text}were busy.", columns=columns, rows=rows)


def _wrong(found: Found) -> int:
    return sum(probe.wrong for probe in found.probes)


def _document(results: Results) -> dict[str, Any]:
    plan = results.plan
    return {
        "began_at": results.began_at,
        "url": results.url,
        "limit_s": plan.limit_s,
        "seconds": plan.seconds,
        "sessions": plan.sessions,
        "notes": results.notes,
        "scenarios": [
            {
                "scenario": found.scenario,
                "ended": found.ended,
                "highest_per_s": found.best.rate if found.best else None,
                "probes": [_probe(probe, found.limit_s) for probe in found.probes],
            }
            for found in results.found
        ],
    }


def _probe(probe: Probe, limit_s: float) -> dict[str, Any]:
    names = ("rate", "due", "right", "wrong", "refused", "skipped", "in_time", "late_s", "cpu_share", "told")
    return {
        **{name: getattr(probe, name) for name in names},
        **{f"{name}_ms": probe.ms(percentile) for name, percentile in PERCENTILES.items()},
        "max_ms": probe.ms(100),
        "not_held": probe.trouble(limit_s),
    }
