"""Writes the serving contract: what the exported model says about how it wants to be served (docs/contract.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.export.errors import ExportError
from models.export.walk import Flow, Plan, State

SCHEMA = 1
LENGTHS = "lengths"

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
        example: one row of the input without a batch axis, one time step of it if the model can be stepped;
            zeros by default.
    """

    summary: str = ""
    time: str = ""
    tensors: Mapping[str, Meaning] = field(default_factory=dict)
    example: Any = None


UNDESCRIBED = Description()


def contract(plan: Plan, description: Description) -> dict[str, Any]:
    """The contract's JSON document.

    Raises:
        ExportError: the description speaks of a tensor that the model does not have, or names too many or few axes.
    """
    unknown = description.tensors.keys() - {plan.input_name, *plan.outputs}
    if unknown:
        has = ", ".join([plan.input_name, *plan.outputs])
        raise ExportError(f"description of '{min(unknown)}': expected one of the model's tensors ({has})")
    return {
        "schema": SCHEMA,
        "summary": description.summary,
        "signatures": _signatures(plan, description),
        "example": _example(plan, description),
    }


def _signatures(plan: Plan, description: Description) -> dict[str, Any]:
    rows = {"kind": "rows", **_tensors(plan, description, time=True)}
    if not plan.states:
        return {"serving_default": rows}
    states = [_state(state) for state in plan.states]
    return {
        "step": {"kind": "step", **_tensors(plan, description, time=False), "states": states},
        "scan": {"kind": "scan", **_tensors(plan, description, time=True), "states": states, "lengths": LENGTHS},
        "serving_default": rows,
    }


def _tensors(plan: Plan, description: Description, time: bool) -> dict[str, Any]:
    return {
        "inputs": {plan.input_name: _tensor(plan.input_name, plan.input, description, time)},
        "outputs": {name: _tensor(name, output, description, time) for name, output in plan.outputs.items()},
    }


def _tensor(name: str, flow: Flow, description: Description, time: bool) -> dict[str, Any]:
    about = description.tensors.get(name, Meaning())
    axes = [{"name": "batch"}]
    if flow.timed and time:
        axes.append({"name": "time"} | _given(meaning=description.time))
    return {
        "dtype": flow.tensor.dtype,
        "axes": axes + _row_axes(name, flow, about),
        **_given(meaning=about.meaning, unit=about.unit),
    }


def _row_axes(name: str, flow: Flow, about: Meaning) -> list[dict[str, Any]]:
    sizes = step_sizes(flow)
    names = about.axes or dict.fromkeys(_default_axes(len(sizes)), "")
    if len(names) != len(sizes):
        raise ExportError(f"description of '{name}': expected {len(sizes)} axes after batch and time, got {len(names)}")
    return [
        {"name": axis} | ({} if size is None else {"size": size}) | _given(meaning=meaning)
        for size, (axis, meaning) in zip(sizes, names.items(), strict=True)
    ]


def step_sizes(flow: Flow) -> tuple[int | None, ...]:
    """The sizes of the axes after batch and, where there is one, time."""
    return tuple(flow.tensor.shape[2 if flow.timed else 1 :])


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
        "initial": 0.0,
    }


def _example(plan: Plan, description: Description) -> dict[str, Any]:
    row = description.example if description.example is not None else _zeros(plan.input)
    return {"signature": "step" if plan.states else "serving_default", "inputs": {plan.input_name: row}}


def _zeros(flow: Flow) -> Any:
    row: Any = 0.0 if flow.tensor.dtype.startswith(("float", "bfloat")) else 0
    for size in reversed(step_sizes(flow)):
        row = [row] * (size or 1)
    return row
