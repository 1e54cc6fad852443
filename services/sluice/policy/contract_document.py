"""Reads the serving contract's JSON document (docs/contract.md), or says which field is wrong.

It does not know where the document came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

from sluice.policy.contract import (
    TIME,
    Axis,
    Contract,
    Generation,
    Kind,
    Scanning,
    Signature,
    State,
    Tensor,
    numpy_dtype,
)
from sluice.policy.contract_fields import ContractError, array_of, holds, object_of, signature_of, text_of, whole_of
from sluice.policy.contract_recognition import recognition_of
from sluice.policy.tensors import initial_row

__all__ = ["ContractError", "parse_contract"]

SCHEMA = 1
_RAGGED: Sequence[Kind] = ("sequences", "encode")
_STATED: Sequence[Kind] = ("step", "scan", "encode", "decode")
_STEPS_LIMIT = 1_000_000
_LENGTH_LIMIT = (1 << 31) - 1


def parse_contract(document: Any) -> Contract:
    """Read a contract's JSON document.

    Raises:
        ContractError: a field is missing, unknown in kind, or of the wrong form.
    """
    fields = object_of(document, "contract")
    schema = fields.get("schema")
    if schema != SCHEMA:
        raise ContractError(
            f"contract.schema: expected {SCHEMA}, got {schema!r}; export the model again or update Sluice"
        )
    named = object_of(fields.get("signatures"), "contract.signatures")
    signatures = {name: _signature(name, value) for name, value in named.items()}
    for name, value in named.items():
        if signatures[name].kind == "sequences" and "scan" in value:
            signatures[name] = replace(signatures[name], scanning=_scanning(name, value["scan"], signatures))
    for kinds in (("step", "scan"), ("encode", "decode")):
        _check_same_states([each for each in signatures.values() if each.kind in kinds])
    return Contract(
        summary=str(fields.get("summary", "")),
        signatures=signatures,
        document=fields,
        generation=_generation(fields["generation"], signatures) if "generation" in fields else None,
        recognition=recognition_of(fields["recognition"], signatures) if "recognition" in fields else None,
    )


def _generation(value: Any, signatures: Mapping[str, Signature]) -> Generation:
    where = "contract.generation"
    fields = object_of(value, where)
    encode, decode = (signature_of(fields, kind, where, signatures) for kind in ("encode", "decode"))
    input_, logits = text_of(fields, "input", where), text_of(fields, "logits", where)
    takes = {name: (tensor.dtype, len(tensor.axes)) for name, tensor in decode.inputs.items()}
    if takes != {input_: ("int32", 1)} or logits not in decode.outputs:
        raise ContractError(
            f"{where}: expected the only input of {decode.name}, int32 [batch], and an output; got {input_!r}, "
            f"{logits!r}"
        )
    tokens = array_of(fields.get("tokens"), f"{where}.tokens")
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise ContractError(f"{where}.tokens: expected the text of each token; got {tokens!r:.80}")
    start, end = (whole_of(fields.get(name), f"{where}.{name}", 0, len(tokens) - 1) for name in ("start", "end"))
    steps = whole_of(fields.get("max_steps"), f"{where}.max_steps", 1, _STEPS_LIMIT)
    return Generation(encode, decode, input_, logits, start, end, steps, tuple(tokens))


def _scanning(name: str, value: Any, signatures: Mapping[str, Signature]) -> Scanning:
    where = f"contract.signatures.{name}.scan"
    fields = object_of(value, where)
    whole, named = signatures[name], text_of(fields, "signature", where)
    if named not in signatures or signatures[named].kind != "scan":
        raise ContractError(f"{where}.signature: expected a signature of kind scan; got {named!r}")
    scan = signatures[named]
    ragged = [(axis.name, at) for each in whole.inputs.values() for at, axis in enumerate(each.axes) if axis.ragged]
    if set(ragged) != {(TIME, 1)}:
        raise ContractError(f"{where}: expected sequences whose one ragged axis is {TIME!r}, the second of an input")
    if bare := [each.name for each in scan.inputs.values() if not each.has_time or each.shape[1] is not None]:
        raise ContractError(f"{where}: expected a scan whose inputs have a time axis of any size; {bare[0]!r} has none")
    timed = [each for each in whole.outputs.values() if each.has_time]
    if still := [each.name for each in timed if each.name in scan.outputs and not scan.outputs[each.name].has_time]:
        raise ContractError(f"{where}: expected a scan that answers {still[0]!r} at each time step")
    for key, own, others in (("inputs", whole.inputs, scan.inputs), ("outputs", whole.outputs, scan.outputs)):
        if _row_forms(own) != _row_forms(others):
            raise ContractError(f"{where}: expected the {key} of {scan.name}, time apart; got {', '.join(own)}")
    chunk = fields.get("chunk")
    return Scanning(scan, None if chunk is None else whole_of(chunk, f"{where}.chunk", 0, _LENGTH_LIMIT))


def _row_forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """What tensors have at one time step, by name: dtype and shape."""
    return {name: (tensor.dtype, tensor.shape[2 if tensor.has_time else 1 :]) for name, tensor in tensors.items()}


def _check_same_states(signatures: Sequence[Signature]) -> None:
    """Steps and scans of one model go on from each other's state, and a decoder from its encoder's."""
    forms = {frozenset((state.name, state.dtype, state.shape) for state in each.states) for each in signatures}
    if len(forms) > 1:
        names = ", ".join(each.name for each in signatures)
        raise ContractError(f"contract.signatures: {names} must have the same states, by name, dtype and shape")


def _signature(name: str, value: Any) -> Signature:
    where = f"contract.signatures.{name}"
    fields = object_of(value, where)
    kind = _kind(fields.get("kind"), where)
    lengths = fields.get("lengths")
    if kind == "scan" and not isinstance(lengths, str):
        raise ContractError(f"{where}.lengths: a scan names its lengths input; got {lengths!r}")
    states = array_of(fields.get("states", []), f"{where}.states")
    if kind in _STATED and not states:
        raise ContractError(f"{where}.states: a {kind} has one state or more; got none")
    _check_names_differ(fields, states, lengths if kind == "scan" else None, where)
    signature = Signature(
        name=text_of({"calls": name, **fields}, "calls", where),
        kind=kind,
        inputs=_tensors(fields.get("inputs"), f"{where}.inputs"),
        outputs=_tensors(fields.get("outputs"), f"{where}.outputs"),
        states=tuple(_state(state, f"{where}.states[{i}]") for i, state in enumerate(states)),
        lengths=lengths if kind == "scan" else None,
    )
    if (kind in _RAGGED) != bool(signature.ragged_axes):
        raise ContractError(f"{where}.inputs: ragged axes are what sequences and encode have, and no other kind")
    return _ragged(signature, fields, where) if kind in _RAGGED else signature


def _check_names_differ(fields: Mapping[str, Any], states: list[Any], lengths: str | None, where: str) -> None:
    """The model takes inputs, states and lengths by name: no two can have one."""
    taken: list[Any] = [*object_of(fields.get("inputs"), f"{where}.inputs"), *([] if lengths is None else [lengths])]
    taken += [state.get("input") for state in states if isinstance(state, dict)]
    if twice := [name for name in taken if taken.count(name) > 1]:
        raise ContractError(f"{where}: expected names of their own for inputs, states and lengths; {twice[0]!r} is two")


def _ragged(signature: Signature, fields: Mapping[str, Any], where: str) -> Signature:
    """With what the contract says of its ragged axes."""
    known = {axis.name for axis in signature.ragged_axes}
    axes = [axis for tensor in signature.inputs.values() for axis in tensor.axes[1:]]
    if free := [axis.name for axis in axes if axis.size is None and not axis.ragged]:
        raise ContractError(f"{where}.inputs: expected axes that are ragged or have a size; {free[0]!r} is neither")
    lengths, masks, buckets = (
        object_of(fields.get(key, {}), f"{where}.{key}") for key in ("lengths", "masks", "buckets")
    )
    for key, given in (("lengths", lengths), ("masks", masks), ("buckets", buckets)):
        if unknown := given.keys() - known:
            raise ContractError(f"{where}.{key}: expected ragged axes, {', '.join(known)}; got {min(unknown)!r}")
    if missing := known - (lengths.keys() | masks.keys()):
        raise ContractError(f"{where}.lengths: expected an input for the lengths of {min(missing)!r}, or a mask")
    return replace(
        signature,
        length_inputs={axis: text_of(lengths, axis, f"{where}.lengths") for axis in lengths},
        mask_inputs={axis: text_of(masks, axis, f"{where}.masks") for axis in masks},
        bounds={axis: _bounds(value, f"{where}.buckets.{axis}") for axis, value in buckets.items()},
    )


def _bounds(value: Any, where: str) -> tuple[int, ...]:
    bounds = [whole_of(bound, where, 1, _LENGTH_LIMIT) for bound in array_of(value, where)]
    if not bounds or any(left >= right for left, right in pairwise(bounds)):
        raise ContractError(f"{where}: expected increasing lengths; got {value!r:.80}")
    return tuple(bounds)


def _kind(kind: Any, where: str) -> Kind:
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise ContractError(f"{where}.kind: expected one of {', '.join(get_args(Kind))}; got {kind!r}")


def _tensors(value: Any, where: str) -> dict[str, Tensor]:
    return {name: _tensor(name, tensor, f"{where}.{name}") for name, tensor in object_of(value, where).items()}


def _tensor(name: str, value: Any, where: str) -> Tensor:
    fields = object_of(value, where)
    axes = tuple(
        _axis(axis, f"{where}.axes[{i}]") for i, axis in enumerate(array_of(fields.get("axes"), f"{where}.axes"))
    )
    if not axes:
        raise ContractError(f"{where}.axes: the batch axis comes first; got none")
    dtype, text = _dtype(fields, where), fields.get("text")
    if text is not None and (text, dtype) not in (("utf-8", "int32"), ("words", "string")):
        raise ContractError(f"{where}.text: expected utf-8 for an int32 input, or words for strings; got {text!r:.80}")
    about = str(fields.get("meaning", "")), str(fields.get("unit", ""))
    return Tensor(
        name, dtype, axes, *about, _pad(fields.get("pad", "" if dtype == "string" else 0), dtype, where), text
    )


def _pad(value: Any, dtype: str, where: str) -> Any:
    if dtype == "string" and isinstance(value, str):
        return value.encode()
    if dtype != "string" and isinstance(value, int | float) and holds(numpy_dtype(dtype), value):
        return value
    raise ContractError(f"{where}.pad: expected a value of dtype {dtype}; got {value!r:.80}")


def _axis(value: Any, where: str) -> Axis:
    fields = object_of(value, where)
    size, ragged = _size(fields.get("size"), where), fields.get("ragged", False)
    if not isinstance(ragged, bool) or (ragged and size is not None):
        raise ContractError(f"{where}.ragged: expected true where there is no size; got {ragged!r:.80}")
    least = whole_of(fields.get("least", 1), f"{where}.least", 0, _LENGTH_LIMIT)
    return Axis(text_of(fields, "name", where), size, str(fields.get("meaning", "")), ragged, least)


def _size(size: Any, where: str) -> int | None:
    if size is None or (type(size) is int and size >= 0):
        return size
    raise ContractError(f"{where}.size: expected a whole number or nothing; got {size!r}")


def _state(value: Any, where: str) -> State:
    fields = object_of(value, where)
    shape = tuple(array_of(fields.get("shape"), f"{where}.shape"))
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ContractError(f"{where}.shape: a state's row has a fixed shape; got {list(shape)}")
    name, input_, output = (text_of(fields, key, where) for key in ("name", "input", "output"))
    dtype, initial = _dtype(fields, where), fields.get("initial", 0.0)
    try:
        initial_row(initial, shape, dtype)
    except (TypeError, ValueError, OverflowError):
        raise ContractError(
            f"{where}.initial: expected a number, or a nested list of shape {list(shape)}; got {initial!r:.80}"
        ) from None
    return State(name, input_, output, dtype, shape, initial)


def _dtype(fields: Mapping[str, Any], where: str) -> str:
    name = text_of(fields, "dtype", where)
    try:
        numpy_dtype(name)
    except TypeError:
        raise ContractError(f"{where}.dtype: expected a dtype such as float32, int64 or string; got {name!r}") from None
    return name
