"""Recorded answers of a real TensorFlow Serving, asked again; choose.py says which are left out, and why."""

import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.end_to_end.serving import serving, sluice
from tests.golden.conftest import Door
from tests.golden.replay import (
    Record,
    compare_messages,
    parsed,
    records,
    replay_grpc,
    replay_rest,
    same,
    sent_grpc,
    sent_rest,
)
from tests.model_server.conftest import PATIENCE_S, arrays, floats, refused, request

# What the gateway answers in its own way → why.
GATEWAYS_OWN = {
    "status_no_model": "GET /v1/models lists the models",
    "method_options_origin": "pages from elsewhere are not let in",
    "path_v2": "there are the paths of the Open Inference Protocol",
    "predict_empty_batch": "a request without rows may hold a model server for ever",
}


def each(*names: str) -> Any:
    return pytest.mark.parametrize("record", [pytest.param(record, id=record["name"]) for record in records(*names)])


@each("rest")
def test_the_model_server_answers_rest_as_tensorflow_serving_did(served: Door, record: Record) -> None:
    check_form(replay_rest(served.url, record), record)


@each("grpc")
def test_the_model_server_answers_grpc_as_tensorflow_serving_did(served: Door, record: Record) -> None:
    replay_grpc(served.channel, record)


@each("batching", "cors", "prometheus")
def test_the_model_server_answers_as_tensorflow_serving_did_with_these_flags(
    open_to_pages: Door, record: Record
) -> None:
    check_form(replay_rest(open_to_pages.url, record), record)


def test_what_asks_for_some_outputs_is_not_batched(open_to_pages: Door) -> None:
    predict = prediction_service_pb2_grpc.PredictionServiceStub(open_to_pages.channel).Predict
    with refused("FAILED_PRECONDITION"):
        predict(request("zoo", "mixbatch", x=floats(1, 2, 3)), PATIENCE_S)
    assert predict(request("zoo", "mixbatch", ("total",), x=floats(1, 2, 3)), PATIENCE_S).outputs.keys() == {"total"}


def test_what_cannot_be_batched_is_refused(served: Door, open_to_pages: Door) -> None:
    path = "/v1/models/zoo:predict"
    uneven = {"signature_name": "multi", "inputs": {"a": [[1, 2], [3, 4]], "b": [[3, 4]]}}
    alone = {"signature_name": "scalar", "inputs": 3}
    for asked in (uneven, alone):
        assert httpx.post(served.url + path, json=asked).status_code == 200
        assert httpx.post(open_to_pages.url + path, json=asked).status_code == 400


def test_the_gateway_sends_it_no_more_rows_than_it_batches_and_doctor_tells_of_it(
    open_to_pages: Door, config: Path, tmp_path: Path
) -> None:
    asked = {"instances": [[x, 0, 0] for x in range(200)]}
    path = "/v1/models/zoo:predict"
    said = httpx.post(open_to_pages.url + path, json=asked)
    assert (said.status_code, "maximum input batch size 64" in said.text) == (400, True)
    total = request("zoo", "mixbatch", ("total",), x=np.ones(200, np.float32))
    with (
        serving(config.parent, tmp_path, "--backend", open_to_pages.address) as gateway,
        grpc.insecure_channel(gateway.grpc_url.removeprefix("grpc://")) as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        answer = httpx.post(gateway.url + path, json=asked)
        assert answer.json() == {"predictions": [[5 * x, 10 * x] for x in range(200)]}
        assert arrays(predict(total, PATIENCE_S))["total"].tolist() == [200], "what it does not batch runs as it is"
        assert "batches model 'zoo', too" in gateway.call("GET", "/readyz").body["notes"][0]
    told = sluice("doctor", "--backend", open_to_pages.address, "--model", "zoo")
    assert told.returncode == 1
    assert "FAIL  zoo          the model server batches, too, and takes 64 rows at once" in told.stdout


def check_form(reply: httpx.Response, record: Record) -> None:
    """Raises: AssertionError: an answer is of another type, or an error's body is not what the HTTP server writes."""
    assert reply.headers.get("content-type") == record["content_type"]
    if "page" in record:
        assert reply.text == (record["page"] or "")


# Errors whose sentences differ between the gateway and the model server → why.
OWN_SENTENCES = {
    **dict.fromkeys(("lstm_no_default", "predict_nodefault_no_sig", "predict_sig_unknown"), "one names the model, too"),
    **dict.fromkeys(("path_double_slash", "path_root", "path_unknown", "path_v1"), "the gateway has other paths"),
    **dict.fromkeys(
        (
            "metadata_trailing_slash",
            "path_model_empty",
            "path_predict_extra",
            "path_predict_query",
            "path_predict_uppercase",
            "path_verb_missing",
            "path_verb_unknown",
            "predict_version_and_label",
            "status_no_model_slash",
        ),
        "the gateway has other calls, and says which one may have been meant",
    ),
    **dict.fromkeys(("method_trace", "raw_garbage", "status_bad_percent"), "its errors are all of one form"),
    "predict_version_huge": "it says what is wrong",
    **dict.fromkeys(
        (
            "predict_col_1d",
            "predict_col_scalar",
            "predict_inputs_empty_list",
            "predict_instances_empty_list_inside",
            "predict_wrong_rank_high",
            "predict_wrong_rank_low",
        ),
        "the gateway compares shapes with the signature, the model server leaves that to the graph",
    ),
    "method_options_bad_origin": "pages from elsewhere are not let in",
    "session_run_unimplemented": "there is no such method, which the gRPC servers say themselves",
}


def each_on_both(*names: str) -> Any:
    found = [record for record in records(*names) if record["name"] not in GATEWAYS_OWN]
    return pytest.mark.parametrize("record", [pytest.param(record, id=record["name"]) for record in found])


ON_BOTH = each_on_both("rest")


@ON_BOTH
def test_the_gateway_answers_rest_as_tensorflow_serving_did(passed_on: Door, record: Record) -> None:
    replay_rest(passed_on.url, record)


@each_on_both("grpc")
def test_the_gateway_answers_grpc_as_tensorflow_serving_did(passed_on: Door, record: Record) -> None:
    replay_grpc(passed_on.channel, record)


@ON_BOTH
def test_the_gateway_and_the_model_server_answer_rest_alike(served: Door, passed_on: Door, record: Record) -> None:
    mine, its = sent_rest(passed_on.url, record), sent_rest(served.url, record)
    assert mine.status_code == its.status_code
    if record["name"] in OWN_SENTENCES:
        assert mine.status_code >= httpx.codes.BAD_REQUEST
        assert mine.content != its.content
    else:
        assert mine.content == its.content or same(json.loads(mine.content), json.loads(its.content))


@each_on_both("grpc")
def test_the_gateway_and_the_model_server_answer_grpc_alike(served: Door, passed_on: Door, record: Record) -> None:
    mine, its = sent_grpc(passed_on.channel, record), sent_grpc(served.channel, record)
    assert mine.code == its.code
    if mine.code == "OK":
        compare_messages(parsed(record, mine.message), parsed(record, its.message))
    assert (mine.sentence == its.sentence) == (record["name"] not in OWN_SENTENCES)


def test_what_the_gateway_answers_in_its_own_way_is_recorded() -> None:
    assert {record["name"] for record in records("rest", "grpc")} >= GATEWAYS_OWN.keys()


def test_the_gateway_lists_the_models_where_tensorflow_serving_wants_a_name(passed_on: Door) -> None:
    listed = httpx.get(f"{passed_on.url}/v1/models").json()["models"]
    assert [each["name"] for each in listed] == ["lstm256", "nodefault", "zoo"]
