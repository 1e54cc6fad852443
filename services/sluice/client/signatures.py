"""A model's signatures out of TensorFlow Serving's metadata. It knows no transports, nor what a caller has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict, ParseError

from sluice.client.values import Array, ModelSpec, is_text
from sluice.policy.contract import Signature, Tensor
from sluice.policy.errors import UnsupportedByModel
from sluice.policy.tensors import read_tensor
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.signatures import INITIALIZER, plain_signature
from sluice.wire.tensors import DTYPE_NUMBERS

Signatures = Mapping[str, Signature]

_SIGNATURES = "signature_def"


def metadata_request(spec: ModelSpec) -> tfs.GetModelMetadataRequest:
    request = tfs.GetModelMetadataRequest(metadata_field=[_SIGNATURES])
    request.model_spec.name = spec.model
    if spec.version is not None:
        request.model_spec.version.value = spec.version
    if spec.label is not None:
        request.model_spec.version_label = spec.label
    return request


def read_metadata(reply: tfs.GetModelMetadataResponse) -> Signatures:
    """The signatures that gRPC answers, by name."""
    return _read(tfs.SignatureDefMap.FromString(reply.metadata[_SIGNATURES].value))


def read_metadata_json(body: Mapping[str, Any]) -> Signatures:
    """The signatures that REST answers, by name.

    Raises:
        ValueError: it is not TensorFlow Serving's metadata.
    """
    try:
        return _read(ParseDict(body["metadata"][_SIGNATURES], tfs.SignatureDefMap(), ignore_unknown_fields=True))
    except ParseError as error:
        raise ValueError(str(error)) from None


def fitted(array: Array, tensor: Tensor, *, any_shape: bool = False) -> Array:
    """`array` in the dtype of `tensor`, and in its shape, where that is known and not `any_shape`; text is `bytes`.

    Raises:
        ShapeMismatch, DtypeMismatch, EmptyInput: it is another; says what the signature takes.
        UnsupportedByModel: TensorFlow Serving carries no tensors of this dtype.
    """
    if tensor.dtype not in DTYPE_NUMBERS:
        raise UnsupportedByModel(f"{tensor.name!r} has a dtype that no request and no answer can carry.")
    if tensor.dtype != "string" and array.dtype.hasobject and is_text(array):
        array = np.full(array.shape, "text")  # which numpy tells from other objects, as the sentence then does
    # A scalar has no axes, and a tensor of unknown rank has none, either.
    return read_tensor(array, tensor, finite=False, any_shape=any_shape or not tensor.axes)


def _read(signatures: tfs.SignatureDefMap) -> Signatures:
    return {
        name: plain_signature(name, described)
        for name, described in signatures.signature_def.items()
        if name != INITIALIZER
    }
