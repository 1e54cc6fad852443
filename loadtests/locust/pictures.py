"""The pictures of a run of Locust: what its users saw, and beside it what the gateway counted, over the same time."""

from collections.abc import Iterable, Iterator, Mapping

from loadtests.locust.recording import Run
from loadtests.locust.scenarios import SCENARIOS
from loadtests.report.budgets import ALL
from loadtests.report.gateway import WINDOW_S, Line, Lines
from loadtests.report.plots import over_time
from sluice.evaluator.report.page import Gallery

_DRAWN_FROM = 0.01  # of all requests; a line of fewer says nothing
_MS, _PERCENT = 1000.0, 100.0


Plot = tuple[str, str, Mapping[str, Line], str]  # title, unit, lines, text


def clients_and_gateway(run: Run, lines: Lines) -> Gallery | None:
    """The clients' figures at the left, the gateway's at the right, where a page has two columns."""
    pictures = [
        over_time(title, unit, series, run.seconds, text=text)
        for title, unit, series, text in _plots(run, lines)
        if _told(series)
    ]
    text = (
        f"All pictures have the same axis of time. Latencies, rates, means and shares are those of the {WINDOW_S} "
        "seconds before; a line has a gap where there is nothing to tell."
    )
    return Gallery("Users and gateway", pictures, text) if pictures else None


def _plots(run: Run, lines: Lines) -> Iterator[Plot]:
    models = sorted({*lines.get("batch_rows", {}), *lines.get("sessions", {})})  # each with its colour in all pictures

    def gateway(title: str, unit: str, figure: str, text: str, scale: float = 1.0) -> Plot:
        found = lines.get(figure, {})
        names = [""] if "" in found else models
        return f"Gateway: {title}", unit, {name: _scaled(found.get(name, []), scale) for name in names}, text

    answered: Line = [(second + 0.5, count) for second, count in enumerate(run.answered)]
    users: Line = [(moment.at_s, moment.users) for moment in run.moments]
    refused = _some(lines.get("refused_per_s", {}))
    refused |= {f"batches: {code}": line for code, line in _some(lines.get("errors_per_s", {})).items()}

    yield "Users: answers", "per second", {"": answered}, "Requests of all scenarios, second by second."
    yield gateway("rows of a batch", "rows", "batch_rows", "Means by model, without filler.")
    yield "Users: latency", "milliseconds", _latency(run, ALL), "Of all scenarios."
    yield gateway("wait in the queue", "milliseconds", "queue_wait_p99_s", "p99 of rows, by model.", _MS)
    yield "Users", "users", {"": users}, "Those that are there, whether they ask or wait."
    yield gateway("run on the model server", "milliseconds", "run_p99_s", "p99 of batches, by model.", _MS)
    yield "Users: failures", "per second", _failures(run), "By kind."
    yield "Gateway: refused requests, failed batches", "per second", refused, "By error code."
    yield gateway("open sessions", "sessions", "sessions", "By model.")
    yield gateway("filler", "%", "filler", "The share of rows that only fill a batch up, by model.", _PERCENT)
    yield gateway("rows that wait", "rows", "queue_rows", "At the moment of looking, by model.")
    yield gateway("padding", "%", "padding", "The share of the elements of sequences, by model.", _PERCENT)
    yield gateway("memory", "MiB", "memory_mib", "Resident, of the gateway's process alone.")
    yield gateway("processor", "cores", "cpu_cores", "Of the gateway's process alone.")


def latencies(run: Run) -> Gallery | None:
    """Of each scenario that is asked for often enough."""
    often = run.figures[ALL]["requests"] * _DRAWN_FROM
    pictures = [
        over_time(name, "milliseconds", series, run.seconds)
        for name, series in ((name, _latency(run, name)) for name in in_order(run.figures))
        if name != ALL and run.figures[name]["requests"] >= often and _told(series)
    ]
    text = f"Of those with at least {100 * _DRAWN_FROM:g} % of all requests."
    return Gallery("Latency by scenario", pictures, text) if pictures else None


def in_order(names: Iterable[str]) -> list[str]:
    """As the scenarios are listed, and `all` at the end."""
    places = {name: place for place, name in enumerate((*SCENARIOS, ALL))}
    return sorted(names, key=lambda name: (places.get(name, 0), name))


def _latency(run: Run, name: str) -> dict[str, Line]:
    def line(place: int) -> Line:
        found = ((moment.at_s, moment.latencies_s.get(name)) for moment in run.moments)
        return [(at_s, None if each is None else each[place] * _MS) for at_s, each in found]

    return {"p50": line(0), "p99": line(1)}


def _failures(run: Run) -> dict[str, Line]:
    """A second, over the last seconds."""
    lines: dict[str, Line] = {kind: [] for kind in (run.moments[-1].failures if run.moments else ())}
    for place, moment in enumerate(run.moments[1:], 1):
        before = run.moments[max(0, place - WINDOW_S)]
        for kind, line in lines.items():
            more = moment.failures.get(kind, 0) - before.failures.get(kind, 0)
            line.append((moment.at_s, more / (moment.at_s - before.at_s)))
    return lines


def _told(series: Mapping[str, Line]) -> bool:
    return any(value is not None for line in series.values() for _, value in line)


def _some(lines: Mapping[str, Line]) -> dict[str, Line]:
    """Those that are not zero all the time."""
    return {name: line for name, line in lines.items() if any(value for _, value in line)}


def _scaled(line: Line, scale: float) -> Line:
    return [(at_s, None if value is None else value * scale) for at_s, value in line]
