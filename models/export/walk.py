"""Runs a Keras model's graph layer by layer, with recurrent layers run as one step, as a scan, or from zero state.

It decides how a tensor keeps or loses its time axis and which call of a recurrent layer owns which state; it does not
know signatures, contracts or files.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from models.export import rules
from models.export.errors import CannotStep, ExportError

# The names of a cell's states, in the cell's order.
RECURRENT: Mapping[type, tuple[str, ...]] = {
    keras.layers.SimpleRNN: ("h",),
    keras.layers.GRU: ("h",),
    keras.layers.LSTM: ("h", "c"),
}


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor on its way through a model; `timed` while one of its axes is the request's time axis."""

    tensor: Any
    timed: bool


@dataclass(frozen=True, slots=True)
class State:
    """One state tensor of one call of a recurrent layer: [batch, *shape], zero at the start."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model takes, gives and remembers; tensors are symbolic, [batch, time, ...] where timed.

    Attributes:
        input_name: the input layer's name.
        input: the symbolic input.
        outputs: by the name of the layer that gives them, in the model's order.
        calls: the states of each call of a recurrent layer, in the order of visit; empty for a model without any.
    """

    input_name: str
    input: Flow
    outputs: Mapping[str, Flow]
    calls: tuple[tuple[State, ...], ...] = ()

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(state for call in self.calls for state in call)


def plan_for(model: keras.Model) -> Plan:
    """Find out how `model` can be served.

    Raises:
        ExportError: not a built Sequential or functional model with one input.
        CannotStep: it is recurrent, and holds a layer that cannot be run one time step at a time.
    """
    graph = _graph(model)
    if graph is None:
        raise ExportError(
            f"model '{model.name}': expected a Sequential or functional Keras model whose input shape is known, got "
            f"{type(model).__name__}; build it with keras.Input, or call it once on data"
        )
    if len(graph.inputs) != 1:
        raise ExportError(f"model '{model.name}': expected one input, got {len(graph.inputs)}; merge them into one")
    return _recurrent_plan(graph) if _is_recurrent(model) else _rows_plan(graph)


class Walk(ABC):
    """One way to run a model. Subclasses say what a layer and a recurrent layer do."""

    def run(self, model: keras.Model, flows: Iterable[Flow]) -> list[Flow]:
        """The flows at the model's outputs, in order, for those at its inputs."""
        graph = _graph(model)
        if graph is None:
            raise CannotStep(model, "a subclassed model hides its layers")
        return tree.flatten(graph._run_through_graph(list(flows), lambda operation: partial(self._visit, operation)))

    @abstractmethod
    def layer(self, layer: keras.Operation, timed: bool, args: Any, kwargs: Any) -> Any:
        """The output of a layer that holds no state."""

    @abstractmethod
    def recurrent(self, layer: keras.layers.RNN, sequence: Any) -> Any:
        """The output of one call of a recurrent layer."""

    def _visit(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        flows = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, Flow)]
        timed = _same_time(operation, flows)
        if isinstance(operation, keras.Model):
            return self.run(operation, flows)
        if timed and type(operation) in RECURRENT:
            return Flow(self.recurrent(operation, flows[0].tensor), timed=operation.return_sequences)
        args, kwargs = tree.map_structure(lambda leaf: leaf.tensor if isinstance(leaf, Flow) else leaf, (args, kwargs))
        return tree.map_structure(partial(Flow, timed=timed), self.layer(operation, timed, args, kwargs))


class Planner(Walk):
    """Runs on symbolic tensors: refuses what cannot be stepped, names the states of each call of a recurrent layer."""

    def __init__(self) -> None:
        self.calls: list[tuple[State, ...]] = []
        self._prefixes: set[str] = set()
        self._stateful: set[keras.Layer] = set()

    def layer(self, layer: keras.Operation, timed: bool, args: Any, kwargs: Any) -> Any:
        reason = self._timed_reason(layer, args) if timed else self._timeless_reason(layer)
        if reason:
            raise CannotStep(layer, reason)
        return layer.compute_output_spec(*args, **kwargs)

    def recurrent(self, layer: keras.layers.RNN, sequence: Any) -> Any:
        reason = self._recurrent_reason(layer)
        if reason:
            raise CannotStep(layer, reason)
        prefix = unused_name(layer.name, self._prefixes)
        sizes = tree.flatten(layer.cell.state_size)
        self.calls.append(
            tuple(
                State(f"{prefix}/{name}", layer.compute_dtype, (size,))
                for name, size in zip(RECURRENT[type(layer)], sizes, strict=True)
            )
        )
        return layer.compute_output_spec(sequence)

    def _timed_reason(self, layer: keras.Operation, args: Any) -> str | None:
        ranks = {len(tensor.shape) for tensor in tree.flatten(args) if isinstance(tensor, keras.KerasTensor)}
        return rules.refusal(layer, max(ranks)) if len(ranks) == 1 else "it joins tensors of different ranks"

    def _timeless_reason(self, layer: keras.Operation) -> str | None:
        """Without a time axis every layer runs as it is, on each row; only state and raw functions are refused."""
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Lambda):
            return rules.refusal(layer, 0)
        return "it keeps a state, but its input has no time axis" if getattr(layer, "stateful", False) else None

    def _recurrent_reason(self, layer: keras.layers.RNN) -> str | None:
        if layer.go_backwards:
            return "go_backwards=True reads the sequence from its end"
        if layer.return_state:
            return "return_state=True; the exported signatures give the state already"
        if layer.stateful and layer in self._stateful:
            return "stateful=True and called twice: the second call would go on from the first one's state"
        self._stateful.add(layer)
        return None


