"""TensorFlow Serving's whole API on the gateway: batched where it can be, passed on as it is elsewhere."""

import asyncio
import gzip
import json
import re

import grpc
import grpc.aio
import numpy as np
import pytest

from sluice.policy.errors import BackendUnavailable, VersionNotFound
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor, write_tensor
from tests.gateway import puppet as puppets
from tests.gateway.here import Gate, eventually, refused_as_tf_serving, running

PREDICT = "PredictionService/Predict"
ANSWER = b"\x0a\x03abc\xff"  # bytes that only who passes them on untouched gives back


@pytest.fixture
async def channel(here):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as opened:
        yield opened


def predict_request(rows, model="plain", outputs=(), **spec):
    request = tfs.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    for name, value in spec.items():
        if name == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, name, value)
    write_tensor(request.inputs["x"], np.array(rows, np.float32))
    return request


def about(model, **spec):
    """A request that names a model where all of them do, and says nothing else."""
    request = predict_request([], model, **spec)
    request.ClearField("inputs")
    return request


async def call(channel, method, request, timeout=20.0):
    message = request if isinstance(request, bytes) else request.SerializeToString()
    return await channel.unary_unary(f"/tensorflow.serving.{method}")(message, timeout=timeout)


async def predicted(channel, request, **more):
    return tfs.PredictResponse.FromString(await call(channel, PREDICT, request, **more))


async def failed(channel, method, request, **more):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, request, **more)
    return caught.value.code().name, caught.value.details()


async def test_rows_of_grpc_and_rest_clients_share_a_batch(puppet):
    async with running(puppet, in_flight=1) as here:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
            gate = Gate(puppet)
            first = asyncio.create_task(here.http.post("/v1/models/plain:predict", json={"instances": [[0, 0]]}))
            await puppet.until_running(1)
            by_grpc = [asyncio.create_task(predicted(channel, predict_request([[n, n]] * n))) for n in (1, 2)]
            by_rest = asyncio.create_task(here.http.post("/v1/models/plain:predict", json={"instances": [[7, 7]]}))
            dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
            await eventually(lambda: dispatcher.waiting_rows == 4)
            gate.open()
            for n, reply in zip((1, 2), await asyncio.gather(*by_grpc), strict=True):
                assert read_tensor(reply.outputs["y"]).tolist() == [[2 * n, 2 * n]] * n
                spec = reply.model_spec
                assert (spec.name, spec.version.value, spec.signature_name) == ("plain", 1, "serving_default")
            assert (await by_rest).json() == {"predictions": [[14, 14]]}
            await first
            assert puppet.batches == [("serving_default", 1), ("serving_default", 4)]


async def test_requests_for_different_outputs_never_share_a_batch(puppet):
    async with running(puppet, in_flight=1) as here:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
            gate = Gate(puppet)
            tasks = [asyncio.create_task(predicted(channel, predict_request([[1, 2]])))]
            await puppet.until_running(1)
            for outputs in ((), ("y",), ("y",)):
                request = predict_request([[1, 2]], outputs=outputs)
                tasks.append(asyncio.create_task(predicted(channel, request)))
            dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
            await eventually(lambda: dispatcher.waiting_rows == 3)
            gate.open()
            assert [[*reply.outputs] for reply in await asyncio.gather(*tasks)] == [["y"]] * 4
            assert sorted(rows for _, rows in puppet.batches) == [1, 1, 2]


@pytest.mark.parametrize(
    "method",
    ["PredictionService/Classify", "PredictionService/Regress", "PredictionService/MultiInference"],
)
async def test_what_is_not_batched_is_passed_on_byte_for_byte(here, channel, method):
    here.puppet.forwarded = ANSWER
    assert await call(channel, method, b"\x0a\x01q\xfa\x07\x02hi") == ANSWER
    assert here.puppet.asked == [(f"/tensorflow.serving.{method}", b"\x0a\x01q\xfa\x07\x02hi")]


@pytest.mark.parametrize("about_spec", [{}, {"version": 1}])
@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("Classify", "no signature for :classify, .* 'classes' or 'scores'. Call :recognize or :predict. .* says: Exp"),
        ("Regress", "no signature for :regress, .* 'outputs'. Call :recognize or :predict. The model server says: Exp"),
    ],
)
async def test_examples_for_a_model_that_takes_none_are_told_what_to_call(here, channel, method, told, about_spec):
    code, said = await failed(channel, f"PredictionService/{method}", about("sides", **about_spec))
    assert code == "INVALID_ARGUMENT"
    assert re.search(told, said), said


