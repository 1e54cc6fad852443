"""The Open Inference Protocol by Triton's own clients: rows, sequences as sessions, every error."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync_grpc
import tritonclient.grpc.aio as aio_grpc
import tritonclient.http as sync_http
import tritonclient.http.aio as aio_http
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from sluice.gateway.core.oip import session_id
from sluice.gateway.http.hot import target_of
from tests.gateway.here import Gate, Here, eventually

X = np.array([[1, 2], [3, 4]], np.float32)
CLIENTS = {"http": (aio_http, "port"), "grpc": (aio_grpc, "grpc")}


def address(here: Here, protocol: str) -> str:
    return f"127.0.0.1:{here.port if protocol == 'http' else here.app.state.grpc.port}"


@pytest.fixture(params=["http", "grpc"])
async def triton(here: Here, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """An asyncio client of either protocol, with its module as `module`."""
    module = {"http": aio_http, "grpc": aio_grpc}[request.param]
    client = module.InferenceServerClient(address(here, request.param))
    client.module, client.protocol = module, request.param
    yield client
    await client.close()


def tensors(module: Any, x: np.ndarray, *, name: str = "x", datatype: str = "FP32") -> list[Any]:
    given = module.InferInput(name, list(x.shape), datatype)
    given.set_data_from_numpy(x)
    return [given]


async def told(awaitable: Any) -> str:
    """The sentence of an error."""
    with pytest.raises(InferenceServerException) as caught:
        await awaitable
    return str(caught.value.message())


# The server and its models.


async def test_the_server_tells_what_it_is(triton: Any) -> None:
    assert await triton.is_server_live()
    assert await triton.is_server_ready()
    about = await triton.get_server_metadata()
    name, extensions = (
        (about["name"], about["extensions"]) if triton.protocol == "http" else (about.name, [*about.extensions])
    )
    assert name == "sluice"
    assert {"binary_tensor_data", "sequence"} <= {*extensions}


async def test_a_model_tells_what_it_takes(triton: Any) -> None:
    as_json = {} if triton.protocol == "http" else {"as_json": True}
    plain = await triton.get_model_metadata("plain", **as_json)
    shape = [-1, 2] if triton.protocol == "http" else ["-1", "2"]
    assert plain["inputs"] == [{"name": "x", "datatype": "FP32", "shape": shape}]
    assert (plain["name"], plain["versions"], plain["platform"]) == ("plain", ["1"], "tensorflow_savedmodel")
    step = await triton.get_model_metadata("sum", "1", **as_json)
    assert [each["name"] for each in step["inputs"]] == ["x"]
    assert {each["name"] for each in step["outputs"]} == {"total", "doubled"}
    assert await triton.is_model_ready("plain")
    assert await triton.is_model_ready("plain", "1")
    assert not await triton.is_model_ready("nosuch")
    assert not await triton.is_model_ready("plain", "7")
    assert "nosuch" in await told(triton.get_model_metadata("nosuch"))


async def test_an_input_of_any_rank_or_of_no_datatype_says_so(here: Here, triton: Any) -> None:
    await here.http.get("/v1/models/plain/contract")
    plain = here.gateway.catalog.models["plain"].served[1].plain["serving_default"].inputs
    as_json = {} if triton.protocol == "http" else {"as_json": True}
    plain["x"] = replace(plain["x"], axes=(), ranked=False)
    described = await triton.get_model_metadata("plain", **as_json)
    assert [*map(int, described["inputs"][0]["shape"])] == [-1]
    given = tensors(triton.module, X.astype(np.float64), datatype="FP64")
    assert "takes the datatype FP32: float32 of any shape; FP64 came" in await told(triton.infer("plain", given))
    plain["x"] = replace(plain["x"], dtype="unknown")
    sentence = await told(triton.infer("plain", tensors(triton.module, X)))
    assert "Input 'x' takes unknown of any shape, which this protocol has no datatype for" in sentence


async def test_the_models_are_listed(here: Here, triton: Any) -> None:
    await here.http.get("/v1/models/plain/contract")
    index = await triton.get_model_repository_index(**({} if triton.protocol == "http" else {"as_json": True}))
    listed = index if triton.protocol == "http" else index["models"]
    assert {(each["name"], each["version"], each["state"]) for each in listed} >= {("plain", "1", "READY")}


async def test_health_says_when_the_model_server_is_away(here: Here, triton: Any) -> None:
    await here.http.get("/v1/models/plain/contract")
    await eventually(lambda: here.ready)
    await here.puppet.stop()
    await eventually(lambda: not here.ready)
    assert await triton.is_server_live()
    assert not await triton.is_server_ready()
    await here.puppet.start()


# Rows.


@pytest.mark.parametrize("binary", [True, False])
async def test_rows_are_answered_over_http_as_bytes_and_as_json(here: Here, binary: bool) -> None:
    async with aio_http.InferenceServerClient(address(here, "http")) as client:
        given = aio_http.InferInput("x", [2, 2], "FP32")
        given.set_data_from_numpy(X, binary_data=binary)
        wanted = [aio_http.InferRequestedOutput("y", binary_data=binary)]
        result = await client.infer("plain", [given], outputs=wanted, request_id="r-7")
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
        answer = result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("plain", "1", "r-7")
        assert ("data" in answer["outputs"][0]) != binary


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_read(here: Here, algorithm: str) -> None:
    async with aio_http.InferenceServerClient(address(here, "http")) as client:
        result = await client.infer("plain", tensors(aio_http, X), request_compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)


async def test_rows_of_several_clients_share_a_batch(here: Here, triton: Any) -> None:
    gate = Gate(here.puppet)
    first = [asyncio.create_task(triton.infer("plain", tensors(triton.module, X))) for _ in range(2)]
    await here.puppet.until_running(1)
    more = [asyncio.create_task(triton.infer("plain", tensors(triton.module, n * X))) for n in range(1, 4)]
    await eventually(lambda: here.gateway.engine.scheduler.busy)
    gate.open()
    for n, each in [(1, first[0]), (1, first[1]), *enumerate(more, 1)]:
        np.testing.assert_array_equal((await each).as_numpy("y"), 2 * n * X)


async def test_a_signature_can_be_named_and_outputs_chosen(triton: Any) -> None:
    wanted = [triton.module.InferRequestedOutput("total")]
    steps = np.ones((1, 3, 2), np.float32)
    result = await triton.infer(
        "sum", tensors(triton.module, steps), outputs=wanted, parameters={"signature_name": "serving_default"}
    )
    np.testing.assert_array_equal(result.as_numpy("total"), np.cumsum(steps, 1))
    assert "nosuch" in await told(
        triton.infer("sum", tensors(triton.module, steps), parameters={"signature_name": "nosuch"})
    )


@pytest.mark.parametrize(
    ("model", "x", "more", "sentence"),
    [
        ("nosuch", X, {}, "nosuch"),
        ("plain", X, {"model_version": "9"}, "9"),
        ("plain", X.astype(np.float64), {"datatype": "FP64"}, "FP32"),
        ("sum", X[:1, :1], {"sequence_id": 3, "sequence_start": True}, "[1]"),
        ("plain", X, {"name": "nosuch"}, "nosuch"),
        ("plain", X, {"outputs": ["nosuch"]}, "no output 'nosuch'; this call gives 'y'"),
        ("plain", X, {"sequence_id": 3, "sequence_start": True}, "session"),
        ("sum", X, {"sequence_id": 3, "sequence_start": True}, "[1"),
        ("sum", X[:1], {"sequence_id": 3}, "no sequence '3' on model 'sum'"),
        ("sum", X[:1], {"sequence_id": "ü" * 65, "sequence_start": True}, "130"),
    ],
)
async def test_what_cannot_be_answered_says_why(
    triton: Any, model: str, x: np.ndarray, more: dict[str, Any], sentence: str
) -> None:
    more = dict(more)
    given = tensors(triton.module, x, name=more.pop("name", "x"), datatype=more.pop("datatype", "FP32"))
    outputs = [triton.module.InferRequestedOutput(name) for name in more.pop("outputs", [])] or None
    assert sentence in await told(triton.infer(model, given, outputs=outputs, **more))


async def test_a_request_that_takes_too_long_is_given_up(here: Here, triton: Any) -> None:
    gate = Gate(here.puppet)
    assert "time" in await told(triton.infer("plain", tensors(triton.module, X), timeout=20_000))
    gate.open()


async def test_a_priority_changes_no_answer_and_classification_is_refused(triton: Any) -> None:
    result = await triton.infer("plain", tensors(triton.module, X), priority=1)
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
    wanted = [triton.module.InferRequestedOutput("y", class_count=2)]
    assert "classification" in await told(triton.infer("plain", tensors(triton.module, X), outputs=wanted))


async def test_shared_memory_is_refused_for_inputs_and_outputs(triton: Any) -> None:
    given, wanted = tensors(triton.module, X), triton.module.InferRequestedOutput("y")
    wanted.set_shared_memory("region", 16)
    assert "Output 'y' names a region of shared memory" in await told(triton.infer("plain", given, outputs=[wanted]))
    lying = triton.module.InferInput("x", [2, 2], "FP32")
    lying.set_shared_memory("region", 16)
    assert "Input 'x' names a region of shared memory" in await told(triton.infer("plain", [lying]))
    other = tensors(triton.module, X, name="other")
    assert "Input 'x' names a region of shared memory" in await told(triton.infer("plain", [*other, lying]))


# Sequences.


# Each pair is alike where characters are left out, replaced, escaped or cut off.
ALIKE = [
    ("cam/1", "cam~2F1"), ("a b", "a_b"), ("ünï", "un"), ("user:42", "user%3A42"), ("5", "5~~sum"),
    ("ü" * 64, "ü" * 63), ("/" * 127 + "1", "/" * 127 + "2"),
]  # fmt: skip


@pytest.mark.parametrize("ids", [(7, 8), ("left", "right"), *ALIKE])
async def test_sequences_are_told_apart_and_closed_at_their_end(here: Here, triton: Any, ids: tuple[Any, Any]) -> None:
    sums = {id: np.zeros((1, 2), np.float32) for id in ids}
    for n in range(4):
        for id in ids:
            x = np.array([[n, len(str(id))]], np.float32)
            flags = {"sequence_start": n == 0, "sequence_end": n == 3}
            result = await triton.infer("sum", tensors(triton.module, x), sequence_id=id, **flags)
            sums[id] += x
            np.testing.assert_array_equal(result.as_numpy("total"), sums[id])
    assert not here.gateway.sessions.list("sum", "", 10)[0]
    sentence = await told(triton.infer("sum", tensors(triton.module, X[:1]), sequence_id=ids[0]))
    assert str(ids[0]) in sentence
    assert "closed" in sentence


async def test_a_chunk_of_time_steps_is_a_scan(here: Here, triton: Any) -> None:
    chunk = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    first = await triton.infer("sum", tensors(triton.module, chunk), sequence_id=5, sequence_start=True)
    np.testing.assert_array_equal(first.as_numpy("total"), np.cumsum(chunk, 1))
    wanted = [triton.module.InferRequestedOutput("doubled")]
    then = await triton.infer("sum", tensors(triton.module, X[:1]), sequence_id=5, outputs=wanted, sequence_end=True)
    np.testing.assert_array_equal(then.as_numpy("doubled"), 2 * (chunk.sum(1) + X[:1]))
    assert then.as_numpy("total") is None


async def test_a_sequence_that_starts_again_starts_from_nothing(triton: Any) -> None:
    for _ in range(2):
        result = await triton.infer("sum", tensors(triton.module, X[:1]), sequence_id=5, sequence_start=True)
        np.testing.assert_array_equal(result.as_numpy("total"), X[:1])


async def test_a_sequence_of_one_request_leaves_no_session(here: Here, triton: Any) -> None:
    flags = {"sequence_start": True, "sequence_end": True}
    await triton.infer("sum", tensors(triton.module, X[:1]), sequence_id=5, **flags)
    assert not here.gateway.sessions.list("sum", "", 10)[0]


async def test_a_first_request_that_is_refused_leaves_no_session(here: Here, triton: Any) -> None:
    await told(triton.infer("sum", tensors(triton.module, X[:1] * np.nan), sequence_id=5, sequence_start=True))
    assert not here.gateway.sessions.list("sum", "", 10)[0]


@pytest.mark.parametrize("id", [5, "a" * 128, "~~"])
async def test_the_same_id_on_two_models_is_two_sequences(here: Here, triton: Any, id: int | str) -> None:
    wide = np.array([[1, 0]], np.float32)
    for model in ("sum", "wide"):
        await triton.infer(model, tensors(triton.module, wide), sequence_id=id, sequence_start=True)
    for model in ("sum", "wide"):
        result = await triton.infer(model, tensors(triton.module, wide), sequence_id=id, sequence_end=True)
        assert result.as_numpy("total")[0, 0] == 2
    assert not [view for model in ("sum", "wide") for view in here.gateway.sessions.list(model, "", 10)[0]]


async def test_a_sequence_is_a_session_like_any_other(here: Here, triton: Any) -> None:
    await triton.infer("sum", tensors(triton.module, X[:1]), sequence_id="mine", sequence_start=True)
    reply = await here.http.post("/v1/sessions/mine:step", json={"inputs": [10, 10]})
    assert reply.json() == {"outputs": {"total": [11, 12], "doubled": [22, 24]}, "step": 2}


async def test_sessions_show_what_sequences_are_called(here: Here, triton: Any) -> None:
    ids = {"cam/1": "cam~2F1", "user:42": "user~3A42", "a b": "a~20b", "ünï": "~C3~BCn~C3~AF", "a~b": "a~7Eb"}
    for id, called in ids.items():
        await triton.infer("sum", tensors(triton.module, X[:1]), sequence_id=id, sequence_start=True)
        reply = await here.http.post(f"/v1/sessions/{called}:step", json={"inputs": [10, 10]})
        assert reply.json()["outputs"]["total"] == [11, 12]
    listed = (await here.http.get("/v1/models/sum/sessions")).json()["sessions"]
    assert {each["session"] for each in listed} == {*ids.values()}


@given(st.text(min_size=1, max_size=32), st.text(min_size=1, max_size=32) | st.none())
def test_what_a_sequence_is_called_can_be_read_back(sequence: str, model: str | None) -> None:
    names = [sequence] if model is None else [sequence, model]
    called = session_id(*names)
    assert re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", called)
    if called.startswith("~."):  # too long to be read
        assert max(map(len, map(quote, names))) > 50
    else:
        assert [unquote(part.replace("~", "%")) for part in called.split("~~", 1)] == names


async def streamed(here: Here, requests: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """What a stream answers, result or error by request, in the order of the answers."""

    async def asked() -> AsyncIterator[dict[str, Any]]:
        for request in requests:
            yield request

    answers: list[tuple[Any, Any]] = []
    async with aio_grpc.InferenceServerClient(address(here, "grpc")) as client:
        async for result, error in client.stream_infer(asked()):
            answers.append((result, error))
            if len(answers) == len(requests):
                break
    return answers


def part(id: Any, x: list[float], **more: Any) -> dict[str, Any]:
    given = tensors(aio_grpc, np.array([x], np.float32))
    return {"model_name": "sum", "inputs": given, "sequence_id": id, "request_id": f"{id}", **more}


@pytest.mark.parametrize("ids", [(1, 2), ("a", "b")])
async def test_sequences_share_a_stream_and_keep_their_order(here: Here, ids: tuple[Any, Any]) -> None:
    steps = [(id, n) for n in range(20) for id in ids]
    flags = {0: {"sequence_start": True}, 19: {"sequence_end": True}}
    answers = await streamed(here, [part(id, [n, 1], **flags.get(n, {})) for id, n in steps])
    assert not [error for _, error in answers if error]
    for id in ids:
        totals = [result.as_numpy("total")[0] for result, _ in answers if result.get_response().id == str(id)]
        np.testing.assert_array_equal(totals, np.cumsum([[n, 1] for n in range(20)], 0))
    assert not here.gateway.sessions.list("sum", "", 10)[0]


async def test_a_sequence_may_start_again_before_its_end_is_answered(here: Here) -> None:
    start, end = {"sequence_start": True}, {"sequence_end": True}
    requests = [part(1, [n, n], **flags) for n in (1, 2, 3) for flags in (start, end)]
    answers = await streamed(here, requests)
    assert not [error for _, error in answers if error]
    assert [float(result.as_numpy("total")[0, 0]) for result, _ in answers] == [1, 2, 2, 4, 3, 6]


async def test_an_error_on_a_stream_is_an_answer_and_the_stream_goes_on(here: Here) -> None:
    bad = part(1, [1, 1, 1], sequence_start=True)
    answers = await streamed(here, [bad, part(2, [1, 1], sequence_start=True)])
    ((_, error),) = [each for each in answers if each[1]]
    ((result, _),) = [each for each in answers if not each[1]]
    assert "[3]" in str(error)
    assert result.get_response().id == "2"


# Clients without asyncio, in threads of their own.


async def test_clients_without_asyncio_work_alike(here: Here) -> None:
    def over_http() -> np.ndarray:
        with sync_http.InferenceServerClient(address(here, "http")) as client:
            assert client.is_server_ready()
            return client.infer("plain", tensors(sync_http, X)).as_numpy("y")

    def over_grpc() -> np.ndarray:
        with sync_grpc.InferenceServerClient(address(here, "grpc")) as client:
            assert client.is_server_ready()
            return client.infer("plain", tensors(sync_grpc, X)).as_numpy("y")

    def over_a_stream() -> np.ndarray:
        got: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.new_event_loop()
        with sync_grpc.InferenceServerClient(address(here, "grpc")) as client:
            client.start_stream(lambda result, error: loop.call_soon_threadsafe(got.put_nowait, (result, error)))
            client.async_stream_infer("sum", tensors(sync_grpc, X[:1]), sequence_id=9, sequence_start=True)
            result, error = loop.run_until_complete(asyncio.wait_for(got.get(), 30))
            client.stop_stream()
        loop.close()
        assert error is None
        return 2 * result.as_numpy("total")

    for call, rows in ((over_http, X), (over_grpc, X), (over_a_stream, X[:1])):
        np.testing.assert_array_equal(await asyncio.to_thread(call), 2 * rows)


async def test_values_in_typed_fields_are_read(here: Here) -> None:
    """As clients write them that know nothing of raw contents."""
    request = service_pb2.ModelInferRequest(model_name="plain", id="r")
    given = request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    given.contents.fp32_contents.extend(X.ravel())
    async with grpc.aio.insecure_channel(address(here, "grpc")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        reply = await stub.ModelInfer(request)
        np.testing.assert_array_equal(np.frombuffer(reply.raw_output_contents[0], np.float32), 2 * X.ravel())
        given.contents.fp64_contents.append(1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(caught.value.trailing_metadata())["sluice-code"] == "dtype_mismatch"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_errors_over_http_are_a_sentence_and_a_code(here: Here) -> None:
    async def refused(path: str, status: int, code: str, **more: Any) -> None:
        reply = await here.http.request(more.pop("method", "POST"), path, **more)
        assert (reply.status_code, reply.headers["sluice-code"]) == (status, code), reply.text
        assert reply.json().keys() == {"error"}

    infer = "/v2/models/plain/infer"
    good = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    await refused(infer, 400, "bad_request", content=b"{")
    await refused(infer, 400, "bad_request", json=[])
    await refused(infer, 400, "missing_input", json={})
    await refused(infer, 400, "bad_request", json={"inputs": [good, good]})
    await refused(infer, 400, "bad_request", json={"inputs": [good], "parameters": {"sequence_start": True}})
    await refused(infer, 400, "bad_request", json={"inputs": [good], "parameters": {"timeout": -1}})
    for length in ("x", "-1", "9" * 40, "100000"):
        headers = {"Inference-Header-Content-Length": length}
        await refused(infer, 400, "bad_request", json={"inputs": [good]}, headers=headers)
    await refused("/v2/models/nosuch/infer", 404, "model_not_found", json={"inputs": [good]})
    await refused("/v2/models/plain/versions/7/infer", 404, "version_not_found", json={"inputs": [good]})
    await refused(infer, 405, "bad_request", method="GET")
    await refused("/v2/models/nosuch", 404, "model_not_found", method="GET")
    await refused("/v2/nosuch", 404, "bad_request", method="GET")
    await refused(infer, 413, "body_too_large", content=b" " * (here.gateway.settings.body_bytes + 1))
    text = json.dumps({"inputs": [good | {"data": [1, float("nan")]}]})
    reply = await here.http.post(infer, content=text)
    assert reply.json()["outputs"][0]["data"] == [2, None]


async def test_optional_fields_may_be_null_as_kserves_clients_write_them(here: Here) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], "parameters": None}
    wanted = {"name": "y", "parameters": None}
    body = {"id": None, "model_name": "plain", "parameters": None, "inputs": [given], "outputs": [wanted]}
    bare = {"inputs": [{name: value for name, value in given.items() if value}], "outputs": [{"name": "y"}]}
    replies = [await here.http.post("/v2/models/plain/infer", json=each) for each in (body, bare)]
    assert replies[0].status_code == 200, replies[0].text
    assert replies[0].json() == replies[1].json()
    for options in ({"ready": None}, None, {}):
        index = await here.http.post("/v2/repository/index", json=options)
        assert [each["name"] for each in index.json()] == ["plain"]


@pytest.mark.parametrize("ready", [0.0, 1, "true"])
async def test_an_option_of_another_type_is_refused(here: Here, ready: Any) -> None:
    reply = await here.http.post("/v2/repository/index", json={"ready": ready})
    assert reply.status_code == 400
    assert "ready" in reply.json()["error"]


async def test_a_length_that_is_no_number_is_told_as_it_came(here: Here) -> None:
    headers = {"Inference-Header-Content-Length": "ten"}
    reply = await here.http.post("/v2/models/plain/infer", content=b"{}", headers=headers)
    assert reply.json()["error"] == "Inference-Header-Content-Length is a number of bytes; got 'ten'."


async def test_requests_are_counted(here: Here, triton: Any) -> None:
    await triton.infer("plain", tensors(triton.module, X))
    await told(triton.infer("nosuch", tensors(triton.module, X)))
    metrics = await here.metrics()
    assert metrics['sluice_requests_total{call="infer",model="plain",outcome="ok"}'] == 1
    assert metrics['sluice_requests_total{call="infer",model="",outcome="model_not_found"}'] == 1


@pytest.mark.parametrize("path", [b"/v2/models/team:iris/infer", b"/v2/models/team%3Airis/infer"])
def test_a_model_whose_name_has_a_colon_can_be_inferred(path):
    target = target_of(b"POST", path)
    assert (target.route.call, target.spec.name) == ("infer", "team:iris")
