"""Checks states that come from outside, given by name or saved before, against the model's contract; keeps none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.contract import Axis, State, Tensor, numpy_dtype
from sluice.policy.errors import BadRequest, InputNotFinite, StateIncompatible, UnknownInput
from sluice.policy.tensors import read_tensor
from sluice.wire.envelope import SavedState

Array = NDArray[Any]


def read_states(value: Mapping[str, Any], states: Sequence[State]) -> dict[str, Array]:
    """Explicit initial states, state name → row, checked against the contract."""
    tensors = {
        state.name: Tensor(state.name, state.dtype, tuple(Axis("state", size) for size in state.shape))
        for state in states
    }
    unknown = [name for name in value if name not in tensors]
    if unknown:
        raise UnknownInput(f"There is no state {', '.join(map(repr, unknown))}; this model has {', '.join(tensors)}.")
    return {name: _read(each, tensors[name]) for name, each in value.items()}


def _read(value: Any, tensor: Tensor) -> Array:
    try:
        return read_tensor(value, tensor)
    except BadRequest as error:
        raise type(error)(f"State{error.message.removeprefix('Input')}", **error.details) from None


def compatible_rows(saved: SavedState, served: ServedVersion) -> dict[str, Array]:
    """Raises: StateIncompatible: not the names, dtypes and shapes of the model's states. InputNotFinite."""
    states = {state.name: (numpy_dtype(state.dtype), state.shape) for state in served.stepping("step").states}
    came = {name: (array.dtype, array.shape) for name, array in saved.state.items()}
    if states != came:
        raise StateIncompatible(
            f"The saved state is not of the form of model {served.model!r} version {served.version}: expected "
            f"{_forms(states)}; got {_forms(came)}."
        )
    if not all(np.isfinite(array).all() for array in saved.state.values() if array.dtype.kind in "fcV"):
        raise InputNotFinite("The saved state holds NaN or infinity, from which no session can go on.")
    return dict(saved.state)


def _forms(forms: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in forms.items()) or "none"
