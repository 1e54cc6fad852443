"""Turns values that a client wrote down into arrays of the shape and dtype that a model expects, or says what is wrong.

It does not know JSON, transports or batches: values are numbers, strings and nested lists.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import Signature, Tensor, fits, numpy_dtype
from sluice.policy.errors import (
    BadRequest,
    DtypeMismatch,
    EmptyInput,
    InputNotFinite,
    MissingInput,
    SequenceTooLong,
    ShapeMismatch,
    UnknownInput,
)
from sluice.policy.nested import unevenness

Array = NDArray[Any]

# The kinds of numpy dtype (`np.dtype.kind`) that may be read as a tensor's dtype without changing a value's meaning.
_READ_AS = {"f": "fiuV", "V": "fiuV", "c": "fiuVc", "i": "iu", "u": "iu", "b": "b"}
# For what came, by its kind.
_WORDS = {"U": "text", "S": "text", "b": "true or false", "i": "whole numbers", "u": "whole numbers"}
_MORE_BITS = "a number of more than 64 bits"


def read_inputs(value: Any, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """The arrays of an object by input name, or of a bare value where the model has one input.

    Raises:
        MissingInput, UnknownInput: the names do not match; besides all that `read_tensor` raises.
    """
    if not isinstance(value, dict):
        if len(tensors) != 1:
            raise BadRequest(
                f"This model has {len(tensors)} inputs: give an object with {_names(tensors)}, not a bare value."
            )
        value = dict.fromkeys(tensors, value)
    if value.keys() != tensors.keys():
        _refuse_names(value, tensors)
    return {name: read_tensor(value[name], tensor) for name, tensor in tensors.items()}


def read_row(value: Any, row: Mapping[str, Tensor], hint: str) -> dict[str, Array]:
    """As `read_inputs`, for one session: who sends a batch axis gets the `hint` that there is none."""
    try:
        return read_inputs(value, row)
    except ShapeMismatch as error:
        got, expected = error.details.get("got", ()), error.details.get("expected", ())
        if len(got) == len(expected) + 1 and fits(got[1:], expected):
            raise ShapeMismatch(f"{error.message} {hint}", **error.details) from None
        raise


def read_tensor(
    value: Any, tensor: Tensor, *, finite: bool = True, any_shape: bool = False, read_as: str | None = None
) -> Array:
    """`value` as an array of `tensor`'s dtype, or of another one, `read_as`, and shape; strings are `str` or `bytes`.

    With `finite`, NaN and infinity are refused; with `any_shape` it keeps the shape it has.

    Raises:
        ShapeMismatch, DtypeMismatch, EmptyInput, InputNotFinite: says the expected axes, and what came.
    """
    dtype = numpy_dtype(read_as or tensor.dtype)
    try:
        array = np.array(value, object) if dtype.hasobject else np.asarray(value)
    except ValueError:
        raise uneven(value, tensor, "part") from None
    if not any_shape:
        _check_shape(array, tensor)
    if dtype.hasobject:
        return _encoded(array, tensor)
    _check_kind(array, dtype, tensor)
    return _cast(array, dtype, tensor, finite=finite)


def uneven(value: Any, tensor: Tensor, item: str) -> ShapeMismatch:
    """What lists of items, rows or parts of one, are refused with that are no array."""
    advice = "Lists beside each other have the same length."
    if item == "row" and any(axis.size is None for axis in tensor.axes[1:]):
        advice = (
            "Here all rows of a request have one length: send those of another length in a request of their own, or "
            "fill them up as in training."
        )
    return ShapeMismatch(f"Input {tensor.name!r} takes {tensor}; {unevenness(value, item)}. {advice}")


def counted(counts: Mapping[str, int | None]) -> str:
    """How many of something each input has, as a part of a sentence; None: it is a single value."""
    return ", ".join(
        f"{name!r} is a single value" if count is None else f"{name!r} has {count}" for name, count in counts.items()
    )


def initial_row(initial: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """A state's initial row of `shape`, from the number or nested list that the contract gives."""
    return np.broadcast_to(np.asarray(initial, numpy_dtype(dtype)), shape)


