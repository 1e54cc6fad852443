"""`Sluice-Batch: exact`: a request's rows are a batch of their own, of exactly their size, over every door."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from websockets.asyncio.client import connect

from sluice.client import AsyncClient
from sluice.gateway.core.buckets import Buckets
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import SequenceTooLong
from sluice.policy.lengths import BucketOptions
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.messages.v1 import generation_pb2, recognition_pb2
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.tensors import write_tensor
from tests.gateway import puppet as puppets
from tests.gateway.here import Gate, Here, eventually, refused, refused_as_tf_serving, running
from tests.gateway.sides import document, put

EXACT = {"Sluice-Batch": "exact"}
METADATA = (("sluice-batch", "exact"),)
SIZES = {"allowed_batch_sizes": "1,4,8", "in_flight": 1}
Send = Callable[[Here, int, dict[str, str]], Awaitable[Any]]


async def posted(here: Here, path: str, body: Any, headers: dict[str, str]) -> Any:
    response = await here.http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def predict(here: Here, rows: int, headers: dict[str, str]) -> Any:
    return await posted(here, "/v1/models/plain:predict", {"instances": [[n, n] for n in range(rows)]}, headers)


async def infer(here: Here, rows: int, headers: dict[str, str]) -> Any:
    x = {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [1.0] * 2 * rows}
    return await posted(here, "/v2/models/plain/infer", {"inputs": [x]}, headers)


async def recognize(here: Here, rows: int, headers: dict[str, str]) -> Any:
    body = {"instances": [[0.1, 0.2]] * rows, "method": "knn"}
    return await posted(here, "/v1/models/sides:recognize", body, headers)


async def sequences(here: Here, rows: int, headers: dict[str, str]) -> Any:
    body = {"instances": [[[1.0, 1.0]] * (1 + n % 8) for n in range(rows)]}
    return await posted(here, "/v1/models/spans:predict", body, headers)


async def in_chunks(here: Here, rows: int, headers: dict[str, str]) -> Any:
    return await posted(here, "/v1/models/strides:predict", {"instances": [[[1.0, 1.0]] * 9] * rows}, headers)


async def steps(here: Here, rows: int, headers: dict[str, str]) -> Any:
    ids = [await here.opened("sum") for _ in range(rows)]
    body = {"sessions": ids, "inputs": [[1, 2]] * rows}
    return await posted(here, "/v1/models/sum/sessions:step", body, headers)


async def grpc_predict(here: Here, rows: int, headers: dict[str, str]) -> Any:
    request = tfs.PredictRequest()
    request.model_spec.name = "plain"
    write_tensor(request.inputs["x"], np.ones((rows, 2), np.float32))
    return await called(here, "/tensorflow.serving.PredictionService/Predict", request, headers)


async def grpc_steps(here: Here, rows: int, headers: dict[str, str]) -> Any:
    ids = [await here.opened("sum") for _ in range(rows)]
    x = pb.Tensor(dtype="float32", shape=[rows, 2], data=np.ones((rows, 2), np.float32).tobytes())
    request = pb.StepManyRequest(model="sum", sessions=ids, inputs={"x": x})
    return await called(here, "/sluice.v1.Sessions/StepMany", request, headers)


async def grpc_recognize(here: Here, rows: int, headers: dict[str, str]) -> Any:
    x = pb.Tensor(dtype="float32", shape=[rows, 2], data=np.full((rows, 2), 0.5, np.float32).tobytes())
    request = recognition_pb2.RecognizeRequest(model="sides", method="knn", inputs={"x": x})
    return await called(here, "/sluice.v1.Recognition/Recognize", request, headers)


async def called(here: Here, path: str, request: Any, headers: dict[str, str]) -> bytes:
    metadata = tuple((name.lower(), value) for name, value in headers.items())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        answer: bytes = await channel.unary_unary(path)(request.SerializeToString(), metadata=metadata)
    return answer


DOORS: dict[str, Send] = {
    each.__name__: each
    for each in (
        predict, infer, recognize, sequences, in_chunks, steps, grpc_predict, grpc_steps, grpc_recognize
    )
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
async def test_an_exact_request_is_one_batch_of_its_size_among_others_that_share(puppet, tmp_path, door):
    put(tmp_path, document())
    send = DOORS[door]
    async with running(puppet, calibrations=tmp_path, **SIZES) as here:
        for rows in (1, 3):
            await send(here, rows, {})
        gate, scheduler = Gate(puppet), here.gateway.engine.scheduler
        tasks = [asyncio.create_task(send(here, 1, {}))]
        await puppet.until_running(1)
        puppet.batches.clear()
        waiting = 0
        for rows, headers in ((3, {}), (3, EXACT), (2, {}), (11, EXACT)):
            waiting += rows
            tasks.append(asyncio.create_task(send(here, rows, headers)))
            await eventually(lambda n=waiting: sum(ticket.rows for ticket in _waiting(scheduler)) == n)
        exact = [ticket for ticket in _waiting(scheduler) if ticket.lane.exact]
        assert sorted(ticket.rows for ticket in exact) == [3, 11]
        gate.open()
        await asyncio.gather(*tasks)
    sizes = [size for _, size in puppet.batches]
    assert sizes.count(3) == sizes.count(11) == 1
    assert set(sizes) - {3, 11} <= {1, 4, 8}
    assert (("sequences", 11) in puppet.batches) == (door in ("sequences", "in_chunks")), "whole, not in chunks"


def _waiting(scheduler: Any) -> list[Any]:
    queues = [queue for dispatcher in scheduler.dispatchers.values() for queue in dispatcher._queues.values()]
    return [ticket for queue in queues for ticket in queue.tickets()]


async def test_sequences_are_padded_to_the_bucket_of_their_longest_row_and_teach_the_buckets_nothing(puppet):
    shapes = []

    async def note(request: Any) -> None:
        shapes.append([each.size for each in request.inputs["x"].tensor_shape.dim])

    puppet.before = note
    async with running(puppet, **SIZES) as here:
        rows = [[[1.0, 0.5]] * length for length in (1, 3, 2)]
        answer = await posted(here, "/v1/models/spans:predict", {"instances": rows}, EXACT)
        assert [each["total"] for each in answer["predictions"]] == [[1.0, 0.5], [3.0, 1.5], [2.0, 1.0]]
        assert [len(each["running"]) for each in answer["predictions"]] == [1, 3, 2]
        buckets = (await here.http.get("/v1/models/spans/buckets")).json()["signatures"]["serving_default"]["time"]
    assert shapes == [[3, 4, 2]]
    assert buckets["lengths"] == {}


def test_where_bounds_are_learned_an_exact_request_is_padded_to_its_longest_row_and_given_bounds_are_kept():
    ragged = [{"name": name, "ragged": True, "least": 0} for name in ("time", "mel")]
    tensor = {"dtype": "float32", "axes": [{"name": "batch"}, *ragged]}
    call = {"kind": "sequences", "inputs": {"x": tensor}, "outputs": {"y": tensor}}
    about = {"lengths": {"time": "times", "mel": "mels"}, "buckets": {"mel": [8, 16]}}
    contract = parse_contract({"schema": 1, "signatures": {"serving_default": {**call, **about}}})
    signature = contract.signatures["serving_default"]
    buckets = Buckets("m", signature, BucketOptions(limit=100))
    assert buckets.bounds_together([(3, 9), (7, 2)]) == (7, 16)
    assert buckets.bounds_together([(0, 0)]) == (1, 8)
    assert buckets.last_bounds == (100, 16)
    with pytest.raises(SequenceTooLong):
        buckets.bounds_together([(101, 1)])


async def test_equal_exact_requests_send_the_model_server_the_same_bytes_whoever_else_waits(puppet):
    sent = []

    async def note(request: Any) -> None:
        if len(request.inputs["x"].tensor_content) == 5 * 4 * 2 * 4:
            sent.append(request.inputs["x"].tensor_content)

    puppet.before = note
    async with running(puppet, **SIZES) as here:
        body = {"instances": [[[n, 2.5]] * (1 + n % 3) for n in range(5)]}
        for others in (0, 6):
            beside = [sequences(here, 2, {}) for _ in range(others)]
            await asyncio.gather(posted(here, "/v1/models/spans:predict", body, EXACT), *beside)
    assert len(sent) == 2
    assert sent[0] == sent[1]


async def test_more_rows_than_may_wait_are_too_many(puppet):
    async with running(puppet, queue_rows=12, **SIZES) as here:
        assert len((await predict(here, 12, EXACT))["predictions"]) == 12
        response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 1]] * 13}, headers=EXACT)
        assert "12 rows" in refused_as_tf_serving(response, 413, "batch_too_large")
        body = {"sessions": [f"s{n}" for n in range(13)], "inputs": [[1, 2]] * 13}
        response = await here.http.post("/v1/models/sum/sessions:step", json=body, headers=EXACT)
        assert refused(response, 413, "batch_too_large")["details"] == {"limit": 12}
    assert puppet.batches == [("serving_default", 12)]


async def test_sequences_that_padding_would_make_too_large_are_refused_with_what_fits(puppet):
    row_bytes = 8 * 2 * 4 + 4  # of eight time steps of two features, and of its length
    async with running(puppet, body_bytes=10 * row_bytes, **SIZES) as here:

        async def sent(rows: int) -> Any:
            body = {"instances": [[[1, 1]] * 8, *[[[1, 1]]] * (rows - 1)]}
            return await here.http.post("/v1/models/spans:predict", json=body, headers=EXACT)

        assert (await sent(10)).status_code == 200
        assert "may have 10 rows where the longest row needs [8]" in refused_as_tf_serving(
            await sent(11), 413, "batch_too_large"
        )
    async with running(puppet, body_bytes=4 * row_bytes, **SIZES) as here:
        body = {"instances": [[[1, 1]] * 8] + [[[1, 1]]] * 7}
        response = await here.http.post("/v1/models/spans:predict", json=body, headers=EXACT)
        assert response.status_code == 200, "as large as the largest batch that is shared"


async def test_another_value_is_refused_over_every_door(here):
    for headers in ({"Sluice-Batch": "Exact"}, {"Sluice-Batch": ""}):
        response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]}, headers=headers)
        assert "Sluice-Batch takes exact" in refused_as_tf_serving(response, 400, "bad_request")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await grpc_predict(here, 1, {"Sluice-Batch": "whole"})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Sluice-Batch takes exact" in (caught.value.details() or "")


async def test_what_is_generated_and_answers_in_parts_have_no_batch_of_their_own(here):
    response = await here.http.post("/v1/models/speller:generate", json={"instances": ["abc"]}, headers=EXACT)
    assert "Leave it out" in refused(response, 400, "bad_request")["error"]
    request = generation_pb2.GenerateRequest(model="speller", texts=["abc"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        call = channel.unary_stream("/sluice.v1.Generation/Generate")(request.SerializeToString(), metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError, match="Leave it out"):
            async for _ in call:
                pass
    body, headers = {"instances": [[[1.0, 1.0]] * 9]}, {**EXACT, "Accept": "text/event-stream"}
    response = await here.http.post("/v1/models/strides:predict", json=body, headers=headers)
    assert "gives no parts of the answer" in refused_as_tf_serving(response, 400, "bad_request")


async def test_a_websocket_takes_it_with_its_handshake(puppet):
    async with running(puppet, allowed_batch_sizes="4") as here:
        id = await here.opened("sum")
        url = f"ws://127.0.0.1:{here.port}/v1/sessions/{id}/stream"
        async with connect(url, additional_headers=EXACT) as socket:
            await socket.send(json.dumps({"inputs": [1, 2]}))
            assert json.loads(await socket.recv())["step"] == 1
    assert puppet.batches == [("step", 1)]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_python_client_with_the_header_has_all_its_calls_run_exactly(puppet, scheme):
    async with running(puppet, **SIZES) as here:
        port = here.port if scheme == "http" else here.app.state.grpc.port
        headers = {**EXACT, "Sluice-Priority": "low"}
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", headers=headers) as client:
            answer = await client.predict("plain", np.ones((5, 2), np.float32))
            assert answer["y"].tolist() == [[2, 2]] * 5
            await client.predict("spans", [np.ones((n, puppets.FEATURES), np.float32) for n in (1, 8, 3)])
            async with await client.open("sum") as session:
                await session.step([1, 2])
    assert puppet.batches == [("serving_default", 5), ("sequences", 3), ("step", 1)]