async def test_status_and_metadata_are_the_model_servers_own(here, channel):
    request = tfs.GetModelStatusRequest()
    request.model_spec.name = "plain"
    reply = tfs.GetModelStatusResponse.FromString(await call(channel, "ModelService/GetModelStatus", request))
    assert [each.version for each in reply.model_version_status] == [1]
    response = await here.http.get("/v1/models/plain")
    version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert response.json() == {"model_version_status": [version]}
    metadata = (await here.http.get("/v1/models/plain/versions/1/metadata")).json()
    assert metadata["model_spec"] == {"name": "plain", "version": "1", "signature_name": ""}
    assert "serving_default" in metadata["metadata"]["signature_def"]["signature_def"]


async def test_a_configuration_is_passed_on_only_where_that_is_allowed(puppet):
    for allowed, expected in ((False, "PERMISSION_DENIED"), (True, None)):
        async with running(puppet, allow_reload=allowed) as here:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
                puppet.forwarded = ANSWER
                method = "ModelService/HandleReloadConfigRequest"
                if expected:
                    assert (await failed(channel, method, b""))[0] == expected
                else:
                    assert await call(channel, method, b"") == ANSWER


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED"])
async def test_the_model_servers_status_and_sentence_pass_through(here, channel, status):
    async def fail(_):
        return grpc.StatusCode[status]

    here.puppet.before = fail
    assert await failed(channel, PREDICT, predict_request([[1, 2]])) == (status, "as the test told me")


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "INTERNAL", "UNIMPLEMENTED"])
async def test_what_the_model_server_refuses_has_one_code_over_grpc_and_rest(here, channel, status):
    async def fail(_):
        return grpc.StatusCode[status]

    here.puppet.before = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, PREDICT, predict_request([[1, 2]]))
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 2]]})
    assert dict(caught.value.trailing_metadata())["sluice-code"] == response.headers["sluice-code"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("/v1/models/smu", "model_not_found"),
        ("/v1/models/smu/versions/7", "model_not_found"),
        ("/v1/models/smu/metadata", "model_not_found"),
        ("/v1/models/smu:classify", "model_not_found"),
        ("/v1/models/smu:predict", "model_not_found"),
        ("/v1/models/plain/versions/7:predict", "version_not_found"),
    ],
)
async def test_what_is_not_there_is_told_by_its_code_a_model_or_a_version_of_one(here, asked, code):
    body = {"examples": [{"x": 1.0}], "instances": [[1, 2]]}
    response = await here.http.request("POST" if ":" in asked else "GET", asked, json=body if ":" in asked else None)
    said = refused_as_tf_serving(response, 404, code)
    assert "predict" in asked or said == "no such model"


@pytest.mark.parametrize(
    "method",
    [PREDICT, "PredictionService/Classify", "PredictionService/GetModelMetadata", "ModelService/GetModelStatus"],
)
async def test_a_model_that_is_not_there_has_its_code_over_grpc_too_and_the_model_servers_sentence(
    here, channel, method
):
    for version in ({}, {"version": 7}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, method, about("smu", **version))
        told = caught.value.code().name, dict(caught.value.trailing_metadata())["sluice-code"]
        assert told == ("NOT_FOUND", "model_not_found")
        assert caught.value.details() in ("no such model", "no such version")


async def test_a_version_that_is_not_there_has_its_code_over_grpc(here, channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, PREDICT, predict_request([[1, 2]], version=7))
    told = caught.value.code().name, dict(caught.value.trailing_metadata())["sluice-code"]
    assert told == ("NOT_FOUND", "version_not_found")


async def test_what_is_not_found_while_the_model_server_goes_away_keeps_its_code(here, channel, monkeypatch):
    async def away(_):
        raise BackendUnavailable("away")

    monkeypatch.setattr(here.gateway.catalog, "find", away)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, "PredictionService/GetModelMetadata", about("smu"))
    assert dict(caught.value.trailing_metadata())["sluice-code"] == "version_not_found"


