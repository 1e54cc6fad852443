"""What the bench makes of what was measured: wrk's output, medians, bars, the JSON file."""

import json
from pathlib import Path

import orjson
import pytest

from loadtests.bench.cases.doors import Case, all_cases
from loadtests.bench.loads import load, wrk
from loadtests.bench.report import report
from loadtests.bench.report.bars import bars
from loadtests.bench.report.plots import draw
from loadtests.bench.report.results import Outcome, Sample, Spread
from loadtests.bench.rounds import run_rounds
from loadtests.bench.stage import Stage
from loadtests.processes import Failed

PRINTED = """Running 2s test @ http://127.0.0.1:9901/
  1 threads and 128 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.15ms    2.15ms  30.77ms   94.60%
    Req/Sec    42.15k     3.52k   47.10k    80.00%
  84278 requests in 2.00s, 25.72MB read
Requests/sec:  42049.72
Transfer/sec:     12.83MB
{"requests":84278,"duration_us":2004537,"p50_us":2887,"p99_us":13396,"cpu_s":1.026,"refused":0,"failed":0}
"""


def outcome(name: str, *rates: float, **figures: float) -> Outcome:
    return Outcome(name, name.partition("-")[0], name, [[{"steps_per_s": rate, **figures}] for rate in rates])


def of(*outcomes: Outcome) -> dict[str, Outcome]:
    return {each.name: each for each in outcomes}


def test_the_line_of_our_scripts_is_found_in_what_wrk_prints() -> None:
    assert wrk.parse(PRINTED) == load.Load(84278, 2.004537, 2.887, 13.396, 1.026)


def test_figures_are_for_steps_and_not_for_calls() -> None:
    sample = load.Load(answers=500, seconds=2.0, p50_ms=3.0, p99_ms=9.0, cpu_s=0.5).sample(rows=128)
    assert sample == {"steps_per_s": 32_000, "p50_ms": 3.0, "p99_ms": 9.0, "load_cpu_s": 0.5 / 64}


def test_a_load_generator_in_python_is_understood() -> None:
    measured = load.Load(10, 1.5, 0.25, 0.5, 0.125)
    assert load.parse(load.printed(measured)) == measured


@pytest.mark.parametrize("figure", ["refused", "failed"])
def test_a_run_with_refused_or_lost_calls_does_not_count(figure: str) -> None:
    with pytest.raises(Failed, match=r"84278 calls .*7"):
        wrk.parse(PRINTED.replace(f'"{figure}":0', f'"{figure}":7'))


