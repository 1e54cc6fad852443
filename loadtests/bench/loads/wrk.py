"""Load over HTTP by wrk, which costs less than any client in Python."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx

from loadtests.bench.loads.load import Load
from loadtests.bench.loads.once import send_once
from loadtests.bench.workloads.sequences import write_requests
from loadtests.bench.workloads.steps import ROW, STEP_BODY, Model, session
from loadtests.processes import Failed, find_wrk, run

_SCRIPTS = Path(__file__).parent / "lua"
_GRACE_S = 30
_JSON: Mapping[str, str] = {"content-type": "application/json"}
_TOLD = 300  # characters of an answer that an error shows


def step_sessions(address: str, model: Model, clients: int, sessions: int, seconds: float) -> Load:
    """`clients` connections step `sessions` open sessions for some seconds, one step of a session at a time."""
    prefix = session(model, 0)[:-1]
    return _run(address, "step.lua", 1, clients, seconds, [prefix, str(sessions), STEP_BODY.decode()])


def step_columns(address: str, model: Model, callers: int, rows: int, seconds: float) -> Load:
    """`callers` connections step `rows` sessions each with every call."""
    prefix, row = session(model, 0)[:-1], json.dumps(ROW, separators=(",", ":"))
    args = [f"/v1/models/{model.name}/sessions:step", prefix, str(rows), row]
    return _run(address, "columnar.lua", callers, callers, seconds, args)


def call(
    address: str, path: str, body: bytes, clients: int, seconds: float, headers: Mapping[str, str] = _JSON
) -> Load:
    """`clients` connections send the same body to a path again and again.

    Raises:
        Failed: calls were refused, or the first one was, with its answer.
    """
    first = httpx.post(f"http://{address}{path}", content=body, headers=dict(headers), timeout=_GRACE_S)
    if first.status_code != 200:
        raise Failed(f"{path} answered {first.status_code}: {first.text[:_TOLD]}")
    with NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        args = [path, file.name, *(part for field in headers.items() for part in field)]
        return _run(address, "call.lua", 1, clients, seconds, args)


def call_many(address: str, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """`clients` connections send whole requests, one behind the other and again from the first.

    Raises:
        Failed: calls were refused, or the first one was, with its answer.
    """
    send_once(address, iter(requests[:1]), 1)
    with NamedTemporaryFile() as file:
        write_requests(requests, Path(file.name))
        return _run(address, "many.lua", 1, clients, seconds, [file.name])


def check_columns(address: str, model: Model, rows: int) -> None:
    """Step sessions once with one call, which under load only its status would be looked at.

    Raises:
        Failed: the call or one of its steps was refused.
    """
    sessions = [session(model, index) for index in range(rows)]
    body = {"sessions": sessions, "inputs": [ROW] * rows}
    answer = httpx.post(f"http://{address}/v1/models/{model.name}/sessions:step", json=body, timeout=_GRACE_S)
    if answer.status_code != 200:
        raise Failed(f"sessions:step answered {answer.status_code}: {answer.text[:_TOLD]}")
    if refused := [error for error in answer.json()["errors"] if error]:
        raise Failed(f"sessions:step refused {len(refused)} of {rows} steps: {refused[0]}")


def _run(address: str, script: str, threads: int, connections: int, seconds: float, args: list[str]) -> Load:
    wrk = find_wrk()
    assert wrk is not None
    command = [wrk, f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout=30s"]
    command += [f"--script={_SCRIPTS / script}", f"http://{address}/", "--", *args]
    return parse(run(command, seconds + _GRACE_S))


def parse(output: str) -> Load:
    """What wrk printed, with our scripts' line of JSON in it.

    Raises:
        Failed: calls were refused or failed, or there is no such line.
    """
    line = next((line for line in output.splitlines() if line.startswith("{")), None)
    if line is None:
        raise Failed(f"wrk: {(output.strip() or 'it said nothing').splitlines()[-1]}")
    found = json.loads(line)
    if found["refused"] or found["failed"] or not found["requests"]:
        raise Failed(
            f"wrk: of {found['requests']} calls {found['refused']} were refused and {found['failed']} not answered"
        )
    return Load(
        found["requests"],
        found["duration_us"] / 1e6,
        found["p50_us"] / 1000,
        found["p99_us"] / 1000,
        found["cpu_s"],
    )
