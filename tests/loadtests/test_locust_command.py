"""Locust as a load-test engineer runs it, against a real gateway: what it prints, writes and exits with."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.locust import __main__ as command
from loadtests.processes import ROOT, free_address
from loadtests.traffic.library import file_of
from loadtests.traffic.models import DIGITS
from sluice.cli.embedded import Embedded
from tests.conftest import MODELS
from tests.end_to_end.serving import eventually

LOCUST = [sys.executable, "-m", "locust"]
FILE = "loadtests/locust/locustfile.py"
LOOSE = "loadtest:\n  all: {wrong_answers: 0, requests: 10}\n"
MOST_S = 120
Start = Callable[..., "Load"]


class Load:
    """A Locust that runs against a gateway, and what it writes."""

    def __init__(self, out: Path, arguments: list[Any]) -> None:
        self.out = out
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST", "LOADTEST"))}
        # Who runs the tests in the background may have SIGINT ignored, and children inherit that.
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT", *LOCUST, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=MOST_S)
        return self.process.returncode, said

    @property
    def page(self) -> str:
        return (self.out / "summary.html").read_text()

    @property
    def history(self) -> list[dict[str, str]]:
        file = self.out / "HISTORY.csv"
        return [*csv.DictReader(file.read_text().splitlines())] if file.exists() else []

    @property
    def users(self) -> list[int]:
        """Second by second."""
        return [int(row["users"]) for row in csv.DictReader((self.out / "timeline.csv").read_text().splitlines())]


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Budgets that a busy machine keeps, too."""
    file = tmp_path / "budgets.yaml"
    file.write_text(LOOSE)
    return file


@pytest.fixture
def start(gateway: Embedded, traffic: Path, tmp_path: Path, loose: Path) -> Iterator[Start]:
    loads: list[Load] = []

    def started(*arguments: Any, **options: Any) -> Load:
        given = {"host": gateway.http, "grpc": gateway.grpc, "traffic": traffic, "budgets": loose, "out": tmp_path}
        named = [f"--{name}={value}" for name, value in {**given, **options}.items()]
        loads.append(Load(tmp_path, ["-f", FILE, "--headless", "--only-summary", *named, *arguments]))
        return loads[-1]

    yield started
    for load in loads:
        if load.process.poll() is None:
            load.process.kill()
            load.process.wait()


def test_a_wrong_answer_fails_the_run_and_the_first_three_are_shown_at_the_load_that_was_asked_for(
    start: Start, traffic: Path, tmp_path: Path
) -> None:
    planted = shutil.copytree(traffic, tmp_path / "planted")
    with np.load(file_of(traffic, DIGITS)) as arrays:
        np.savez(file_of(planted, DIGITS), **{**arrays} | {"logits": arrays["logits"] + 1})
    load = start("RowsUser", "-u", "10", "-t", "10s", "--shape", "spike", "--wait", "0.3", traffic=planted)
    code, said = load.end()
    assert code == 1, said
    assert said.count("\n  asked: POST /v1/models/digits_other:predict") == 3, said
    assert "wrong answers ≤ 0, found" in said
    assert "The first wrong answers" in load.page
    asked_for = "spike of 10 users for 10 s, waiting 0.3 s on average, only RowsUser"
    assert {row["setting"] for row in load.history} == {asked_for}
    users = load.users
    assert max(users) == 10
    assert users[2] == 2 and users[-2] == 2, users


def test_ctrl_c_in_the_middle_writes_what_there_is_and_what_is_left_out_is_named(
    start: Start, gateway: Embedded
) -> None:
    before = asked(gateway)
    load = start("-u", "9", "-r", "100", "-t", "300s", grpc=free_address())
    eventually(lambda: load.process.poll() is not None or asked(gateway) > before + 100, MOST_S)
    load.process.send_signal(signal.SIGINT)
    code, said = load.end()
    assert code == 0, said
    assert "All 2 budgets kept." in said
    assert f"The page of it: {load.out / 'summary.html'}" in said
    assert "Traceback" not in said
    for name in ("RowsGrpcUser", "SessionStreamUser", "HangUpUser"):
        assert f"{name} is left out: nothing listens for gRPC at" in said
    assert "stopped before its time" in load.page
    assert "RowsGrpcUser was left out" in load.page
    assert not load.history  # it cannot be compared


def test_a_master_and_two_workers_share_the_load_as_the_readme_has_it(
    start: Start, tmp_path: Path, loose: Path
) -> None:
    readme = (ROOT / "loadtests" / "README.md").read_text()
    lines = re.findall(r"^locust (.*--(?:master|worker)\b.*)$", readme, re.MULTILINE)
    assert len(lines) == 3, lines
    port = free_address().rpartition(":")[2]
    master, *workers = (shlex.split(line) for line in lines)
    files = [f"--{name}={tmp_path / 'locust'}{suffix}" for name, suffix in (("html", ".html"), ("csv", ""))]
    lead = start(*master, *files, "--only-summary", "-u", "12", "-t", "5s", "--wait", "0.2", "--master-bind-port", port)
    others = [Load(tmp_path, [*worker, "--master-port", port]) for worker in workers]
    code, said = lead.end()
    assert code == 0, said
    assert [other.end()[0] for other in others] == [0, 0], said
    assert "from 2 processes" in lead.page
    assert {row["scenario"] for row in lead.history} > {
        "all",
        "rows over gRPC",
        "step over HTTP",
        "step over WebSocket",
    }


def test_one_command_serves_and_loads_and_writes_everything_into_one_folder(
    gateway: Embedded, traffic: Path, tmp_path: Path, loose: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(command, "serving", lambda models, out: nullcontext(gateway))
    shutil.copytree(traffic, tmp_path / "traffic")
    arguments = ["--models", MODELS, "--out", tmp_path, "--budgets", loose, "-u", "12", "-t", "4s"]
    arguments += ["--wait", "0.2", "--processes", "2"]
    assert command.main([*map(str, arguments)]) == 0
    said = capfd.readouterr().out
    assert said.endswith(f"All 2 budgets kept.\nThe page of it: {tmp_path / 'summary.html'}\n")
    page = (tmp_path / "summary.html").read_text()
    for file in ("locust.html", "locust_stats.csv", "locust_stats_history.csv", "timeline.csv"):
        assert (tmp_path / file).is_file()
        assert f'href="{file}"' in page
    assert (tmp_path / "HISTORY.csv").is_file()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"host": "http://127.0.0.1:1"}, 3, "expected a gateway at http://127.0.0.1:1; it cannot be reached"),
        pytest.param(
            {"grpc": "127.0.0.1:1", "missing": "fail"},
            3,
            "RowsGrpcUser cannot run: nothing listens for gRPC",
            marks=pytest.mark.deep,
        ),
        ({"budgets": "{unknown}"}, 2, "no figure is called 'p42'; there are p50, p90"),
    ],
)
def test_what_cannot_run_ends_at_once_with_a_sentence_and_a_code(
    start: Start, tmp_path: Path, options: dict[str, str], code: int, said: str
) -> None:
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("loadtest:\n  all: {p42: 50 ms}\n")
    load = start("RowsGrpcUser", **{name: value.format(unknown=unknown) for name, value in options.items()})
    ended, told = load.end()
    assert ended == code, told
    assert said in told.splitlines()[-1], told
    assert "Traceback" not in told
    assert not (tmp_path / "summary.html").exists()


def asked(gateway: Embedded) -> float:
    """How many rows the gateway has run so far."""
    with urllib.request.urlopen(f"{gateway.http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("sluice_rows_total{"))