def time_steps(inputs: Mapping[str, Array], signature: Signature) -> int:
    """How many time steps a scan's inputs `[time, ...]` hold.

    Raises:
        EmptyInput: none.
        ShapeMismatch: inputs of different lengths.
    """
    lengths: dict[str, int] = {name: array.shape[0] for name, array in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ShapeMismatch(
            f"All inputs of a scan have the same number of time steps; {counted(lengths)}. Send the steps that all of "
            "them have, and keep the rest for the next scan."
        )
    steps = next(iter(lengths.values()))
    if steps == 0:
        rows = "; ".join(f"{name} {tensor.row()}" for name, tensor in signature.inputs.items())
        raise EmptyInput(f"A scan needs one time step or more; it takes {rows}.")
    return steps


def padded(inputs: Mapping[str, Array], bound: int) -> dict[str, Array]:
    """Each `[time, ...]` as one row `[1, bound, ...]`, filled up by repeating the last time step, which is valid."""
    return {
        name: np.concatenate([array, np.repeat(array[-1:], bound - len(array), axis=0)])[np.newaxis]
        for name, array in inputs.items()
    }


def bound_for(steps: int, limit: int) -> int:
    """How many time steps a sequence of `steps` is padded to: the next power of two, `limit` at most.

    Raises:
        SequenceTooLong: more than `limit`.
    """
    if steps > limit:
        raise SequenceTooLong(
            f"A scan takes up to {limit} time steps at once; {steps} came. Send it in parts, or raise scan_steps.",
            limit=limit,
        )
    return min(1 << (steps - 1).bit_length(), limit)


def _names(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(map(repr, tensors))


def _refuse_names(value: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    unknown = [name for name in value if name not in tensors]
    if unknown:
        raise UnknownInput(f"There is no input {', '.join(map(repr, unknown))}; this model has {_names(tensors)}.")
    raise missing_inputs({name: tensor for name, tensor in tensors.items() if name not in value})


def missing_inputs(missing: Mapping[str, Tensor]) -> MissingInput:
    return MissingInput(" ".join(f"Input {name!r} is missing; it takes {tensor}." for name, tensor in missing.items()))


def _check_shape(array: Array, tensor: Tensor) -> None:
    wanted = tensor.shape
    if array.shape == wanted or fits(array.shape, wanted):
        return
    if array.size == 0 and 0 not in wanted:
        raise EmptyInput(f"Input {tensor.name!r} takes {tensor}; an empty value of shape {list(array.shape)} came.")
    raise ShapeMismatch(
        f"Input {tensor.name!r} takes {tensor}; a value of shape {list(array.shape)} came.{_lacking(array, tensor)}",
        expected=list(wanted),
        got=list(array.shape),
    )


def _lacking(array: Array, tensor: Tensor) -> str:
    """What to do about a value that is as it should be but for its first axis."""
    if not tensor.shape or not fits(array.shape, tensor.shape[1:]):
        return ""
    each = tensor.axes[0].name
    what = {"batch": "row", "time": "time step"}.get(each, each)
    return f" Give a list of such values, one for each {what}."


def _check_kind(array: Array, dtype: np.dtype[Any], tensor: Tensor) -> None:
    if array.dtype.kind in _READ_AS[dtype.kind] or array.size == 0:
        return
    raise DtypeMismatch(f"Input {tensor.name!r} takes {tensor}; {_what(array)} came.", expected=tensor.dtype)


def _what(array: Array) -> str:
    """What kind of values came, as their sender sees them."""
    if array.dtype.hasobject:
        return _of_objects(set(map(type, array.ravel().tolist())))
    if array.dtype.kind != "f":
        return _WORDS.get(array.dtype.kind, array.dtype.name)
    if not np.isfinite(array).all():
        return "NaN or infinity"
    if (array % 1).any():
        return "fractions"
    return _MORE_BITS if (np.abs(array) >= 2.0**64).any() else "floating-point numbers"


def _of_objects(kinds: set[type]) -> str:
    if kinds <= {str, bytes}:
        return "text"
    if type(None) in kinds:
        return "null"
    if dict in kinds:
        return "an object"
    return _MORE_BITS if kinds == {int} else "numbers mixed with other things"


def _encoded(array: Array, tensor: Tensor) -> Array:
    """Text as UTF-8 `bytes`, in an object array of the same shape."""
    texts = array.ravel().tolist()
    if not all(isinstance(text, str | bytes) for text in texts):
        raise DtypeMismatch(f"Input {tensor.name!r} takes {tensor}; something else than text came.", expected="string")
    encoded = np.empty(len(texts), object)
    try:
        encoded[:] = [text.encode(errors="surrogateescape") if isinstance(text, str) else text for text in texts]
    except UnicodeEncodeError:
        raise DtypeMismatch(f"Input {tensor.name!r} takes {tensor}; half of a surrogate pair came.") from None
    return encoded.reshape(array.shape)


def _cast(array: Array, dtype: np.dtype[Any], tensor: Tensor, *, finite: bool) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "fcV":
        if finite and not np.isfinite(cast).all():
            raise InputNotFinite(
                f"Input {tensor.name!r} takes finite numbers that {tensor.dtype} can hold; NaN, infinity or a larger "
                "number came."
            )
    elif dtype.kind in "iu" and not np.array_equal(cast, array):
        raise DtypeMismatch(f"Input {tensor.name!r} takes {tensor}; a number came that {tensor.dtype} cannot hold.")
    return cast
