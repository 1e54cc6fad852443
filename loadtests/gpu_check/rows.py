"""Rows of a signature, drawn from a seed as its contract describes them, and batches of them as a gateway makes them.

It does not know models' weights, nor who answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import Contract, Signature, Tensor
from sluice.policy.tensors import numpy_dtype

Array = NDArray[Any]

_TAKE_STATES = ("step", "scan", "decode")
_LENGTHS = (16, 64)  # bounds of an axis for which the contract gives none
_LONGEST = 256
_PRINTABLE = 32, 127  # bytes of text
_WORDS = (b"one", b"of", b"these")


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One client's inputs and states, `[...]` each, and how long it is along each axis of no fixed size."""

    inputs: Mapping[str, Array]
    lengths: Mapping[str, int]


def free_axes(signature: Signature) -> tuple[str, ...]:
    """The axes along which rows differ, besides the batch's."""
    named = (axis.name for tensor in signature.inputs.values() for axis in tensor.axes[1:] if axis.size is None)
    return tuple(dict.fromkeys(named))


def bounds_of(signature: Signature) -> list[dict[str, int]]:
    """Lengths to which rows are padded: the least and the greatest of an axis; one without any where none differ."""
    given = {axis: signature.bounds.get(axis) or _LENGTHS for axis in free_axes(signature)}
    least = {axis: bounds[0] for axis, bounds in given.items()}
    greatest = {axis: max(bounds[0], *(b for b in (1, *bounds) if b <= _LONGEST)) for axis, bounds in given.items()}
    return [least] if least == greatest else [least, greatest]


def draw(contract: Contract, signature: Signature, lengths: Mapping[str, int], dice: np.random.Generator) -> Row:
    """A row of these lengths."""
    inputs = {}
    for name, tensor in signature.inputs.items():
        shape = tuple(lengths.get(axis.name, axis.size or 1) for axis in tensor.axes[1:])
        inputs[name] = _values(contract, tensor, shape, dice)
    if signature.kind in _TAKE_STATES:
        for state in signature.states:
            values = dice.normal(0, 0.3, state.shape) if "float" in state.dtype else np.zeros(state.shape)
            inputs[state.input] = values.astype(numpy_dtype(state.dtype))
    return Row(inputs, dict(lengths))


def _values(contract: Contract, tensor: Tensor, shape: tuple[int, ...], dice: np.random.Generator) -> Array:
    dtype = numpy_dtype(tensor.dtype)
    if tensor.dtype == "string":
        words = contract.document.get("example", {}).get("inputs", {}).get(tensor.name)
        words = [word.encode() for word in words] if isinstance(words, list) and words else _WORDS
        return np.array(dice.choice(np.array(words, object), shape), object)
    if dtype.kind in "iu":
        least, limit = _PRINTABLE if tensor.text else (0, len(contract.generation.tokens) if contract.generation else 2)
        return dice.integers(least, limit, shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    least, most = contract.recognition.range or (0.0, 1.0) if contract.recognition else (0.0, 1.0)
    return dice.uniform(least, most, shape).astype(dtype)


def batch(signature: Signature, rows: Sequence[Row], bounds: Mapping[str, int]) -> dict[str, Array]:
    """The model's inputs, `[rows, ...]`: each row in the corner, padding at its right, with lengths and masks."""
    states = rows[0].inputs.keys() - signature.inputs.keys()
    inputs = {name: np.stack([row.inputs[name] for row in rows]) for name in states}
    for name, tensor in signature.inputs.items():
        shape = tuple(bounds.get(axis.name, axis.size or 1) for axis in tensor.axes[1:])
        pad = tensor.pad.encode() if isinstance(tensor.pad, str) else tensor.pad
        inputs[name] = padded = np.full((len(rows), *shape), pad, numpy_dtype(tensor.dtype))
        for place, row in enumerate(rows):
            padded[(place, *map(slice, row.inputs[name].shape))] = row.inputs[name][()]  # a text, not an array of one
    along = {axis: np.array([row.lengths[axis] for row in rows], np.int32) for axis in free_axes(signature)}
    measures = dict(signature.length_inputs)
    if signature.lengths is not None:
        (measures["time"],) = (signature.lengths,)
    inputs |= {name: along[axis] for axis, name in measures.items()}
    for axis, name in signature.mask_inputs.items():
        inputs[name] = np.arange(bounds[axis]) < along[axis][:, np.newaxis]
    return inputs


def own(signature: Signature, outputs: Mapping[str, Array], place: int, row: Row) -> dict[str, Array]:
    """One row's outputs, `[1, ...]`, without padding."""
    found = {}
    for name, array in outputs.items():
        tensor = signature.outputs.get(name)
        axes = tensor.axes[1:] if tensor is not None else ()
        found[name] = array[(slice(place, place + 1), *(slice(row.lengths.get(axis.name)) for axis in axes))]
    return found


def difference(answer: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The largest |answer - expected| / max(1, |expected|); infinite where what is no number differs, or is missing."""
    largest = 0.0
    for name, right in expected.items():
        got = answer.get(name)
        if got is None or got.shape != right.shape:
            return float("inf")
        if right.dtype.kind not in "fV":  # V: bfloat16
            largest = largest if np.array_equal(got, right) else float("inf")
        elif right.size:
            wide, true = got.astype(np.float64), right.astype(np.float64)
            error = np.abs(wide - true) / np.maximum(1.0, np.abs(true))
            largest = max(largest, float(np.nan_to_num(error, nan=np.inf).max()))
    return largest
