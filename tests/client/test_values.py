"""Arrays go to the gateway and come back as they are, in both notations."""

from typing import Any

import numpy as np
import orjson
import pytest

from sluice.client.rows import dumps, many_body, read_array, step_body, write_inputs
from sluice.client.tensors import read_tensors, write_tensors
from sluice.client.values import BARE, Call, ManyCall, array_of, arrays_of
from sluice.policy.contract import numpy_dtype
from sluice.policy.errors import InputNotFinite, ShapeMismatch
from sluice.wire.messages.v1 import sessions_pb2 as pb

VALUES = {
    "float32": [[1.5, 23.11], [-1e-30, 3.4e38]],
    "float64": [0.1, 1e300],
    "float16": [1.5, 65504.0],
    "bfloat16": [1.5, -3.0],
    "int64": [-(2**63), 2**63 - 1],
    "uint64": [0, 2**64 - 1],
    "int8": [[-128, 127]],
    "bool": [True, False],
    "string": [[b"text", "ä€".encode()], [b"", b"0"]],
}
ARRAYS = {dtype: np.array(value, numpy_dtype(dtype)) for dtype, value in VALUES.items()}


@pytest.mark.parametrize("dtype", ARRAYS)
@pytest.mark.parametrize("part", [(), 0, (0, ...), np.s_[:0]], ids=["whole", "row", "first", "none"])
def test_an_array_comes_back_from_json_as_it_was(dtype: str, part: Any) -> None:
    array = np.asarray(ARRAYS[dtype][part])
    came = read_array(orjson.loads(dumps(write_inputs({"x": array})))["x"], dtype)
    assert came.dtype == array.dtype
    assert came.tolist() == array.tolist()
    assert came.flags.writeable


@pytest.mark.parametrize("dtype", ARRAYS)
@pytest.mark.parametrize("part", [(), 0, (0, ...), np.s_[:0]], ids=["whole", "row", "first", "none"])
def test_an_array_comes_back_from_a_message_as_it_was(dtype: str, part: Any) -> None:
    array = np.asarray(ARRAYS[dtype][part])
    request = pb.StepRequest()
    write_tensors(request.inputs, {"x": array})
    came = read_tensors(pb.StepRequest.FromString(request.SerializeToString()).inputs)["x"]
    assert (came.dtype, came.shape) == (array.dtype, array.shape)
    assert came.tolist() == array.tolist()
    assert came.flags.writeable


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i8", ">u2", "<f4"])
def test_numbers_are_sent_as_they_are_whatever_their_byte_order(dtype: str) -> None:
    given = np.array([[1, 2], [3, 250]], dtype)
    request = pb.StepRequest()
    write_tensors(request.inputs, arrays_of({"x": given}))
    assert read_tensors(request.inputs)["x"].tolist() == given.tolist()
    assert orjson.loads(dumps(write_inputs(arrays_of({"x": given}))))["x"] == given.tolist()


def test_text_may_be_given_as_str_or_bytes() -> None:
    for value in (["one", "two"], [b"one", b"two"]):
        inputs = arrays_of({"x": value})
        assert orjson.loads(dumps(write_inputs(inputs))) == {"x": ["one", "two"]}
        request = pb.StepRequest()
        write_tensors(request.inputs, inputs)
        assert list(request.inputs["x"].strings) == [b"one", b"two"]
        assert request.inputs["x"].dtype == "string"


@pytest.mark.parametrize(
    "value", [[b"ends in zero\x00", b""], ["ends in zero\x00"], [b"\xff", "beside text"], b"\x00", [["a"], ["b"]]]
)
def test_text_in_lists_is_kept_to_its_last_byte(value: Any) -> None:
    assert array_of(value).tolist() == value


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([0, 2**64 - 1], "uint64"), ([-1, 2**63], "float64"), ([0.5, 2.0**64], "float64"), ([2**64], "object")],
)
def test_whole_numbers_in_lists_are_kept_where_a_dtype_can_hold_them(value: Any, dtype: str) -> None:
    array = array_of(value)
    assert (array.dtype, array.tolist()) == (np.dtype(dtype), value)


def test_null_is_nan() -> None:
    assert np.isnan(read_array([[1.0, None]], "float32")[0, 1])
    assert np.isnan(read_array(None, "bfloat16").astype(np.float32))


def test_what_json_cannot_carry_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InputNotFinite, match="'x'"):
        write_inputs({"x": np.array([1.0, np.nan])})


def test_a_bare_value_stands_for_the_object() -> None:
    call = Call("a", "sum", "1", arrays_of([1, 2]), None, ())
    assert orjson.loads(step_body(call)) == {"inputs": [1, 2]}
    assert list(call.inputs) == [BARE]


def test_bodies_have_the_fields_that_were_given() -> None:
    call = Call("a", "sum", "1", arrays_of({"x": [1.0]}), 7, ["total"])
    assert orjson.loads(step_body(call)) == {"inputs": {"x": [1.0]}, "step": 7, "outputs": ["total"]}
    many = ManyCall("sum", ["a", "b"], ["1", "1"], arrays_of({"x": [[1.0], [2.0]]}), [3, None], ())
    assert orjson.loads(many_body(many)) == {
        "sessions": ["a", "b"],
        "inputs": {"x": [[1.0], [2.0]]},
        "steps": [3, None],
    }
    many = ManyCall("sum", ["a"], ["1"], arrays_of({"x": [[1.0]]}), [None], ["total"])
    assert orjson.loads(many_body(many)) == {"sessions": ["a"], "inputs": {"x": [[1.0]]}, "outputs": ["total"]}


@pytest.mark.parametrize("value", [[[1], [1, 2]], [["a"], ["b", "c"]], [np.ones(1), np.ones(2)]])
def test_lists_of_different_lengths_are_no_array(value: Any) -> None:
    with pytest.raises(ShapeMismatch, match=r"^Input 'x' takes lists of one length; .*(part|parts) "):
        arrays_of({"x": value})
    with pytest.raises(ShapeMismatch, match=r"^The input takes lists of one length; "):
        arrays_of(value)


@pytest.mark.parametrize("word", ["hi", b"hi"])
def test_an_array_of_one_text_is_an_array(word):
    assert array_of(np.array(word, object)).tolist() == word
