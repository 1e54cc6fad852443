"""The serving contract: what a model version says about how it wants to be served.

It reads the JSON form (docs/contract.md); it does not know where that came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
TIME = "time"  # the name of the axis along which a scan goes
Kind = Literal["rows", "step", "scan"]


class ContractError(ValueError):
    """A contract that cannot be read: the sentence names the field, what was expected and what came."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a dtype name; strings are object arrays of `bytes`.

    Raises:
        TypeError: no such dtype.
    """
    if name == "string":
        return np.dtype(object)
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def fits(array: NDArray[Any], shape: Sequence[int | None]) -> bool:
    """Whether `array` has `shape`, where None stands for any size."""
    return array.ndim == len(shape) and all(
        size is None or size == given for size, given in zip(shape, array.shape, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor; `size` is None where a request may choose it."""

    name: str
    size: int | None = None
    meaning: str = ""

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}={self.size}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output. `axes` starts with the batch axis; a signature read from metadata may not know them."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]
    meaning: str = ""
    unit: str = ""

    @property
    def shape(self) -> tuple[int | None, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def has_time(self) -> bool:
        """Whether its second axis is time, so that a scan gives one row per time step."""
        return len(self.axes) > 1 and self.axes[1].name == TIME

    def shape_of(self, rows: int, time: int | None) -> tuple[int | None, ...]:
        """The shape for a batch of `rows` rows and, where there is a time axis, `time` steps."""
        return (rows, time, *self.shape[2:]) if self.has_time else (rows, *self.shape[1:])

    def row(self) -> "Tensor":
        """The same tensor without its batch axis: what one client sends or gets."""
        return Tensor(self.name, self.dtype, self.axes[1:], self.meaning, self.unit)

    def __str__(self) -> str:
        """For people, such as `float32 [time, feature=1], sea-surface temperature in °C`."""
        meaning = f", {self.meaning}" if self.meaning else ""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.dtype} [{', '.join(map(str, self.axes))}]{meaning}{unit}"


@dataclass(frozen=True, slots=True)
class State:
    """One tensor of recurrent state: `input` takes it, `output` gives the next one; `shape` has no batch axis."""

    name: str
    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    initial: Any = 0.0  # a number, or a nested list of `shape`


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call the model. `inputs` and `outputs` leave out states and `lengths`."""

    name: str
    kind: Kind
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    states: tuple[State, ...] = ()
    lengths: str | None = None

    def unlike_promised(self, outputs: Mapping[str, NDArray[Any]], rows: int, time: int | None) -> list[str]:
        """The outputs, new states included, that are missing or not as promised for a batch of this size.

        `rows` counts the batch's rows and `time` the time steps of a scan.
        """
        states = {state.output: ((rows, *state.shape), state.dtype) for state in self.states}
        visible = {name: (tensor.shape_of(rows, time), tensor.dtype) for name, tensor in self.outputs.items()}
        return [
            name
            for name, (shape, dtype) in (visible | states).items()
            if name not in outputs or not fits(outputs[name], shape) or outputs[name].dtype != numpy_dtype(dtype)
        ]

    def __str__(self) -> str:
        """For people: what goes in and what comes out, axis by axis."""
        given = "; ".join(f"{tensor.name} {tensor}" for tensor in self.inputs.values())
        gotten = "; ".join(f"{tensor.name} {tensor}" for tensor in self.outputs.values())
        return f"takes {given} and gives {gotten}"


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything the gateway knows about one model version's signatures. `document` is the JSON it was read from."""

    summary: str
    signatures: Mapping[str, Signature]
    document: Mapping[str, Any]
    step: Signature | None = field(init=False)
    scan: Signature | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", self._first("step"))
        object.__setattr__(self, "scan", self._first("scan"))

    @property
    def kinds(self) -> list[str]:
        """What a client can do with the model, in the API's words."""
        kinds = {signature.kind for signature in self.signatures.values()}
        return [*(["session"] if "step" in kinds else []), *(["rows"] if "rows" in kinds else [])]

    def _first(self, kind: Kind) -> Signature | None:
        return next((signature for signature in self.signatures.values() if signature.kind == kind), None)


