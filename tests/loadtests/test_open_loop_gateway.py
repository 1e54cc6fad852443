"""The open loop against a real gateway: answers are checked, wrong ones are found, and a page comes of it."""

import asyncio
import csv
import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from loadtests.open_loop import __main__ as open_loop
from loadtests.open_loop.measuring import SESSIONS, Failed, Found, Plan, Pool, measure
from loadtests.open_loop.probe import Probe
from loadtests.open_loop.search import Bounds
from loadtests.processes import free_address, python
from loadtests.traffic.library import Traffic, file_of, load
from loadtests.traffic.models import DIGITS
from loadtests.traffic.steps import Series
from tests.conftest import MODELS

LEFT_OUT = "sequences was left out: nobody knows what temperature should answer."
PATIENT_S = 60.0  # what the 99th percentile may be where the machine must not decide


@pytest.fixture(scope="module")
def sent(traffic: Path) -> Traffic:
    return load(traffic)


def probed(gateway: Any, scenario: str, pool: Pool, probes: int = 1) -> list[Probe]:
    """What is found at 80 requests a second, and at twice as many."""
    found = Found(scenario, PATIENT_S)
    plan = Plan(PATIENT_S, 0.5, Bounds(80.0, least=1.0, probes=probes), sessions=6, warm_up_s=0.05)
    asyncio.run(measure(gateway.http.rpartition("//")[2], found, pool, plan, lambda _: None))
    return found.probes


def short(sent: Traffic) -> list[Series]:
    """Series that end within a probe."""
    return [replace(series, inputs=series.inputs[:3], answers=series.answers[:3]) for series in sent.series]


@pytest.mark.parametrize("scenario", open_loop.MODELS)
def test_every_answer_of_a_scenario_is_right_whatever_the_rate(gateway: Any, sent: Traffic, scenario: str) -> None:
    pool = short(sent) if scenario == SESSIONS else getattr(sent, scenario)
    for probe, rate in zip(probed(gateway, scenario, pool, 2), (80, 160), strict=True):
        assert (probe.rate, probe.trouble(PATIENT_S), probe.told) == (rate, "", ())
        assert probe.right == probe.due == probe.latency.total_count > rate / 4


def test_a_wrong_answer_is_found_and_the_first_ones_are_told(gateway: Any, sent: Traffic) -> None:
    one, other = sent.rows[:2]
    [probe] = probed(gateway, "rows", [one, replace(other, check=one.check)])
    assert abs(probe.wrong - probe.right) <= 1
    assert probe.trouble(PATIENT_S).startswith(f"{probe.wrong} wrong")
    assert len(probe.told) == 3
    assert all("prediction" in sentence or "results" in sentence for sentence in probe.told)


def test_a_session_whose_state_is_not_its_own_is_found(gateway: Any, sent: Traffic) -> None:
    [probe] = probed(gateway, SESSIONS, [replace(series, answers=series.answers + 0.01) for series in short(sent)])
    assert (probe.right, probe.wrong) == (0, probe.due)
    assert "Keras says" in probe.told[0]


def test_a_gateway_that_is_gone_ends_a_scenario_with_its_reason(sent: Traffic) -> None:
    plan = Plan(PATIENT_S, 0.5, Bounds(80.0, least=1.0))
    with pytest.raises(Failed, match="Connect call failed"):
        asyncio.run(measure(free_address(), Found("rows", PATIENT_S), sent.rows, plan, lambda _: None))


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, traffic: Path) -> Run:
    """The command, where nobody knows what other models than that of the digits should answer."""
    app = typer.Typer()
    app.command()(open_loop.main)
    models, known = tmp_path / "models", tmp_path / "traffic"
    for folder, model in ((models, MODELS / DIGITS), (known, file_of(traffic, DIGITS))):
        folder.mkdir()
        (folder / model.name).symlink_to(model)
    folders = ["--models", str(models), "--traffic", str(known), "--out", str(tmp_path)]

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, *folders])

    return invoke


def test_the_command_writes_a_page_every_probe_a_histogram_and_a_line_of_the_history(
    gateway: Any, run: Run, tmp_path: Path
) -> None:
    done = run("rows", "sequences", "--url", gateway.http, "--limit", "60 s", "--seconds", "1", "--probes", "2")
    assert done.exit_code == 0, done.output
    assert "Highest rate with a p99 of at most 60 s: rows 200 per second." in done.stdout
    folder = tmp_path / "open_loop"
    page = (folder / "open_loop.html").read_text()
    for text in ("rows 200 per second", "limit, 60000 ms", LEFT_OUT):
        assert text in page
    [scenario] = json.loads((folder / "open_loop.json").read_bytes())["scenarios"]
    assert [(probe["rate"], probe["not_held"]) for probe in scenario["probes"]] == [(100, ""), (200, "")]
    assert scenario["highest_per_s"] == 200
    assert "#[Mean    =" in (folder / "rows.hgrm").read_text()
    [line] = csv.DictReader((tmp_path / "HISTORY.csv").read_text().splitlines())
    assert (line["program"], line["scenario"], line["rate_per_s"]) == ("open_loop", "rows", "200.0")
    assert float(line["p99_ms"]) == scenario["probes"][1]["p99_ms"]


def test_by_choice_a_scenario_that_cannot_run_fails_the_command(gateway: Any, run: Run) -> None:
    done = run("rows", "sequences", "--url", gateway.http, "--missing", "fail")
    assert (done.exit_code, done.stderr) == (3, "sequences cannot run: nobody knows what temperature should answer\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["row"], 2, "expected scenarios of sessions, rows, sequences, recognition, generation; got row"),
        (["rows", "--limit", "50"], 2, "--limit: expected a duration such as 50 ms or 2 s, got '50'"),
        (["rows", "--start", "5", "--seconds", "2"], 2, "expected a --start of at least 50"),
        (["rows", "--url", "ADDRESS"], 3, "it cannot be reached"),
    ],
    ids=["scenario", "limit", "start", "gateway"],
)
def test_what_cannot_be_done_is_told_in_a_line(run: Run, arguments: list[str], code: int, said: str) -> None:
    done = run(*(each.replace("ADDRESS", f"http://{free_address()}") for each in arguments))
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_writes_what_was_found_by_then(gateway: Any, traffic: Path, tmp_path: Path) -> None:
    arguments = ["rows", "--url", gateway.http, "--limit", "60 s", "--seconds", "1", "--probes", "50"]
    folders = ["--traffic", traffic, "--out", tmp_path]
    # Who runs the tests in the background may have SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", *python("loadtests.open_loop", *arguments, *folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate()
    assert "100/s" in first
    assert child.returncode == 130
    assert "Highest rate" in rest
    page = (tmp_path / "open_loop" / "open_loop.html").read_text()
    assert "It was stopped before its time." in page
    assert not (tmp_path / "HISTORY.csv").exists()
