"""Reads signatures out of TensorFlow's own metadata, from our messages and from the official ones alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sluice.policy.contract import Axis, BatchAxis, Contract, Signature, Tensor
from sluice.wire.tensors import DTYPE_NAMES

INITIALIZER = "__saved_model_init_op"  # what TensorFlow lists of itself beside the signatures that can be called


def plain_signature(name: str, described: Any) -> Signature:
    """A signature as TensorFlow's metadata describes it: rows of what shape it says."""
    tensors = [*described.inputs.values(), *described.outputs.values()]
    batches = bool(described.inputs) and all(map(_may_batch, tensors))
    axis: BatchAxis = "assumed" if batches else "none"
    return Signature(name, "rows", _tensors(described.inputs), _tensors(described.outputs), batch_axis=axis)


def named_as(contract: Contract, plain: Mapping[str, Signature]) -> dict[str, Signature]:
    """Signatures that TensorFlow's metadata describes, with their axes called as the contract calls them."""
    told = {each.name: each for each in contract.signatures.values()}
    return {name: _named_as(told[name], each) if name in told else each for name, each in plain.items()}


def _named_as(told: Signature, plain: Signature) -> Signature:
    inputs, outputs = _renamed(plain.inputs, told.inputs), _renamed(plain.outputs, told.outputs)
    return replace(plain, inputs=inputs, outputs=outputs)


def _renamed(tensors: Mapping[str, Tensor], told: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name in told and len(told[name].axes) == len(tensor.axes):
            names = (axis.name for axis in told[name].axes)
            axes = tuple(replace(axis, name=name) for axis, name in zip(tensor.axes, names, strict=True))
            found[name] = replace(tensor, axes=axes)
    return found


def _may_batch(info: Any) -> bool:
    """Whether a tensor's first axis can be the batch: there is one, and its size is open."""
    shape = info.tensor_shape
    return not shape.unknown_rank and len(shape.dim) > 0 and shape.dim[0].size < 0


def can_be_called(described: Any) -> bool:
    """Whether all inputs have a known rank and a dtype that can cross the wire."""
    return all(info.dtype in DTYPE_NAMES and not info.tensor_shape.unknown_rank for info in described.inputs.values())


def tells_contract(described: Any) -> bool:
    """Whether a signature named `contract` answers with the serving contract; a model may have one of its own."""
    return described is not None and described.inputs.keys() == {"probe"}


def _tensors(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(name, DTYPE_NAMES.get(info.dtype, "unknown"), _axes(shape), ranked=not shape.unknown_rank)
        for name, info, shape in sorted((name, info, info.tensor_shape) for name, info in infos.items())
    }


def _axes(shape: Any) -> tuple[Axis, ...]:
    names = ["batch", *(f"axis {i}" for i in range(1, len(shape.dim)))]
    return tuple(Axis(name, None if dim.size < 0 else dim.size) for name, dim in zip(names, shape.dim, strict=False))
