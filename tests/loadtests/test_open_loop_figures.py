"""What is made of an open loop's probes: the highest rates, the page, the history, and the stall seen in two ways."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from loadtests.open_loop import omission, results
from loadtests.open_loop.measuring import Found, Plan
from loadtests.open_loop.probe import Probe, histogram
from loadtests.open_loop.results import Results
from loadtests.open_loop.search import Bounds

LIMIT_S = 0.05
WRONG = "prediction 0: Keras says 1, got <2>"


def probe(rate: float, p99_s: float, wrong: int = 0) -> Probe:
    due = int(rate)
    return Probe(
        rate=rate, seconds=1.0, due=due, right=due - wrong, wrong=wrong, refused={}, skipped=0, told=(WRONG,) * wrong,
        in_time=due - wrong, late_s=0.001, cpu_share=0.1, latency=histogram(np.full(due - wrong, p99_s)),
    )  # fmt: skip


def found(*probes: Probe, ended: str = "") -> Found:
    return Found("rows", LIMIT_S, list(probes), ended)


def written(*every: Found) -> Results:
    return Results(Plan(LIMIT_S, 1.0, Bounds(100.0, least=1.0)), "http://127.0.0.1:8080", list(every))


def test_the_highest_rate_is_the_highest_that_any_probe_held_and_its_better_probe_counts() -> None:
    every = found(probe(100, 0.04), probe(200, 0.09), probe(200, 0.03), probe(400, 0.3), probe(400, 0.2))
    assert every.best is every.probes[2]
    assert every.decisive == [every.probes[0], every.probes[2], every.probes[4]]
    assert [(each.rate, each.held) for each in every.tried] == [
        (100, True), (200, False), (200, True), (400, False), (400, False),
    ]  # fmt: skip
    assert found(probe(100, 0.2)).best is None


def test_results_fail_if_an_answer_is_wrong_or_a_scenario_has_no_rate() -> None:
    fine = found(probe(100, 0.01))
    assert not written(fine).failed
    for bad in (found(probe(100, 0.2)), found(probe(50, 0.01), probe(100, 0.01, wrong=1)), found(ended="it is gone")):
        assert written(fine, bad).failed


def test_the_page_says_what_was_found_and_what_was_not(tmp_path) -> None:
    every = written(found(probe(100, 0.01), probe(1000, 0.2, wrong=2), ended="the server closed a connection"))
    every.notes.append("sessions was left out: the gateway serves no temperature.")
    page = results.write(tmp_path, every).read_text()
    assert "Highest rate with a p99 of at most 50 ms: rows 100 per second." in page
    for text in (
        "sessions was left out: the gateway serves no temperature.",
        "rows: the server closed a connection.",
        WRONG.replace("<", "&lt;").replace(">", "&gt;"),
        "2 wrong, p99 over the limit",
        'href="rows.hgrm"',
        "limit, 50 ms",
    ):
        assert text in page


def test_the_table_has_each_scenario_that_has_a_rate_and_the_curves_all() -> None:
    slow = Found("sessions", LIMIT_S, [probe(100, 0.2)])
    every = written(found(probe(100, 0.01), probe(2000, 0.02)), slow)
    assert results.table(every).splitlines() == [
        "| scenario | requests a second | p50 | p90 | p99 | p99.9 | longest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| rows | 2,000 | 20 ms | 20 ms | 20 ms | 20 ms | 20 ms |",
    ]
    drawn = results.curves(every).svg
    assert all(text in drawn for text in ("rows", "sessions", "limit, 50 ms"))


def test_the_history_has_each_scenario_at_its_highest_rate() -> None:
    [entry] = results.entries(written(found(probe(100, 0.01), probe(200, 0.02), probe(400, 0.2)), found(probe(9, 1.0))))
    assert (entry.scenario, entry.rate_per_s, entry.requests, entry.wrong_answers) == ("rows", 200, 200, 0)
    assert entry.p99_ms == pytest.approx(20, rel=1e-2)
    assert entry.setting == "p99 of at most 50 ms, probes of 1 s, 256 sessions"


def test_a_stall_is_shown_as_both_count_it() -> None:
    row = {
        "Request Count": "1500",
        "Requests/s": "50.1",
        "50%": "4",
        "90%": "6",
        "99%": "9",
        "99.9%": "1000",
        "100%": "1003",
    }
    closed = omission.seen_by_locust(row)
    open_ = omission.seen_by_open_loop(probe(1500, 0.5))
    assert (closed.requests, closed.per_s, closed.percentiles[99.0]) == (1500, 50.1, 9.0)
    assert omission.table((closed, open_)).splitlines()[2:] == [
        "| Locust | 1,500 | 4 ms | 6 ms | 9 ms | 1,000 ms | 1,003 ms |",
        "| open loop | 1,500 | 500 ms | 500 ms | 500 ms | 500 ms | 500 ms |",
    ]
    drawn = omission.draw((closed, open_))
    assert all(text in drawn for text in ("Locust", "open loop", "99.9 %"))


def test_each_nine_of_a_percentile_takes_as_much_room() -> None:
    assert [omission.nines(each) for each in (90, 99, 99.9)] == pytest.approx([1, 2, 3])


def test_a_process_that_is_stalled_goes_on_whatever_ends_the_block() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        seen = psutil.Process(child.pid)

        def becomes(stopped: bool) -> None:
            deadline = time.monotonic() + 60
            while (seen.status() == psutil.STATUS_STOPPED) is not stopped:
                assert time.monotonic() < deadline
                time.sleep(0.01)

        with pytest.raises(KeyboardInterrupt), omission.stalling(child.pid, 0.0, 3600.0):
            becomes(stopped=True)
            raise KeyboardInterrupt
        becomes(stopped=False)
