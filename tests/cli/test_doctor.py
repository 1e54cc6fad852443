"""What `sluice doctor` says of a model server on strings, and how it ends."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
import structlog

from sluice.cli.doctor.checks import examine
from sluice.policy.errors import BackendUnavailable
from tests.cli.conftest import Told, told
from tests.gateway.batching_server import BatchingServer
from tests.gateway.puppet import CONTRACT, SIGNATURES, Puppet, double

OPEN = {"x": (-1, -1), "y": (-1, -1)}


@pytest.fixture
async def puppet(tmp_path: Path) -> AsyncIterator[Puppet]:
    puppet = Puppet(tmp_path)
    await puppet.start()
    yield puppet
    await puppet.stop()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def found(puppet: Puppet, *names: str, rest: str | None = None) -> dict[str, list[tuple[str, str]]]:
    """What is found, by what it is about: levels and words."""
    about: dict[str, list[tuple[str, str]]] = {}
    async for finding in examine(puppet.address, names, rest):
        about.setdefault(finding.about, []).append((finding.level, finding.words))
    return about


async def test_of_a_model_server_that_is_well_all_is_told_and_no_state_is_touched(puppet):
    puppet.shapes["plain"] = OPEN
    told = await found(puppet, "plain", "sum")
    assert [level for level, _ in told["reachable"]] == ["ok"]
    assert "ms a call" in told["reachable"][0][1]
    assert told["plain"] == [
        ("ok", "versions: 1 AVAILABLE; labels: stable 1, canary 1"),
        ("ok", "version 1 has no contract: rows, as TensorFlow describes them"),
        ("ok", "no sign that the model server batches, in 10 pairs of two shapes through serving_default"),
        ("ok", "a batch of 128 rows, the gateway's largest, is taken"),
    ]
    assert told["sum"][1] == ("ok", "version 1 has a contract: session, rows")
    assert {signature for signature, _ in puppet.batches} == {"serving_default"}


async def test_a_model_server_that_batches_too_is_found_out(puppet):
    puppet.shapes["plain"] = OPEN
    BatchingServer(puppet, meeting=2)
    told = await found(puppet, "plain")
    assert told["plain"][2] == ("FAIL", "the model server batches, too: start it without --enable_batching")


async def test_so_is_one_that_takes_smaller_batches_than_the_gateways(puppet):
    BatchingServer(puppet, largest=64)
    told = await found(puppet, "plain")
    assert [level for level, _ in told["plain"]] == ["ok", "ok", "FAIL"]
    assert "takes 64 rows at once; the gateway sends up to 128" in told["plain"][2][1]


async def test_of_one_that_batches_nothing_else_says_that_it_does_not(puppet):
    puppet.shapes["plain"] = OPEN
    BatchingServer(puppet, largest=64)
    told = await found(puppet, "plain")
    assert [level for level, _ in told["plain"]] == ["ok", "ok", "FAIL"]
    assert "the model server batches, too, and takes 64 rows at once" in told["plain"][2][1]


async def test_so_is_one_whose_model_has_a_signature_of_its_own_that_is_named_contract(puppet, monkeypatch):
    monkeypatch.setitem(SIGNATURES, "plain", {"contract": double})
    puppet.shapes["plain"] = OPEN
    BatchingServer(puppet, meeting=2)
    told = await found(puppet, "plain")
    assert told["plain"][2] == ("FAIL", "the model server batches, too: start it without --enable_batching")


async def test_a_batch_that_is_refused_for_another_reason_is_told_with_it(puppet):
    refused_from = 2

    async def refuse(request):
        refused = request.inputs["x"].tensor_shape.dim[0].size >= refused_from
        return (grpc.StatusCode.INVALID_ARGUMENT, "of these values") if refused else None

    puppet.before = refuse
    level, words = (await found(puppet, "plain"))["plain"][3]
    assert (level, "is refused: " in words, "of these values" in words) == ("FAIL", True, True)
    refused_from = 1
    level, words = (await found(puppet, "plain"))["plain"][3]
    assert (level, "made-up rows are refused: " in words, "of these values" in words) == ("-", True, True)


async def test_a_model_in_trouble_is_told_with_the_reason(puppet, monkeypatch):
    puppet.versions["plain"], puppet.states["plain", 2] = [1, 2], ("END", "cut off")
    monkeypatch.setitem(CONTRACT, "schema", 99)
    told = await found(puppet, "plain", "sum", "nobody")
    assert told["plain"][:2] == [
        ("FAIL", "version 2 is END: cut off"),
        ("ok", "versions: 1 AVAILABLE, 2 END; labels: stable 1, canary 1"),
    ]
    assert told["sum"][0][0] == "FAIL"
    assert "contract.schema" in told["sum"][0][1]
    assert told["nobody"] == [("FAIL", "the model server does not know it")]


async def test_signatures_of_unknown_rank_are_named_and_not_tried(puppet):
    puppet.shapes["plain"] = {"x": None}
    told = await found(puppet, "plain")
    assert told["plain"][2][0] == "warn"
    assert "serving_default takes any rank" in told["plain"][2][1]
    assert puppet.batches == []


async def test_what_the_model_server_cannot_be_asked_is_told(puppet):
    told = await found(puppet)
    assert told["health"][0][0] == "warn"
    assert "--enable_grpc_healthcheck_service" in told["health"][0][1]
    assert told["clock"][0][0] == told["models"][0][0] == "-"


@pytest.mark.parametrize(
    ("date", "level", "words"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", "warn", "behind this machine's"),
        ("Fri, 31 Dec 2100 00:00:00 GMT", "warn", "ahead of this machine's"),
        ("today", "warn", "tells no time"),
        (None, "ok", "as this machine's"),
    ],
)
async def test_the_clock_is_that_of_the_rest_port(puppet, date, level, words):
    class Dated(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", date or self.date_time_string())
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Dated) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        (finding,) = (await found(puppet, rest=f"127.0.0.1:{server.server_port}"))["clock"]
        thread.join()
    assert finding[0] == level
    assert words in finding[1]


async def test_who_is_not_there_is_not_examined(tmp_path):
    with pytest.raises(BackendUnavailable):
        await found(Puppet(tmp_path))


async def said(*arguments: object) -> Told:
    return await asyncio.to_thread(told, "doctor", *arguments)


async def test_the_exit_code_says_whether_all_is_well(puppet, tmp_path):
    (tmp_path / "models" / "plain" / "1").mkdir(parents=True)
    (tmp_path / "models" / "no model").mkdir()
    (tmp_path / "models" / "bare.keras").touch()
    well = await said("--backend", puppet.address, "--models", tmp_path / "models")
    assert (well.code, well.error) == (0, "")
    lines = well.text.splitlines()
    assert lines[0].startswith(f"ok    reachable    {puppet.address} answers")
    assert all(line[:5].strip() in ("ok", "warn", "-") for line in lines)
    assert lines[-1].startswith(f"warn  bare         {tmp_path}/models/bare.keras is a Keras file: export it")
    ill = await said("--backend", puppet.address, "--model", "nobody")
    assert (ill.code, ill.reason) == (1, "sluice: 1 of these must be mended before traffic comes")
    assert "FAIL  nobody       the model server does not know it" in ill.text.splitlines()
    gone = await said("--backend", f"unix:{tmp_path}/nowhere.sock")
    assert (gone.code, "cannot be connected to" in gone.reason) == (3, True)
    assert (await said("--backend", puppet.address, "--models", tmp_path / "nowhere")).code == 2
