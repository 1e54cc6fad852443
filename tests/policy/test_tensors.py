"""Values from clients: what becomes an array, and the sentence for everything that does not."""

from math import inf, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.policy.contract import Axis, Tensor
from sluice.policy.errors import (
    BadRequest,
    DtypeMismatch,
    EmptyInput,
    InputNotFinite,
    MissingInput,
    SequenceTooLong,
    ShapeMismatch,
    SluiceError,
    UnknownInput,
)
from sluice.policy.tensors import (
    bound_for,
    initial_row,
    padded,
    read_inputs,
    read_row,
    read_tensor,
    time_steps,
    uneven,
)

from .puppet import SCAN


def tensor(dtype: str = "float32", *sizes: int | None, name: str = "x") -> Tensor:
    return Tensor(name, dtype, tuple(Axis("time" if size is None else "feature", size) for size in sizes))


SERIES = Tensor("sst", "float32", (Axis("time"), Axis("feature", 1)), meaning="sea-surface temperature", unit="°C")


def refusal(value: Any, wanted: Tensor) -> SluiceError:
    with pytest.raises(SluiceError) as caught:
        read_tensor(value, wanted)
    return caught.value


# What is read


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.just(2)),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
)
def test_numbers_written_as_lists_come_back_exactly(array: np.ndarray) -> None:
    read = read_tensor(array.tolist(), tensor("float32", None, 2))
    assert read.dtype == np.float32
    assert np.array_equal(read, array)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ([1, 2], tensor("float64", 2), np.array([1.0, 2.0])),
        (3, tensor("float32"), np.float32(3)),
        ([1, 255], tensor("uint8", 2), np.array([1, 255], np.uint8)),
        ([-(2**63), 2**63 - 1], tensor("int64", 2), np.array([-(2**63), 2**63 - 1])),
        ([2**64 - 1], tensor("uint64", 1), np.array([2**64 - 1], np.uint64)),
        ([True, False], tensor("bool", 2), np.array([True, False])),
        ([1.5, 2], tensor("bfloat16", 2), np.array([1.5, 2], ml_dtypes.bfloat16)),
        ([1, 2], tensor("complex64", 2), np.array([1, 2], np.complex64)),
        ([1e-60], tensor("float32", 1), np.zeros(1, np.float32)),
        ([[]], tensor("float32", None, 0), np.zeros((1, 0), np.float32)),
    ],
)
def test_a_value_becomes_an_array_of_the_models_dtype(value: Any, wanted: Tensor, expected: np.ndarray) -> None:
    read = read_tensor(value, wanted)
    assert read.dtype == expected.dtype
    assert np.array_equal(read, expected)
    assert read.shape == expected.shape


def test_text_becomes_utf8_bytes() -> None:
    assert read_tensor([["ä", "b"]], tensor("string", None, 2)).tolist() == [["ä".encode(), b"b"]]
    assert read_tensor("ä", tensor("string")).item() == "ä".encode()


def test_bytes_stay_as_they_are_trailing_zeros_included() -> None:
    assert read_tensor([b"\xff\0", "a\0"], tensor("string", 2)).tolist() == [b"\xff\0", b"a\0"]


def test_no_text_at_all_keeps_its_shape() -> None:
    assert read_tensor([[], []], tensor("string", None, 0)).shape == (2, 0)


def test_half_a_surrogate_pair_is_refused_unless_it_stands_for_a_byte() -> None:
    assert read_tensor("\udcff", tensor("string")).item() == b"\xff"
    with pytest.raises(DtypeMismatch, match="half of a surrogate pair"):
        read_tensor("\ud800", tensor("string"))


@pytest.mark.parametrize("value", [nan, inf, 1e39])
def test_where_infinity_is_welcome_it_passes(value: float) -> None:
    assert not np.isfinite(read_tensor([value], tensor("float32", 1), finite=False)).any()


def test_an_axis_of_any_size_may_be_empty_and_is_left_to_who_needs_more() -> None:
    assert read_tensor([], tensor("float32", None)).shape == (0,)


def test_any_shape_is_kept_where_somebody_else_judges_it() -> None:
    for value in ([[1, 2, 3]], 4, [], [[], []]):
        array = read_tensor(value, SERIES, any_shape=True)
        assert (array.shape, array.dtype) == (np.shape(value), np.float32)
    assert read_tensor([["a"]], tensor("string", 2), any_shape=True).tolist() == [[b"a"]]


# What is refused


