"""The page of a soak: what is asked of the gateway and what came of it, with pictures of the whole time."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from loadtests.report.plots import Points, over_time
from loadtests.soak.figures import Series, TooFew
from loadtests.soak.findings import MIB, Finding, sentence, unknown
from loadtests.soak.samples import EVALUATOR, GATEWAY, LOAD, MODEL_SERVER, Sample
from loadtests.soak.watching import Watched
from sluice.evaluator.document import Table
from sluice.evaluator.report.numbers import duration
from sluice.evaluator.report.page import Gallery, Picture, page
from sluice.evaluator.report.picture import alone

_SHOWN = 1200  # points of a line: more cannot be seen, and would make the page large
HOLDS = {True: "✓ holds", False: "✗ does not hold", None: "not known"}
_CPU_S = 10.0  # over so many seconds processor time is taken


def write(file: Path, seen: Watched, findings: Sequence[Finding], load: str, files: Mapping[str, str]) -> None:
    """`load` says what it was, in words; `files` are what lies beside the page, by their relative addresses."""
    asked = tuple((each.title, each.asked, each.found, HOLDS[each.holds]) for each in findings)
    sections = (
        Table(title="What is asked", columns=("", "asked", "found", ""), rows=asked),
        Gallery("The whole time", _pictures(seen), "A dotted line: the model server was killed."),
        _kills(seen),
    )
    text = page(
        "Soak",
        load,
        [section for section in sections if section is not None],
        verdict=sentence(findings),
        failed=any(each.holds is False for each in findings),
        facts=(f"{duration(seen.load_s)} under load, {len(seen.of(GATEWAY)):,} looks at the gateway.",),
        notes=[*(["It was stopped before its time."] if seen.interrupted else []), *unknown(findings)],
        files=files,
    )
    file.write_text(text, encoding="utf-8")


def write_memory(file: Path, seen: Watched) -> None:
    """The picture of the gateway's memory, alone in a file."""
    file.write_text(alone(_memory(seen, zero=True).svg), encoding="utf-8")


def _memory(seen: Watched, *, zero: bool) -> Picture:
    """The gateway's, with the means that are compared; from 0, or as near as it can be seen."""
    samples = seen.of(GATEWAY)
    series = {"its own": _line(samples, "unique_bytes", MIB)}
    if zero:
        series["resident, with what is shared"] = _line(samples, "resident_bytes", MIB)
    with suppress(TooFew):
        held = Series([each.at_s for each in samples], [each.unique_bytes / MIB for each in samples], seen.load_s)
        (second, last), quarter = held.means(), seen.load_s / 4
        series["mean of the second quarter"] = [(quarter, second), (2 * quarter, second)]
        series["mean of the last"] = [(3 * quarter, last), (4 * quarter, last)]
    title = "Gateway: memory" if zero else "Gateway: its own memory, from nearby"
    return over_time(title, "MiB", series, seen.load_s, marks=_kill_marks(seen), zero=zero)


def _pictures(seen: Watched) -> list[Picture]:
    processes = (GATEWAY, MODEL_SERVER, EVALUATOR, LOAD)
    running = {name: samples for name in processes if (samples := seen.of(name))}
    others = {name: samples for name, samples in running.items() if name != GATEWAY}
    return [
        _memory(seen, zero=True),
        _memory(seen, zero=False),
        _over_time(seen, "Gateway: open file descriptors", "", {"": _line(seen.of(GATEWAY), "descriptors")}),
        *(
            _over_time(seen, f"{name.capitalize()}: own memory", "MiB", {"": _line(samples, "unique_bytes", MIB)})
            for name, samples in others.items()
        ),
        _over_time(seen, "Processor", "cores", {name: _cores(samples) for name, samples in running.items()}),
        _over_time(seen, "Threads", "", {name: _line(samples, "threads") for name, samples in running.items()}),
    ]


def _over_time(seen: Watched, title: str, y: str, series: Mapping[str, Points]) -> Picture:
    return over_time(title, y, series, seen.load_s, marks=_kill_marks(seen))


def _kill_marks(seen: Watched) -> Mapping[str, Sequence[float]]:
    return {"killed": [kill.at_s for kill in seen.kills]} if seen.kills else {}


def _line(samples: Sequence[Sample], field: str, scale: float = 1) -> Points:
    """Thinned out evenly; with a gap where one process took the place of another."""
    points: list[tuple[float, float | None]] = []
    for before, sample in pairwise([samples[0], *samples[:: max(1, len(samples) // _SHOWN)]]):
        if before.pid != sample.pid:
            points.append((sample.at_s, None))
        points.append((sample.at_s, getattr(sample, field) / scale))
    return points


def _cores(samples: Sequence[Sample]) -> Points:
    """How many cores a process kept busy, over some seconds each."""
    points: list[tuple[float, float | None]] = []
    begin = samples[0]
    for sample in samples:
        if sample.pid != begin.pid:
            points.append((sample.at_s, None))
            begin = sample
        elif sample.at_s - begin.at_s >= _CPU_S:
            points.append((sample.at_s, (sample.cpu_s - begin.cpu_s) / (sample.at_s - begin.at_s)))
            begin = sample
    return points


def _kills(seen: Watched) -> Table | None:
    rows = tuple((duration(kill.at_s), "" if kill.back_s is None else f"{kill.back_s:.0f} s") for kill in seen.kills)
    columns = ("the model server was killed after", "the gateway was ready again within")
    return Table(title="Kills", columns=columns, rows=rows) if rows else None
