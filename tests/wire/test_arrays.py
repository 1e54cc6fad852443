"""The codec of our own messages: every dtype and shape goes over and back, and what does not fit is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sluice.policy.contract import numpy_dtype
from sluice.wire.arrays import read_array, read_arrays, write_array
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.tensors import DTYPE_NUMBERS
from tests.wire.examples import same, values

SHAPES = [(6,), (1, 6), (2, 3), (3, 1, 2)]


def written(array: np.ndarray) -> messages.Tensor:
    message = messages.Tensor()
    write_array(message, array)
    return messages.Tensor.FromString(message.SerializeToString())


def tensor(dtype: str = "float32", shape: tuple[int, ...] = (2,), **fields: object) -> messages.Tensor:
    return messages.Tensor(dtype=dtype, shape=shape, **fields)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DTYPE_NUMBERS)
def test_every_dtype_goes_over_and_back_bit_for_bit(name: str, shape: tuple[int, ...]) -> None:
    array = values(name).reshape(shape)
    message = written(array)
    assert (message.dtype, list(message.shape)) == (name, list(shape))
    same(read_array(message), array)


@pytest.mark.parametrize("name", DTYPE_NUMBERS)
def test_a_scalar_has_no_axes(name: str) -> None:
    array = values(name)[1:2].reshape(())
    message = written(array)
    assert list(message.shape) == []
    same(read_array(message), array)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3, 4)], ids=str)
@pytest.mark.parametrize("name", DTYPE_NUMBERS)
def test_an_array_of_no_values_keeps_its_shape(name: str, shape: tuple[int, ...]) -> None:
    same(read_array(written(np.empty(shape, numpy_dtype(name)))), np.empty(shape, numpy_dtype(name)))


def test_values_lie_row_by_row_whatever_their_order_in_memory() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert written(np.asfortranarray(array)).data == written(array).data == bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])
    same(read_array(written(array.T)), array.T)
    same(read_array(written(array[:, ::2])), array[:, ::2])


@given(array=hnp.arrays(st.sampled_from([np.float32, np.int64, np.bool_]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_array_goes_over_and_back(array: np.ndarray) -> None:
    same(read_array(written(array)), array)


@given(st.lists(st.binary()))
def test_any_strings_go_over_and_back(strings: list[bytes]) -> None:
    array = np.empty(len(strings), object)
    array[:] = strings
    same(read_array(written(array)), array)


def test_numbers_are_read_where_they_lie() -> None:
    array = read_array(written(np.zeros(4, np.float32)))
    assert not array.flags.owndata


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (tensor("floaty"), "dtype 'floaty' is none of float32, float64, int32"),
        (tensor(""), "dtype '' is none of"),
        (tensor("object"), "dtype 'object' is none of"),
        (tensor(shape=(-1,), data=b"\0" * 4), r"shape \[-1\] has a negative size"),
        (tensor(shape=(-2, -2), data=b"\0" * 16), "has a negative size"),
        (tensor(data=b"\0" * 7), r"shape \[2\] of float32 takes 8 bytes; got 7"),
        (tensor(), "takes 8 bytes; got 0"),
        (tensor(shape=(), data=b""), r"shape \[\] of float32 takes 4 bytes; got 0"),
        (tensor(shape=(0,), data=b"\0"), "takes 0 bytes; got 1"),
        (tensor(shape=(1 << 40, 1 << 40)), "bytes; got 0"),
        (tensor(strings=[b"a", b"b"]), "takes 8 bytes; got 0"),
        (tensor("string", strings=[b"a"]), r"shape \[2\] takes 2 strings; got 1"),
        (tensor("string", shape=(), strings=[]), r"shape \[\] takes 1 strings; got 0"),
        (tensor("string", shape=(1 << 40,)), "strings; got 0"),
        (tensor("string", data=b"ab"), "takes 2 strings; got 0"),
    ],
)
def test_what_does_not_fit_is_told(message: messages.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_array(message)


def test_arrays_are_read_by_name() -> None:
    arrays = read_arrays({"a": written(np.array([1, 2])), "b": written(np.array(True))})
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [1, 2], "b": True}
    assert read_arrays({}) == {}


def test_the_name_of_an_array_that_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match=r"^'b': shape \[2\] of float32 takes 8 bytes; got 0$"):
        read_arrays({"a": written(np.array([1, 2])), "b": tensor()})