@pytest.mark.parametrize(
    ("value", "came"),
    [(1.0, "[]"), ([1.0, 2.0], "[2]"), ([[1.0, 2.0]], "[1, 2]"), ([[[1.0]]], "[1, 1, 1]")],
)
def test_another_shape_is_told_the_expected_axes_in_words_and_what_came(value: Any, came: str) -> None:
    error = refusal(value, SERIES)
    assert type(error) is ShapeMismatch
    assert error.message == (
        f"Input 'sst' takes float32 [time, feature=1], sea-surface temperature in °C; a value of shape {came} came."
    )
    assert error.details["expected"] == [None, 1]
    assert str(error.details["got"]) == came


@pytest.mark.parametrize(("axis", "what"), [("time", "time step"), ("batch", "row"), ("word", "word")])
def test_a_value_that_lacks_its_first_axis_is_told_to_be_in_a_list(axis: str, what: str) -> None:
    wanted = Tensor("x", "float32", (Axis(axis), Axis("feature", 2)))
    assert refusal([1.0, 2.0], wanted).message.endswith(f"[2] came. Give a list of such values, one for each {what}.")
    assert refusal([1.0], wanted).message.endswith("[1] came.")


def test_text_in_lists_of_unequal_length_is_refused() -> None:
    assert type(refusal([["a"], ["b", "c"]], tensor("string", 2, 1))) is ShapeMismatch
    assert type(refusal([["a"], "b"], tensor("string", None))) in {ShapeMismatch, DtypeMismatch}


@pytest.mark.parametrize("value", [[[1.0], [2.0, 3.0]], [[1.0], 2.0]])
def test_lists_of_unequal_length_are_a_shape_mismatch(value: Any) -> None:
    error = refusal(value, SERIES)
    assert type(error) is ShapeMismatch
    assert "takes float32 [time, feature=1]" in error.message
    assert "; part 1 " in error.message
    assert error.message.endswith(" where part 0 has 1 value. Lists beside each other have the same length.")


@pytest.mark.parametrize(
    ("size", "advice"),
    [(2, "Lists beside each other have the same length."), (None, "send those of another length in a request of")],
)
def test_rows_of_different_lengths_are_told_what_to_do_where_lengths_are_free(size: int | None, advice: str) -> None:
    error = uneven([[1, 2], [3]], tensor("float32", None, size), "row")
    assert "; row 1 has 1 value where row 0 has 2 values. " in error.message
    assert advice in error.message


def test_lists_that_are_nested_too_deeply_are_a_shape_mismatch() -> None:
    value: Any = 1.0
    for _ in range(100):
        value = [value]
    assert type(refusal(value, SERIES)) is ShapeMismatch


@pytest.mark.parametrize(("value", "came"), [([], "[0]"), ([[]], "[1, 0]")])
def test_an_empty_value_says_so(value: Any, came: str) -> None:
    error = refusal(value, SERIES)
    assert type(error) is EmptyInput
    assert "takes float32 [time, feature=1]" in error.message
    assert f"an empty value of shape {came} came" in error.message


@pytest.mark.parametrize(
    ("value", "dtype", "came"),
    [
        (["a"], "float32", "text"),
        ([True], "float32", "true or false"),
        ([None], "float32", "null"),
        ([{}], "float32", "an object"),
        ([b"a"], "float32", "text"),
        (np.array([b"a"], object), "float32", "text"),
        (np.array([1, "a"], object), "float32", "numbers mixed with other things"),
        ([1.5], "uint8", "fractions"),
        ([1.0], "int32", "floating-point numbers"),
        (np.ones(1, np.float32), "int32", "floating-point numbers"),
        ([nan], "int32", "NaN or infinity"),
        ([1e20], "int32", "a number of more than 64 bits"),
        ([1 << 70], "int64", "a number of more than 64 bits"),
        ([True], "int32", "true or false"),
        ([1], "bool", "whole numbers"),
        ([1], "string", "something else than text"),
        ([None], "string", "something else than text"),
    ],
)
def test_another_kind_of_value_is_told_what_is_wanted_and_what_came(value: Any, dtype: str, came: str) -> None:
    error = refusal(value, tensor(dtype, len(value)))
    assert type(error) is DtypeMismatch
    assert f"takes {dtype} [feature={len(value)}]; {came} came." in error.message
    assert error.details == {"expected": dtype}