class Step(Walk):
    """One time step: tensors are [batch, ...] without a time axis; `states` maps a state's name to [batch, *shape]."""

    def __init__(self, plan: Plan, states: Mapping[str, tf.Tensor]) -> None:
        self._calls = iter(plan.calls)
        self._states = states
        self.new_states: dict[str, tf.Tensor] = {}

    def layer(self, layer: keras.Layer, timed: bool, args: Any, kwargs: Any) -> Any:
        return rules.step(layer, *args, **kwargs) if timed else layer(*args, **kwargs)

    def recurrent(self, layer: keras.layers.RNN, sequence: tf.Tensor) -> tf.Tensor:
        names = _names(self._calls)
        output, states = layer.cell(sequence, [self._states[name] for name in names], training=False)
        self.new_states.update(zip(names, tree.flatten(states), strict=True))
        return output


class Scan(Walk):
    """A chunk of time steps, [batch, time, ...]; each row's state goes on to its own length ([batch], int32)."""

    def __init__(self, plan: Plan, states: Mapping[str, tf.Tensor], lengths: tf.Tensor) -> None:
        self._calls = iter(plan.calls)
        self._states = states
        self._lengths = lengths
        self.new_states: dict[str, tf.Tensor] = {}

    def layer(self, layer: keras.Layer, timed: bool, args: Any, kwargs: Any) -> Any:
        return rules.sequence(layer, *args, **kwargs) if timed else layer(*args, **kwargs)

    def recurrent(self, layer: keras.layers.RNN, sequence: tf.Tensor) -> tf.Tensor:
        names = _names(self._calls)
        valid = tf.sequence_mask(self._lengths, tf.shape(sequence)[1])
        output, states = _loop(layer, sequence, [self._states[name] for name in names], valid)
        self.new_states.update(zip(names, tree.flatten(states), strict=True))
        return output


class Stateless(Walk):
    """Whole sequences, [batch, time, ...], each from zero state."""

    def layer(self, layer: keras.Layer, timed: bool, args: Any, kwargs: Any) -> Any:
        return rules.sequence(layer, *args, **kwargs) if timed else layer(*args, **kwargs)

    def recurrent(self, layer: keras.layers.RNN, sequence: tf.Tensor) -> tf.Tensor:
        output, _ = _loop(layer, sequence, layer.get_initial_state(batch_size=tf.shape(sequence)[0]))
        return output


def unused_name(name: str, taken: set[str]) -> str:
    """`name`, or with the first suffix _1, _2, … that is not `taken`; it is taken afterwards."""
    candidates = (name if i == 0 else f"{name}_{i}" for i in count())
    chosen = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(chosen)
    return chosen


def _recurrent_plan(graph: keras.Model) -> Plan:
    entry = graph.inputs[0]
    for layer in graph._flatten_layers():
        if reason := rules.masking(layer):
            raise CannotStep(layer, reason)
    flow = Flow(keras.KerasTensor((None, None, *entry.shape[2:]), entry.dtype), timed=True)
    planner = Planner()
    outputs = planner.run(graph, [flow])
    return Plan(_input_name(graph), flow, _by_layer(graph, outputs), tuple(planner.calls))


def _rows_plan(graph: keras.Model) -> Plan:
    inputs, outputs = ([Flow(tensor, timed=False) for tensor in tensors] for tensors in (graph.inputs, graph.outputs))
    return Plan(_input_name(graph), inputs[0], _by_layer(graph, outputs))


def _input_name(graph: keras.Model) -> str:
    return graph.inputs[0]._keras_history.operation.name


def _by_layer(graph: keras.Model, outputs: list[Flow]) -> dict[str, Flow]:
    taken: set[str] = set()
    return {unused_name(name, taken): output for name, output in zip(graph.output_names, outputs, strict=True)}


def _graph(model: keras.Model) -> keras.Model | None:
    """The functional graph of a Sequential or functional model."""
    graph = getattr(model, "_functional", model)
    return graph if hasattr(graph, "_run_through_graph") else None


def _is_recurrent(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
        or (isinstance(layer, keras.Model) and _is_recurrent(layer))
        for layer in model.layers
    )


def _same_time(operation: keras.Operation, flows: list[Flow]) -> bool:
    timed = {flow.timed for flow in flows}
    if len(timed) > 1 and isinstance(operation, keras.layers.RNN):
        raise CannotStep(operation, "its initial state comes from another layer")
    if len(timed) > 1:
        raise CannotStep(operation, "it joins a sequence with a tensor that has no time axis")
    return timed == {True}


def _names(calls: Iterator[tuple[State, ...]]) -> list[str]:
    return [state.name for state in next(calls)]


def _loop(
    layer: keras.layers.RNN, sequence: tf.Tensor, states: list[tf.Tensor], valid: tf.Tensor | None = None
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Run the layer's cell over time, without the layer's own state, batch size, unrolling or GPU-only kernels.

    Args:
        layer: the recurrent layer whose cell runs.
        sequence: [batch, time, ...].
        states: the state before the first step, each [batch, ...].
        valid: [batch, time] bool; where False the state is kept and the previous output repeated.
    Returns:
        [batch, time, ...], or [batch, ...] after the last valid step where the layer gives no sequence; the new states.
    """
    loop = keras.layers.RNN(layer.cell, return_sequences=layer.return_sequences)
    last, outputs, new_states = loop.inner_loop(sequence, states, valid)
    return (outputs if layer.return_sequences else last), new_states
