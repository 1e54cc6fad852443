"""Sequences of different lengths over every door: each row gets what it would have got alone."""

import asyncio
import gzip
import json

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.http.aio import InferenceServerClient, InferInput

from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import read_tensor, write_tensor
from tests.gateway import puppet as puppets
from tests.gateway.here import Gate, eventually, refused, refused_as_tf_serving, running

SPANS = "/v1/models/spans:predict"


def span(length, start=1):
    """`length` values of two features."""
    return [[float(start + n), 0.5 * n] for n in range(length)]


def answer_of(rows):
    running = np.cumsum(np.array(rows), 0).tolist()
    return {"total": running[-1], "running": running}


async def test_rows_of_any_length_are_answered_in_order_as_rows_and_as_columns(here):
    rows = [span(5), span(1), span(8), span(2), span(3, start=7)]
    expected = [answer_of(row) for row in rows]
    response = await here.http.post(SPANS, json={"instances": rows})
    assert response.json() == {"predictions": expected}
    response = await here.http.post(SPANS, json={"instances": [{"x": row} for row in rows]})
    assert response.json() == {"predictions": expected}
    columns = {name: [each[name] for each in expected] for name in ("total", "running")}
    for inputs in (rows, {"x": rows}):
        assert (await here.http.post(SPANS, json={"inputs": inputs})).json() == {"outputs": columns}


async def test_lengths_of_several_clients_share_the_batches_of_their_buckets(puppet):
    async with running(puppet, in_flight=1, allowed_batch_sizes="1,2,4,8,16") as here:
        gate = Gate(puppet)

        async def total(length):
            response = await here.http.post(SPANS, json={"instances": [span(length)]})
            assert response.json() == {"predictions": [answer_of(span(length))]}

        tasks = [asyncio.create_task(total(1))]
        await puppet.until_running(1)
        for n, length in enumerate((7, 8, 5, 6, 3, 4, 3, 4)):
            tasks.append(asyncio.create_task(total(length)))
            await eventually(lambda n=n: here.gateway.engine.scheduler.dispatchers["spans"].waiting_rows == n + 1)
        gate.open()
        await asyncio.gather(*tasks)
        assert puppet.batches == [("sequences", 1), ("sequences", 4), ("sequences", 4)]
        metrics = await here.metrics()
        lane = 'model="spans",signature="sequences",version="1"'
        found = {
            (bucket, kind): metrics[f'sluice_elements_total{{bucket="{bucket}",kind="{kind}",{lane}}}']
            for bucket in ("2", "4", "8")
            for kind in ("real", "padding")
        }
        assert found == {
            ("2", "real"): 1, ("2", "padding"): 1, ("4", "real"): 14, ("4", "padding"): 2, ("8", "real"): 26,
            ("8", "padding"): 6,
        }  # fmt: skip


