"""Recorded answers of a real TensorFlow Serving: sent again, and compared."""

import base64
import json
import math
import socket
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.model_server.conftest import PATIENCE_S, arrays

Record = dict[str, Any]

_MESSAGES = {
    "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "Classify": (classification_pb2.ClassificationRequest, classification_pb2.ClassificationResponse),
    "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    "MultiInference": (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
    "GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, get_model_status_pb2.GetModelStatusResponse),
    "HandleReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
}


def records(*names: str) -> list[Record]:
    """The records of files beside this one."""
    files = [(Path(__file__).parent / f"{name}.jsonl").read_text(encoding="utf-8") for name in names]
    return [json.loads(line) for file in files for line in file.splitlines()]


def same(mine: Any, theirs: Any) -> bool:
    """Equal, with numbers within a millionth, and NaN equal to itself. A graph's names for tensors may differ."""
    if isinstance(theirs, dict):
        return (
            isinstance(mine, dict)
            and mine.keys() == theirs.keys()
            and all((_is_tensor(theirs) and key == "name") or same(mine[key], theirs[key]) for key in theirs)
        )
    if isinstance(theirs, list):
        return isinstance(mine, list) and len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(theirs, float):
        both_nan = isinstance(mine, float) and math.isnan(mine) and math.isnan(theirs)
        return both_nan or (type(mine) is float and math.isclose(mine, theirs, rel_tol=1e-6))
    return type(mine) is type(theirs) and mine == theirs


def _is_tensor(value: dict[str, Any]) -> bool:
    return "dtype" in value and "name" in value


def shapes(answer: Any) -> Any:
    """An answer with the shape of each array of numbers in the place of the array."""
    if isinstance(answer, dict):
        return {name: shapes(value) for name, value in answer.items()}
    if answer and isinstance(answer, list) and isinstance(answer[0], dict):
        return [shapes(each) for each in answer]
    return [*np.shape(answer)]


def replay_rest(url: str, record: Record) -> httpx.Response:
    """Send a REST record to `url`, http://HOST:PORT, and compare; the answer."""
    reply = sent_rest(url, record)
    assert reply.status_code == record["status"], reply.text
    for name, value in record.get("cors", {}).items():
        assert reply.headers[name] == value
    if "response" in record:
        assert same(json.loads(reply.content), record["response"]), reply.text
    elif "shapes" in record:
        assert shapes(json.loads(reply.content)) == record["shapes"]
    elif record["content_type"] == "application/json" and "page" not in record:
        assert json.loads(reply.content).keys() == {"error"}
    return reply


def sent_rest(url: str, record: Record) -> httpx.Response:
    """What `url` answers to a REST record."""
    if record["method"] == "RAW":
        return _raw(url, record)
    body = record["request_body"]
    if isinstance(body, dict):
        body = base64.b64decode(body["base64"])
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        return client.request(record["method"], record["path"], headers=record["request_headers"], content=body)


def _raw(url: str, record: Record) -> httpx.Response:
    """What comes back for bytes on a socket."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port), PATIENCE_S) as connection:
        connection.sendall(record["raw_request"].encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return httpx.Response(int(status.split()[1]), headers=[each.split(": ", 1) for each in headers], content=body)


def replay_grpc(channel: grpc.Channel, record: Record) -> None:
    """Send a gRPC record over `channel`, and compare."""
    code, reply, _ = sent_grpc(channel, record)
    assert code == record["code"]
    if code == "OK":
        mine = parsed(record, reply)
        compare_messages(mine, ParseDict(record["response"], type(mine)()))


class GrpcReply(NamedTuple):
    """Code, message, and the sentence of an error."""

    code: str
    message: bytes
    sentence: str


def sent_grpc(channel: grpc.Channel, record: Record) -> GrpcReply:
    """What a gRPC record is answered with over `channel`."""
    asked, request = record["request"], _MESSAGES.get(_method(record), (None, None))[0]
    raw = bytes.fromhex(asked["raw_hex"]) if "raw_hex" in asked else b""
    if request is not None and "raw_hex" not in asked:
        raw = ParseDict(asked, request()).SerializeToString()
    try:
        return GrpcReply("OK", channel.unary_unary(record["rpc"])(raw, timeout=PATIENCE_S), "")
    except grpc.RpcError as error:
        return GrpcReply(error.code().name, b"", error.details() or "")


def _method(record: Record) -> str:
    name: str = record["rpc"].rpartition("/")[2]
    return name


def parsed(record: Record, message: bytes) -> Message:
    """What the answer to a gRPC record says."""
    response: Message = _MESSAGES[_method(record)][1].FromString(message)
    return response


def compare_messages(mine: Message, theirs: Message) -> None:
    """Raises: AssertionError: two answers differ, by more than rounding and than how tensors are written."""
    if not isinstance(theirs, predict_pb2.PredictResponse) or not isinstance(mine, predict_pb2.PredictResponse):
        assert same(_plain(mine), _plain(theirs))
        return
    assert mine.model_spec == theirs.model_spec
    got, expected = arrays(mine), arrays(theirs)
    assert got.keys() == expected.keys()
    for output, array in expected.items():
        assert (got[output].dtype, got[output].shape) == (array.dtype, array.shape)
        if array.dtype.kind in "fV":
            np.testing.assert_allclose(got[output].astype(float), array.astype(float), rtol=1e-6)
        else:
            np.testing.assert_array_equal(got[output], array)


def _plain(message: Message) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)
