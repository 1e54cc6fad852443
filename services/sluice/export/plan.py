"""Decides whether a model can be served step by step, and then what it takes, gives and remembers.

It runs the model's graph once on tensors without values, and refuses by name the layer that cannot be stepped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from sluice.export import memory, rules
from sluice.export.entries import Entry, entries
from sluice.export.errors import CannotStep, ExportError, named, refused
from sluice.export.memory import Memory, State
from sluice.export.names import legal_scopes, unused_name
from sluice.export.walk import Flow, Span, Whole, flows_in, graph_of, joint_flow, named_arguments


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model takes, gives and remembers; its flows hold shapes and dtypes, [batch, time, ...] where timed.

    Attributes:
        inputs: by the name of the input layer, in the model's order.
        outputs: by the name of the layer that gives them, in the model's order.
        memories: of each call of a layer that remembers, in the order of visit; empty if the model is not stepped.
        unstepped: why a model of sequences is not stepped.
        one_length: why rows that share a batch must be of one length; empty if they need not.
    """

    inputs: Mapping[str, Flow]
    outputs: Mapping[str, Flow]
    memories: tuple[Memory, ...] = ()
    unstepped: CannotStep | None = None
    one_length: str = ""

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(state for each in self.memories for state in each.states)

    @property
    def is_ragged(self) -> bool:
        """Whether sequences of uneven lengths can share a batch: time is the one axis of a row without a size."""
        return self.is_timed and not self.one_length and all(None not in flow.row for flow in self.inputs.values())

    @property
    def is_timed(self) -> bool:
        """Whether rows are sequences of any number of time steps."""
        return any(flow.timed for flow in self.inputs.values())

    @property
    def limits(self) -> str:
        """How the model is not served, and why, in one line; empty if there is nothing to say."""
        steps = f"no sessions: {self.unstepped.sentence}" if self.unstepped else ""
        length = f"all rows of a request must have one length: {self.one_length}" if self.one_length else ""
        return "; ".join(filter(None, (steps, length)))

    @property
    def lengths(self) -> str:
        """The name of the input that holds the rows' lengths."""
        return unused_name("lengths", set(self.inputs))


def plan_for(model: keras.Model, steps: bool = False) -> Plan:
    """Find out how `model` can be served: step by step, as whole sequences, or as rows.

    Raises:
        ExportError: not a built Sequential or functional model; or `steps` are asked of one that remembers nothing.
        CannotStep: `steps` are asked for, and a layer cannot be run one time step at a time.
    """
    graph = _known_graph(model)
    remembers = _is_recurrent(model) or any(map(memory.remembers, model._flatten_layers()))
    plan, refusal = None, None
    with refused("run on tensors without values"):
        try:
            plan = _stepped_plan(graph) if remembers or _is_free(graph) else None
        except CannotStep as error:
            refusal = error
    if plan and plan.states:
        return plan
    if steps:
        raise refusal or ExportError(
            f"model '{model.name}': expected a layer that remembers from step to step, such as an LSTM, got none; "
            "export without steps"
        )
    return _unstepped_plan(graph, refusal)


def rows_plan(model: keras.Model) -> Plan:
    """`model` as it is, whether it is recurrent or not: rows in, rows out.

    Raises:
        ExportError: not a built Sequential or functional model.
    """
    graph = _known_graph(model)
    inputs = {name: Flow(entry.tensor, Span.ROW) for name, entry in entries(graph).items()}
    return Plan(inputs, _by_layer(graph, [Flow(tensor, Span.ROW) for tensor in graph.outputs]))


def _known_graph(model: keras.Model) -> keras.Model:
    graph = graph_of(model)
    if graph is None:
        advice = (
            "build it with keras.Input, or call it once on data"
            if isinstance(model, keras.Sequential)
            else "its layers cannot be followed through its own call(); connect them from keras.Input on instead"
        )
        raise ExportError(
            f"model '{model.name}': expected a Sequential or functional Keras model whose input shape is known, got "
            f"{type(model).__name__}; {advice}"
        )
    return graph