@pytest.mark.parametrize(("value", "dtype"), [(256, "uint8"), (-1, "uint8"), (2**31, "int32"), (2**63, "int64")])
def test_a_whole_number_that_the_dtype_cannot_hold_is_refused_not_wrapped(value: int, dtype: str) -> None:
    error = refusal([value], tensor(dtype, 1))
    assert type(error) is DtypeMismatch
    assert f"a number came that {dtype} cannot hold" in error.message


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (nan, "float32"),
        (inf, "float64"),
        (-inf, "bfloat16"),
        (1e39, "float32"),
        (70_000, "float16"),
        (1e39, "bfloat16"),
    ],
)
def test_nan_infinity_and_numbers_that_would_become_infinite_are_refused(value: float, dtype: str) -> None:
    error = refusal([value], tensor(dtype, 1))
    assert type(error) is InputNotFinite
    assert f"takes finite numbers that {dtype} can hold" in error.message


# Names


def test_inputs_are_read_by_name_in_the_models_order() -> None:
    tensors = {"a": tensor("float32", 1, name="a"), "b": tensor("int32", name="b")}
    read = read_inputs({"b": 2, "a": [1]}, tensors)
    assert list(read) == ["a", "b"]
    assert read["a"].tolist() == [1.0]


def test_a_bare_value_stands_for_the_only_input() -> None:
    assert read_inputs([1, 2], {"x": tensor("float32", 2)})["x"].tolist() == [1, 2]


def test_a_bare_value_for_two_inputs_names_them() -> None:
    with pytest.raises(BadRequest, match=r"has 2 inputs: give an object with 'a', 'b', not a bare value") as caught:
        read_inputs([1], {"a": tensor(name="a"), "b": tensor(name="b")})
    assert type(caught.value) is BadRequest


def test_an_unknown_input_is_named_beside_those_there_are() -> None:
    with pytest.raises(UnknownInput, match="There is no input 'y', 'z'; this model has 'x'"):
        read_inputs({"x": 1, "y": 2, "z": 3}, {"x": tensor()})


def test_a_missing_input_says_what_it_takes() -> None:
    with pytest.raises(MissingInput, match=r"^Input 'sst' is missing; it takes float32 \[time, feature=1\], "):
        read_inputs({}, {"sst": SERIES})


# Time


def test_a_scan_has_as_many_steps_as_all_its_inputs() -> None:
    assert time_steps({"a": np.zeros((3, 1)), "b": np.zeros(3)}, SCAN) == 3


def test_inputs_of_different_lengths_are_named_with_their_lengths() -> None:
    with pytest.raises(ShapeMismatch, match=r"same number of time steps; 'a' has 3, 'b' has 2\. Send"):
        time_steps({"a": np.zeros((3, 1)), "b": np.zeros(2)}, SCAN)


def test_a_scan_of_nothing_is_refused_and_says_what_it_takes() -> None:
    with pytest.raises(EmptyInput, match=r"needs one time step or more; it takes x float64 \[time, feature=2\]"):
        time_steps({"x": np.zeros((0, 2))}, SCAN)


def test_padding_repeats_the_last_time_step_and_adds_the_batch_axis() -> None:
    assert padded({"x": np.array([[1], [2]])}, 4)["x"].tolist() == [[[1], [2], [2], [2]]]
    assert padded({"x": np.array([[1], [2]])}, 2)["x"].tolist() == [[[1], [2]]]


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_bound_is_the_next_power_of_two_and_never_above_the_limit(steps: int, limit: int) -> None:
    if steps > limit:
        with pytest.raises(SequenceTooLong, match=f"up to {limit} time steps at once; {steps} came") as caught:
            bound_for(steps, limit)
        assert caught.value.details == {"limit": limit}
    else:
        bound = bound_for(steps, limit)
        assert steps <= bound <= limit
        assert bound == limit or (bound < 2 * steps and bound.bit_count() == 1)


@pytest.mark.parametrize(
    ("initial", "shape", "row"),
    [(0.5, (2,), [0.5, 0.5]), ([1, 2], (2,), [1.0, 2.0]), (0, (), 0.0), ([[1], [2]], (2, 1), [[1.0], [2.0]])],
)
def test_an_initial_state_is_a_number_or_a_row(initial: Any, shape: tuple[int, ...], row: Any) -> None:
    read = initial_row(initial, shape, "float32")
    assert (read.dtype, read.tolist()) == (np.float32, row)


@pytest.mark.parametrize(("given", "hinted"), [([[1.0, 2.0]], True), ([1.0, 2.0, 3.0], False), ([[1.0]], False)])
def test_a_row_with_a_batch_axis_gets_the_hint_that_there_is_none(given: Any, hinted: bool) -> None:
    row = {"x": Tensor("x", "float32", (Axis("feature", 2),))}
    with pytest.raises(ShapeMismatch) as told:
        read_row(given, row, "Leave the batch axis out.")
    assert told.value.message.endswith(" Leave the batch axis out.") == hinted
    assert read_row([1.0, 2.0], row, "")["x"].tolist() == [1, 2]
