"""`/v1/evaluations` and all below it are the evaluator's: passed on and answered part by part."""

import asyncio
import hashlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluice.gateway.upstream.evaluator import evaluator_arguments
from tests.gateway.here import PATIENCE_S, Here, eventually, refused, running
from tests.gateway.serve_evaluations import SAYS
from tests.gateway.stand_in import StandIn, standing_in

MIB = 1024 * 1024
SERVE = Path(__file__).with_name("serve_evaluations.py")


@pytest.fixture
async def stand_in(tmp_path) -> AsyncIterator[StandIn]:
    async with standing_in(tmp_path) as found:
        yield found


@pytest.fixture
async def here(puppet, stand_in) -> AsyncIterator[Here]:
    async with running(puppet, evaluator=stand_in.address, body_bytes=1000, arrival_s=0.25) as found:
        yield found


async def outcome(here: Here, name: str) -> float:
    counted = 'sluice_requests_total{call="evaluations",model="",outcome="%s"}'
    return (await here.metrics()).get(counted % name, 0)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def test_a_request_is_passed_on_as_it_is_and_so_is_its_answer(here, stand_in, method):
    headers = {
        "X-Request-Id": "r-1", "Accept": "text/html", "Content-Type": "text/csv", "Connection": "keep-alive, x-hop",
        "X-Hop": "1", "TE": "trailers", "Sluice-Batch": "exact",
    }  # fmt: skip
    content = b"a,b\n1,2\n" if method in ("POST", "PUT", "PATCH") else None
    path = "/v1/evaluations/caf%C3%A9%2F1:cancel?limit=3&after=%20a"
    answer = await here.http.request(method, path, headers=headers, content=content)
    assert (answer.status_code, answer.headers["sluice-note"], answer.headers["etag"]) == (202, "kept", '"a"')
    assert answer.content == (b"" if method == "HEAD" else b"asked: " + (content or b""))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers.get_list("x-request-id") == ["r-1"]
    assert len(answer.headers.get_list("date")) == 1
    assert "keep-alive" not in answer.headers
    (asked,) = stand_in.asked
    assert (asked.method, asked.scope["raw_path"] + b"?" + asked.scope["query_string"]) == (method, path.encode())
    came = asked.headers
    assert (came["x-request-id"], came["accept"], came["sluice-batch"]) == ("r-1", "text/html", "exact")
    assert came.get("content-type") == "text/csv"
    assert not {"x-hop", "te"} & set(came)
    assert await outcome(here, "ok") == 1


async def test_an_id_is_made_for_a_request_that_brings_none(here, stand_in):
    answer = await here.http.get("/v1/evaluations")
    assert answer.headers["x-request-id"] == stand_in.asked[0].headers["x-request-id"] != ""


async def test_an_error_of_the_evaluator_is_the_answer_and_is_counted_by_its_code(here):
    assert "'none'" in refused(await here.http.get("/v1/evaluations/none"), 404, "evaluation_not_found")["error"]
    assert await outcome(here, "evaluation_not_found") == 1


