"""The evaluator as a process: killed, told to stop, twice on one database, and on addresses that cannot be had."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sluice.cli.errors import CommandError
from sluice.cli.evaluator import evaluator
from sluice.evaluator.jobs.database import opened
from sluice.evaluator.jobs.store import Store
from sluice.evaluator.settings import SettingsError, load
from sluice.listener import CannotListen, listen_at
from tests.evaluator.puppet import SPEC

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]


class Process:
    def __init__(self, process: asyncio.subprocess.Process, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    def do(self, parts: int) -> None:
        self.process.stdin.write(b"%d\n" % parts)

    async def end(self, sig: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(sig)
        said = await asyncio.wait_for(self.process.stderr.read(), PATIENCE_S)
        return await self.process.wait(), said.decode()

    async def watch(self, id: str, **wanted) -> dict:
        """What the events say, once they say this."""
        async with asyncio.timeout(PATIENCE_S), self.http.stream("GET", f"/v1/evaluations/{id}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and wanted.items() <= (body := json.loads(line[6:])).items():
                    return body
        raise AssertionError("the stream has ended")


def flags(folder: Path, http: str) -> list[str]:
    return ["--http", http, "--database", f"sqlite:///{folder}/evaluations.db", "--uploads", f"{folder}/uploads"]


@contextlib.asynccontextmanager
async def serving(folder: Path, http: str) -> AsyncIterator[Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.evaluator.serve_puppet", *flags(folder, http),
        cwd=ROOT, env=environment, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        found, said = None, b""
        async with asyncio.timeout(PATIENCE_S):
            while not found:
                line = await process.stderr.readline()
                said += line
                assert line, said.decode()
                found = re.search(r"http=(http://\S+|unix:\S+)", line.decode())
        uds = found[1].removeprefix("unix:") if found[1].startswith("unix:") else None
        transport = httpx.AsyncHTTPTransport(uds=uds)
        base = "http://evaluator" if uds else found[1]
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=PATIENCE_S) as client:
            yield Process(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(served: Process) -> str:
    return (await served.http.post("/v1/evaluations", json=SPEC)).json()["evaluation"]


async def report(served: Process, id: str) -> dict:
    found = (await served.http.get(f"/v1/evaluations/{id}/report")).json()
    return {name: value for name, value in found.items() if name != "run"}


async def test_a_killed_evaluator_goes_on_where_it_was_and_reports_the_same_and_one_that_is_told_to_stop_ends(tmp_path):
    path = tmp_path / "evaluator.sock"
    async with serving(tmp_path, f"unix:{path}") as served:
        whole = await ask(served)
        served.do(4)
        await served.watch(whole, status="done")
        interrupted = await ask(served)
        served.do(2)
        await served.watch(interrupted, rows_done=20)
        code, _ = await served.end(signal.SIGKILL)
        assert code == -signal.SIGKILL
    async with serving(tmp_path, f"unix:{path}") as served:  # in place of the socket that is left
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await served.watch(interrupted, status="running"))["rows_done"] == 20
        served.do(2)
        await served.watch(interrupted, status="done", rows_done=40)
        assert await report(served, interrupted) == await report(served, whole)

        stopped = await ask(served)
        served.do(1)
        await served.watch(stopped, rows_done=10)
        watching = asyncio.create_task(served.watch(stopped, status="done"))
        await served.watch(stopped, status="running")
        code, said = await served.end(signal.SIGTERM)
        assert (code, "Traceback" in said) == (0, False), said
        with pytest.raises(AssertionError, match="the stream has ended"):
            await watching
    assert not path.exists()
    with opened(f"sqlite:///{tmp_path}/evaluations.db") as database:
        store = Store(database)
        assert store.get(stopped).status == "running"  # which is queued again at the next start
        assert store.kept(store.get(stopped)).numbers("main") == {0}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--http", "here"], 2, "--http: expected HOST:PORT or unix:PATH, got 'here'"),
        (["--gateway", "http://localhost:99999"], 2, "gateway: A port is 1 to 65535; got 99999"),
        (["--gateway", "localhost:8080"], 2, "--gateway: expected http://HOST:PORT or https://HOST:PORT, got"),
        (["--at-once", "0"], 2, "--at-once: expected a number above 0, got"),
        (["--protocols", "http"], 2, "--protocols: expected some of file, s3, gs; got 'http'"),
        (["--data-roots", "/nowhere"], 2, "--data-roots: expected a folder; there is no folder /nowhere"),
        (["--database", "evaluations.db"], 1, "expected sqlite:///FILE or postgresql://"),
        (["--http", "taken"], 1, "the address is in use by another program. End that one, or choose another port"),
        ([], 1, "another evaluator uses it. End that one, or give this one a database of its own"),
    ],
)
def test_what_it_cannot_start_with_is_told_with_a_code(tmp_path, monkeypatch, arguments, code, told):
    monkeypatch.setattr("sluice.cli.evaluator.configure", lambda log_format: None)
    with socket.create_server(("127.0.0.1", 0)) as taken, opened(f"sqlite:///{tmp_path}/evaluations.db"):
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        given = [port if each == "taken" else each for each in arguments]
        with pytest.raises(CommandError) as refused:
            evaluator([*flags(tmp_path, "127.0.0.1:0"), *given])
    assert (refused.value.code, told in str(refused.value)) == (code, True), str(refused.value)


def test_an_unknown_setting_in_the_environment_is_refused_and_a_known_one_is_used(monkeypatch):
    monkeypatch.setenv("SLUICE_EVALUATOR_DATA_ROOTS", "/data,s3://bucket/folder")
    assert load([]).data_roots == ("/data", "s3://bucket/folder")
    assert load(["--data-roots", "/other"]).data_roots == ("/other",)
    monkeypatch.setenv("SLUICE_EVALUATOR_DATA_ROOT", "/data")
    with pytest.raises(SettingsError, match="no setting SLUICE_EVALUATOR_DATA_ROOT; known are"):
        load([])


def test_a_socket_is_replaced_only_if_nobody_listens_on_it(tmp_path):
    path = tmp_path / "s"
    listen_at(path, "--http").close()  # left behind
    with listen_at(path, "--http"):
        with pytest.raises(CannotListen, match=r"--http unix:.*another program listens there"):
            listen_at(path, "--http")
    path.unlink()
    path.write_text("mine")
    with pytest.raises(CannotListen, match="a file that is no socket"):
        listen_at(path, "--http")
    assert path.read_text() == "mine"
    for wrong in (tmp_path / "no" / "s", tmp_path / ("x" * 200)):
        with pytest.raises(CannotListen, match="Give a short path in a folder that is there"):
            listen_at(wrong, "--http")
