"""A client's trace reaches the model server and the log, by every door; nobody else's calls get it."""

import asyncio
import json
from functools import partial

import pytest
import structlog
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from sluice.gateway.core.pending import awaited
from sluice.gateway.grpc.connection import GrpcProtocol
from sluice.gateway.trace import TRACE, names, within
from sluice.wire.grpc_frames import framed
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from tests.gateway.echo import Pipe
from tests.gateway.here import PATIENCE_S, Gate, eventually, running
from tests.gateway.http2 import RawClient
from tests.gateway.stub import dialled, many

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{ID}-00f067aa0ba902b7-01"
OTHER = f"00-{ID}-00f067aa0ba902b8-01"  # of the same trace, and another parent
TRACED = {"traceparent": PARENT, "tracestate": "a=1"}
ROWS = {"instances": [[1, 2]]}
EXAMPLES = {"examples": [{"x": [1.0]}]}


async def _step(here):
    return await (await here.open()).step(headers=TRACED)


async def _scan(here):
    return await (await here.open()).scan([[1, 2], [3, 4]], headers=TRACED)


async def _columns(here):
    body = {"sessions": [await here.opened("sum")], "inputs": [[1, 2]]}
    return await here.http.post("/v1/models/sum/sessions:step", json=body, headers=TRACED)


async def _predict(here):
    return await here.http.post("/v1/models/plain:predict", json=ROWS, headers=TRACED)


async def _classify(here):
    return await here.http.post("/v1/models/plain:classify", json=EXAMPLES, headers=TRACED)


async def _infer(here):
    x = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return await here.http.post("/v2/models/plain/infer", json={"inputs": [x]}, headers=TRACED)


async def _generate(here):
    body = {"instances": ["abc"]}
    return await here.http.post("/v1/models/speller:generate", json=body, headers=TRACED)


@pytest.mark.parametrize("ask", [_step, _scan, _columns, _predict, _classify, _infer, _generate])
async def test_a_trace_that_comes_over_http_reaches_the_model_server(here, puppet, ask):
    answer = await ask(here)
    assert answer.status_code == 200, answer.text
    assert puppet.traces
    assert all(each == TRACED for each in puppet.traces)
    await (await here.open()).goes_on()
    count = len(puppet.traces)
    await here.http.post("/v1/models/plain:predict", json=ROWS)
    assert len(puppet.traces) == count  # without one none is passed on, on the same connection too


async def test_a_trace_of_a_socket_is_its_steps(here, puppet):
    adder = await here.open()
    url = f"ws://127.0.0.1:{here.port}/v1/sessions/{adder.id}/stream"
    async with connect(url, additional_headers=TRACED, compression=None, proxy=None) as socket:
        await socket.send(json.dumps({"inputs": [1, 2]}))
        assert json.loads(await socket.recv()) == adder.added((1, 2))
    assert puppet.traces == [TRACED]


async def test_a_trace_that_comes_over_grpc_reaches_the_model_server(here, puppet):
    adder, told = await here.open(), tuple(TRACED.items())
    classify = tfs.ClassificationRequest()
    classify.model_spec.name = "plain"
    classify.input.example_list.examples.add()
    async with dialled(here) as stub:
        await stub.step(adder.id, [1, 2], metadata=told)
        passed_on = stub.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
        await passed_on(classify.SerializeToString(), metadata=told)
        stream = stub.Stream(metadata=told)
        await stream.write(many([adder.id], [[1, 2]]))
        await stream.read()
        assert puppet.traces == [TRACED] * 3
        await stub.step(adder.id, [1, 2])
        await stub.step(adder.id, [1, 2], metadata=(("traceparent", "nonsense"),))
        in_parts = (("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2"))
        await stub.step(adder.id, [1, 2], metadata=in_parts)
        stream.cancel()
    assert puppet.traces[3:] == [{"traceparent": PARENT, "tracestate": "a=1,b=2"}]


