"""The pictures of a run of Locust: what its users saw, and beside it what the gateway counted, over the same time."""

from collections import deque
from collections.abc import Mapping

from loadtests.locust.recording import Run
from loadtests.report.budgets import ALL
from loadtests.report.gateway import WINDOW_S, Line, Lines
from loadtests.report.plots import over_time
from sluice.evaluator.report.page import Gallery, Picture

_DRAWN_FROM = 10  # moments with answers; a scenario with fewer has no picture
_MS, _PERCENT = 1000.0, 100.0


def clients_and_gateway(run: Run, lines: Lines) -> Gallery:
    """The clients' figures at the left, the gateway's at the right, where a page has two columns."""

    def drawn(title: str, y: str, series: Mapping[str, Line], text: str) -> Picture:
        return over_time(title, y, series, run.seconds, text=text)

    def gateway(title: str, y: str, figure: str, text: str, scale: float = 1.0) -> Picture:
        series = {name or "gateway": _scaled(line, scale) for name, line in lines.get(figure, {}).items()}
        return drawn(title, y, series, text)

    answered: Line = [(second + 0.5, count) for second, count in enumerate(run.answered)]
    users: Line = [(moment.at_s, moment.users) for moment in run.moments]
    padding = {f"{model}, filler": _scaled(line, _PERCENT) for model, line in lines.get("filler", {}).items()}
    padding |= {f"{model}, padding": _scaled(line, _PERCENT) for model, line in _some(lines.get("padding", {})).items()}
    failures, refused = _failures(run), _some(lines.get("refused_per_s", {}))
    refused |= {f"batches: {code}": line for code, line in _some(lines.get("errors_per_s", {})).items()}
    pictures = [
        drawn("Users: answers", "per second", {"": answered}, "Requests of all scenarios, second by second."),
        gateway("Gateway: rows of a batch", "rows", "batch_rows", "Means by model, without filler."),
        drawn("Users: latency", "milliseconds", _latency(run, ALL), "Of all scenarios."),
        gateway("Gateway: wait in the queue", "milliseconds", "queue_wait_p99_s", "p99 of rows, by model.", _MS),
        drawn("Users", "users", {"": users}, "Those that are there, whether they ask or wait."),
        gateway("Gateway: run on the model server", "milliseconds", "run_p99_s", "p99 of batches, by model.", _MS),
        *(
            (
                drawn("Users: failures", "per second", failures, "By kind."),
                drawn("Gateway: refused requests, failed batches", "per second", refused, "By error code."),
            )
            if failures or refused
            else ()
        ),
        gateway("Gateway: open sessions", "sessions", "sessions", "By model."),
        drawn("Gateway: filler and padding", "%", padding, "Of rows, and of the elements of sequences."),
        gateway("Gateway: memory", "MiB", "memory_mib", "Resident, of the gateway's process alone."),
        gateway("Gateway: processor", "cores", "cpu_cores", "Of the gateway's process alone."),
    ]
    text = (
        f"All pictures have the same axis of time. Latencies, rates, means and shares are those of the {WINDOW_S} "
        "seconds before; a line has a gap where there is nothing to tell."
    )
    return Gallery("Users and gateway", pictures, text)


def latencies(run: Run) -> Gallery | None:
    """Of each scenario that was asked for often enough."""
    names = sorted({name for moment in run.moments for name in moment.latencies_s} - {ALL})
    found = {name: _latency(run, name) for name in names}
    pictures = [
        over_time(name, "milliseconds", series, run.seconds)
        for name, series in found.items()
        if sum(value is not None for _, value in series["p99"]) >= _DRAWN_FROM
    ]
    return Gallery("Latency by scenario", pictures) if pictures else None


def _latency(run: Run, name: str) -> dict[str, Line]:
    def line(place: int) -> Line:
        found = ((moment.at_s, moment.latencies_s.get(name)) for moment in run.moments)
        return [(at_s, None if each is None else each[place] * _MS) for at_s, each in found]

    return {"p50": line(0), "p99": line(1)}


def _failures(run: Run) -> dict[str, Line]:
    """A second, over the last seconds."""
    lines: dict[str, Line] = {kind: [] for kind in (run.moments[-1].failures if run.moments else ())}
    earlier = deque([(0.0, dict[str, int]())], maxlen=WINDOW_S)
    for moment in run.moments:
        since_s, before = earlier[0]
        for kind, line in lines.items():
            more = moment.failures.get(kind, 0) - before.get(kind, 0)
            line.append((moment.at_s, more / (moment.at_s - since_s)))
        earlier.append((moment.at_s, dict(moment.failures)))
    return lines


def _some(lines: Mapping[str, Line]) -> dict[str, Line]:
    """Those with something other than nothing."""
    return {name: line for name, line in lines.items() if any(value for _, value in line)}


def _scaled(line: Line, scale: float) -> Line:
    return [(at_s, None if value is None else value * scale) for at_s, value in line]
