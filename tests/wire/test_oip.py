"""The Open Inference Protocol's codec: every datatype both ways, and what is wrong with what cannot be read."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from sluice.policy.contract import numpy_dtype
from sluice.policy.errors import DtypeMismatch, MissingInput, SluiceError
from sluice.wire.binary_tensors import DTYPES, from_raw, raw_bytes
from sluice.wire.messages.oip.v1 import inference_pb2 as messages
from sluice.wire.oip import InferRequest, encode_infer, parse_infer, read_infer, write_infer

NUMBERS = {name: numpy_dtype(dtype) for name, dtype in DTYPES.items() if name != "BYTES"}


def some(datatype: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """An array of the datatype, its values all different."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        return np.array([b"\x00%d" % n for n in range(count)], object).reshape(shape)
    dtype = NUMBERS[datatype]
    values = np.arange(count) % 2 if datatype == "BOOL" else np.arange(count)
    return values.reshape(shape).astype(dtype)


def same(mine: np.ndarray, theirs: np.ndarray) -> bool:
    return (mine.dtype, mine.shape, mine.tolist()) == (theirs.dtype, theirs.shape, theirs.tolist())


def body(inputs: Any, header: dict[str, Any] | None = None) -> bytes:
    return json.dumps({**(header or {}), "inputs": inputs}).encode()


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **more}


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1,), ()])
def test_what_tritons_http_client_writes_is_read(datatype: str, shape: tuple[int, ...]) -> None:
    array = some(datatype, shape)
    given = triton_http.InferInput("x", list(shape), datatype)
    given.set_data_from_numpy(array, binary_data=True)
    sent, size = triton_http.InferenceServerClient.generate_request_body([given])
    read = parse_infer(sent, size).inputs["x"]
    assert same(read, array)


@pytest.mark.parametrize("datatype", DTYPES)
def test_what_tritons_grpc_client_writes_is_read(datatype: str) -> None:
    array = some(datatype)
    given = triton_grpc.InferInput("x", [2, 3], datatype)
    given.set_data_from_numpy(array)
    sent = service_pb2.ModelInferRequest(model_name="m", inputs=[given._get_tensor()])
    sent.raw_input_contents.append(given._get_content())
    read = read_infer(messages.ModelInferRequest.FromString(sent.SerializeToString())).inputs["x"]
    assert same(read, array)


@pytest.mark.parametrize(
    ("datatype", "binary"),
    [(name, binary) for name in DTYPES for binary in (True, False) if binary or name not in ("FP16", "BF16")],
)
def test_tritons_http_client_reads_what_is_written(datatype: str, binary: bool) -> None:
    array = some(datatype)
    sent, size = encode_infer(InferRequest("r", {}, binary={"": binary}), "m", 3, {"y": array})
    result = triton_http.InferenceServerClient.parse_response_body(sent, header_length=size)
    read = result.as_numpy("y")
    if datatype == "BYTES" and not binary:
        read = np.array([text.encode() if isinstance(text, str) else text for text in read.ravel()], object)
        read = read.reshape(array.shape)
    assert read.tolist() == array.astype(np.float32 if datatype == "BF16" else array.dtype).tolist()
    assert read.shape == array.shape


@pytest.mark.parametrize("datatype", DTYPES)
def test_tritons_grpc_client_reads_what_is_written(datatype: str) -> None:
    array = some(datatype)
    sent = write_infer(InferRequest("r", {}), "m", 3, {"y": array})
    result = triton_grpc.InferResult(service_pb2.ModelInferResponse.FromString(sent.SerializeToString()))
    assert result.as_numpy("y").tolist() == array.tolist()
    assert (sent.model_version, sent.id) == ("3", "r")


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("FP16", "BF16")])
@pytest.mark.parametrize("nested", [True, False])
def test_json_data_may_be_nested_or_in_one_list(datatype: str, nested: bool) -> None:
    array = some(datatype)
    listed = (array if nested else array.ravel()).tolist()
    if datatype == "BYTES":
        listed = json.loads(json.dumps(listed, default=lambda value: value.decode()))
    read = parse_infer(body([tensor(datatype=datatype, shape=[2, 3], data=listed)])).inputs["x"]
    assert same(read, array)


