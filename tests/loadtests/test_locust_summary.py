"""The page of a run of Locust: what happened is on it, in words, in pictures and as CSV; figures are Locust's."""

import csv
import json
import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtests.locust.outcomes import Wrong
from loadtests.locust.recording import Failed, Moment, Run
from loadtests.locust.scenarios import ROWS, STEP
from loadtests.locust.summary import Told, write
from loadtests.processes import python, run
from loadtests.report.budgets import ALL, FIGURES, Budget, judge
from loadtests.report.history import Entry

SECONDS = 60
COUNTED = """\
process_start_time_seconds 1.0
process_resident_memory_bytes {memory}
sluice_requests_total{{call="step",model="temperature",outcome="ok"}} {ok}
sluice_requests_total{{call="step",model="temperature",outcome="overloaded"}} {refused}
sluice_rows_total{{model="temperature",signature="step",version="1"}} {rows}
sluice_batches_total{{model="temperature",signature="step",version="1"}} {batches}
sluice_sessions_active{{model="temperature"}} 7
"""
HOSTILE = '{"instances": "<script>alert(1)</script>"}'


def figures(**changed: float) -> Mapping[str, float]:
    found = {"p50": 0.004, "p90": 0.008, "p95": 0.01, "p99": 0.032, "p99.9": 0.05, "max": 0.061, "rate": 20.0}
    return found | {"requests": 1200, "errors": 0.0, "wrong_answers": 0} | changed


def moment(second: int) -> Moment:
    counted = COUNTED.format(memory=2**27, ok=100 * second, refused=2 * second, rows=80 * second, batches=20 * second)
    latencies = dict.fromkeys((ALL, STEP, ROWS), (0.004, 0.032)) if second else {}
    scraped = None if second == 30 else zlib.compress(counted.encode())
    return Moment(float(second), 20, latencies, {"Refused": 2 * second} if second else {}, scraped)


RUN = Run(
    began_at=datetime(2026, 11, 30, 17, 0, tzinfo=UTC),
    seconds=float(SECONDS),
    figures={STEP: figures(), ROWS: figures(requests=5, p99=0.044), ALL: figures(requests=1205, errors=0.1)},
    failures=[Failed(STEP, "Refused: overloaded", 120)],
    answered=[100] * SECONDS,
    moments=[*map(moment, range(SECONDS + 1))],
)
BRIEF = replace(RUN, answered=[], moments=[])  # without pictures
TOLD = Told("ramp of 20 users for 60 s", "http://127.0.0.1:8080", judge([Budget(STEP, "p99", 0.05)], RUN.figures))


def page(folder: Path, run: Run = RUN, told: Told = TOLD) -> str:
    return write(folder, run, told).read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def cells(text: str) -> list[str]:
    return re.findall(r"<td.*?>(.*?)</td>", text)


def row(text: str, first: str) -> list[str]:
    """The cells of a table's row, by its first one."""
    rows = map(cells, re.findall(r"<tr>(.*?)</tr>", text))
    return next(found for found in rows if found and found[0] == first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("usual"), RUN, TOLD).parent


@pytest.fixture(scope="module")
def usual(folder: Path) -> str:
    return (folder / "summary.html").read_text(encoding="utf-8")


def test_a_page_says_first_whether_budgets_were_kept(usual: str) -> None:
    assert '<p class="verdict">All 1 budgets kept.</p>' in usual
    assert sections(usual)[0] == "Budgets"


def test_a_page_shows_each_scenario_and_all_of_them(usual: str) -> None:
    assert row(usual, STEP) == [STEP, "1,200", "20.0", "4", "32", "61", "0 %"]
    assert row(usual, ROWS)[4] == "44"
    assert row(usual, ALL)[-1] == "10 %"
    assert usual.index(f"<td>{ROWS}</td>") < usual.index("<td>all</td>")


def test_a_page_shows_what_the_gateway_counted_from_end_to_end(usual: str) -> None:
    assert row(usual, "temperature")[:4] == ["temperature", "4,800", "1,200", "4"]
    assert row(usual, "ok") == ["ok", "6,000"]
    assert row(usual, "overloaded") == ["overloaded", "120"]


def test_a_page_has_pictures_of_users_and_gateway_over_the_same_time(usual: str) -> None:
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", usual)
    assert {"Users: latency", "Users: failures", "Gateway: rows of a batch", "Gateway: memory"} <= {*titles}
    assert STEP in titles
    assert ROWS not in titles  # five requests are no line
    assert usual.count("<svg ") == len(titles)


def test_failures_are_told_by_scenario_and_in_words(usual: str) -> None:
    assert cells(usual[usual.index("<h2>Failures") :])[:3] == [STEP, "Refused: overloaded", "120"]


