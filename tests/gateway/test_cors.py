"""Pages from elsewhere: what answers and preflights say to a browser, by the setting `cors_origins`."""

import json

import pytest

from tests.gateway.here import running
from tests.gateway.raw import connected, request

PAGE = "https://page.example"
SESSION = "/v1/sessions/station-7"
STEP = SESSION + ":step"
ROWS = {"instances": [[1.0, 2.0]]}
# Method, path and body of a request → the status of its answer: hot calls, FastAPI's, refusals of every layer.
REQUESTS = {
    ("POST", STEP, json.dumps({"inputs": [1, 2]})): 200,
    ("POST", STEP, "{"): 400,
    ("GET", STEP, None): 405,
    ("OPTIONS", STEP, None): 405,
    ("POST", SESSION + "x:scan", json.dumps({"inputs": [[1, 2]]})): 404,
    ("POST", STEP, "x" * 2000): 413,
    ("POST", "/v1/models/plain:predict", json.dumps(ROWS)): 200,
    ("OPTIONS", "/v1/models/plain:predict", None): 400,
    ("POST", "/v1/models/plain:predicts", json.dumps(ROWS)): 400,
    ("GET", "/v1/models/plain", None): 200,
    ("GET", SESSION, None): 200,
    ("POST", SESSION + ":renew", "{"): 400,
    ("POST", SESSION + ":renew", "x" * 2000): 413,
    ("GET", "/healthz", None): 200,
    ("GET", "/nothing", None): 404,
    ("DELETE", "/healthz", None): 405,
}
EACH = pytest.mark.parametrize(("method", "path", "body"), REQUESTS)


def told(headers):
    """What an answer says to a browser."""
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


async def asked(here, method, path, body=None, origin=PAGE, **headers):
    """The answer to a page's request, byte by byte, so that a header that comes twice is seen."""
    if origin is not None:
        headers["Origin"] = origin
    async with connected(here) as connection:
        await connection.send(request(path, body and body.encode(), method=method, **headers))
        return await connection.answer(method)


async def preflight(here, path, origin=PAGE, method="POST", wants="content-type, sluice-timeout-ms"):
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": wants}
    return await asked(here, "OPTIONS", path, origin=origin, **asks)


@pytest.fixture
async def open_to(puppet):
    """Begins gateways that are open to pages of these origins, with a session on them."""
    begun = []

    async def begin(*origins):
        context = running(puppet, cors_origins=origins, body_bytes=1500)
        begun.append(context)
        here = await context.__aenter__()
        await here.opened("sum", session="station-7")
        return here

    yield begin
    for context in begun:
        await context.__aexit__(None, None, None)


@EACH
async def test_without_origins_no_answer_says_anything_to_a_browser(open_to, method, path, body):
    answer = await asked(await open_to(), method, path, body)
    assert (answer.status, told(answer.headers)) == (REQUESTS[method, path, body], {})


async def test_without_origins_a_preflight_is_no_call(open_to):
    here = await open_to()
    answer = await preflight(here, STEP)
    assert (answer.status, answer.headers["allow"], told(answer.headers)) == (405, "POST", {})
    answer = await preflight(here, "/v1/models/plain:predict")
    assert (answer.status, told(answer.headers)) == (400, {})


@EACH
@pytest.mark.parametrize("origin", [PAGE, None])
async def test_open_to_all_every_answer_may_be_read_by_any_page(open_to, method, path, body, origin):
    answer = await asked(await open_to("*"), method, path, body, origin)
    assert answer.status == REQUESTS[method, path, body]
    exposed = told(answer.headers).pop("access-control-expose-headers")
    assert told(answer.headers) == {"access-control-allow-origin": "*", "access-control-expose-headers": exposed}
    assert {"Sluice-Code", "Sluice-Session", "X-Request-Id"} <= {*exposed.split(", ")}


@EACH
async def test_open_to_some_their_pages_may_read_every_answer_and_others_none(open_to, method, path, body):
    here = await open_to("http://localhost:3000", PAGE)
    answer = await asked(here, method, path, body)
    assert told(answer.headers)["access-control-allow-origin"] == PAGE
    assert told(answer.headers)["vary"] == "Origin"
    for other in ("https://other.example", "null", PAGE + ":8443", None):
        answer = await asked(here, "GET", SESSION, None, other)
        assert (answer.status, told(answer.headers)) == (200, {"vary": "Origin"})


@pytest.mark.parametrize("path", [STEP, "/v1/models/plain:predict", "/v1/models/sum/sessions", SESSION, "/nothing"])
@pytest.mark.parametrize("origins", [("*",), (PAGE,)])
async def test_a_preflight_is_answered_for_every_path_and_calls_nothing(open_to, path, origins):
    here = await open_to(*origins)
    answer = await preflight(here, path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == ("*" if origins == ("*",) else PAGE)
    assert {"GET", "POST", "PUT", "DELETE"} == {*answer.headers["access-control-allow-methods"].split(", ")}
    assert answer.headers["access-control-allow-headers"] == "content-type, sluice-timeout-ms"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["x-request-id"]
    assert here.puppet.batches == []


async def test_a_preflight_of_another_page_is_no_call(open_to):
    here = await open_to(PAGE)
    for path, status in ((STEP, 405), ("/v1/models/plain:predict", 400), ("/healthz", 405)):
        answer = await preflight(here, path, "https://other.example")
        assert (answer.status, told(answer.headers)) == (status, {"vary": "Origin"})


async def test_a_preflight_is_answered_in_its_turn_among_requests_that_were_sent_ahead(open_to):
    here = await open_to("*")
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    async with connected(here) as connection:
        step = request(STEP, {"inputs": [1, 2]})
        await connection.send(step + request(STEP, method="OPTIONS", **asks) + step)
        answers = [await connection.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [answer.json["step"] for answer in (answers[0], answers[2])] == [1, 2]
    assert "access-control-max-age" in answers[1].headers


async def test_a_stream_of_events_says_it_too(open_to):
    here = await open_to("*")
    headers = {"accept": "text/event-stream", "origin": PAGE}
    response = await here.http.post("/v1/models/strides:predict", json={"instances": [[[1, 1]]]}, headers=headers)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")
    assert response.headers["content-type"].startswith("text/event-stream")