@pytest.mark.parametrize("method", ["PredictionService/MultiInference", "ModelService/HandleReloadConfigRequest"])
async def test_what_is_not_found_by_a_call_that_names_no_model_first_is_told_as_it_is(puppet, method):
    async def fail(*_):
        raise VersionNotFound("It found nothing.")

    async with running(puppet, allow_reload=True) as here:
        here.gateway.catalog._backend.forward = fail
        async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
            assert await failed(channel, method, b"\x0a\x02\xff\xff") == ("NOT_FOUND", "It found nothing.")


async def test_a_signature_that_is_not_there_is_told_with_those_that_a_client_may_call(here, monkeypatch):
    monkeypatch.setitem(puppets.SIGNATURES["plain"], "__saved_model_init_op", puppets.double)
    body = {"instances": [[1, 2]], "signature_name": "nope"}
    for model, listed in (("plain", "serving_default"), ("sum", "scan, serving_default, step"), ("spans", "serving_")):
        response = await here.http.post(f"/v1/models/{model}:predict", json=body)
        said = refused_as_tf_serving(response, 400, "signature_not_found")
        assert f"has no signature 'nope'; it has {listed}" in said
        assert "__saved_model_init_op" not in said


async def test_a_deadline_passes_through(here, channel):
    gate = Gate(here.puppet)
    assert (await failed(channel, PREDICT, predict_request([[1, 2]]), timeout=0.2))[0] == "DEADLINE_EXCEEDED"
    gate.open()
    assert read_tensor((await predicted(channel, predict_request([[1, 2]]))).outputs["y"]).tolist() == [[2, 4]]


async def test_a_model_server_that_is_away_is_unavailable(here, channel):
    await here.puppet.stop()
    assert (await failed(channel, PREDICT, predict_request([[1, 2]])))[0] == "UNAVAILABLE"
    response = await here.http.get("/v1/models/plain")
    refused_as_tf_serving(response, 503, "backend_unavailable")


async def test_wrong_requests_are_the_model_servers_to_judge(here, channel):
    wrong = predict_request([[1, 2]])
    wrong.inputs["x"].tensor_content = b"abc"
    other = predict_request([[1, 2]])
    other.inputs["z"].CopyFrom(other.inputs["x"])
    await predicted(channel, predict_request([[1, 2]]))  # from now on the model is known
    here.puppet.forwarded = ANSWER
    for request in (wrong, other, predict_request([[1, 2]], outputs=("y", "y")), b"\xff\xff"):
        here.puppet.asked.clear()
        message = request if isinstance(request, bytes) else request.SerializeToString()
        assert await call(channel, PREDICT, message) == ANSWER
        assert here.puppet.asked == [(f"/tensorflow.serving.{PREDICT}", message)]


async def test_a_client_that_leaves_takes_its_rows_with_it(puppet):
    async with running(puppet, in_flight=1) as here:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
            gate = Gate(puppet)
            first = asyncio.create_task(predicted(channel, predict_request([[1, 1]])))
            await puppet.until_running(1)
            second = asyncio.create_task(predicted(channel, predict_request([[2, 2]])))
            dispatcher = here.gateway.engine.scheduler.dispatchers["plain"]
            await eventually(lambda: dispatcher.waiting_rows == 1)
            second.cancel()
            await eventually(lambda: dispatcher.waiting_rows == 0)
            gate.open()
            assert read_tensor((await first).outputs["y"]).tolist() == [[2, 2]]


async def test_a_compressed_body_is_read_and_bounded(puppet):
    async with running(puppet, body_bytes=10_000) as here:
        body = json.dumps({"instances": [[1, 2]]}).encode()
        post = here.http.post
        members = gzip.compress(body[:9]) + gzip.compress(body[9:])
        response = await post("/v1/models/plain:predict", content=members, headers={"Content-Encoding": "gzip"})
        assert response.json() == {"predictions": [[2, 4]]}
        for content, status, code in (
            (b"no gzip", 400, "bad_request"),
            (gzip.compress(body) + b"rubbish", 400, "bad_request"),
            (gzip.compress(bytes(10**7)), 413, "body_too_large"),
        ):
            response = await post("/v1/models/plain:predict", content=content, headers={"Content-Encoding": "gzip"})
            refused_as_tf_serving(response, status, code)