def test_a_run_without_failures_has_no_section_of_them(tmp_path: Path) -> None:
    calm = [replace(each, failures={}, latencies_s={}, scraped=None) for each in RUN.moments]
    text = page(tmp_path, replace(RUN, failures=[], moments=calm))
    assert sections(text) == ["Budgets", "Scenarios", "Users and gateway"]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["Users: answers", "Users"]


def test_wrong_answers_fail_a_run_that_has_no_budget_for_them(tmp_path: Path) -> None:
    run = replace(BRIEF, figures={ALL: figures(wrong_answers=2)})
    text = page(tmp_path, run, replace(TOLD, verdicts=[], wrong=[Wrong(STEP, HOSTILE, "expected 1.5, got 2.5")]))
    assert '<p class="verdict failed">Some answers were wrong: 2.' in text
    assert cells(text)[:2] == [STEP, "expected 1.5, got 2.5"]
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_run_that_was_broken_off_at_once_has_a_page(tmp_path: Path) -> None:
    nothing = Run(RUN.began_at, 0.2, {ALL: {"requests": 0, "rate": 0.0}}, [], [], [])
    verdicts = judge([Budget(ALL, "p99", 0.05)], nothing.figures)
    assert "1 of 1 budgets broken: all: p99 ≤ 50 ms, found nothing measured." in page(
        tmp_path, nothing, replace(TOLD, verdicts=verdicts)
    )


def test_runs_of_the_same_load_are_shown_beside_this_one(tmp_path: Path) -> None:
    entry = Entry("loadtest", TOLD.setting, ALL, 1100, 3, 0, 18.5, 4.0, 31.0, 70.0, RUN.began_at, "0123456789ab", 2)
    others = [replace(entry, setting="spike"), replace(entry, scenario=STEP)]
    text = page(tmp_path, BRIEF, replace(TOLD, history=[entry, *others]))
    assert row(text, "2026-11-30 17:00") == ["2026-11-30 17:00", "0123456789ab", "1,100", "18.5", "4", "31", "3"]
    assert text.count("0123456789ab") == 1


def test_the_timeline_has_what_the_pictures_show(folder: Path) -> None:
    with (folder / "timeline.csv").open(encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == SECONDS + 1
    last, gap = lines[-1], lines[30]
    assert (last["users"], last["requests"], last["p99_s"]) == ("20", "100", "0.032")
    assert (last["batch_rows temperature"], last["refused_per_s overloaded"]) == ("4", "2")
    assert gap["batch_rows temperature"] == ""
    assert gap["p99_s"] == "0.032"


LOCUST = """
import json, sys
from locust.stats import RequestStats
from loadtests.locust.outcomes import Refused, SessionLost, Unreachable, WrongAnswer
from loadtests.locust.recording import failures, figures
kinds = {"wrong": WrongAnswer("a", "b"), "lost": SessionLost("session_lost"), "refused": Refused("overloaded"),
         "unreachable": Unreachable("no connection")}
stats = RequestStats()
for name, took_ms, kind in json.loads(sys.argv[1]):
    stats.log_request("POST", name, took_ms, 10)
    if kind:
        stats.log_error("POST", name, kinds[kind])
print(json.dumps([figures(stats), [[each.scenario, each.kind, each.count] for each in failures(stats)]]))
"""


def test_figures_are_those_of_the_requests_that_locust_was_told_of() -> None:
    draw = random.Random(20)
    kinds = [""] * 90 + ["wrong"] * 2 + ["lost", "refused", "refused", "refused", "unreachable"]
    told = [(draw.choice((STEP, ROWS)), draw.randrange(1, 100), draw.choice(kinds)) for _ in range(3000)]
    found, failed = json.loads(run([python("")[0], "-c", LOCUST, json.dumps(told)], 60))
    assert {*found[ALL]} == {*FIGURES}
    for scope in (STEP, ROWS, ALL):
        own = [each for each in told if scope in (each[0], ALL)]
        times = sorted(took_ms for _, took_ms, _ in own)
        assert found[scope]["requests"] == len(own)
        assert found[scope]["max"] == times[-1] / 1000
        assert found[scope]["p99"] == pytest.approx(times[round(0.99 * len(times))] / 1000, abs=0.001)
        assert found[scope]["errors"] == pytest.approx(sum(bool(kind) for _, _, kind in own) / len(own))
        for figure, kind in (("wrong_answers", "wrong"), ("sessions_lost", "lost")):
            assert found[scope][figure] == sum(each[2] == kind for each in own)
        for figure in ("refused", "unreachable"):
            assert found[scope][figure] == pytest.approx(sum(each[2] == figure for each in own) / len(own))
    assert [STEP, "Refused", sum(each[0] == STEP and each[2] == "refused" for each in told)] in failed
