"""The gateway as a process: what it loads, how much memory it takes, how it stops."""

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.gateway.here import PATIENCE_S, Adder, Gate, eventually, refused
from tests.gateway.raw import request

ROOT = Path(__file__).parents[2]
SESSIONS = 1000
MEMORY_LIMIT_KIB = 150 * 1024


class Process:
    """A `sluice serve` on a port of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)

    async def open(self) -> Adder:
        response = await self.http.post("/v1/models/sum/sessions", json={})
        assert response.status_code == 201, response.text
        return Adder(self.http, response.json()["session"])

    async def end(self) -> tuple[int, str]:
        """Wait for its end: the exit code, and what it logged last."""
        assert self.process.stderr is not None
        rest = await asyncio.wait_for(self.process.stderr.read(), PATIENCE_S)
        return await self.process.wait(), rest.decode()


@asynccontextmanager
async def serving(backend: str, *flags: str, hangup: str = "default") -> AsyncIterator[Process]:
    """`hangup` is what SIGHUP does at its start, which it inherits: `default` or `ignore`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    process = await asyncio.create_subprocess_exec(
        "env", f"--{hangup}-signal=HUP", sys.executable, "-m", "sluice.cli", "serve", "--backend", backend,
        "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *flags,
        cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (
                found := re.search(
                    r'"?http(?:=|": ")(http://127\.0\.0\.1:\d+)', line := (await process.stderr.readline()).decode()
                )
            ):
                assert line, "it ended before it listened"
        served = Process(process, found[1])
        async with served.http:
            yield served
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_the_gateway_loads_no_tensorflow():
    code = (
        "import sys, sluice.gateway.server, sluice.cli.main; "
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras', 'tensorflow_serving')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.returncode) == ("[]", 0), ended.stderr


async def test_a_thousand_sessions_fit_into_150_megabytes(tmp_path):
    # The puppet is a process of its own, so that what it does takes no time of this one's loop.
    command = [sys.executable, "-m", "tests.gateway.serve_puppet", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as puppet:
        assert puppet.stdout is not None
        address = (await asyncio.to_thread(puppet.stdout.readline)).strip()
        async with serving(address) as served:
            for start in range(0, SESSIONS, 50):
                adders = await asyncio.gather(*(served.open() for _ in range(50)))
                await asyncio.gather(*(adder.goes_on((start, n)) for n, adder in enumerate(adders)))
            assert f'sluice_sessions_active{{model="sum"}} {SESSIONS}.0' in (await served.http.get("/metrics")).text
            status = Path(f"/proc/{served.process.pid}/status").read_text()
            resident_kib = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
            assert resident_kib < MEMORY_LIMIT_KIB
        puppet.communicate()  # its input ends, and so does it
    assert puppet.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_gateway_that_is_told_to_stop_finishes_what_runs_and_ends_with_code_0(puppet, number):
    async with serving(puppet.address) as served:
        adder, other = await served.open(), await served.open()
        await asyncio.gather(adder.goes_on(), other.goes_on())
        gate = Gate(puppet)
        running = asyncio.create_task(adder.goes_on())
        await puppet.until_running(1)
        served.process.send_signal(number)
        await eventually(lambda: _not_ready(served))
        refused(await served.http.post("/v1/models/sum/sessions", json={}), 503, "draining")
        waiting = asyncio.create_task(other.goes_on())
        await puppet.until_running(2)
        gate.open()
        await asyncio.gather(running, waiting)
        code, logged = await served.end()
        assert code == 0
        assert "Traceback" not in logged


async def test_a_gateway_that_is_told_to_stop_under_load_loses_no_answer(puppet):
    """What the model server has answered, its clients get, or they are told that their states have not moved."""
    clients, answered, told = 8, [], []
    async with serving(puppet.address, "--drain-s", "0.5", "--log-format", "json") as served:

        async def ask(adder):
            with suppress(httpx.TransportError):  # there is nobody any more: such a request has not run
                while (response := await adder.step((3, 5))).status_code == 200:
                    assert response.json() == adder.added((3, 5))
                    answered.append(adder.id)
                told.append(refused(response, 503, "draining"))

        adders = [await served.open() for _ in range(clients)]
        asking = [asyncio.create_task(ask(adder)) for adder in adders]
        await eventually(lambda: len(answered) > 5 * clients)
        served.process.send_signal(signal.SIGTERM)
        code, logged = await served.end()
        await asyncio.gather(*asking)
    assert code == 0
    assert "stopping" in [json.loads(line)["event"] for line in logged.splitlines()]
    assert "Traceback" not in logged
    ran = sum(rows for _, rows in puppet.batches)  # so few at a time are without filler
    assert len(answered) <= ran <= len(answered) + len(told)


async def _not_ready(served):
    response = await served.http.get("/readyz")
    return response.status_code == 503 and response.json()["reason"] == "the gateway is stopping"


async def test_clients_that_send_too_much_or_no_more_are_answered_by_the_loop_of_production(puppet):
    async with serving(puppet.address, "--body-bytes=1000", "--half-closed-s=600") as served:
        adder = await served.open()
        url = f"{served.http.base_url}/v1/sessions/{adder.id}:step"
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(urllib.request.urlopen, urllib.request.Request(url, bytes(8 * 2**20)))
        with caught.value as too_large:
            assert too_large.code == 413
        for leaves in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.http.base_url.port)
            gate = Gate(puppet)
            writer.write(step(adder))
            await puppet.until_running(1)
            writer.write_eof()
            if leaves:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
                writer.close()
                await eventually(lambda: _waits_not(adder))
            gate.open()
            if not leaves:
                answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
                assert json.loads(answer.partition(b"\r\n\r\n")[2]) == adder.added((3, 5))
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await adder.goes_on()


async def _waits_not(adder: Adder) -> bool:
    return await adder.waiting() == 0


def step(adder: Adder) -> bytes:
    return request(f"/v1/sessions/{adder.id}:step", {"inputs": [3, 5]})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_gateway_stops_at_once(puppet, number):
    async with serving(puppet.address) as served:
        await (await served.open()).goes_on()
        served.process.send_signal(number)
        assert (await served.end())[0] == 0


async def test_a_gateway_that_is_not_to_end_with_its_terminal_does_not(puppet):
    async with serving(puppet.address, hangup="ignore") as served:
        served.process.send_signal(signal.SIGHUP)
        await (await served.open()).goes_on()
        served.process.send_signal(signal.SIGTERM)
        assert (await served.end())[0] == 0


async def test_a_batch_that_never_ends_does_not_keep_a_gateway_from_stopping(puppet):
    async with serving(puppet.address, "--drain-s", "0.1") as served:
        adder = await served.open()
        Gate(puppet)
        running = asyncio.create_task(adder.step())
        await puppet.until_running(1)
        served.process.send_signal(signal.SIGTERM)
        code, logged = await served.end()
        assert code == 0
        assert "requests were still running" in logged
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("door", ["http", "grpc"])
async def test_a_port_that_is_taken_is_told_and_ends_with_code_1(puppet, door):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", door: f"127.0.0.1:{taken.getsockname()[1]}"}
        flags = [flag for name, address in addresses.items() for flag in (f"--{name}", address)]
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "sluice.cli", "serve", "--backend", puppet.address, *flags],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        told = f"sluice: --{door} {addresses[door]}: the address is in use by another program. End that one, or choose "
        assert (ended.returncode, ended.stderr) == (1, f"{told}another port: --{door} 127.0.0.1:PORT\n")