def parse_contract(document: Any) -> Contract:
    """Read a contract's JSON document.

    Raises:
        ContractError: a field is missing, unknown in kind, or of the wrong form.
    """
    fields = _object(document, "contract")
    schema = fields.get("schema")
    if schema != SCHEMA:
        raise ContractError(
            f"contract.schema: expected {SCHEMA}, got {schema!r}; export the model again or update Sluice"
        )
    named = _object(fields.get("signatures"), "contract.signatures")
    signatures = {name: _signature(name, value) for name, value in named.items()}
    _check_same_states([each for each in signatures.values() if each.states])
    return Contract(summary=str(fields.get("summary", "")), signatures=signatures, document=fields)


def _check_same_states(signatures: Sequence[Signature]) -> None:
    """Steps and scans of one model go on from each other's state."""
    forms = {frozenset((state.name, state.dtype, state.shape) for state in each.states) for each in signatures}
    if len(forms) > 1:
        names = ", ".join(each.name for each in signatures)
        raise ContractError(f"contract.signatures: {names} must have the same states, by name, dtype and shape")


def _signature(name: str, value: Any) -> Signature:
    where = f"contract.signatures.{name}"
    fields = _object(value, where)
    kind = _kind(fields.get("kind"), where)
    lengths = fields.get("lengths")
    if kind == "scan" and not isinstance(lengths, str):
        raise ContractError(f"{where}.lengths: a scan names its lengths input; got {lengths!r}")
    states = _array(fields.get("states", []), f"{where}.states")
    if kind != "rows" and not states:
        raise ContractError(f"{where}.states: a {kind} has one state or more; got none")
    return Signature(
        name=name,
        kind=kind,
        inputs=_tensors(fields.get("inputs"), f"{where}.inputs"),
        outputs=_tensors(fields.get("outputs"), f"{where}.outputs"),
        states=tuple(_state(state, f"{where}.states[{i}]") for i, state in enumerate(states)),
        lengths=lengths,
    )


def _kind(kind: Any, where: str) -> Kind:
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise ContractError(f"{where}.kind: expected one of {', '.join(get_args(Kind))}; got {kind!r}")


def _tensors(value: Any, where: str) -> dict[str, Tensor]:
    return {name: _tensor(name, tensor, f"{where}.{name}") for name, tensor in _object(value, where).items()}


def _tensor(name: str, value: Any, where: str) -> Tensor:
    fields = _object(value, where)
    axes = tuple(
        _axis(axis, f"{where}.axes[{i}]") for i, axis in enumerate(_array(fields.get("axes"), f"{where}.axes"))
    )
    if not axes:
        raise ContractError(f"{where}.axes: the batch axis comes first; got none")
    return Tensor(name, _dtype(fields, where), axes, str(fields.get("meaning", "")), str(fields.get("unit", "")))


def _axis(value: Any, where: str) -> Axis:
    fields = _object(value, where)
    return Axis(_text(fields, "name", where), _size(fields.get("size"), where), str(fields.get("meaning", "")))


def _size(size: Any, where: str) -> int | None:
    if size is None or (type(size) is int and size >= 0):
        return size
    raise ContractError(f"{where}.size: expected a whole number or nothing; got {size!r}")


def _state(value: Any, where: str) -> State:
    fields = _object(value, where)
    shape = tuple(_array(fields.get("shape"), f"{where}.shape"))
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ContractError(f"{where}.shape: a state's row has a fixed shape; got {list(shape)}")
    name, input_, output = (_text(fields, key, where) for key in ("name", "input", "output"))
    return State(name, input_, output, _dtype(fields, where), shape, fields.get("initial", 0.0))


def _dtype(fields: Mapping[str, Any], where: str) -> str:
    name = _text(fields, "dtype", where)
    try:
        numpy_dtype(name)
    except TypeError:
        raise ContractError(f"{where}.dtype: expected a dtype such as float32, int64 or string; got {name!r}") from None
    return name


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: expected an object; got {type(value).__name__}")
    return value


def _array(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ContractError(f"{where}: expected an array; got {type(value).__name__}")
    return value


def _text(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise ContractError(f"{where}.{key}: expected a name; got {value!r}")
    return value