@pytest.mark.parametrize(
    ("parents", "passed_on"),
    [([PARENT, None], [PARENT]), ([PARENT, PARENT], [PARENT]), ([PARENT, OTHER], []), ([None, None], [])],
)
async def test_a_batch_has_the_trace_of_its_requests_if_they_have_one_between_them(puppet, parents, passed_on):
    async with running(puppet, in_flight=1) as here:
        first, *others = await here.adders(1 + len(parents))
        gate = Gate(puppet)
        first_step = asyncio.create_task(first.step())
        await puppet.until_running(1)
        headers = [parent and {"traceparent": parent} for parent in parents]
        waiting = [asyncio.create_task(each.step(headers=told)) for each, told in zip(others, headers, strict=True)]
        await eventually(lambda: _wait(others))
        gate.open()
        answers = await asyncio.gather(first_step, *waiting)
    assert [each.status_code for each in answers] == [200] * len(answers)
    assert puppet.batches[-1][1] == len(parents)
    assert [each["traceparent"] for each in puppet.traces] == passed_on
    assert here.gateway.engine._traces == {}


async def test_a_request_that_is_sent_ahead_does_not_take_the_trace_of_the_one_before(here, puppet):
    adder = await here.open()
    own = f"traceparent: {PARENT}\r\n"
    classify = _request("/v1/models/plain:classify", EXAMPLES, own)
    listed = f"GET /v1/models HTTP/1.1\r\nHost: here\r\n{own}\r\n".encode()
    step = _request(f"/v1/sessions/{adder.id}:step", {"inputs": [1, 2]})
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(classify + step + listed + step.replace(b"HTTP/1.1", b"HTTP/1.0"))
    async with asyncio.timeout(PATIENCE_S):
        answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert puppet.traces == [{"traceparent": PARENT}]


class _Notes:
    """Who carries a call out, and notes of which trace its messages are."""

    full = True

    def __init__(self, seen, _):
        self._seen = seen

    def receive(self, _):
        self._seen.append(TRACE.get())

    def leave(self): ...


async def test_a_call_does_not_take_the_trace_of_the_one_that_had_its_connection_written(monkeypatch):
    seen, client = [], RawClient(None, None)
    connection = GrpcProtocol({b"/test/Notes": partial(_Notes, seen)}, 1000, set())
    connection.connection_made(Pipe())
    client.send(client.call("/test/Notes"), framed(b"abc"))
    connection.data_received(client.h2.data_to_send())
    await asyncio.sleep(0)  # in which what there is to send is written
    monkeypatch.setattr(_Notes, "full", False)
    (call,) = connection._calls.values()
    within([(b"traceparent", PARENT.encode())], None).run(connection.wants, call)
    await eventually(lambda: seen)
    assert seen == [None]


def _request(path, body, headers=""):
    told = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(told)}\r\n{headers}\r\n{told}".encode()


async def _wait(adders):
    return all([await each.waiting() for each in adders])


async def test_a_batch_does_not_take_the_trace_of_who_had_it_formed(here, puppet):
    adder = await here.open()
    traced = within([(b"traceparent", PARENT.encode())], None)
    traced.run(here.gateway.engine.changed)  # at the end of this turn batches are formed
    step = partial(here.gateway.sessions.step, adder.id, [1, 2], None, None, here.gateway.terms())
    assert (await awaited(step)).outputs
    assert puppet.traces == []


async def test_a_trace_that_cannot_be_read_is_ignored(here, puppet):
    adder = await here.open()
    response = await adder.step((1, 2), headers={"traceparent": "00-nonsense", "tracestate": "a=1"})
    assert response.json() == adder.added((1, 2))
    assert puppet.traces == []


async def test_a_line_about_a_request_has_its_id_and_its_trace(here, puppet, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    adder = await here.open()
    monkeypatch.setattr(here.gateway.sessions, "step", broken)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        own = await adder.step(headers={"X-Request-Id": "mine", **TRACED})
        made = await adder.step()
    assert (own.status_code, made.status_code) == (500, 500)
    answered = [each for each in logs if each["event"] == "answered that there is a bug"]
    assert [each["request_id"] for each in answered] == [own.headers["x-request-id"], made.headers["x-request-id"]]
    assert [each.get("trace_id") for each in answered] == [ID, None]
    assert own.headers["x-request-id"] == "mine"


def test_an_id_cannot_forge_lines_or_speak_to_terminals_and_is_short():
    assert names([], b"a\n\x1b[2J\x9b" + b"b" * 1000) == {"request_id": "a??[2J?" + "b" * 121}
    context = within([(b"traceparent", PARENT.encode())], b"a\n")
    assert context.run(structlog.contextvars.get_contextvars) == {"trace_id": ID, "request_id": "a?"}