def test_what_wrk_says_instead_of_figures_is_passed_on() -> None:
    with pytest.raises(Failed, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:9 Connection refused\n")


def test_a_spread_is_the_median_of_all_rounds_with_the_least_and_the_most() -> None:
    assert outcome("http-8", 30, 10, 20).spread("steps_per_s") == Spread(20, 10, 30)
    assert outcome("http-8", 30).spread("mean_batch") is None


def test_several_measurements_of_a_round_are_one_value_of_it() -> None:
    starts = Outcome("start", "start", "start", [[{"ready_s": 1.0}, {"ready_s": 3.0}], [{"ready_s": 5.0}]])
    assert starts.by_round("ready_s") == [2.0, 5.0]
    assert starts.spread("ready_s") == Spread(3.0, 1.0, 5.0)


def test_ratios_are_taken_round_by_round() -> None:
    found = bars(of(outcome("http-128", 10, 40, 90), outcome("echo-128", 100, 200, 300)))
    assert found[0].reached == Spread(0.2, 0.1, 0.3)
    assert found[0].holds is False


def test_the_bare_model_counts_with_the_better_of_its_threads() -> None:
    limits = outcome("limit-default-128", 100, 50), outcome("limit-embedded-128", 80, 200)
    found = bars(of(outcome("columnar-128x4", 60, 120), *limits))
    assert found[3].reached == Spread(0.6, 0.6, 0.6)
    assert found[3].holds is True


def test_a_bar_whose_case_failed_is_neither_reached_nor_missed() -> None:
    failed = outcome("http-128", 10)
    failed.failure = "wrk: nothing answered"
    found = bars(of(failed, outcome("echo-128", 100)))
    assert {bar.holds for bar in found} == {None}


def test_upper_bounds_hold_up_to_the_bound() -> None:
    alone, served = outcome("predict-1", 1, p50_ms=0.5), outcome("http-1", 1, p50_ms=1.5)
    found = bars(of(alone, served, outcome("open-100000", 1, bytes_per_session=3073.0)))
    memory, added = (bar for bar in found if bar.reached is not None)
    assert (added.reached, added.holds) == (Spread(1.0, 1.0, 1.0), True)
    assert (memory.asked, memory.holds) == (3072, False)


def test_what_a_predict_waits_longer_is_taken_against_the_model_server_alone() -> None:
    alone = outcome("predict-direct-1", 1, 1, p50_ms=0.5)
    found = bars(of(alone, outcome("predict-rest-1", 1, 1, p50_ms=1.25), outcome("predict-grpc-1", 1, 1, p50_ms=2.0)))
    reached = {bar.title: (bar.reached.median, bar.holds) for bar in found if bar.reached is not None}
    assert reached == {
        "added over HTTP to one predict's p50": (0.75, True),
        "added over gRPC to one predict's p50": (1.5, False),
    }


def test_the_json_file_holds_the_machine_every_round_the_medians_and_the_bars() -> None:
    outcomes = of(outcome("http-128", 10, 20, 60), outcome("echo-128", 100, 100, 100))
    found = report.document(report.machine(), {"rounds": 3}, outcomes.values(), bars(outcomes))
    read = json.loads(orjson.dumps(found))
    assert read["machine"]["cpus"] >= 1
    assert read["machine"]["packages"].keys() >= {"tensorflow", "grpcio", "uvicorn"}
    case = read["cases"][0]
    assert [samples[0]["steps_per_s"] for samples in case["rounds"]] == [10, 20, 60]
    assert (case["median"], case["least"], case["most"]) == (
        {"steps_per_s": 20},
        {"steps_per_s": 10},
        {"steps_per_s": 60},
    )
    assert read["bars"][0]["reached"] == {"median": 0.2, "least": 0.1, "most": 0.6}
    assert read["bars"][1]["reached"] is None


def test_a_case_that_fails_keeps_its_reason_and_stops_no_other() -> None:
    told: list[str] = []

    def refused(stage: Stage, seconds: float) -> list[Sample]:
        raise Failed("no such door")

    cases = [Case("grpc-1", "grpc", "over gRPC", refused), Case("http-1", "http", "over HTTP", lambda *_: [{"x": 1.0}])]
    with Stage(Path("unused")) as stage:
        outcomes = run_rounds(stage, cases, rounds=2, seconds=1, told=told.append)
    assert outcomes["grpc-1"].failure == "no such door"
    assert outcomes["grpc-1"].spread("x") is None
    assert outcomes["http-1"].rounds == [[{"x": 1.0}]] * 2
    assert told == [f"{when}: {case.title}" for when in ("warming up", "round 1", "round 2") for case in cases]


def test_every_case_that_a_bar_or_a_picture_needs_exists() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))
    every = of(
        *(
            outcome(
                name,
                10,
                p50_ms=1.0,
                bytes_per_session=2500.0,
                ready_s=0.5,
                padding_over_optimum=1.0,
                padding_share_over_optimum=1.0,
                open70_short_p99_ms=1.0,
                beside_over_alone_p99=1.0,
            )
            for name in names
        )
    )
    assert None not in [bar.holds for bar in bars(every)]


def test_pictures_are_drawn_of_what_was_measured(tmp_path) -> None:
    figures = {"p50_ms": 3.0, "p99_ms": 9.0, "gateway_cpu_s": 0.1, "model_server_cpu_s": 0.05, "load_cpu_s": 0.02}
    outcomes = of(outcome("http-64", 10, **figures), outcome("limit-default-128", 100))
    assert [file.name for file in draw(outcomes, tmp_path)] == ["throughput.png", "latency.png", "cpu.png", "doors.png"]
    assert draw(of(outcome("start", 1)), tmp_path / "none") == []
