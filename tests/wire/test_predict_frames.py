"""Predict messages read and written by hand, against the official classes, which say what they mean."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_serving.apis import predict_pb2

from sluice.wire import predict_frames
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.predict_frames import (
    PredictRequest,
    read_outputs,
    read_request,
    write_request,
    write_response,
)
from sluice.wire.tensors import DTYPE_NUMBERS, read_tensor
from tests.size import size
from tests.wire.examples import same, values

NAMES = st.text(max_size=20)
NUMBERS = st.sampled_from([np.float32, np.float64, np.int64, np.int8, np.uint64, np.bool_, np.float16, np.complex64])
ARRAYS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=4)
VERSIONS = st.one_of(st.none(), st.integers(0, 2**63 - 1))
REQUESTS = st.builds(PredictRequest, NAMES, NAMES, TENSORS, VERSIONS, st.none(), st.lists(NAMES, max_size=3).map(tuple))


@pytest.fixture(autouse=True, params=["by hand", "generated"], scope="module")
def _reader(request: pytest.FixtureRequest) -> Any:
    """Every message is large, or none is: the two ways of reading must agree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_frames, "_LARGE", 0 if request.param == "by hand" else 2**62)
        yield


@pytest.fixture
def by_hand_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated classes are not asked."""
    monkeypatch.setattr(predict_frames, "_LARGE", 0)
    monkeypatch.setattr(predict_frames, "_parsed", pytest.fail)


def same_tensors(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        same(found[name], array)


def same_requests(found: PredictRequest, expected: PredictRequest) -> None:
    assert found._replace(inputs={}) == expected._replace(inputs={})
    same_tensors(found.inputs, expected.inputs)


def meaning(message: bytes, kind: type[Any] = predict_pb2.PredictRequest) -> PredictRequest | None:
    """What a generated class reads; None: nothing."""
    try:
        official = kind.FromString(message)
        spec, inputs = official.model_spec, {name: read_tensor(tensor) for name, tensor in official.inputs.items()}
    except (DecodeError, ValueError):
        return None
    chosen = spec.WhichOneof("version_choice")
    version = spec.version.value if chosen == "version" else None
    label = spec.version_label if chosen == "version_label" else None
    return PredictRequest(spec.name, spec.signature_name, inputs, version, label, tuple(official.output_filter))


@given(REQUESTS)
def test_a_request_is_the_official_one_and_is_read_again(request: PredictRequest) -> None:
    message = write_request(request)
    official = meaning(message)
    assert official is not None
    same_requests(official, request)
    same_requests(read_request(message), request)


@given(REQUESTS)
def test_what_the_official_class_writes_is_read(request: PredictRequest) -> None:
    official = predict_pb2.PredictRequest.FromString(write_request(request))
    same_requests(read_request(official.SerializeToString()), request)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """A request in which some bytes were changed, left out, or stand twice."""
    message = write_request(draw(REQUESTS))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted((draw(st.integers(0, len(message))), draw(st.integers(0, len(message)))))
        middle = draw(st.one_of(st.binary(max_size=4), st.just(message[start:end] * 2)))
        message = message[:start] + middle + message[end:]
    return message


@given(nearly_requests())
@settings(max_examples=size(200, 10_000))
def test_any_bytes_mean_what_the_generated_classes_read(message: bytes) -> None:
    ours, official = meaning(message, tfs.PredictRequest), meaning(message)
    if ours is None:
        with pytest.raises(ValueError, match=r".+"):
            read_request(message)
        return
    same_requests(read_request(message), ours)
    if official is not None:  # which has fields that ours does not look into
        same_requests(read_request(message), official)


TWICE = {
    "a model": (b"\x0a\x03\x0a\x01a", b"\x0a\x03\x0a\x01b"),
    "a version and a label": (b"\x0a\x07\x22\x01a\x12\x02\x08\x07",),
    "an input": (b"\x12\x0d\x0a\x01x\x12\x08\x08\x01\x22\x04abcd", b"\x12\x0d\x0a\x01x\x12\x08\x08\x01\x22\x04efgh"),
    "a name within one input": (b"\x12\x10\x0a\x01x\x0a\x01y\x12\x08\x08\x01\x22\x04abcd",),
    "bytes of one tensor": (b"\x12\x13\x0a\x01x\x12\x0e\x08\x01\x22\x04abcd\x22\x04efgh",),
    "bytes, as such and as a list": (b"\x12\x13\x0a\x01x\x12\x0e\x08\x01\x2a\x04abcd\x22\x04efgh",),
    "a list, in parts": (b"\x12\x19\x0a\x01x\x12\x14\x08\x01\x12\x04\x12\x02\x08\x02\x2a\x04abcd\x2a\x04efgh",),
}


@pytest.mark.parametrize("parts", TWICE.values(), ids=TWICE)
def test_what_stands_twice_means_what_the_official_class_reads(parts: tuple[bytes, ...]) -> None:
    message = b"".join(parts)
    official = meaning(message)
    assert official is not None
    same_requests(read_request(message), official)


@given(NAMES, st.integers(0, 2**63 - 1), NAMES, TENSORS)
def test_an_answer_is_the_official_one_and_is_read_again(
    model: str, version: int, signature: str, outputs: dict[str, np.ndarray]
) -> None:
    message = write_response(model, version, signature, outputs)
    official = predict_pb2.PredictResponse.FromString(message)
    spec = official.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (model, version, signature)
    for name, array in outputs.items():
        same(tf.make_ndarray(official.outputs[name]), array)
    same_tensors(read_outputs(message), outputs)
    same_tensors(read_outputs(official.SerializeToString()), outputs)


@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_every_dtype_goes_there_and_back(name: str) -> None:
    array = values(name).reshape(2, 3)
    same_tensors(read_request(write_request(PredictRequest("m", "s", {"x": array}))).inputs, {"x": array})
    official = predict_pb2.PredictResponse.FromString(write_response("m", 1, "s", {"x": array}))
    same(tf.make_ndarray(official.outputs["x"]), array)


def test_columns_of_a_larger_array_are_written_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1:3]
    same(read_outputs(write_response("m", 1, "s", {"y": array}))["y"], array)


@pytest.mark.parametrize("label", ["stable", ""])
def test_a_label_is_not_a_version(label: str) -> None:
    request = PredictRequest("m", "", {}, None, label)
    assert read_request(write_request(request)) == request


@pytest.mark.usefixtures("by_hand_only")
@pytest.mark.parametrize("name", sorted({*DTYPE_NUMBERS} - {"string"}))
def test_bytes_of_a_tensor_are_read_where_they_lie(name: str) -> None:
    array = values(name).reshape(2, 3)
    message = write_request(PredictRequest("m", "s", {"x": array}, 1, outputs=("y",)))
    found = read_request(message).inputs["x"]
    same(found, array)
    assert not found.flags.owndata
    assert np.shares_memory(found, np.frombuffer(message, np.uint8))


@pytest.mark.usefixtures("by_hand_only")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lists_of_floats_as_tensorflow_serving_answers_are_read_where_they_lie(dtype: type) -> None:
    array = np.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3)
    official = predict_pb2.PredictResponse()
    tensor = official.outputs["y"]
    tensor.dtype = DTYPE_NUMBERS[array.dtype.name]
    tensor.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    getattr(tensor, "float_val" if dtype is np.float32 else "double_val").extend(array.ravel().tolist())
    message = official.SerializeToString()
    assert np.shares_memory(read_outputs(message)["y"], np.frombuffer(message, np.uint8))
