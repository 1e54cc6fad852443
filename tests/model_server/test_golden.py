"""Recorded answers of a real TensorFlow Serving, replayed; golden/choose.py says which, and why not the others."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from tests.model_server.conftest import PATIENCE_S, Server, arrays

_MESSAGES = {
    "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, get_model_status_pb2.GetModelStatusResponse),
}


def recorded(name: str) -> list[Any]:
    lines = (Path(__file__).parent / "golden" / name).read_text(encoding="utf-8").splitlines()
    return [pytest.param(record, id=record["name"]) for record in map(json.loads, lines)]


def same(mine: Any, theirs: Any) -> bool:
    """Equal, with numbers within a millionth, and NaN equal to itself."""
    if isinstance(theirs, dict):
        return isinstance(mine, dict) and mine.keys() == theirs.keys() and all(same(mine[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list):
        return isinstance(mine, list) and len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(theirs, float):
        both_nan = isinstance(mine, float) and math.isnan(mine) and math.isnan(theirs)
        return both_nan or (type(mine) is float and math.isclose(mine, theirs, rel_tol=1e-6))
    return type(mine) is type(theirs) and mine == theirs


@pytest.mark.parametrize("record", recorded("rest.jsonl"))
def test_rest_answers_as_tensorflow_serving_did(server: Server, record: dict[str, Any]) -> None:
    body = record["request_body"]
    if isinstance(body, dict):
        body = base64.b64decode(body["base64"])
    reply = server.rest.request(record["method"], record["path"], headers=record["request_headers"], content=body)
    assert reply.status_code == record["status"], reply.text
    if reply.status_code == 200:
        assert same(reply.json(), record["response"])
    elif record["method"] != "HEAD":
        assert reply.json().keys() == {"error"}


@pytest.mark.parametrize("record", recorded("grpc.jsonl"))
def test_grpc_answers_as_tensorflow_serving_did(server: Server, record: dict[str, Any]) -> None:
    code, reply = call(server, record)
    assert code == record["code"]
    if code == "OK":
        compare(reply, record["response"])


def call(server: Server, record: dict[str, Any]) -> tuple[str, bytes]:
    asked = record["request"]
    message, _ = _MESSAGES.get(record["rpc"].rpartition("/")[2], (None, None))
    raw = bytes.fromhex(asked["raw_hex"]) if "raw_hex" in asked else b""
    if message is not None and "raw_hex" not in asked:
        raw = ParseDict(asked, message()).SerializeToString()
    method = server.client._channel.unary_unary(record["rpc"])
    try:
        return "OK", method(raw, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        return error.code().name, b""


def compare(reply: bytes, theirs: dict[str, Any]) -> None:
    name = "Predict" if "outputs" in theirs else "GetModelMetadata" if "metadata" in theirs else "GetModelStatus"
    message = _MESSAGES[name][1]
    mine, wanted = message.FromString(reply), ParseDict(theirs, message())
    if name != "Predict":
        assert same(MessageToDict(mine), MessageToDict(wanted))
        return
    assert mine.model_spec == wanted.model_spec
    got, expected = arrays(mine), arrays(wanted)
    assert got.keys() == expected.keys()
    for output, array in expected.items():
        assert (got[output].dtype, got[output].shape) == (array.dtype, array.shape)
        if array.dtype.kind in "fV":
            np.testing.assert_allclose(got[output].astype(float), array.astype(float), rtol=1e-6)
        else:
            np.testing.assert_array_equal(got[output], array)
