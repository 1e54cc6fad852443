"""The page of a run of Locust: budgets, scenarios and failures, and what users saw beside what the gateway counted."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.locust.outcomes import Wrong
from loadtests.locust.pictures import clients_and_gateway, in_order, latencies
from loadtests.locust.recording import Run
from loadtests.report import budgets
from loadtests.report.budgets import ALL, Verdict
from loadtests.report.gateway import Lines, Span, over_time
from loadtests.report.history import Entry
from sluice.evaluator.document import Table
from sluice.evaluator.report.numbers import duration, value
from sluice.evaluator.report.page import Shown, page

_EARLIER = 5  # runs that are shown beside this one
_WAIT, _RUN = "sluice_queue_wait_seconds", "sluice_run_seconds"


@dataclass(frozen=True, slots=True)
class Told:
    """What the page tells of a run beside its figures.

    Attributes:
        setting: the load, in words: runs with the same one can be compared.
        url: of the gateway.
        verdicts: of the budgets.
        wrong: the first wrong answers.
        notes: what a reader has to know, such as which scenarios were left out.
        files: what lies beside the page: names, by relative addresses.
        history: of this program's earlier runs, the oldest first.
    """

    setting: str
    url: str
    verdicts: Sequence[Verdict]
    wrong: Sequence[Wrong] = ()
    notes: Sequence[str] = ()
    files: Mapping[str, str] | None = None
    history: Sequence[Entry] = ()


def write(folder: Path, run: Run, told: Told) -> Path:
    """Write `summary.html`, whose path is returned, and `timeline.csv` with what its pictures show."""
    lines, whole = over_time([(moment.at_s, moment.scraped) for moment in run.moments])
    folder.mkdir(parents=True, exist_ok=True)
    _write_timeline(folder / "timeline.csv", run, lines)
    file = folder / "summary.html"
    file.write_text(_page(run, told, lines, whole), encoding="utf-8")
    return file


def _page(run: Run, told: Told, lines: Lines, whole: Span | None) -> str:
    every = run.figures[ALL]
    wrong = int(every.get("wrong_answers", 0))
    verdict = budgets.sentence(told.verdicts)
    if wrong and all(each.kept for each in told.verdicts):
        verdict = f"Some answers were wrong: {wrong:,}. {verdict}"
    return page(
        "Load test",
        f"{told.setting[:1].upper()}{told.setting[1:]}, against {told.url}.",
        [*_sections(run, told, lines, whole)],
        verdict=verdict,
        failed=wrong > 0 or not all(each.kept for each in told.verdicts),
        facts=(
            f"{every['requests']:,.0f} requests in {duration(run.seconds)}, from {run.began_at:%Y-%m-%d %H:%M:%S} UTC.",
        ),
        notes=told.notes,
        files={**(told.files or {}), "timeline.csv": "what the pictures show, as CSV"},
    )


def _sections(run: Run, told: Told, lines: Lines, whole: Span | None) -> Iterator[Shown]:
    if told.verdicts:
        yield budgets.table(told.verdicts)
    if told.wrong:
        rows = tuple((each.scenario, each.difference, each.request.replace(",", ", ")) for each in told.wrong)
        yield Table(title="The first wrong answers", columns=("scenario", "difference", "request"), rows=rows)
    yield _scenarios(run)
    if run.failures:
        counts = sorted(run.failures, key=lambda failed: -failed.count)
        failed = tuple((each.scenario, each.words, each.count) for each in counts)
        yield Table(title="Failures", columns=("scenario", "what happened", "requests"), rows=failed)
    if drawn := clients_and_gateway(run, lines):
        yield drawn
    if whole is not None:
        yield _models(whole)
        yield _outcomes(whole)
    if shown := latencies(run):
        yield shown
    if earlier := _earlier(told):
        yield earlier


def _scenarios(run: Run) -> Table:
    """By name, and all of them in the last line."""
    rows = tuple(
        (
            name, int(found["requests"]), f"{found['rate']:,.1f}",
            *(_ms(found.get(each)) for each in ("p50", "p99", "max")), f"{100 * found.get('errors', 0):.3g} %",
        )
        for name, found in ((name, run.figures[name]) for name in in_order(run.figures))
    )  # fmt: skip
    columns = ("scenario", "requests", "per second", "p50, ms", "p99, ms", "longest, ms", "failed")
    text = "Percentiles are Locust's: whole milliseconds, of two digits from 100 on."
    return Table(title="Scenarios", text=text, columns=columns, rows=rows)


def _models(whole: Span) -> Table:
    rows = tuple(
        (
            model, int(whole.increase("sluice_rows_total", model)), int(whole.increase("sluice_batches_total", model)),
            value(whole.batch_rows(model), digits=3), _percent(whole.filler(model)), _percent(whole.padding(model)),
            _ms(whole.mean(_WAIT, model)), _ms(whole.quantile(_WAIT, model, 0.99)),
            _ms(whole.mean(_RUN, model)), _ms(whole.quantile(_RUN, model, 0.99)),
        )
        for model in whole.models
        if whole.increase("sluice_batches_total", model)
    )  # fmt: skip
    columns = (
        "model", "rows", "batches", "rows of a batch", "filler", "padding", "wait, ms", "p99", "run, ms", "p99",
    )  # fmt: skip
    text = (
        "What the gateway counted over the run. Filler: rows that only filled a batch up; padding: of sequences, the "
        "share of elements that are none. Wait: a row's in the queue; run: a batch's on the model server. A p99 is "
        "interpolated between the bounds of a histogram."
    )
    return Table(title="The gateway's batches", text=text, columns=columns, rows=rows)


def _outcomes(whole: Span) -> Table:
    """The good ones first, then by how many they are."""
    counts = sorted(whole.by_label("sluice_requests_total").items(), key=lambda each: (each[0] != "ok", -each[1]))
    rows = tuple((outcome, int(count)) for outcome, count in counts if count)
    text = (
        "client_gone: the client hung up before it was answered."
        if any(row[0] == "client_gone" for row in rows)
        else ""
    )
    return Table(title="The gateway's answers", text=text, columns=("outcome", "requests"), rows=rows)


def _earlier(told: Told) -> Table | None:
    """The last runs with the same setting."""
    same = [each for each in told.history if each.scenario == ALL and each.setting == told.setting][-_EARLIER:]
    rows = tuple(
        (
            f"{each.began_at:%Y-%m-%d %H:%M}", each.commit, each.requests, each.rate_per_s, each.p50_ms, each.p99_ms,
            each.failures,
        )
        for each in same
    )  # fmt: skip
    columns = ("began (UTC)", "commit", "requests", "per second", "p50, ms", "p99, ms", "failed")
    return Table(title="Earlier runs of this kind", columns=columns, rows=rows) if same else None


def _write_timeline(file: Path, run: Run, lines: Lines) -> None:
    """A line for each moment: seconds, users, requests in that second, latencies of all, then the gateway's figures."""
    columns = {
        f"{figure} {name}".strip(): dict(line) for figure, named in lines.items() for name, line in named.items()
    }
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["seconds", "users", "requests", "failures", "p50_s", "p99_s", *columns])
        for moment in run.moments:
            second = int(moment.at_s) - 1  # the one that has just ended
            answered = run.answered[second] if 0 <= second < len(run.answered) else ""
            p50, p99 = moment.latencies_s.get(ALL, ("", ""))
            counted = ["" if (found := line.get(moment.at_s)) is None else f"{found:.6g}" for line in columns.values()]
            failed = sum(moment.failures.values())
            writer.writerow([f"{moment.at_s:.1f}", moment.users, answered, failed, p50, p99, *counted])


def _ms(seconds: float | None) -> str:
    return value(None if seconds is None else 1000 * seconds, digits=3)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3g} %"
