"""Writes the serving contract: what the exported model says about how it wants to be served (docs/contract.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from sluice.export.errors import ExportError
from sluice.export.memory import State
from sluice.export.plan import Plan
from sluice.export.walk import Flow, Span

SCHEMA = 1
SEQUENCES = "sequences"  # the kind, and the SavedModel's signature
TIME = "time"
_EXAMPLE_STEPS = 2
FREE_SIZE = 16  # of an axis whose size each request may choose, in the example and where an export is verified

_DEFAULT_AXES: Mapping[int, tuple[str, ...]] = {1: ("feature",), 3: ("height", "width", "channel")}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one input or output means to people.

    Attributes:
        meaning: a few words, such as "sea-surface temperature".
        unit: the unit of its values, such as "°C".
        axes: the names of the axes after batch and time, in order, each with its meaning ("" for none).
        typical: the least and greatest usual value of an input; verification draws its inputs from there.
    """

    meaning: str = ""
    unit: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    typical: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a model means to people.

    Attributes:
        summary: one line about the model.
        time: the meaning of one time step, such as "one month".
        tensors: by the name of an input or output.
        example: one row of the input without a batch axis, or by name one row of each of several inputs; one time step
            if the model can be stepped. Zeros by default.
        buckets: by the name of an axis whose length differs from row to row (`time`), inclusive upper bounds of the
            groups in which the gateway batches rows of like length; the last is the longest row that it accepts.
    """

    summary: str = ""
    time: str = ""
    tensors: Mapping[str, Meaning] = field(default_factory=dict)
    example: Any = None
    buckets: Mapping[str, Sequence[int]] = field(default_factory=dict)


UNDESCRIBED = Description()


def contract(plan: Plan, description: Description) -> dict[str, Any]:
    """The contract's JSON document.

    Raises:
        ExportError: a name cannot be written; the description speaks of a tensor that the model does not have, names
            too many or few axes or one of them time, gives buckets that cannot be used, or an example of other inputs.
    """
    _check_names(plan)
    unknown = description.tensors.keys() - {*plan.inputs, *plan.outputs}
    if unknown:
        has = ", ".join([*plan.inputs, *plan.outputs])
        raise ExportError(f"description of '{min(unknown)}': expected one of the model's tensors ({has})")
    _check_axes(plan, description)
    _check_buckets(plan, description)
    return {
        "schema": SCHEMA,
        "summary": description.summary,
        "signatures": _signatures(plan, description),
        "example": _example(plan, description),
    }


def _signatures(plan: Plan, description: Description) -> dict[str, Any]:
    whole = _tensors(plan, description, {Span.EACH})
    default = _sequences(plan, description, **whole) if plan.is_ragged else {"kind": "rows", **whole}
    if not plan.states:
        return {"serving_default": default}
    states = [_state(state) for state in plan.states]
    scan = _tensors(plan, description, {Span.EACH, Span.ROW})
    return {
        "step": {"kind": "step", **_tensors(plan, description, set()), "states": states},
        "scan": {"kind": "scan", **scan, "states": states, "lengths": plan.lengths},
        "serving_default": default,
    }


def _sequences(
    plan: Plan, description: Description, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> dict[str, Any]:
    buckets = {axis: list(bounds) for axis, bounds in description.buckets.items()}
    return {
        "kind": SEQUENCES,
        "calls": SEQUENCES,
        "inputs": {name: _ragged(each) if plan.inputs[name].timed else each for name, each in inputs.items()},
        "outputs": outputs,
        "lengths": {TIME: plan.lengths},
        **({"scan": {"signature": "scan"}} if plan.states else {}),
        **({"buckets": buckets} if buckets else {}),
    }


def _ragged(tensor: Mapping[str, Any]) -> dict[str, Any]:
    """The input with a time axis whose length differs from row to row, and what fills shorter rows."""
    batch, time, *row = tensor["axes"]
    return {**tensor, "axes": [batch, time | {"ragged": True}, *row], "pad": _zero(tensor["dtype"])}


def _check_names(plan: Plan) -> None:
    """Clients and pages write names; JSON and protobuf take any text."""
    for name in (*plan.inputs, *plan.outputs, *(state.layer for state in plan.states)):
        if not (name and name.isprintable()):
            raise ExportError(f"layer {name!r}: expected a name of one printable character or more; rename the layer")


def _check_axes(plan: Plan, description: Description) -> None:
    """An axis called time is taken for the steps, whose number differs from row to row."""
    for name, about in description.tensors.items():
        if plan.is_timed and TIME in about.axes:
            raise ExportError(f"description of '{name}': expected another name than '{TIME}' for an axis after time")


def _check_buckets(plan: Plan, description: Description) -> None:
    ragged = {TIME} if plan.is_ragged else set()
    for axis, bounds in description.buckets.items():
        if axis not in ragged:
            has = ", ".join(ragged) or "none, as the model is served as rows"
            raise ExportError(f"buckets of '{axis}': expected an axis whose length differs from row to row ({has})")
        if not bounds or any(low >= high for low, high in pairwise([0, *bounds])):
            raise ExportError(f"buckets of '{axis}': expected rising whole numbers from 1, got {list(bounds)}")


def _tensors(plan: Plan, description: Description, with_time: set[Span]) -> dict[str, Any]:
    """The inputs and outputs; those whose span is among `with_time` have a time axis."""
    return {
        key: {name: _tensor(name, flow, description, flow.span in with_time) for name, flow in flows.items()}
        for key, flows in (("inputs", plan.inputs), ("outputs", plan.outputs))
    }


def _tensor(name: str, flow: Flow, description: Description, has_time: bool) -> dict[str, Any]:
    about = description.tensors.get(name, Meaning())
    time = [{"name": TIME} | _given(meaning=description.time)] if has_time else []
    return {
        "dtype": flow.tensor.dtype,
        "axes": [{"name": "batch"}, *time, *_row_axes(name, flow, about)],
        **_given(meaning=about.meaning, unit=about.unit),
    }


def _row_axes(name: str, flow: Flow, about: Meaning) -> list[dict[str, Any]]:
    sizes = flow.row
    names = about.axes or dict.fromkeys(_default_axes(len(sizes)), "")
    if len(names) != len(sizes):
        raise ExportError(f"description of '{name}': expected {len(sizes)} axes after batch and time, got {len(names)}")
    return [
        {"name": axis} | ({} if size is None else {"size": size}) | _given(meaning=meaning)
        for size, (axis, meaning) in zip(sizes, names.items(), strict=True)
    ]


def _default_axes(rank: int) -> tuple[str, ...]:
    return _DEFAULT_AXES.get(rank, tuple(f"feature_{i + 1}" for i in range(rank)))


def _given(**texts: str) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text}


def _state(state: State) -> dict[str, Any]:
    return {
        "name": state.name,
        "input": state.name,
        "output": state.name,
        "dtype": state.dtype,
        "shape": list(state.shape),
        "initial": _initial(state),
    }


def _initial(state: State) -> Any:
    """One number for all elements where they are equal, otherwise the whole row."""
    row = state.initial.astype(np.float64)
    first = row.flat[0] if row.size else 0.0
    return float(first) if (row == first).all() else row.tolist()


def _example(plan: Plan, description: Description) -> dict[str, Any]:
    return {
        "signature": "step" if plan.states else "serving_default",
        "inputs": example_rows(plan, description),
    }


def example_rows(plan: Plan, description: Description) -> dict[str, Any]:
    """One row of each input: those of the description, or zeros.

    Raises:
        ExportError: the description gives rows of other inputs.
    """
    rows = {
        name: _zeros(flow, 0 if plan.states else _EXAMPLE_STEPS if plan.is_ragged else FREE_SIZE)
        for name, flow in plan.inputs.items()
    }
    if isinstance(description.example, Mapping):
        rows = dict(description.example)
    elif description.example is not None:
        rows = dict.fromkeys(list(rows)[:1], description.example)
    if rows.keys() != plan.inputs.keys():
        wanted = ", ".join(plan.inputs)
        raise ExportError(f"example of {', '.join(rows)}: expected one row of each input, by name ({wanted})")
    return rows


def _zero(dtype: str) -> float | bool | str:
    zeros: Mapping[str, float | bool | str] = {"float": 0.0, "bfloat": 0.0, "bool": False, "string": ""}
    return zeros.get(dtype.rstrip("0123456789"), 0)


def _zeros(flow: Flow, steps: int) -> Any:
    """A row, or of a sequence that is not stepped as many of them."""
    row: Any = _zero(flow.tensor.dtype)
    for size in reversed(flow.row):
        row = [row] * (FREE_SIZE if size is None else size)
    return [row] * steps if flow.timed and steps else row