def test_raw_numbers_are_not_copied() -> None:
    sent = some("FP32").tobytes()
    assert np.shares_memory(from_raw("x", "FP32", (2, 3), sent), np.frombuffer(sent, np.uint8))


@given(st.data())
def test_any_array_survives_the_bytes(data: Any) -> None:
    datatype = data.draw(st.sampled_from([*DTYPES]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    count = int(np.prod(shape))
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = data.draw(st.lists(st.binary(max_size=8), min_size=count, max_size=count))
        array = array.reshape(shape)
    else:
        size = NUMBERS[datatype].itemsize
        values = data.draw(st.binary(min_size=count * size, max_size=count * size))
        array = np.frombuffer(values, NUMBERS[datatype]).reshape(shape)
        if datatype == "BOOL":
            array = np.frombuffer(bytes(value & 1 for value in values), np.bool_).reshape(shape)
    read = from_raw("x", datatype, shape, raw_bytes(array))
    assert (read.dtype, read.shape, raw_bytes(read)) == (array.dtype, array.shape, raw_bytes(array))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "bad_request"),
        (b"[]", "bad_request"),
        (b"{}", "missing_input"),
        (body([]), "missing_input"),
        (body({}), "bad_request"),
        (body([1]), "bad_request"),
        (body([tensor(name=None)]), "bad_request"),
        (body([tensor(name="")]), "bad_request"),
        (body([tensor(), tensor()]), "bad_request"),
        (body([tensor(datatype="FP31")]), "dtype_mismatch"),
        (body([tensor(datatype=None)]), "dtype_mismatch"),
        (body([tensor(datatype="INT32", data=[1.5, 2])]), "dtype_mismatch"),
        (body([tensor(datatype="INT8", data=[1, 300])]), "dtype_mismatch"),
        (body([tensor(datatype="INT64", data=[1, 1 << 63])]), "dtype_mismatch"),
        (body([tensor(datatype="UINT64", data=[1, 1 << 70])]), "dtype_mismatch"),
        (body([tensor(datatype="BOOL", data=[1, 0])]), "dtype_mismatch"),
        (body([tensor(datatype="BYTES", data=[1, 0])]), "dtype_mismatch"),
        (body([tensor(data=["a", "b"])]), "dtype_mismatch"),
        (body([tensor(data=[None, 1])]), "dtype_mismatch"),
        (body([tensor(data=[True, 1.0])]), "dtype_mismatch"),
        (body([tensor(data=[1, 2, 3])]), "shape_mismatch"),
        (body([tensor(data=[[1], [2, 3]])]), "shape_mismatch"),
        (body([tensor(shape=[2, 3], data=[[1, 2], [3, 4], [5, 6]])]), "shape_mismatch"),
        (body([tensor(shape=[-1])]), "shape_mismatch"),
        (body([tensor(shape=[1.5])]), "shape_mismatch"),
        (body([tensor(shape=[1 << 62, 1 << 62])]), "shape_mismatch"),
        (body([tensor(shape=[1 << 63])]), "shape_mismatch"),
        (body([tensor(shape=[1] * 33)]), "shape_mismatch"),
        (body([tensor(shape=2)]), "shape_mismatch"),
        (body([{"name": "x", "datatype": "FP32", "shape": [2]}]), "missing_input"),
        (body([tensor(parameters={"binary_data_size": 8})]), "bad_request"),
        (body([tensor()], {"id": 7}), "bad_request"),
        (body([tensor()], {"parameters": []}), "bad_request"),
        (body([tensor()], {"outputs": [{}]}), "bad_request"),
        (body([tensor()], {"outputs": [{"name": "y"}, {"name": "y"}]}), "bad_request"),
        (body([tensor()], {"outputs": [{"name": "y", "parameters": {"classification": 3}}]}), "bad_request"),
        (body([tensor()], {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}), "bad_request"),
        (body([tensor()], {"parameters": {"sequence_id": 1.5}}), "bad_request"),
        (body([tensor()], {"parameters": {"sequence_id": True}}), "bad_request"),
        (body([tensor()], {"parameters": {"sequence_end": True}}), "bad_request"),
        (body([tensor()], {"parameters": {"sequence_id": 1, "sequence_start": 1}}), "bad_request"),
        (body([tensor()], {"parameters": {"timeout": "1"}}), "bad_request"),
        (body([tensor()], {"parameters": {"priority": -1}}), "bad_request"),
        (body([tensor()], {"parameters": {"signature_name": 1}}), "bad_request"),
    ],
)
def test_a_request_that_cannot_be_read_says_why(sent: bytes, code: str) -> None:
    with pytest.raises(SluiceError) as caught:
        parse_infer(sent)
    assert (caught.value.code, len(caught.value.message) > 10) == (code, True)


