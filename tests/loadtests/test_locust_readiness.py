"""What is found out of a gateway before the load, asked of a stand-in."""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from loadtests.locust.options import grpc_address
from loadtests.locust.readiness import NotReady, Served
from loadtests.processes import free_address

KINDS = {"temperature": ["session", "sequences"], "digits_other": ["recognition", "rows"]}
SERVED = {"models": [{"name": name, "kinds": kinds} for name, kinds in KINDS.items()]}
RIGHT = {
    "/readyz": {"status": "ready"},
    "/v1/models": SERVED,
    "/v1/models/digits_other/calibration": {"calibration": {"file": "a.json"}, "reason": None},
}


class Standin(http.server.ThreadingHTTPServer):
    """Answers GET with what stands in `answers`: a document with status 200, a status with a document, or bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers: Mapping[str, Any] = RIGHT
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path, (404, {}))
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def standin() -> Iterator[Standin]:
    with Standin() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("models", "tags", "lack"),
    [
        (["temperature"], {"sessions", "http"}, ""),
        (["temperature"], {"sequences", "http"}, ""),
        (["digits_other"], {"recognition", "http"}, ""),
        (["temperature", "digits_other"], {"http"}, ""),
        (["dates"], {"generation"}, "the gateway serves no dates"),
        (["temperature", "dates"], {"http"}, "the gateway serves no dates"),
        (
            ["temperature"],
            {"rows"},
            "temperature does not take requests of the kind rows, only sequences, session",
        ),
    ],
)
def test_what_a_scenario_lacks_is_said(standin: Standin, models: list[str], tags: set[str], lack: str) -> None:
    assert Served(standin.url, free_address()).lack(models, tags) == lack


def test_a_model_without_calibration_recognizes_nothing(standin: Standin) -> None:
    reason = "digits_other has no calibration"
    answers = {"/v1/models/digits_other/calibration": {"calibration": None, "reason": reason}}
    standin.answers = RIGHT | answers
    served = Served(standin.url, free_address())
    assert served.lack(["digits_other"], {"recognition"}) == reason
    assert not served.lack(["digits_other"], {"rows"})


def test_grpc_is_lacking_where_nothing_listens(standin: Standin) -> None:
    nobody = free_address()
    assert f"nothing listens for gRPC at {nobody}" in Served(standin.url, nobody).lack(["temperature"], {"grpc"})
    listens = standin.url.removeprefix("http://")
    assert not Served(standin.url, listens).lack(["temperature"], {"grpc"})


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/readyz": (503, {"error": "dates is loading", "code": "backend_unavailable"})}, "it says: dates is loading"),
        ({"/readyz": (502, b"<html>")}, "it answers with status 502"),
        ({"/readyz": b"<html>Welcome"}, "something else answers there"),
        ({"/v1/models": {"items": []}}, "something else answers there"),
    ],
)
def test_a_gateway_that_is_not_ready_is_told_from_one_that_is_none(
    standin: Standin, answers: Mapping[str, Any], said: str
) -> None:
    standin.answers = RIGHT | answers
    with pytest.raises(NotReady, match=said):
        Served(standin.url, "")


def test_a_gateway_that_is_not_there_is_named() -> None:
    url = f"http://{free_address()}"
    with pytest.raises(NotReady, match=f"expected a gateway at {url}; it cannot be reached: .*Connection refused"):
        Served(url, "")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "grpc://127.0.0.1:8081", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(NotReady, match="expected a gateway as http://HOST:PORT"):
        Served(url, "")


@pytest.mark.parametrize(
    ("host", "grpc", "address"),
    [
        ("http://127.0.0.1:8080", "", "127.0.0.1:8081"),
        ("http://gateway/", "", "gateway:81"),
        ("http://[::1]:8080", "", "[::1]:8081"),
        ("http://127.0.0.1:8080", "grpc://127.0.0.1:9", "127.0.0.1:9"),
        ("http://127.0.0.1:8080", "127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_grpc_is_one_port_higher_unless_said(host: str, grpc: str, address: str) -> None:
    assert grpc_address(host, grpc) == address
