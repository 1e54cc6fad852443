"""TensorFlow Serving's predict JSON: what is read, what is refused, and what is written."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.policy.contract import Axis, Tensor, numpy_dtype
from sluice.policy.errors import (
    BadRequest,
    DtypeMismatch,
    EmptyInput,
    MissingInput,
    ShapeMismatch,
    SluiceError,
    UnknownInput,
    UnsupportedByModel,
)
from sluice.wire.rest import encode_predict, parse_json, parse_predict

Inputs = dict[str, Tensor]


def tensor(name: str = "x", dtype: str = "float32", *sizes: int) -> Tensor:
    return Tensor(name, dtype, (Axis("batch"), *(Axis("wide", size) for size in sizes)))


ONE = {"x": tensor()}
TEXT = {"x": tensor("x", "string")}
WIDE = {"x": tensor("x", "float32", 3)}
TWO = {"a": tensor("a"), "b": tensor("b", "int32")}


def read(body: Any, inputs: Inputs = ONE, **options: bool) -> dict[str, np.ndarray]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_predict(raw).tensors(inputs, **options)


def column(dtype: str, values: Any) -> np.ndarray:
    return read({"inputs": values}, {"x": tensor("x", dtype)})["x"]


def written(row_format: bool = True, **outputs: np.ndarray) -> Any:
    return json.loads(encode_predict(outputs, row_format=row_format))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [1, 2.5]},
        {"instances": [{"x": 1}, {"x": 2.5}]},
        {"inputs": [1, 2.5]},
        {"inputs": {"x": [1, 2.5]}},
        {"inputs": [1, 2.5], "signature_name": "other"},
    ],
)
def test_one_input_may_be_named_or_not_in_rows_and_columns(body: dict[str, Any]) -> None:
    assert read(body)["x"].tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    "body", [{"instances": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]}, {"inputs": {"b": [2, 4], "a": [1, 3]}}]
)
def test_several_inputs_are_named(body: dict[str, Any]) -> None:
    arrays = read(body, TWO)
    assert {name: (array.tolist(), array.dtype.name) for name, array in arrays.items()} == {
        "a": ([1.0, 3.0], "float32"),
        "b": ([2, 4], "int32"),
    }


def test_a_file_that_is_sent_in_parts_is_told_from_json() -> None:
    with pytest.raises(BadRequest, match="The body is JSON; this looks like multipart/form-data"):
        parse_predict(b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n1\r\n--b--\r\n')


@pytest.mark.parametrize("body", [{"instances": [1]}, {"instances": [1], "signature_name": ""}])
def test_without_a_name_the_signature_is_serving_default(body: dict[str, Any]) -> None:
    assert parse_predict(json.dumps(body).encode()).signature_name == "serving_default"


def test_other_fields_and_text_behind_the_body_are_ignored_as_in_tensorflow_serving() -> None:
    assert read({"instances": [1], "foo": 1, "output_filter": ["y"]})["x"].tolist() == [1]
    assert read(b' {"instances": [1]} xyz')["x"].tolist() == [1]
    assert read(b'{"instances": [1]}\0abc')["x"].tolist() == [1]


REFUSED: list[tuple[type[SluiceError], Inputs, Any]] = [
    (BadRequest, ONE, b""),
    (BadRequest, ONE, b"[[1, 2]]"),
    (BadRequest, ONE, b"5"),
    (BadRequest, ONE, b'{"instances": [1,]}'),
    (BadRequest, ONE, b'{"instances": [01]}'),
    (BadRequest, ONE, b'{"instances": [+1]}'),
    (BadRequest, ONE, b"{'instances': [1]}"),
    (BadRequest, ONE, b'{"instances": [1'),
    (BadRequest, ONE, b'{"instances": [1e400]}'),
    (BadRequest, ONE, b'{"instances": [NaN, 1e400]}'),
    (BadRequest, TEXT, b'{"instances": ["\\ud83d"]}'),
    (BadRequest, TEXT, b'{"instances": ["a", "\\udc00 \\ud83d"]}'),
    (DtypeMismatch, ONE, b'{"instances": [NaN, "\xff"]}'),
    (BadRequest, ONE, b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    (BadRequest, ONE, b'{"instances": ' + b"[" * 1000 + b"]" * 1000 + b', "a": ":"}'),
    (BadRequest, ONE, b'{"instances": [0e400], "instances": []}'),
    (ShapeMismatch, ONE, b'{"instances": ' + b"[" * 200 + b"]" * 200 + b"}"),
    (MissingInput, ONE, {}),
    (MissingInput, ONE, {"foo": 1}),
    (MissingInput, ONE, {"instances": [1], "inputs": [1]}),
    (BadRequest, ONE, {"instances": "abc"}),
    (BadRequest, ONE, {"instances": [1], "signature_name": None}),
    (EmptyInput, ONE, {"instances": []}),
    (MissingInput, ONE, {"instances": [{}]}),
    (MissingInput, ONE, {"inputs": {}}),
    (UnknownInput, ONE, {"instances": [{"z": 1}]}),
    (UnknownInput, TWO, {"instances": [{"a": 1, "b": 2, "c": 3}]}),
    (MissingInput, TWO, {"instances": [{"a": 1}]}),
    (MissingInput, TWO, {"instances": [1]}),
    (MissingInput, TWO, {"inputs": [1]}),
    (BadRequest, TWO, {"instances": [{"a": 1, "b": 2}, {"a": 1}]}),
    (BadRequest, ONE, {"instances": [{"x": 1}, 2]}),
    (DtypeMismatch, ONE, {"instances": [2, {"x": 1}]}),
    (ShapeMismatch, WIDE, {"instances": [[1, 2, 3], [4, 5]]}),
    (ShapeMismatch, WIDE, {"instances": [[1, 2, 3], [4, 5, [6]]]}),
    (ShapeMismatch, WIDE, {"instances": [1, 2, 3]}),
    (DtypeMismatch, ONE, {"instances": ["1"]}),
    (DtypeMismatch, ONE, {"instances": ["NaN"]}),
    (DtypeMismatch, ONE, {"instances": [None]}),
    (DtypeMismatch, ONE, {"instances": [True]}),
    (DtypeMismatch, ONE, {"instances": [1, True]}),
    (DtypeMismatch, ONE, {"instances": [1.5, False]}),
    (DtypeMismatch, ONE, {"instances": [{"b64": "AACAPw=="}]}),
]


@pytest.mark.parametrize(("error", "inputs", "body"), REFUSED)
def test_a_body_that_does_not_fit_is_refused(error: type[SluiceError], inputs: Inputs, body: Any) -> None:
    with pytest.raises(error) as caught:
        read(body, inputs)
    assert type(caught.value) is error
    assert caught.value.http_status == 400


@pytest.mark.parametrize("body", [{"instances": "LISTS"}, {"inputs": "LISTS"}, {"inputs": {"x": "LISTS"}}])
@pytest.mark.parametrize(
    ("inputs", "lists", "said"),
    [
        (WIDE, [[1, 2, 3], [4, 5]], "row 1 has 2 values where row 0 has 3 values"),
        (WIDE, [[1, 2, 3], 4], "row 1 is a single value where row 0 has 3 values"),
        (TEXT, [["a", "b"], ["c"]], "row 1 has 1 value where row 0 has 2 values"),
        (TEXT, ["a", ["b"]], "row 1 has 1 value where row 0 is a single value"),
    ],
)
def test_of_lists_that_differ_in_length_the_row_and_the_lengths_are_named(
    body: dict[str, Any], inputs: Inputs, lists: list[Any], said: str
) -> None:
    given = json.loads(json.dumps(body).replace('"LISTS"', json.dumps(lists)))
    with pytest.raises(ShapeMismatch, match=said):
        read(given, inputs)


def test_a_row_of_named_inputs_that_differs_is_named_too() -> None:
    with pytest.raises(ShapeMismatch, match="row 1 has 2 values where row 0 has 3 values"):
        read({"instances": [{"x": [1, 2, 3]}, {"x": [4, 5]}]}, WIDE)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", [1.0]),
        ("int32", [100.0]),
        ("int32", [2**31]),
        ("int32", [-(2**31) - 1]),
        ("int64", [2**63]),
        ("int64", [2**63, -1]),
        ("int32", [math.nan]),
        ("int32", [True]),
        ("int8", [2**31]),
        ("uint32", [2**32]),
        ("uint32", [-1]),
        ("uint64", [-1]),
        ("uint64", [2**64]),
        ("uint64", [2**64 - 1, -1]),
        ("uint64", [1.5]),
        ("uint64", [2**64 - 1, True]),
        ("bool", [1]),
        ("bool", [True, 0]),
        ("string", [1]),
        ("string", [None]),
        ("string", ["a", ["b"]]),
        *((dtype, [1]) for dtype in ("float16", "bfloat16", "uint16", "complex64", "complex128", "unknown")),
    ],
)
def test_a_value_of_another_kind_is_refused(dtype: str, values: list[Any]) -> None:
    with pytest.raises((DtypeMismatch, ShapeMismatch)):
        column(dtype, values)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [-128, 127]),
        ("int16", [-(2**15), 2**15 - 1]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("int64", [-(2**63), 2**63 - 1, 2**53 + 1]),
        ("uint8", [0, 255]),
        ("uint32", [0, 2**32 - 1]),
        ("uint64", [2**64 - 1, 0, 1]),
        ("bool", [True, False]),
        ("float64", [0.1, 1e300, 1, -2.5e-10]),
    ],
)
def test_the_limits_of_a_dtype_are_read_exactly(dtype: str, values: list[Any]) -> None:
    assert column(dtype, values).tolist() == values


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8"])
@pytest.mark.parametrize(
    ("value", "came"),
    [
        (1.5, "fractions came"),
        (True, "true or false came"),
        (None, "null came"),
        (2**40, "a number came that {dtype} cannot hold"),
    ],
)
def test_a_refusal_names_the_dtype_that_the_signature_says(dtype: str, value: Any, came: str) -> None:
    with pytest.raises(DtypeMismatch) as caught:
        column(dtype, [value])
    assert caught.value.message == f"Input 'x' takes {dtype} [batch]; {came.format(dtype=dtype)}."
    assert caught.value.details in ({}, {"expected": dtype})


def test_numbers_too_large_for_a_small_dtype_wrap_around_as_in_tensorflow_serving() -> None:
    assert column("uint8", [-1, 256]).tolist() == [255, 0]
    assert column("int8", [128, -129]).tolist() == [-128, 127]
    assert column("int16", [2**15]).tolist() == [-(2**15)]


@pytest.mark.parametrize(
    "body", [b'{"inputs": [NaN, Infinity, -Infinity, 1]}', b' {"instances":[NaN,Infinity,-Infinity,1]}']
)
def test_numbers_that_are_not_finite_are_read(body: bytes) -> None:
    np.testing.assert_array_equal(read(body)["x"], np.array([np.nan, np.inf, -np.inf, 1], np.float32))


def test_whole_numbers_of_any_size_are_floats_where_floats_are_taken() -> None:
    assert column("float32", [10**29]).tolist() == [np.float32(1e29)]
    assert read(b'{"inputs": [NaN, %d]}' % 10**29)["x"][1] == np.float32(1e29)


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8"])
def test_bytes_are_base64_with_or_without_padding(text: str) -> None:
    strings = {"x": tensor("x", "string")}
    assert read({"inputs": [{"b64": text}, "plain", "h\u00e9"]}, strings)["x"].tolist() == [
        b"hello", b"plain", "h\u00e9".encode(),
    ]  # fmt: skip
    assert read({"instances": [{"b64": text}]}, strings)["x"].tolist() == [b"hello"]
    assert read({"instances": [{"x": {"b64": text}}]}, strings)["x"].tolist() == [b"hello"]


@pytest.mark.parametrize("text", ["_-__", "a", "h\u00e9", "YQ=", "aGVsbG8==", "YQ=a", "="])
def test_other_text_is_not_base64(text: str) -> None:
    with pytest.raises(BadRequest, match="b64"):
        column("string", [{"b64": text}])


@pytest.mark.parametrize("value", [5, None, ["aGVs"]])
def test_base64_is_text(value: Any) -> None:
    with pytest.raises(DtypeMismatch, match="something else than text"):
        column("string", [{"b64": value}])


def test_base64_may_hold_space_and_be_padded_with_dots() -> None:
    assert column("string", [{"b64": "aGVs\r\nbG8 ="}, {"b64": "YQ.."}, {"b64": ""}]).tolist() == [b"hello", b"a", b""]


def test_columns_beside_the_inputs_are_ignored_and_rows_are_not() -> None:
    assert read({"inputs": {"x": [1], "y": "no tensor"}})["x"].tolist() == [1]
    with pytest.raises(UnknownInput):
        read({"instances": [{"x": 1, "y": 2}]})


def test_of_a_key_that_comes_twice_the_first_counts() -> None:
    assert read(b'{"instances": [1], "instances": [2]}')["x"].tolist() == [1]
    assert read(b'{"instances": [{"x": 1, "x": 2}, {"x": 3}]}')["x"].tolist() == [1, 3]
    assert read(b'{"inputs": {"x": [1], "x": [2]}}')["x"].tolist() == [1]
    with pytest.raises(UnknownInput):
        read(b'{"instances": [{"b64": "YQ==", "b64": "YQ=="}]}', TEXT)


def test_text_that_is_not_utf8_keeps_its_bytes() -> None:
    assert read(b'{"instances": ["\xff\xc3\xa9", "\\udc00"]}', TEXT)["x"].tolist() == [b"\xff\xc3\xa9", b"\xed\xb0\x80"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16", "complex64"])
def test_a_dtype_without_a_json_form_is_refused_as_in_tensorflow_serving(dtype: str) -> None:
    strange = {"x": tensor("x", dtype)}
    for body, status in (({"instances": [1]}, 400), ({"inputs": [1]}, 501), ({"inputs": [{}]}, 400)):
        with pytest.raises(DtypeMismatch, match="which JSON requests cannot carry: use gRPC") as caught:
            read(body, strange)
        assert caught.value.http_status == status
    assert read({"inputs": []}, strange, any_shape=True)["x"].shape == (0,)


def test_rows_and_columns_are_looked_for_when_they_are_read() -> None:
    asked = parse_predict(b'{"signature_name": "other"}')
    assert asked.signature_name == "other"
    with pytest.raises(MissingInput, match="neither"):
        asked.tensors(ONE)


def test_any_shape_is_taken_where_the_graph_will_judge_it() -> None:
    assert read({"inputs": 3}, ONE, any_shape=True)["x"].shape == ()
    assert read({"inputs": [[], []]}, ONE, any_shape=True)["x"].shape == (2, 0)
    assert read({"instances": [1, 2]}, WIDE, any_shape=True)["x"].shape == (2,)
    with pytest.raises(ShapeMismatch):
        read({"inputs": [[1], [2, 3]]}, ONE, any_shape=True)


def test_one_output_stands_without_its_name() -> None:
    y = np.array([[1.0, 2.0]], np.float32)
    assert written(y=y) == {"predictions": [[1.0, 2.0]]}
    assert written(False, y=y) == {"outputs": [[1.0, 2.0]]}


def test_several_outputs_are_named_in_every_row() -> None:
    y, n = np.array([[1.5], [2.5]], np.float32), np.array([1, 2])
    assert written(y=y, n=n) == {"predictions": [{"y": [1.5], "n": 1}, {"y": [2.5], "n": 2}]}
    assert written(False, y=y, n=n) == {"outputs": {"y": [[1.5], [2.5]], "n": [1, 2]}}


@pytest.mark.parametrize("other", [np.zeros(1), np.array(1.0)])
def test_outputs_without_a_common_number_of_rows_are_written_in_columns_only(other: np.ndarray) -> None:
    outputs = {"y": np.zeros(2), "z": other}
    with pytest.raises(ShapeMismatch):
        written(**outputs)
    assert written(False, **outputs) == {"outputs": {"y": [0.0, 0.0], "z": other.tolist()}}


def test_complex_outputs_are_refused() -> None:
    with pytest.raises(UnsupportedByModel):
        written(y=np.zeros(1, complex))


def test_bytes_are_written_as_base64_where_the_name_says_so() -> None:
    texts = np.array([b"a", b"\xff"], object)
    assert written(y_bytes=texts) == {"predictions": [{"b64": "YQ=="}, {"b64": "/w=="}]}
    assert written(y=texts) == {"predictions": ["a", "\ufffd"]}


def test_an_array_that_is_not_contiguous_is_written() -> None:
    assert written(y=np.arange(6).reshape(2, 3)[:, ::2]) == {"predictions": [[0, 2], [3, 5]]}


def test_a_number_that_is_not_finite_is_written_as_tensorflow_serving_does() -> None:
    y = np.array([np.nan, np.inf, -np.inf, 0.1], np.float32)
    assert encode_predict({"y": y}, row_format=False) == b'{"outputs":[NaN,Infinity,-Infinity,0.1]}'
    both = encode_predict({"y": y[:1], "z": y[3:]}, row_format=True)
    assert both == b'{"predictions":[{"y":NaN,"z":0.1}]}'


def test_a_text_that_says_null_is_not_taken_for_a_number_that_is_not_finite() -> None:
    outputs = {"s": np.array([b"null", b"b"], object), "y": np.array([[1, -np.inf], [np.nan, 2]], np.float32)}
    rows = encode_predict(outputs, row_format=True)
    assert rows == b'{"predictions":[{"s":"null","y":[1.0,-Infinity]},{"s":"b","y":[NaN,2.0]}]}'
    columns = encode_predict(outputs, row_format=False)
    assert columns == b'{"outputs":{"s":["null","b"],"y":[[1.0,-Infinity],[NaN,2.0]]}}'


def test_a_single_number_that_is_not_finite_is_written() -> None:
    assert encode_predict({"y": np.array(np.nan)}, row_format=False) == b'{"outputs":NaN}'


@pytest.mark.parametrize("digits", ["9" * 5000, "1e400"])
def test_a_number_too_large_for_a_float_is_refused(digits: str) -> None:
    with pytest.raises(BadRequest):
        parse_predict(b'{"instances": [%s]}' % digits.encode())


def test_bfloat16_is_written_as_the_number_it_is() -> None:
    assert written(y=np.array([1.5, np.inf]).astype(numpy_dtype("bfloat16"))) == {"predictions": [1.5, math.inf]}


def test_the_strict_reader_refuses_what_follows_a_value() -> None:
    assert parse_json(b" [1, NaN] ")[0] == 1
    with pytest.raises(BadRequest):
        parse_json(b"[1] x")
    with pytest.raises(BadRequest):
        parse_json(b"[NaN] x")


FLOATS = st.floats(width=32)
WHOLE = st.integers(-(2**31), 2**31 - 1)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=FLOATS), st.booleans())
def test_a_float32_written_and_read_is_the_same(array: np.ndarray, row_format: bool) -> None:
    again(array, row_format)


@pytest.mark.parametrize("dtype", ["float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool"])
@given(data=st.data(), row_format=st.booleans())
def test_numbers_written_and_read_are_the_same(dtype: str, data: st.DataObject, row_format: bool) -> None:
    again(data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=2))), row_format)


@given(st.lists(st.binary(), min_size=1), st.booleans())
def test_bytes_written_and_read_are_the_same(texts: list[bytes], row_format: bool) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts
    again(array, row_format, name="x_bytes")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_text_written_and_read_is_the_same(texts: list[str]) -> None:
    array = np.empty(len(texts), object)
    array[:] = [text.encode() for text in texts]
    again(array, row_format=True)


@given(st.lists(st.tuples(FLOATS, WHOLE), min_size=1))
def test_rows_of_two_tensors_written_and_read_are_the_same(rows: list[tuple[float, int]]) -> None:
    outputs = {"a": np.array([a for a, _ in rows], np.float32), "b": np.array([b for _, b in rows], np.int32)}
    body = encode_predict(outputs, row_format=True).replace(b'"predictions"', b'"instances"', 1)
    for name, array in read(body, TWO).items():
        assert array.dtype == outputs[name].dtype
        np.testing.assert_array_equal(array, outputs[name])


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_read_or_refused(body: bytes) -> None:
    try:
        read(body)
    except SluiceError as error:
        assert error.http_status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "x", "b64"]), inner),
)


@given(
    value=JSON, field=st.sampled_from(["instances", "inputs"]), dtype=st.sampled_from(["float32", "uint64", "string"])
)
def test_any_value_is_read_or_refused(value: Any, field: str, dtype: str) -> None:
    for inputs in ({"x": tensor("x", dtype)}, TWO):
        try:
            arrays = read(json.dumps({field: value}).encode(), inputs, any_shape=True)
        except SluiceError as error:
            assert error.http_status == 400
        else:
            assert arrays.keys() == inputs.keys()


def again(array: np.ndarray, row_format: bool, name: str = "x") -> None:
    """What `encode_predict` writes of an output is read as an input with the same values."""
    answer = encode_predict({name: array}, row_format=row_format)
    given, taken = (b'"predictions"', b'"instances"') if row_format else (b'"outputs"', b'"inputs"')
    body = answer.replace(given, taken, 1)
    dtype = "string" if array.dtype.hasobject else array.dtype.name
    back = read(body, {name: tensor(name, dtype, *array.shape[1:])})[name]
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist() or np.array_equal(back, array, equal_nan=True)


def test_base64_of_the_answer_is_the_standard_one() -> None:
    array = np.array([bytes(range(256))], object)
    assert base64.b64decode(written(y_bytes=array)["predictions"][0]["b64"], validate=True) == array[0]