OPTIONS = ["sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "signature_name"]
NULLS = dict.fromkeys([*OPTIONS, "binary_data_output", "anything"])


@pytest.mark.parametrize("more", [{"id": None, "outputs": None, "parameters": None}, {"parameters": NULLS}])
@pytest.mark.parametrize("parameters", [None, {"binary_data_size": None, "anything": None}])
def test_an_optional_field_that_is_null_is_as_one_that_is_absent(more: dict[str, Any], parameters: Any) -> None:
    assert repr(parse_infer(body([tensor(parameters=parameters)], more))) == repr(parse_infer(body([tensor()])))


@pytest.mark.parametrize("parameters", [None, {"binary_data": None, "classification": None}])
def test_an_output_whose_parameters_are_null_is_as_one_without(parameters: Any) -> None:
    bare, null = ({"outputs": [{"name": "y", **more}]} for more in ({}, {"parameters": parameters}))
    assert repr(parse_infer(body([tensor()], null))) == repr(parse_infer(body([tensor()], bare)))


def test_data_that_are_null_are_none() -> None:
    head = body([tensor(data=None, parameters={"binary_data_size": 8})])
    assert parse_infer(head + bytes(8), len(head)).inputs["x"].tolist() == [0, 0]
    with pytest.raises(SluiceError) as caught:
        parse_infer(body([tensor(data=None)]))
    assert caught.value.code == "missing_input"


def test_a_parameter_of_a_message_without_a_value_is_as_one_that_is_absent() -> None:
    request = messages.ModelInferRequest()
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.raw_input_contents.append(bytes(4))
    wanted = repr(read_infer(request))
    for name in OPTIONS:
        request.parameters[name].SetInParent()
    assert repr(read_infer(request)) == wanted


@pytest.mark.parametrize(
    ("datatype", "value", "said"),
    [
        ("UINT8", 1.5, "is UINT8; fractions came."),
        ("INT8", 300, "is INT8; a number came that int8 cannot hold."),
        ("BOOL", 1, "is BOOL; whole numbers came."),
        ("FP16", None, "is FP16; null came."),
        ("BYTES", 1, "is BYTES; something else than text came."),
    ],
)
def test_a_value_that_is_not_of_its_datatype_is_told_in_the_protocols_words(
    datatype: str, value: Any, said: str
) -> None:
    with pytest.raises(DtypeMismatch) as caught:
        parse_infer(body([tensor(name="a; b", datatype=datatype, shape=[1], data=[value])]))
    assert caught.value.message == f"Input 'a; b' {said}"
    assert caught.value.details == {"expected": datatype}


def test_an_input_of_a_message_without_values_says_so() -> None:
    message = messages.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [2]}])
    with pytest.raises(MissingInput, match="'x' has neither contents nor raw_input_contents"):
        read_infer(message)
    message.inputs[0].shape[:] = [0]
    assert read_infer(message).inputs["x"].shape == (0,)


