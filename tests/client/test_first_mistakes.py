"""The ordinary mistakes of a newcomer, door by door, each with what its sentence must say. None is a traceback."""

import gzip
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import httpx
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sluice.client import AsyncClient, SluiceError
from sluice.client.session import AsyncSession
from tests.cli.conftest import told
from tests.client.conftest import Urls

MISTAKEN = "mistaken"  # an open session
_SESSION, _MODEL = f"/v1/sessions/{MISTAKEN}", "/v1/models/sum"
_STEP = {"inputs": [1.0, 2.0]}


class Sent(NamedTuple):
    """A request over HTTP, and what is said to it: the status, and each of these words."""

    path: str
    body: Any
    status: int
    words: tuple[str, ...]


def sent(path: str, body: Any, status: int, *words: str) -> Sent:
    return Sent(path, body, status, words)


HTTP: dict[str, Sent] = {
    "a batch axis on a step": sent(f"{_SESSION}:step", {"inputs": [[1.0, 2.0]]}, 400, "[1, 2] came", "no batch axis"),
    "a batch axis on a scan": sent(f"{_SESSION}:scan", {"inputs": [[[1, 2]]]}, 400, "[1, 1, 2] came", "no batch axis"),
    "two time steps as a step": sent(f"{_SESSION}:step", {"inputs": [[1.0, 2.0]] * 2}, 400, "one time step", "a scan"),
    "a row that is too short": sent(f"{_SESSION}:step", {"inputs": [1.0]}, 400, "feature=2", "[1] came"),
    "a row that is too short for a signature of steps": sent(
        f"{_MODEL}:predict", {"signature_name": "step", "inputs": {"x": [[1]], "h": [[0, 0]]}}, 400, "[batch, feature=2"
    ),
    "text for numbers": sent(f"{_SESSION}:step", {"inputs": ["1", "2"]}, 400, "takes float32", "text came"),
    "null for a number": sent(f"{_SESSION}:step", {"inputs": [1.0, None]}, 400, "takes float32", "null came"),
    "another input's name": sent(f"{_SESSION}:step", {"inputs": {"y": [1, 2]}}, 400, "no input 'y'", "has 'x'"),
    "a misspelt key of a step": sent(f"{_SESSION}:step", {"input": [1, 2]}, 400, "'input'", "inputs, step and outputs"),
    "instances for a step": sent(f"{_SESSION}:step", {"instances": [[1, 2]]}, 400, "inputs, step and outputs"),
    "a misspelt key at the opening": sent(
        f"{_MODEL}/sessions", {"sesion": "a"}, 400, "'sesion'", "session, version, label, state, ttl_s, if_exists"
    ),
    "a misspelt key of a fork": sent(f"{_SESSION}:fork", {"sesion": "a"}, 400, "'sesion'", "takes session"),
    "a misspelt key within a field": sent(
        "/v1/models/nobody:generate", {"instances": ["a"], "beam": {"widht": 2}}, 400, "beam", "'widht'", "takes width"
    ),
    "a version that is a number": sent(f"{_MODEL}/sessions", {"version": 1}, 400, "cannot be read", "version", "1"),
    "an id with a slash": sent(f"{_MODEL}/sessions", {"session": "a/b"}, 400, "session", "A-Z a-z 0-9 . _ ~ -", "a/b"),
    "an id that is open": sent(
        f"{_MODEL}/sessions", {"session": MISTAKEN}, 409, "open already", "if_exists", '"return"', '"restart"'
    ),
    "a time to live below 0": sent(f"{_MODEL}/sessions", {"ttl_s": -1}, 400, "seconds, more than 0", "got -1"),
    "a version that is not there": sent(f"{_MODEL}/sessions", {"version": "9"}, 404, "no version 9", "it has 1"),
    "a session of a model without": sent(
        "/v1/models/sides/sessions", {}, 400, "no step signature", "offers recognition, rows", "call recognize, predict"
    ),
    "a session of a plain SavedModel": sent("/v1/models/plain/sessions", {}, 400, "no contract", "`sluice export`"),
    "a step before the opening": sent("/v1/sessions/early:step", _STEP, 404, "POST /v1/models/{model}/sessions"),
    "a number that is not the next": sent(f"{_SESSION}:step", {**_STEP, "step": 7}, 409, "time step 0", "Send 0 next"),
    "an output that is not there": sent(f"{_SESSION}:step", {**_STEP, "outputs": ["y"]}, 400, "'y'", "'total'"),
    "a model that is not there": sent("/v1/models/smu:predict", {"instances": [[1, 2]]}, 404, "'smu'", "sum"),
    "rows that differ": sent(
        "/v1/models/plain:predict", {"instances": [[1, 2], [1]]}, 400, "row 1 has 1 value where row 0 has 2"
    ),
    "another length than the rows before": sent(
        f"{_MODEL}:predict", {"instances": [[[1, 2]], [[1, 2]] * 2]}, 400, "row 1 has 2", "a request of their own"
    ),
    "a mistyped verb": sent(f"{_MODEL}:predcit", {"instances": []}, 400, f"did you mean {_MODEL}:predict?"),
    "a verb that is none": sent(f"{_MODEL}:run", {"instances": []}, 400, ":predict", ":recognize", ":generate"),
    "a version by name": sent(f"{_MODEL}/versions/one:predict", {}, 400, "version is a whole number", "'one'"),
    "neither rows nor columns": sent("/v1/models/plain:predict", {"x": [[1, 2]]}, 400, '"instances"', '"inputs"'),
    "recognition of a model without": sent(
        f"{_MODEL}:recognize", {"instances": [[1, 2]]}, 400, "does not recognize", "`sluice export --classes`"
    ),
    "classify without a signature for it": sent(
        "/v1/models/sides:classify", {"examples": [{"x": 1}]}, 400, "no signature for :classify", "Call :recognize or :"
    ),
    "regress without a signature for it": sent(
        f"{_MODEL}:regress", {"examples": [{"x": 1}]}, 400, "for :regress", "Call :predict.", "says: Expected"
    ),
    "recognition before a calibration": sent(
        "/v1/models/sides:recognize", {"instances": [[0.1, 0.2]]}, 409, "not calibrated", "`sluice calibrate sides "
    ),
    "generation of a model without": sent(
        f"{_MODEL}:generate", {"instances": ["a"]}, 400, "does not generate", "session, rows"
    ),
    "JSON in Python's notation": sent(f"{_SESSION}:step", b"{'inputs': [1, 2]}", 400, "not JSON", "column 2"),
    "JSON that ends early at the opening": sent(f"{_MODEL}/sessions", b'{"session": ', 400, "not JSON", "character"),
    "gzip without its header": sent(f"{_SESSION}:step", gzip.compress(b"{}"), 400, "gzip", "Content-Encoding: gzip"),
    "gzip without its header at the opening": sent(
        f"{_MODEL}/sessions", gzip.compress(b"{}"), 400, "gzip", "Content-Encoding: gzip"
    ),
    "a body that is too large": sent(f"{_SESSION}:step", b" " * (16 * 2**20 + 1), 413, "16777216 bytes", "body_bytes"),
    "a body that is too large at the opening": sent(
        f"{_MODEL}/sessions", b" " * (16 * 2**20 + 1), 413, "16777216 bytes", "body_bytes"
    ),
}  # fmt: skip
# A path that is nearly right, and the right one.
PATHS: dict[str, str] = {
    f"{_SESSION}/step": f"{_SESSION}:step",
    f"{_SESSION}/scan": f"{_SESSION}:scan",
    f"{_SESSION}/fork": f"{_SESSION}:fork",
    f"{_SESSION}/renew": f"{_SESSION}:renew",
    f"{_MODEL}/sessions/step": f"{_MODEL}/sessions:step",
    f"{_MODEL}/sessions/{MISTAKEN}:step": f"{_SESSION}:step",
    f"{_MODEL}:step": "/v1/sessions/ID:step",
    f"{_MODEL}/predict": f"{_MODEL}:predict",
    f"{_MODEL}/versions/1/predict": f"{_MODEL}/versions/1:predict",
    f"{_MODEL}/labels/stable/predict": f"{_MODEL}/labels/stable:predict",
    f"{_MODEL}/classify": f"{_MODEL}:classify",
    f"{_MODEL}/recognize": f"{_MODEL}:recognize",
    f"{_MODEL}/generate": f"{_MODEL}:generate",
    f"{_MODEL}/versions/1/sessions": f'{_MODEL}/sessions with "version" or "label" in the body',
    "/v1/sessions": "/v1/models/NAME/sessions",
    "/v2/models/sum:infer": "/v2/models/sum/infer",
}
Does = Callable[[AsyncClient, AsyncSession], Awaitable[object]]
# What a program does, and the words of its error, over HTTP and gRPC alike.
CLIENT: dict[str, tuple[Does, tuple[str, ...]]] = {
    "a batch axis on a step": (lambda _, s: s.step([[1, 2]]), ("[1, 2] came", "no batch axis")),
    "a batch axis on a scan": (lambda _, s: s.scan([[[1, 2]]]), ("[1, 1, 2] came", "no batch axis")),
    "two time steps as a step": (lambda _, s: s.step(np.ones((2, 2))), ("one time step", "a scan")),
    "lists of different lengths as a step": (lambda _, s: s.step([[1], [1, 2]]), ("part 1 has 2 values where part 0",)),
    "text for numbers": (lambda _, s: s.step(["a", "b"]), ("takes float32", "text came")),
    "another input's name": (lambda _, s: s.step({"y": [1, 2]}), ("no input 'y'", "has 'x'")),
    "an id that is open": (lambda c, _: c.open("sum", MISTAKEN), ("open already", "if_exists", '"return"')),
    "a misspelt if_exists": (
        lambda c, _: c.open("sum", MISTAKEN, if_exists="retrun"),  # type: ignore[arg-type]
        ("error, return, restart", "'retrun'"),
    ),
    "a time to live that is text": (lambda c, _: c.open("sum", ttl_s="60"), ("ttl_s is a number of seconds; got '6",)),  # type: ignore[arg-type]
    "a session of a model without": (lambda c, _: c.open("sides"), ("offers recognition, rows", "call recognize")),
    "a session of a plain SavedModel": (lambda c, _: c.open("plain"), ("no contract", "`sluice export`")),
    "a session that is not open": (lambda c, _: c.session("early"), ("no session 'early'", "with client.open(model)")),
    "a model that is not there": (lambda c, _: c.open("smu"), ("no model 'smu'", "sum")),
    "rows for a model without sequences": (
        lambda c, _: c.predict("plain", [[1, 2], [1]]), ("row 1 has 1 value where row 0 has 2", "have the same length")
    ),
    "another signature": (lambda c, _: c.predict("plain", [[1]], signature="step"), ("'step'", "'serving_default'")),
    "rows that are too short": (lambda c, _: c.predict("sides", [[1]]), ("[batch, feature=2]; a value of sh",)),
    "rows to recognize that differ": (lambda c, _: c.recognize("sides", [[0, 1], [0]]), ("part 1 has 1 value",)),
    "recognition before a calibration": (lambda c, _: c.recognize("sides", [[0, 1]]), ("`sluice calibrate sides ",)),
    "a text to generate from": (lambda c, _: c.generate("sum", "a"), ("a list", "'a'")),
    "more rows than sessions": (lambda c, s: c.step_many("sum", [s], [[1, 2]] * 2), ("[sessions=1, ...]", "[2, 2]")),
    "ids in place of sessions": (
        lambda c, _: c.step_many("sum", [MISTAKEN], [[1, 2]]),  # type: ignore[list-item]
        ("takes sessions", "client.session", f"got '{MISTAKEN}'"),
    ),
    "sessions that are None": (lambda c, _: c.step_many("sum", None, [[1, 2]]), ("takes sessions", "got None")),  # type: ignore[arg-type]
    "one id in place of a session": (lambda c, _: c.stream("sum").step(MISTAKEN, [1, 2]), ("client.open", "got 'mis")),  # type: ignore[arg-type]
    "a generator of rows": (lambda c, _: c.predict("plain", (row for row in [[1, 2]])), ("takes an array, or",)),  # type: ignore[arg-type]
    "a set of values": (lambda _, s: s.step({1.0, 2.0}), ("takes an array, or lists; got {1.0, 2.0}",)),  # type: ignore[arg-type]
    "a signature that is None": (lambda c, _: c.predict("plain", [[1]], signature=None), ("A signature is named",)),  # type: ignore[arg-type]
    "a model that is None": (lambda c, _: c.open(None), ("A model is named by text", "got None")),  # type: ignore[arg-type]
    "an id that is a number": (lambda c, _: c.session(5), ("A session is named by text", "got 5")),  # type: ignore[arg-type]
    "a fork that is a number": (lambda _, s: s.fork(5), ("A session is named by text", "got 5")),  # type: ignore[arg-type]
    "a label that is a number": (lambda c, _: c.predict("sum", [[1]], label=5), ("A label is a name", "got 5")),  # type: ignore[arg-type]
    "a state without its name": (lambda c, _: c.open("sum", state=[1, 2]), ("by the states' names", "got [1, 2]")),  # type: ignore[arg-type]
    "a time limit that is text": (lambda c, _: c.predict("sum", [[1]], timeout_s="5"), ("number of seconds", "'5'")),  # type: ignore[arg-type]
    "rows to recognize that are one row": (lambda c, _: c.recognize("sides", 1), ("[rows, ...]", "The input has the ")),
    "one output as text": (lambda c, _: c.predict("plain", [[1]], "y"), ("a list of names, such as ['y']; got 'y'",)),
    "one output as text, of a step": (lambda _, s: s.step([1, 2], "total"), ("such as ['total']; got 'total'",)),
    "one output as text, of a scan": (lambda _, s: s.scan([[1, 2]], "total"), ("such as ['total']; got 'total'",)),
    "one output as text, of many steps": (lambda c, s: c.step_many("sum", [s], [[1, 2]], "total"), ("['total']",)),
    "an output that is a number": (lambda _, s: s.step([1, 2], [0]), ("a list of names", "got [0]")),  # type: ignore[list-item]
    "rows as REST has them": (
        lambda c, _: c.predict("sides", [{"a": [1], "b": [2]}]),  # type: ignore[list-item]
        ("one dict of arrays, {'a': [rows…], 'b': [rows…]}, not a list of dicts",),
    ),
    "rows to recognize as REST has them": (
        lambda c, _: c.recognize("sides", ({"a": [1]},)), ("one dict of arrays, {'a': [rows…]}",)  # type: ignore[arg-type]
    ),
    "time steps as REST has rows": (lambda _, s: s.scan([{"x": [1, 2]}]), ("one dict of arrays, {'x': [rows…]}",)),  # type: ignore[list-item]
    "instances as REST has them": (lambda c, _: c.generate("sum", [{"x": [1]}]), ("{'x': [rows…]}",)),  # type: ignore[list-item]
    "a level that is text": (lambda c, _: c.recognize("sides", [[0, 1]], level="0.05"), ("level is a number; got '0",)),  # type: ignore[arg-type]
    "candidates that are text": (lambda c, _: c.recognize("sides", [[0, 1]], top_k="3"), ("top_k is a whole number",)),  # type: ignore[arg-type]
    "a limit of steps that is text": (lambda c, _: c.generate("sum", ["a"], max_steps="9"), ("max_steps is a whole",)),  # type: ignore[arg-type]
    "a page that is text": (lambda c, _: c.list("sum", limit="9"), ("limit is a whole number; got '9'",)),  # type: ignore[arg-type]
    "a renewal that is text": (lambda _, s: s.renew("1h"), ("ttl_s is a number of seconds; got '1h'",)),  # type: ignore[arg-type]
    "a label that is a number, at the opening": (lambda c, _: c.open("sum", label=5), ("A label is named by", "got 5")),  # type: ignore[arg-type]
    "a version by name": (lambda c, _: c.predict("sum", [[1]], version="newest"), ("whole number", "label")),
}  # fmt: skip
# What is typed, its exit code, and what stands on standard error.
COMMANDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "nothing to serve": ("serve", 2, ("--models DIR", "--backend HOST:PORT")),
    "a folder that is not there": ("serve --models /nowhere", 2, ("no folder /nowhere",)),
    "no gateway there": ("buckets sum --url {nobody}", 3, ("expected a gateway there", "`sluice serve`", "--url")),
    "a model that is not there": ("buckets smu --url {url}", 1, ("no model 'smu'", "sum")),
    "an address without http": ("buckets sum --url 127.0.0.1:8080", 2, ("http://HOST:PORT", "'127.0.0.1:8080'")),
    "a port that is too large": ("calibrate sides --known {rows} --url http://127.0.0.1:99999", 2, ("1 to 65535",)),
    "a port that is too large to evaluate": ("evaluate sides --url http://127.0.0.1:99999", 2, ("--url: ", "99999")),
    "an address of gRPC": ("explain sum --url grpc://127.0.0.1:8081", 2, ("the gateway's HTTP port", "'grpc://127")),
    "a path behind the address": ("explain sum --url http://127.0.0.1:8080/v1", 2, ("--url: ", "ends after the port")),
    "the gRPC port": ("calibrate sides --known {rows} --url {grpc}", 3, ("expected the HTTP port", "`sluice serve`")),
    "a calibration without rows": ("calibrate sides --known none.npz --url {url}", 1, ("none.npz", "no such file")),
    "a level that is a percentage": ("calibrate sides --known none.npz --level 5", 2, ("between 0 and 1", "got 5")),
    "a level that is no number": (
        "calibrate sides --known none.npz --level five",
        2,
        ("--level: expected a number, got",),
    ),
    "a version by name": ("evaluate sides --compare-to new", 2, ("--compare-to: expected a whole number, got 'new'",)),
    "a number of rows below 1": ("explain sum --rows 0", 2, ("--rows: expected a number from 1, got '0'",)),
    "a flag that is none": ("explain sum --rosw 1", 2, ("No such option: --rosw", "`sluice explain --help`")),
    "a flag without its value": ("explain sum --rows", 2, ("'--rows' requires an argument. `sluice explain --help`",)),
    "a setting that is no number": (
        "serve --backend l:1 --linger-ms fast",
        2,
        ("--linger-ms: expected a number, got 'f",),
    ),
    "a switch with a value": ("serve --session-evict=yes", 2, ("--session-evict: expected no value", "got 'yes'")),
    "a setting that is no JSON": (
        "serve --scan-chunks clips",
        2,
        ('--scan-chunks: expected JSON such as {"MODEL": 64',),
    ),
    "a setting without its value": ("serve --linger-ms", 2, ("--linger-ms: expected a value", "`sluice serve --help`")),
    "an evaluator's setting": ("evaluator --at-once 0", 2, ("--at-once: expected a number above 0, got '0'",)),
    "an evaluator's flag that is none": ("evaluator --at-onec 2", 2, ("no flag --at-onec; did you mean --at-once?",)),
    "a model server's port": ("model-server --models . --port x", 2, ("--port: expected a whole number, got 'x'",)),
    "a model server's port that is too large": (
        "doctor --backend h:99999",
        2,
        ("--backend: expected a port from 1 to 6",),
    ),
    "no address of a model server": ("doctor --backend here", 2, ("--backend: expected HOST:PORT or unix:PATH, got",)),
    "a REST port that is too large": ("doctor --backend h:1 --rest h:99999", 2, ("--rest: expected a port from 1 to",)),
    "a back end's port that is too large": (
        "serve --backend 127.0.0.1:99999",
        2,
        ("--backend: expected a port from 1",),
    ),
    "a port to listen on that is too large": (
        "serve --grpc 127.0.0.1:99999",
        2,
        ("--grpc: expected a port from 0 to",),
    ),
    "an evaluator's port that is too large": (
        "evaluator --http 127.0.0.1:99999",
        2,
        ("--http: expected a port from 0",),
    ),
    "no address of an evaluator": (
        "serve --evaluator 99999",
        2,
        ("--evaluator: expected HOST:PORT or unix:PATH, got",),
    ),
    "no model server there": ("doctor --backend {nobody_address}", 3, ("cannot be connected to", "HOST:PORT")),
    "a report where there is a file": (
        "evaluate sides --data {rows} --task regression --report {rows}/a.html",
        1,
        ("--report: ", "rows.csv is a file"),
    ),
    "a report where there is a folder": (
        "evaluate sides --data {rows} --task regression --report {folder}",
        1,
        ("--report: ", "it is a folder"),
    ),
    "a plot where there is a file": ("buckets sum --url {url} --plot {rows}/a.png", 1, ("--plot: ", "is a file")),
    "calibrations where there is a file": (
        "calibrate sides --known {rows} --calibrations {rows}",
        1,
        ("--calibrations: ", "rows.csv is a file"),
    ),
    "a misspelt command": ("sreve", 2, ("'sreve'", "Did you mean 'serve'?")),
    "an example that is none": ("models data nothing", 2, ("example models", "temperature", "'nothing'")),
}


