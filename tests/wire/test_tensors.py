"""The tensor codec and our own messages against TensorFlow's: what one side writes, the other reads."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
)

from sluice.policy.contract import numpy_dtype
from sluice.wire.messages.tf.v1 import tensorflow_pb2 as ours_tf
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.signatures import plain_signature
from sluice.wire.tensors import DTYPE_NAMES, DTYPE_NUMBERS, dtype_name, read_tensor, write_tensor
from tests.wire.examples import same, values

COMPLEX = {"complex64", "complex128"}
MESSAGES = [ours_tf.TensorProto, tensor_pb2.TensorProto]


# Where the real TensorFlow Serving puts its answers; it does not use tensor_content.
TYPED_LISTS = {
    "float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val", "uint32": "uint32_val",
    "uint64": "uint64_val", "float16": "half_val", "bfloat16": "half_val", "complex64": "scomplex_val",
    "complex128": "dcomplex_val", "string": "string_val", "int8": "int_val", "int16": "int_val", "int32": "int_val",
    "uint8": "int_val", "uint16": "int_val",
}  # fmt: skip


def typed(array: np.ndarray) -> tensor_pb2.TensorProto:
    """The same values in the typed list."""
    name, flat = dtype_name(array.dtype), np.ascontiguousarray(array).reshape(-1)
    message = tensor_pb2.TensorProto(dtype=DTYPE_NUMBERS[name], tensor_shape=tf.TensorShape(array.shape).as_proto())
    if name in {"float16", "bfloat16"}:
        flat = flat.view(np.uint16)
    elif name in COMPLEX:
        flat = flat.view(flat.real.dtype)
    getattr(message, TYPED_LISTS[name]).extend(flat.tolist())
    return message


def written(array: np.ndarray, kind: type = ours_tf.TensorProto) -> Any:
    message = kind()
    write_tensor(message, array)
    return message


@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_a_dtype_has_tensorflows_number(name: str) -> None:
    assert tf.as_dtype(name).as_datatype_enum == DTYPE_NUMBERS[name]
    assert dtype_name(numpy_dtype(name)) == name


def test_no_dtype_with_a_numpy_form_is_forgotten() -> None:
    known = {number for number in types_pb2.DataType.values() if 0 < number < 24}
    quantized_and_handles = {11, 12, 13, 15, 16, 20, 21}
    assert known - quantized_and_handles == DTYPE_NAMES.keys()


@pytest.mark.parametrize("kind", MESSAGES, ids=["ours", "official"])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1)])
@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_what_is_written_is_read_again_and_by_tensorflow(name: str, shape: tuple[int, ...], kind: type) -> None:
    array = values(name).reshape(shape)
    message = written(array, kind)
    same(read_tensor(message), array)
    same(tf.make_ndarray(tensor_pb2.TensorProto.FromString(message.SerializeToString())), array)


@pytest.mark.parametrize("kind", MESSAGES, ids=["ours", "official"])
@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))  # TensorFlow writes those in lists
def test_what_tensorflow_writes_is_read(name: str, kind: type) -> None:
    array = values(name).reshape(2, 3)
    same(read_tensor(kind.FromString(tf.make_tensor_proto(array).SerializeToString())), array)


@pytest.mark.parametrize("kind", MESSAGES, ids=["ours", "official"])
@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_typed_lists_are_read(name: str, kind: type) -> None:
    array = values(name).reshape(2, 3)
    message = kind.FromString(typed(array).SerializeToString())
    assert not message.tensor_content
    same(read_tensor(message), array)


def test_other_fields_beside_a_typed_list_do_no_harm() -> None:
    message = broken(2, float_val=[1.5, -2.0], uint32_val=[7], string_val=[b"x"])
    future = b"\xfa\x07\x02hi"  # field 127, which no one knows yet
    assert read_tensor(ours_tf.TensorProto.FromString(message.SerializeToString() + future)).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_a_short_list_repeats_its_last_value_and_no_list_stands_for_zeros(name: str) -> None:
    message = ours_tf.TensorProto.FromString(typed(values(name)[:2]).SerializeToString())
    message.tensor_shape.dim[0].size = 4
    first, last = values(name)[:2]
    np.testing.assert_array_equal(read_tensor(message), np.array([first, last, last, last], numpy_dtype(name)))

    nothing = ours_tf.TensorProto(dtype=DTYPE_NUMBERS[name])
    nothing.tensor_shape.dim.add().size = 3
    assert read_tensor(nothing).tolist() == ([b""] * 3 if name == "string" else [0] * 3)


@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
def test_a_scalar_has_no_axes(name: str) -> None:
    array = values(name)[1:2].reshape(())
    same(read_tensor(written(array)), array)
    assert written(array).tensor_shape.dim == []


@pytest.mark.parametrize("name", sorted(DTYPE_NUMBERS))
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_an_empty_tensor_keeps_its_shape(name: str, shape: tuple[int, ...]) -> None:
    array = np.empty(shape, numpy_dtype(name))
    same(read_tensor(written(array)), array)
    same(tf.make_ndarray(written(array, tensor_pb2.TensorProto)), array)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16"])
def test_whole_numbers_in_a_list_are_cut_to_their_width(name: str) -> None:
    message = ours_tf.TensorProto(dtype=DTYPE_NUMBERS[name], int_val=[-1, 2**16 + 5])
    message.tensor_shape.dim.add().size = 2
    assert read_tensor(message).tolist() == np.array([-1, 2**16 + 5]).astype(name).tolist()


def test_an_array_that_is_not_contiguous_is_written_in_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    same(read_tensor(written(array)), np.ascontiguousarray(array))


def broken(size: int | None = 2, **fields: Any) -> ours_tf.TensorProto:
    message = ours_tf.TensorProto(**{"dtype": DTYPE_NUMBERS["float32"]} | fields)
    if size is not None:
        message.tensor_shape.dim.add().size = size
    return message


UNKNOWN_RANK = ours_tf.TensorShapeProto(unknown_rank=True)
BROKEN = {
    "no dtype": broken(dtype=0),
    "a reference dtype": ours_tf.TensorProto.FromString(b"\x08\x65"),
    "an unknown size": broken(-1, float_val=[1]),
    "an unknown rank": broken(None, tensor_shape=UNKNOWN_RANK, float_val=[1]),
    "too few bytes": broken(2, tensor_content=b"1234"),
    "too many bytes": broken(2, tensor_content=b"1234" * 3),
    "half a number": broken(2, tensor_content=b"1234567"),
    "a huge shape without values": broken(2**40),
    "a huge shape with one value": broken(2**40, float_val=[1]),
    "more bytes than a short list may stand for": broken(2**23 + 1, dtype=DTYPE_NUMBERS["int64"], int64_val=[1]),
    "more axes than there can be": broken(None, tensor_shape={"dim": [{"size": 1}] * 65}, float_val=[1]),
}


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN)
def test_a_tensor_that_cannot_be_read_is_refused_with_a_sentence(message: ours_tf.TensorProto) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_tensor(message)


def test_a_shape_whose_product_overflows_is_refused() -> None:
    message = broken(2**32)
    message.tensor_shape.dim.add().size = 2**32
    with pytest.raises(ValueError, match=r"takes 18446744073709551616 values"):
        read_tensor(message)


@given(
    hnp.arrays(st.sampled_from([np.float32, np.int64, np.bool_, np.float16]), hnp.array_shapes(min_dims=0, min_side=0))
)
def test_any_array_survives_the_wire(array: np.ndarray) -> None:
    wire = written(array).SerializeToString()
    same(read_tensor(tensor_pb2.TensorProto.FromString(wire)), array)
    same(read_tensor(ours_tf.TensorProto.FromString(typed(array).SerializeToString())), array)


def fields(descriptor: Descriptor) -> dict[str, tuple[Any, ...]]:
    """Name → number, wire type, list or not, and what is inside."""
    return {field.name: (field.number, _wire_type(field), *_inside(field)) for field in descriptor.fields}


def _wire_type(field: FieldDescriptor) -> tuple[int, bool, bool]:
    return field.type, field.is_repeated, field.is_packed


def _inside(field: FieldDescriptor) -> tuple[Any, ...]:
    inner = field.message_type
    entry = inner is not None and inner.GetOptions().map_entry
    return (inner.name if inner and not entry else None, fields(inner) if entry else None)


def _messages(descriptors: Any) -> list[Descriptor]:
    nested = [each for descriptor in descriptors for each in _messages(descriptor.nested_types)]
    return [*descriptors, *nested]


PACKAGES = {ours_tf.DESCRIPTOR: "tensorflow", tfs.DESCRIPTOR: "tensorflow.serving"}
OURS = {
    f"{package}.{each.full_name.removeprefix(file.package + '.')}": each
    for file, package in PACKAGES.items()
    for each in _messages(file.message_types_by_name.values())
}


@pytest.mark.parametrize("name", OURS)
def test_our_fields_have_the_official_numbers_and_types(name: str) -> None:
    ours, theirs = fields(OURS[name]), fields(descriptor_pool.Default().FindMessageTypeByName(name))
    assert ours == {field: theirs[field] for field in ours}


_SERVICES = {
    **prediction_service_pb2.DESCRIPTOR.services_by_name,
    **model_service_pb2.DESCRIPTOR.services_by_name,
}


@pytest.mark.parametrize("name", _SERVICES)
def test_our_services_have_the_official_methods(name: str) -> None:
    def methods(service: Any) -> dict[str, tuple[str, str]]:
        return {each.name: (each.input_type.name, each.output_type.name) for each in service.methods}

    official = _SERVICES[name]
    assert methods(tfs.DESCRIPTOR.services_by_name[name]) == methods(official)


def test_a_version_is_a_number_or_a_label_in_ours_as_in_the_official_message() -> None:
    def choices(kind: Any) -> set[str]:
        return {field.name for field in kind.DESCRIPTOR.oneofs_by_name["version_choice"].fields}

    assert choices(tfs.ModelSpec) == choices(model_pb2.ModelSpec) == {"version", "version_label"}


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        (ours_tf.DataType, types_pb2.DataType),
        (ours_tf.Code, error_codes_pb2.Code),
        (tfs.ModelVersionStatus.State, get_model_status_pb2.ModelVersionStatus.State),
    ],
)
def test_our_enumerations_have_the_official_values(ours: Any, official: Any) -> None:
    assert dict(ours.items()).items() <= dict(official.items()).items()


def test_a_predict_request_of_ours_is_the_official_one() -> None:
    made = tfs.PredictRequest(output_filter=["y"])
    made.model_spec.name, made.model_spec.version.value, made.model_spec.signature_name = "m", 7, "step"
    write_tensor(made.inputs["x"], np.ones((2, 3), np.float32))
    official = predict_pb2.PredictRequest.FromString(made.SerializeToString())
    assert (official.model_spec.name, official.model_spec.version.value, [*official.output_filter]) == ("m", 7, ["y"])
    same(tf.make_ndarray(official.inputs["x"]), np.ones((2, 3), np.float32))
    assert tfs.PredictRequest.FromString(official.SerializeToString()) == made


def test_an_official_answer_is_read_with_our_messages() -> None:
    official = predict_pb2.PredictResponse()
    official.model_spec.version_label = "stable"
    official.outputs["y"].CopyFrom(tf.make_tensor_proto([[1.5, -2.0]]))
    ours = tfs.PredictResponse.FromString(official.SerializeToString())
    assert ours.model_spec.WhichOneof("version_choice") == "version_label"
    same(read_tensor(ours.outputs["y"]), np.array([[1.5, -2.0]], np.float32))


def test_official_metadata_is_read_out_of_its_any() -> None:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    x = signatures.signature_def["serving_default"].inputs["x"]
    x.name, x.dtype = "x:0", DTYPE_NUMBERS["float32"]
    for size in (-1, 3):
        x.tensor_shape.dim.add().size = size
    official = get_model_metadata_pb2.GetModelMetadataResponse()
    official.metadata["signature_def"].Pack(signatures)

    reply = tfs.GetModelMetadataResponse.FromString(official.SerializeToString())
    found = tfs.SignatureDefMap.FromString(reply.metadata["signature_def"].value)
    ours = plain_signature("serving_default", found.signature_def["serving_default"])
    same_way = plain_signature("serving_default", signatures.signature_def["serving_default"])
    assert (ours.name, ours.inputs, ours.outputs) == (same_way.name, same_way.inputs, same_way.outputs)
    assert (ours.inputs["x"].dtype, ours.inputs["x"].shape) == ("float32", (None, 3))


def test_a_tensor_of_unknown_rank_is_told_from_a_scalar() -> None:
    described = meta_graph_pb2.SignatureDef()
    described.inputs["any"].tensor_shape.unknown_rank = True
    for info in (described.inputs["any"], described.inputs["one"]):
        info.dtype = types_pb2.DT_FLOAT
    inputs = plain_signature("s", described).inputs
    assert {name: str(each) for name, each in inputs.items()} == {"any": "float32 of any shape", "one": "float32 []"}


def test_a_status_is_read_both_ways() -> None:
    official = get_model_status_pb2.GetModelStatusResponse()
    each = official.model_version_status.add(version=3, state="END")
    each.status.error_code, each.status.error_message = 5, "gone"
    ours = tfs.GetModelStatusResponse.FromString(official.SerializeToString())
    assert (ours.model_version_status[0].state, ours.model_version_status[0].status.error_message) == (50, "gone")
    assert get_model_status_pb2.GetModelStatusResponse.FromString(ours.SerializeToString()) == official


def test_a_dtype_that_has_no_name_is_unknown() -> None:
    described = meta_graph_pb2.SignatureDef()
    described.inputs["x"].dtype = types_pb2.DT_VARIANT
    assert plain_signature("s", described).inputs["x"].dtype == "unknown"


def test_of_a_list_that_is_too_long_the_first_values_count() -> None:
    assert read_tensor(broken(2, float_val=[1, 2, 3])).tolist() == [1, 2]
    assert read_tensor(broken(1, dtype=DTYPE_NUMBERS["string"], string_val=[b"a", b"b"])).tolist() == [b"a"]