class Planner(Whole):
    """Refuses what cannot be stepped, and makes the memory of each call of a layer that remembers."""

    def __init__(self) -> None:
        super().__init__(())
        self.memories: list[Memory] = []
        self._prefixes: set[str] = set()
        self._stateful: set[keras.Layer] = set()

    def visit(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        given = named_arguments(operation, args, kwargs)
        if joint_flow(flows_in((args, kwargs))).timed and (reason := _call_reason(operation, given)):
            raise CannotStep(operation, reason)
        return super().visit(operation, *args, **kwargs)

    def layer(self, layer: keras.Operation, span: Span, args: Any, kwargs: Any) -> Any:
        given = tuple(value for name, value in named_arguments(layer, args, kwargs).items() if name != "mask")
        reason = _timed_reason(layer, given) if span is Span.EACH else _timeless_reason(layer, given)
        if reason:
            raise CannotStep(layer, reason)
        return super().layer(layer, span, args, kwargs)

    def remembering(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        if reason := memory.refusal(layer) or self._again(layer):
            raise CannotStep(layer, reason)
        prefix = unused_name(layer.name, self._prefixes)
        self.memories.append(memory.memory_of(layer, prefix, sequence, mask))
        self._memories = iter(self.memories[-1:])
        return super().remembering(layer, sequence, mask)

    def _again(self, layer: keras.Layer) -> str | None:
        stateful = getattr(layer, "stateful", False)
        if stateful and layer in self._stateful:
            return "stateful=True and called twice: the second call would go on from the first one's state"
        self._stateful.add(layer)
        return None


def _stepped_plan(graph: keras.Model) -> Plan:
    inputs = {name: _entry_flow(entry) for name, entry in entries(graph).items()}
    traced: list[tuple[Planner, list[Flow]]] = []  # more than one where the first made variables

    def trace(*tensors: tf.Tensor) -> None:
        planner = Planner()
        given = zip(tensors, inputs.values(), strict=True)
        traced.append((planner, planner.run(graph, [planner.enter(tensor, flow) for tensor, flow in given])))

    specs = [tf.TensorSpec(flow.tensor.shape, flow.tensor.dtype) for flow in inputs.values()]
    with legal_scopes(graph):
        tf.function(trace, autograph=False).get_concrete_function(*specs)
    planner, outputs = traced[-1]
    return Plan(inputs, _by_layer(graph, [_described(flow) for flow in outputs]), tuple(planner.memories))


def _unstepped_plan(graph: keras.Model, refusal: CannotStep | None) -> Plan:
    """Whole sequences where the time axis is the one that is free, and otherwise rows."""
    if refusal and (stateful := [layer for layer in graph._flatten_layers() if getattr(layer, "stateful", False)]):
        raise ExportError(
            f"{named(stateful[0])}: expected stateful=False in a model that is not stepped, as answers would depend on "
            f"the requests before; {refusal.sentence}"
        )
    if not _is_free(graph):
        return replace(rows_plan(graph), unstepped=refusal)
    inputs = {
        name: Flow(entry.tensor, Span.EACH if has_free_time(entry.tensor) else Span.ROW)
        for name, entry in entries(graph).items()
    }
    outputs = [Flow(each, Span.EACH if has_free_time(each) else Span.LAST) for each in graph.outputs]
    return Plan(inputs, _by_layer(graph, outputs), unstepped=refusal)


def has_free_time(tensor: keras.KerasTensor) -> bool:
    """Whether the second axis of a Keras model's tensor has no size, as that of sequences of any length."""
    return len(tensor.shape) > 1 and tensor.shape[1] is None


def _is_free(graph: keras.Model) -> bool:
    """Whether rows are sequences of any length, and their other axes have a size."""
    inputs = entries(graph).values()
    free = [entry for entry in inputs if has_free_time(entry.tensor)]
    sized = all(None not in entry.tensor.shape[2 if entry in free else 1 :] for entry in inputs)
    return bool(free) and sized and all(entry.is_sequence for entry in free)


def _entry_flow(entry: Entry) -> Flow:
    """An input whose number of rows and of time steps is free, whatever the model was declared with."""
    _, *sizes = entry.tensor.shape
    if entry.is_sequence:
        return Flow(keras.KerasTensor((None, None, *sizes[1:]), entry.tensor.dtype), Span.EACH)
    return Flow(keras.KerasTensor((None, *sizes), entry.tensor.dtype), Span.ROW)


def _described(flow: Flow) -> Flow:
    return Flow(keras.KerasTensor(tuple(flow.tensor.shape), flow.tensor.dtype.name), flow.span)


def _by_layer(graph: keras.Model, outputs: list[Flow]) -> dict[str, Flow]:
    taken: set[str] = set()
    return {unused_name(name, taken): output for name, output in zip(graph.output_names, outputs, strict=True)}


def _is_recurrent(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
        or (isinstance(layer, keras.Model) and _is_recurrent(layer))
        for layer in model.layers
    )


def _call_reason(operation: keras.Operation, given: Mapping[str, Any]) -> str | None:
    """Why this call, with arguments by name, cannot be run on one time step, whatever its layer does; or None."""
    joined = [value for name, value in given.items() if name != "mask"]
    if isinstance(operation, keras.Model):
        return _mask_reason(given.get("mask"))
    return (
        (None if memory.remembers(operation) else rules.unknown(operation))
        or _state_reason(operation, given)
        or _mask_reason(given.get("mask"))
        or _joining_reason(operation, flows_in(joined))
    )


def _state_reason(operation: keras.Operation, given: Mapping[str, Any]) -> str | None:
    stated = isinstance(operation, keras.layers.RNN) and given.get("initial_state") is not None
    return "initial_state= gives it a state; a sequence starts from the layer's own" if stated else None


def _mask_reason(mask: Any) -> str | None:
    """A mask belongs to the time steps as its layer's sequence does."""
    if all(isinstance(each, Flow) and each.timed for each in keras.tree.flatten(mask) if each is not None):
        return None
    return "its mask has no time axis that comes with the request"


def _joining_reason(operation: keras.Operation, flows: list[Flow]) -> str | None:
    """Why a sequence cannot meet the other tensors of one call, or None if it can."""
    joint = joint_flow(flows)
    others = [flow for flow in flows if flow.span is not joint.span]
    if any(flow.span is Span.LAST for flow in others):
        return "it joins a sequence with a tensor that has no time axis"
    missing = {len(joint.tensor.shape) - len(flow.tensor.shape) for flow in others}
    if not missing or (missing == {1} and rules.broadcasts(operation)):
        return None
    return "it joins a sequence with an input that has no time axis; Add, Multiply and their like can, one axis apart"


def _timed_reason(layer: keras.Operation, args: Any) -> str | None:
    ranks = _ranks(args)
    return (
        rules.refusal(rules.Call(layer, args, ranks.pop(), 2))
        if len(ranks) == 1
        else "it joins tensors of different ranks"
    )


def _timeless_reason(layer: keras.Operation, args: Any) -> str | None:
    """Without a time axis every layer runs as it is, on each row; only state and unknown functions are refused."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Lambda):
        return rules.refusal(rules.Call(layer, args, max(_ranks(args)), 1))
    return "it keeps a state, but its input has no time axis" if getattr(layer, "stateful", False) else None


def _ranks(args: Any) -> set[int]:
    return {len(leaf.shape) for leaf in keras.tree.flatten(args) if tf.is_tensor(leaf) and tf.is_symbolic_tensor(leaf)}