async def test_clients_of_grpc_send_arrays_with_their_lengths_beside_them_or_without(here):
    rows = [span(3), span(1), span(8)]
    x = np.full((3, 8, 2), 99, np.float32)
    for into, row in zip(x, rows, strict=True):
        into[: len(row)] = row
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        request = tfs.PredictRequest()
        request.model_spec.name = "spans"
        write_tensor(request.inputs["x"], x)
        write_tensor(request.inputs["lengths"], np.array([3, 1, 8], np.int64))
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        reply = tfs.PredictResponse.FromString(await predict(request.SerializeToString(), timeout=20))
        running_, total = (read_tensor(reply.outputs[name]) for name in ("running", "total"))
        for i, row in enumerate(rows):
            assert running_[i, : len(row)].tolist() == answer_of(row)["running"]
            assert not running_[i, len(row) :].any()
            assert total[i].tolist() == answer_of(row)["total"]
        del request.inputs["lengths"], request.inputs["x"]
        write_tensor(request.inputs["x"], x[2:])
        reply = tfs.PredictResponse.FromString(await predict(request.SerializeToString(), timeout=20))
        assert read_tensor(reply.outputs["running"])[0].tolist() == answer_of(rows[2])["running"]
        write_tensor(request.inputs["lengths"], np.array([9]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await predict(request.SerializeToString(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "lengths from 9 to 9" in caught.value.details()


async def test_clients_of_the_open_inference_protocol_send_lengths_too(here):
    x = InferInput("x", [2, 3, 2], "FP32")
    x.set_data_from_numpy(np.array([span(3), span(3)], np.float32))
    lengths = InferInput("lengths", [2], "INT32")
    lengths.set_data_from_numpy(np.array([1, 3], np.int32))
    client = InferenceServerClient(f"127.0.0.1:{here.port}")
    answer = await client.infer("spans", [x, lengths])
    assert answer.as_numpy("total").tolist() == [answer_of(span(1))["total"], answer_of(span(3))["total"]]
    assert answer.as_numpy("running")[0].tolist() == [*answer_of(span(1))["running"], [0, 0], [0, 0]]
    answer = await client.infer("spans", [x])
    assert answer.as_numpy("total").tolist() == [answer_of(span(3))["total"]] * 2
    await client.close()


async def test_a_string_may_stand_for_its_bytes(here):
    response = await here.http.post("/v1/models/texts:predict", json={"instances": ["az", "", [3, 9], "é"]})
    assert response.json() == {"predictions": [122, -1, 9, 195]}


@pytest.mark.parametrize(
    ("instances", "status", "code", "words"),
    [
        ([span(2), span(9)], 413, "sequence_too_long", ("8", "9")),
        ([span(2), []], 400, "empty_input", ("Row 1",)),
        ([span(2), [[1, 2], [3]]], 400, "shape_mismatch", ("Row 1: ", "part 1 has 1 value where part 0 has 2 values")),
        ([[[1, 2, 3]]], 400, "shape_mismatch", ("Row 0", "feature=2", "[1, 3]")),
        ([span(2), 3], 400, "shape_mismatch", ("Row 1", "time≥1")),
        ([span(2), [["a", "b"]]], 400, "dtype_mismatch", ("Row 1", "text came")),
        ([], 400, "empty_input", ("one row or more",)),
        ([{"x": span(1), "lengths": 1}], 400, "unknown_input", ("lengths",)),
    ],
)
async def test_sequences_that_are_wrong_are_refused_by_row(here, instances, status, code, words):
    sentence = refused_as_tf_serving(await here.http.post(SPANS, json={"instances": instances}), status, code)
    for word in words:
        assert word in sentence


async def test_who_sends_no_text_where_it_may_be_text_is_told_so(here):
    response = await here.http.post("/v1/models/texts:predict", json={"instances": ["az", ["b"]]})
    sentence = refused_as_tf_serving(response, 400, "dtype_mismatch")
    assert sentence == "Row 1: Input 'x' takes int32 [byte≥0]; text came. A row may be a string, too."


async def test_columns_that_are_no_list_and_requests_with_too_many_rows_are_refused(puppet):
    async with running(puppet, queue_rows=4, allowed_batch_sizes="1,2,4") as here:
        response = await here.http.post(SPANS, json={"inputs": {"x": 3}})
        assert "a list of rows" in refused_as_tf_serving(response, 400, "shape_mismatch")
        response = await here.http.post(SPANS, json={"instances": [span(1)] * 5})
        refused_as_tf_serving(response, 413, "batch_too_large")
        assert puppet.batches == []


async def test_a_model_that_answers_too_short_is_at_fault(here):
    here.puppet.twist = lambda outputs: {**outputs, "running": outputs["running"][:, :1]}
    response = await here.http.post(SPANS, json={"instances": [span(2), span(5)]})
    refused_as_tf_serving(response, 502, "backend_error")


async def test_the_operators_bounds_go_before_the_contracts(puppet):
    async with running(puppet, bucket_bounds={"spans": {"time": [3, 16]}}) as here:
        response = await here.http.post(SPANS, json={"instances": [span(12)]})
        assert response.json() == {"predictions": [answer_of(span(12))]}
        refused_as_tf_serving(await here.http.post(SPANS, json={"instances": [span(17)]}), 413, "sequence_too_long")


async def test_requests_that_are_refused_teach_nothing_about_lengths(puppet):
    async with running(puppet) as here:
        await here.http.post(SPANS, json={"instances": [span(2)]})
        served = here.gateway.catalog.at_hand("spans")
        lengths = here.gateway.buckets.of(served, served.predicts("serving_default")).axes["time"].lengths
        assert lengths.counts == {2: 1}
        refused_as_tf_serving(
            await here.http.post(SPANS, json={"instances": [span(3), span(9)]}), 413, "sequence_too_long"
        )
        assert lengths.counts == {2: 1}
        here.gateway.buckets.forget("spans", 1)
        assert here.gateway.buckets.of(served, served.predicts("serving_default")).axes["time"].lengths.counts == {}


async def test_a_few_bytes_that_stand_for_many_rows_are_refused_at_once(here):
    body = gzip.compress(b'{"instances":[' + b",".join([b'""'] * 60_000) + b"]}")
    response = await here.http.post("/v1/models/texts:predict", content=body, headers={"Content-Encoding": "gzip"})
    refused_as_tf_serving(response, 413, "batch_too_large")
    empty = {"name": "x", "datatype": "INT32", "shape": [100_000, 0], "data": []}
    response = await here.http.post("/v2/models/texts/infer", json={"inputs": [empty]})
    assert (response.status_code, response.headers["sluice-code"]) == (413, "batch_too_large")
    assert here.puppet.batches == []


async def test_words_of_rows_in_different_buckets_are_answered(here):
    response = await here.http.post(
        "/v1/models/texts:predict", json={"instances": ["ab", "abcdef"], "signature_name": ""}
    )
    assert response.json() == {"predictions": [98, 102]}
    for text, code in (("\ud800", 400), ("a", 200)):
        body = json.dumps({"instances": [text]})
        assert (await here.http.post("/v1/models/texts:predict", content=body)).status_code == code


async def test_bounds_and_lengths_of_every_ragged_axis_are_told_before_and_after_requests(here):
    given = {"bounds": [2, 4, 8], "learned": False, "lengths": {}}
    told = {"model": "spans", "version": "1", "signatures": {"serving_default": {"time": given}}}
    told["chunks"] = {"serving_default": 0}
    assert (await here.http.get("/v1/models/spans/buckets")).json() == told
    await here.http.post(SPANS, json={"instances": [span(5), span(1), span(5)]})
    await here.http.post(SPANS, json={"instances": [span(9)]})  # too long: refused, and not counted
    given["lengths"] = {"1": 1.0, "5": 2.0}
    assert (await here.http.get("/v1/models/spans/buckets", params={"version": "1"})).json() == told
    spelled = (await here.http.get("/v1/models/speller/buckets")).json()["signatures"]
    assert spelled == {"encode": {"byte": {"bounds": [4, 16], "learned": False, "lengths": {}}}}
    for model in ("sum", "plain"):
        assert (await here.http.get(f"/v1/models/{model}/buckets")).json()["signatures"] == {}
    refused(await here.http.get("/v1/models/nothing/buckets"), 404, "model_not_found")
    refused(await here.http.get("/v1/models/spans/buckets", params={"version": "7"}), 404, "version_not_found")
    refused(await here.http.get("/v1/models/spans/buckets", params={"version": "x"}), 400, "bad_request")


async def test_bounds_that_nobody_gives_are_told_as_learned(puppet, monkeypatch):
    default = dict(puppets.SPANS["signatures"]["serving_default"])
    del default["buckets"]
    contract = {**puppets.SPANS, "signatures": {"serving_default": default}}
    monkeypatch.setitem(puppets.SIGNATURES["spans"], "contract", puppets.written(contract))

    async def told(here):
        return (await here.http.get("/v1/models/spans/buckets")).json()["signatures"]["serving_default"]["time"]

    async with running(puppet, buckets=3, sequence_limit=100) as here:
        assert await told(here) == {"bounds": [32, 64, 100], "learned": True, "lengths": {}}
        for _ in range(16):
            await here.http.post(SPANS, json={"instances": [span(7)] * 60 + [span(9)] * 4})
        assert await told(here) == {"bounds": [7, 9, 100], "learned": True, "lengths": {"7": 960.0, "9": 64.0}}
    async with running(puppet, bucket_bounds={"spans": {"time": [3, 16]}}) as here:
        assert await told(here) == {"bounds": [3, 16], "learned": False, "lengths": {}}


async def test_models_say_that_they_take_sequences(here):
    models = (await here.http.get("/v1/models")).json()["models"]
    assert not [model for model in models if model["name"] == "spans"]  # nobody has asked for it yet
    await here.http.post(SPANS, json={"instances": [span(1)]})
    models = (await here.http.get("/v1/models")).json()["models"]
    assert [model["kinds"] for model in models if model["name"] == "spans"] == [["sequences"]]
    shapes = (await here.http.get("/v1/models/spans/contract")).json()["shapes"]
    assert "time≥1" in shapes["serving_default"]


async def test_columns_that_are_padded_are_as_long_as_the_lengths_beside_them(here):
    rows = [span(5), span(1), span(3)]
    expected = [answer_of(row) for row in rows]
    padded = [row + [[7.0, 7.0]] * (8 - len(row)) for row in rows]
    columns = {name: [each[name] for each in expected] for name in ("total", "running")}
    response = await here.http.post(SPANS, json={"inputs": {"x": padded, "lengths": [5, 1, 3]}})
    assert response.json() == {"outputs": columns}
    for lengths in ([5, 1], [9, 1, 1], [0.5, 1, 1], "5"):
        response = await here.http.post(SPANS, json={"inputs": {"x": padded, "lengths": lengths}})
        assert response.status_code == 400, response.text
        assert "ength" in response.json()["error"]
