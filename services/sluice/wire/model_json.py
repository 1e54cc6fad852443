"""TensorFlow Serving's JSON about models: their versions' states, their signatures.

Works alike on our own messages (`sluice.tfs.v1`) and on the official ones.
"""

from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs

SIGNATURES = "signature_def"  # the only metadata there is


def encode_status(response: Any) -> bytes:
    """The REST body for a `GetModelStatusResponse`."""
    ours = tfs.GetModelStatusResponse.FromString(response.SerializeToString())
    for each in ours.model_version_status:
        each.status.SetInParent()
    return orjson.dumps(_plain(ours))


def encode_metadata(response: Any) -> bytes:
    """The REST body for a `GetModelMetadataResponse`.

    Raises:
        ValueError: it holds no readable signatures.
    """
    signatures = tfs.SignatureDefMap()
    try:
        signatures.ParseFromString(response.metadata[SIGNATURES].value)
    except DecodeError:
        raise ValueError("the signatures of the model cannot be read") from None
    spec = response.model_spec
    return orjson.dumps(
        {
            "model_spec": {"name": spec.name, "version": str(spec.version.value), "signature_name": ""},
            "metadata": {SIGNATURES: _plain(signatures)},
        }
    )


def _plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