@pytest.fixture
async def mistaken(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with await client.open("sum", MISTAKEN, if_exists="restart") as session:
        yield session


@pytest.fixture(scope="module")
def nobody(unused_tcp_port_factory: Callable[[], int]) -> str:
    return f"127.0.0.1:{unused_tcp_port_factory()}"


def post(urls: Urls, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(urls.http + path, content=content, timeout=60, verify=False, trust_env=False)


@pytest.mark.parametrize("name", HTTP)
def test_a_mistake_over_http_is_told_with_what_to_do(urls: Urls, name: str) -> None:
    path, body, status, words = HTTP[name]
    post(urls, f"{_MODEL}/sessions", {"session": MISTAKEN, "if_exists": "restart"})
    response = post(urls, path, body)
    assert response.status_code == status, response.text
    assert_says(response.json()["error"], words)


@pytest.mark.parametrize("mistaken_path", PATHS)
def test_a_path_that_is_nearly_right_is_told_with_the_right_one(urls: Urls, mistaken_path: str) -> None:
    right = PATHS[mistaken_path]
    response = post(urls, mistaken_path, {})
    assert response.status_code in (400, 404)
    assert response.json()["error"] == f"There is nothing at POST {mistaken_path}; it is {right}."
    assert "There is nothing at" not in post(urls, right.split()[0], {}).text


@pytest.mark.parametrize("name", CLIENT)
async def test_a_mistake_in_a_program_is_told_in_a_sentence(
    client: AsyncClient, mistaken: AsyncSession, name: str
) -> None:
    act, words = CLIENT[name]
    with pytest.raises((SluiceError, ValueError)) as caught:
        await act(client, mistaken)
    assert_says(str(caught.value), words)


@pytest.mark.parametrize(
    ("scheme", "port_of", "words"),
    [
        ("http", "grpc", ("another protocol", "grpc:// URL")),
        ("grpc", "http", ("HTTP port", "begins with http://")),
        ("http", "nobody", ("Nothing listens there", "its port")),
        ("grpc", "nobody", ("Nothing listens there", "its port")),
        ("https", "http", ("speaks no TLS: use an http:// URL",)),
        ("https", "grpc", ("speaks no TLS: use an http:// URL",)),
    ],
)
async def test_a_client_of_the_wrong_port_is_told_so(
    urls: Urls, nobody: str, scheme: str, port_of: str, words: tuple[str, ...]
) -> None:
    address = nobody if port_of == "nobody" else getattr(urls, port_of).partition("://")[2]
    async with AsyncClient(f"{scheme}://{address}", attempts=1) as client:
        with pytest.raises(SluiceError) as caught:
            await client.open("sum")
    assert_says(str(caught.value), words)


@pytest.mark.parametrize("headers", [{"x": 1}, {"a b": "c"}, {"x": "a\nb"}, [("x", "y")], {1: "x"}])
async def test_headers_that_are_no_texts_by_their_names_are_told_before_anything_is_sent(headers: Any) -> None:
    with pytest.raises(ValueError, match=r"headers holds texts by their names, such as \{'x-tenant': 'a'\}; got "):
        AsyncClient("http://127.0.0.1:1", headers=headers)
    async with AsyncClient("http://127.0.0.1:1", headers={"X-Tenant": "blue", "trace-bin": b"\xff"}):  # type: ignore[dict-item]
        pass


async def test_a_method_of_grpc_that_does_not_exist_is_told_by_its_name(urls: Urls) -> None:
    async with grpc.aio.insecure_channel(urls.grpc.removeprefix("grpc://")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/sluice.v1.Sessions/Setp")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert_says(str(caught.value.details()), ("'/sluice.v1.Sessions/Setp'; did you mean '/sluice.v1.Sessions/Step'?",))


async def test_a_message_that_is_too_large_is_told_with_the_setting(urls: Urls) -> None:
    async with grpc.aio.insecure_channel(urls.grpc.removeprefix("grpc://")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/sluice.v1.Sessions/Step")(b" " * (16 * 2**20 + 1))
    assert_says(str(caught.value.details()), ("16777216 bytes", "body_bytes"))


async def test_a_websocket_elsewhere_is_told_where_there_is_one(urls: Urls) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(urls.http.replace("http", "ws", 1) + "/v1/models/sum/stream")
    assert_says((caught.value.response.body or b"").decode(), ("no WebSocket", "/v1/sessions/ID/stream"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_in_a_command_is_a_sentence_and_an_exit_code(
    urls: Urls, nobody: str, name: str, tmp_path: Path
) -> None:
    line, code, words = COMMANDS[name]
    (rows := tmp_path / "rows.csv").write_text("x.0,x.1,label\n")
    (folder := tmp_path / "folder.html").mkdir()
    grpc_port = urls.grpc.replace("grpc", "http", 1)
    places = {"url": urls.http, "grpc": grpc_port, "nobody": f"http://{nobody}", "nobody_address": nobody}
    said = told(*line.format(rows=rows, folder=folder, **places).split())
    assert said.code == code
    assert_says(said.error, words)
    assert "grpc:// URL" not in said.error  # which no command takes


def assert_says(said: str, words: tuple[str, ...]) -> None:
    plain = re.sub(r"[\s│╭╮╰╯─]+", " ", said)
    assert "Traceback" not in plain
    for each in words:
        assert each in plain, said