@pytest.mark.parametrize("declared", [True, False], ids=["with its length", "in chunks"])
async def test_an_upload_is_passed_on_while_it_comes_however_large(here, stand_in, declared):
    data = bytes(range(256)) * (20 * MIB // 256)
    held = []

    async def parts() -> AsyncIterator[bytes]:
        yield data[:MIB]
        await eventually(lambda: stand_in.taken)  # before the rest is sent
        held.append(stand_in.taken)
        yield data[MIB:]

    headers = {"Content-Length": str(len(data))} if declared else {}
    answer = await here.http.post("/v1/evaluations/uploads?name=a.csv", content=parts(), headers=headers)
    assert answer.status_code == 201
    assert answer.json() == {"upload": "u1", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert 0 < held[0] <= MIB


async def test_an_upload_may_take_long_as_a_whole_while_its_parts_keep_coming(here, stand_in):
    loop = asyncio.get_running_loop()

    async def parts() -> AsyncIterator[bytes]:
        for n in range(1, 7):
            yield b"x"
            until = loop.time() + 0.1
            await eventually(lambda n=n, until=until: stand_in.taken == n and loop.time() > until)

    answer = await here.http.post("/v1/evaluations/uploads", content=parts())
    assert (answer.status_code, answer.json()["bytes"]) == (201, 6)


async def test_an_upload_whose_parts_do_not_come_in_time_is_given_up(here, stand_in):
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        await eventually(lambda: stand_in.left)

    assert (await here.http.post("/v1/evaluations/uploads", content=parts())).status_code == 408


async def test_events_come_one_by_one_and_leaving_ends_them_at_the_evaluator(here, stand_in):
    async with here.http.stream("GET", "/v1/evaluations/e1/events") as response:
        lines = response.aiter_lines()
        for n in range(3):
            stand_in.events.put_nowait(b"data: %d\n\n" % n)
            assert (await anext(lines), await anext(lines)) == (f"data: {n}", "")
    await eventually(lambda: stand_in.left)
    await eventually(lambda: outcome(here, "client_gone"))


async def test_events_that_end_are_a_whole_answer(here, stand_in):
    for event in (b"data: 1\n\n", None):
        stand_in.events.put_nowait(event)
    answer = await here.http.get("/v1/evaluations/e1/events")
    assert answer.text == "data: 1\n\n"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_client_that_leaves_before_the_answer_is_gone_for_the_evaluator_too(here, stand_in):
    asking = asyncio.create_task(here.http.get("/v1/evaluations/silent"))
    await eventually(lambda: stand_in.asked)
    asking.cancel()
    await eventually(lambda: stand_in.left)
    await eventually(lambda: outcome(here, "client_gone"))


async def test_a_client_that_leaves_in_the_middle_of_its_upload_is_gone_for_the_evaluator_too(here, stand_in):
    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.Event().wait()

    uploading = asyncio.create_task(here.http.post("/v1/evaluations/uploads", content=parts()))
    await eventually(lambda: stand_in.taken)
    uploading.cancel()
    await eventually(lambda: stand_in.left)
    await eventually(lambda: outcome(here, "client_gone"))


async def test_an_evaluator_at_a_host_and_a_port_is_asked_there(puppet):
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nthere!")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, running(puppet, evaluator=address) as here:
        found = await here.http.get("/v1/evaluations?limit=3")
        assert (found.status_code, found.text) == (200, "there!")
    first, *headers = asked[0].decode().split("\r\n")
    assert first == "GET /v1/evaluations?limit=3 HTTP/1.1"
    assert f"Host: {address}" in headers


async def test_an_answer_that_does_not_begin_in_time_is_no_answer(here, stand_in):
    answer = await here.http.get("/v1/evaluations/silent", headers={"Sluice-Timeout-Ms": "30"})
    told = refused(answer, 504, "deadline_exceeded")["error"]
    assert told.startswith(f"The evaluator at {stand_in.address} did not answer within 0.03 s. Allow more")
    await eventually(lambda: stand_in.left)
    refused(await here.http.get("/v1/evaluations", headers={"Sluice-Timeout-Ms": "soon"}), 400, "bad_request")


async def test_an_evaluator_that_is_away_is_named_and_concerns_nobody_else(puppet, tmp_path):
    async with running(puppet, evaluator=f"unix:{tmp_path / 'gone.sock'}") as here:
        answer = await here.http.post("/v1/evaluations", json={})
        told = refused(answer, 503, "backend_unavailable")["error"]
        assert told.startswith(f"The evaluator at unix:{tmp_path / 'gone.sock'} cannot be reached: ")
        assert (await here.http.get("/readyz")).status_code == 200
        assert await outcome(here, "backend_unavailable") == 1
        refused(await here.http.get("/v1/evaluationsx"), 404, "bad_request")


async def test_an_evaluator_that_goes_away_before_or_in_its_answer_is_no_bug(puppet, tmp_path):
    said = [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said.pop(0))
        writer.close()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "e.sock")
    async with server, running(puppet, evaluator=f"unix:{tmp_path / 'e.sock'}") as here:
        told = refused(await here.http.get("/v1/evaluations/e1"), 503, "backend_unavailable")["error"]
        assert "went away before it answered" in told
        with pytest.raises(httpx.RemoteProtocolError):
            await here.http.get("/v1/evaluations/e1/report")
        await eventually(lambda: _is_two(outcome(here, "backend_unavailable")))
        assert await outcome(here, "internal") == 0


async def _is_two(count: Any) -> bool:
    return bool(await count == 2)


@pytest.fixture
def child(monkeypatch, tmp_path) -> Callable[[str], None]:
    """Has the gateway start a small program in the evaluator's place; what it is told, that says as it ends at once."""

    def arguments(*about: Any) -> list[str]:
        return [str(SERVE), str(tmp_path), str(about[-1]), *evaluator_arguments(*about)]

    monkeypatch.setattr("sluice.gateway.app.evaluator_arguments", arguments)

    def says(sentence: str) -> None:
        (tmp_path / SAYS).write_text(sentence)

    return says


async def test_the_evaluator_is_started_once_when_it_is_first_asked_for_and_restarted_when_it_dies(puppet, child, logs):
    def started() -> int:
        return len([each for each in logs if each["event"] == "started"])

    roots = "/data/a,s3://bucket/b"
    settings = {"evaluations_database": "postgresql://db/e", "evaluations_data_roots": roots, "log_format": "json"}
    async with running(puppet, evaluator=None, **settings) as here:
        assert here.app.state.evaluator._own is None
        answers = await asyncio.gather(*(here.http.get("/v1/evaluations") for _ in range(5)))
        kept = here.app.state.evaluator._own.child
        told = answers[0].json()
        assert [each.json() for each in answers] == [told] * 5
        assert started() == 1
        assert told == [
            "-m", "sluice.cli", "--end-with-parent", "evaluator", "--gateway", f"http://127.0.0.1:{here.port}",
            "--http", f"unix:{kept.socket}", "--log-format", "json", "--data-roots", roots,
        ]  # fmt: skip
        assert kept._environment == {"SLUICE_EVALUATOR_DATABASE": "postgresql://db/e"}
        kept._process.kill()
        await eventually(lambda: started() == 2)
        assert (await here.http.get("/v1/evaluations")).json() == told
        process = kept._process
    assert process.returncode is not None
    assert not kept.socket.parent.exists()


async def test_why_an_evaluator_cannot_be_started_is_told_and_the_next_request_tries_again(puppet, child, monkeypatch):
    monkeypatch.setattr("sluice.gateway.upstream.child._BACKOFF_S", (0.0,))
    child("sluice: `sluice evaluator` needs the extra evaluator")
    async with running(puppet, evaluator=None) as here:
        for sentence in ("needs the extra evaluator", "No such option: --http"):
            child(sentence if "extra" in sentence else f"╭─ Error ───╮\n│ {sentence} │\n╰───────────╯")
            answer = await here.http.get("/v1/evaluations")
            told = refused(answer, 503, "backend_unavailable")["error"]
            ended = f"the evaluator ended with code 1: {sentence}, 3 times in a row"
            assert told == f"Evaluations cannot be run here: {ended}."
        answer = await here.http.get("/v1/evaluations", headers={"Sluice-Timeout-Ms": "1"})
        assert "The evaluator did not answer within 0.001 s: " in refused(answer, 504, "deadline_exceeded")["error"]


@pytest.mark.parametrize("ends", ["at its end", "when it is killed"])
def test_a_child_ends_with_its_parent(ends):
    program = "import signal, sluice.signals; sluice.signals.end_with_parent(); print('up', flush=True); signal.pause()"
    command = [sys.executable, "-c", program]
    if ends == "at its end":
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"up\n"
            process.stdin.close()
            assert process.wait(PATIENCE_S) == -signal.SIGTERM
        return
    parent = f"import subprocess, sys; subprocess.Popen({command!r}, stdin=subprocess.PIPE).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b"", "the child holds it open as long as it lives"
