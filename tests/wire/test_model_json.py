"""Status and metadata JSON, from our messages and from the official ones."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.model_json import SIGNATURES, encode_metadata, encode_status

KINDS: dict[type[Any], Any] = {
    get_model_status_pb2.GetModelStatusResponse: tfs.GetModelStatusResponse,
    get_model_metadata_pb2.GetModelMetadataResponse: tfs.GetModelMetadataResponse,
}


def ours(message: Any) -> Any:
    return KINDS[type(message)].FromString(message.SerializeToString())


def test_the_status_of_versions_is_written_with_what_is_not_said() -> None:
    reply = get_model_status_pb2.GetModelStatusResponse()
    reply.model_version_status.add(version=5, state="AVAILABLE")
    broken = reply.model_version_status.add(version=2**62, state="END").status
    broken.error_code, broken.error_message = 9, "no such file"
    written = json.loads(encode_status(reply))
    assert written == json.loads(encode_status(ours(reply)))
    good, bad = written["model_version_status"]
    assert good == {"version": "5", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert bad["version"] == str(2**62)
    assert bad["status"] == {"error_code": "FAILED_PRECONDITION", "error_message": "no such file"}


def metadata() -> Any:
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    x = signature.inputs["x"]
    x.name, x.dtype = "x:0", 1
    dims = x.tensor_shape.dim
    dims.add().size = -1
    dims.add(name="width").size = 2**40
    signature.outputs["y"].name = "y:0"
    signature.outputs["y"].tensor_shape.unknown_rank = True
    signature.defaults["x"].dtype = 1
    signature.defaults["x"].float_val.append(2.0)
    reply = get_model_metadata_pb2.GetModelMetadataResponse()
    reply.model_spec.name, reply.model_spec.version.value = "m", 7
    reply.metadata[SIGNATURES].Pack(get_model_metadata_pb2.SignatureDefMap(signature_def={"step": signature}))
    return reply


def test_metadata_has_each_signature_with_what_is_not_said() -> None:
    written = json.loads(encode_metadata(metadata()))
    assert written == json.loads(encode_metadata(ours(metadata())))
    assert written["model_spec"] == {"name": "m", "version": "7", "signature_name": ""}
    step = written["metadata"][SIGNATURES][SIGNATURES]["step"]
    assert step["inputs"]["x"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": str(2**40), "name": "width"}], "unknown_rank": False,
    }  # fmt: skip
    assert step["outputs"]["y"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    assert (step["outputs"]["y"]["dtype"], step["method_name"]) == ("DT_INVALID", "tensorflow/serving/predict")
    assert step["defaults"]["x"]["float_val"] == [2.0]


def test_metadata_says_no_less_than_the_official_message() -> None:
    found = get_model_metadata_pb2.SignatureDefMap()
    metadata().metadata[SIGNATURES].Unpack(found)
    written = json.loads(encode_metadata(metadata()))["metadata"][SIGNATURES]
    back = json_format.ParseDict(written, get_model_metadata_pb2.SignatureDefMap())
    assert back == found


def test_metadata_that_cannot_be_read_is_refused() -> None:
    reply = metadata()
    reply.metadata[SIGNATURES].value = b"\xff"
    with pytest.raises(ValueError, match="cannot be read"):
        encode_metadata(reply)


def test_a_model_without_signatures_has_none() -> None:
    reply = get_model_metadata_pb2.GetModelMetadataResponse()
    assert json.loads(encode_metadata(reply))["metadata"] == {SIGNATURES: {SIGNATURES: {}}}