@pytest.mark.parametrize(
    ("datatype", "shape", "sizes", "raw"),
    [
        ("FP32", [2], 8, b"1234567"),
        ("FP32", [2], 7, b"1234567"),
        ("FP32", [2], 8, b"123456789"),
        ("FP32", [2], -1, b"12345678"),
        ("FP32", [2], "8", b"12345678"),
        ("FP32", [1 << 62, 1 << 62], 8, b"12345678"),
        ("BYTES", [1], 6, b"\x09\0\0\0ab"),
        ("BYTES", [2], 6, b"\x02\0\0\0ab"),
        ("BYTES", [1], 8, b"\x02\0\0\0abcd"),
        ("BYTES", [1], 2, b"\x02\0"),
        ("BYTES", [1 << 62], 4, b"\0\0\0\0"),
        ("BYTES", [0], 4, b"\0\0\0\0"),
    ],
)
def test_binary_data_that_do_not_fit_say_why(datatype: str, shape: list[int], sizes: Any, raw: bytes) -> None:
    head = body([{"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": sizes}}])
    with pytest.raises(SluiceError) as caught:
        parse_infer(head + raw, len(head))
    assert caught.value.code in ("bad_request", "shape_mismatch")


@given(st.binary(max_size=200), st.integers(-1, 300) | st.none())
def test_any_bytes_are_read_or_refused(sent: bytes, size: int | None) -> None:
    try:
        parse_infer(sent, size)
    except SluiceError as error:
        assert error.http_status == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"name": json_values, "datatype": st.sampled_from([*DTYPES]) | json_values},
        optional={
            "shape": st.lists(st.integers(-2, 4), max_size=3) | json_values,
            "data": json_values,
            "parameters": json_values,
        },
    ),
    st.dictionaries(st.sampled_from(["id", "parameters", "outputs"]), json_values),
)
def test_any_json_is_read_or_refused(each: dict[str, Any], header: dict[str, Any]) -> None:
    try:
        parse_infer(body([each], header))
    except SluiceError as error:
        assert error.http_status == 400


@given(st.binary(max_size=300))
def test_any_message_is_read_or_refused(sent: bytes) -> None:
    try:
        message = messages.ModelInferRequest.FromString(sent)
    except DecodeError:
        return
    try:
        read_infer(message)
    except SluiceError as error:
        assert error.http_status == 400


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (field.number, field.type, field.is_repeated, field.message_type and field.message_type.name)
        for field in message.fields
        if field.type != FieldDescriptor.TYPE_GROUP
    }


@pytest.mark.parametrize("name", messages.DESCRIPTOR.message_types_by_name)
def test_our_messages_are_the_protocols(name: str) -> None:
    ours, theirs = messages.DESCRIPTOR.message_types_by_name[name], service_pb2.DESCRIPTOR.message_types_by_name[name]
    for mine, their in [
        (ours, theirs),
        *((each, theirs.nested_types_by_name[each.name]) for each in ours.nested_types),
    ]:
        official = fields(their)
        assert fields(mine) == {field: official[field] for field in fields(mine)}


def test_our_service_has_the_protocols_methods() -> None:
    pool = descriptor_pool.Default()
    theirs = {each.name: each for each in pool.FindServiceByName("inference.GRPCInferenceService").methods}
    for mine in messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        their = theirs[mine.name]
        assert (mine.input_type.name, mine.output_type.name) == (their.input_type.name, their.output_type.name)
        assert (mine.client_streaming, mine.server_streaming) == (their.client_streaming, their.server_streaming)


def test_bfloat16_is_two_bytes_each() -> None:
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert raw_bytes(array) == b"\xc0\x3f\x00\xc0"
