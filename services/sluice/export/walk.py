"""Runs a Keras model's graph layer by layer: one time step, a chunk of them, or whole sequences from the start.

It decides how a tensor keeps or loses its time axis; it does not know which models can be stepped (`plan`), nor
signatures, contracts or files.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import tree
from keras.src.backend import get_keras_mask, set_keras_mask

from sluice.export import rules
from sluice.export.errors import CannotStep
from sluice.export.memory import Memory, gives_sequence, remembers


class Span(Enum):
    """What a tensor belongs to."""

    EACH = auto()  # each time step: its second axis is the request's time axis
    LAST = auto()  # the last time step so far
    ROW = auto()  # the row: it depends on no sequence


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor on its way through a model.

    Attributes:
        tensor: its value, or in a plan its shape and dtype; [batch, time, ...] in whole sequences if `timed`.
        span: what it belongs to.
    """

    tensor: Any
    span: Span

    @property
    def timed(self) -> bool:
        return self.span is Span.EACH

    @property
    def row(self) -> tuple[int | None, ...]:
        """The sizes of the axes after batch and, where there is one, time."""
        return tuple(self.tensor.shape[2 if self.timed else 1 :])


class Walk(ABC):
    """One way to run a model. Subclasses say what a layer does, and what a layer that remembers."""

    def run(self, model: keras.Model, flows: Iterable[Flow]) -> list[Flow]:
        """The flows at the model's outputs, in order, for those at its inputs.

        Raises:
            CannotStep: the model hides its layers.
        """
        graph = graph_of(model)
        if graph is None:
            raise CannotStep(model, "a subclassed model hides its layers")
        return tree.flatten(graph._run_through_graph(list(flows), lambda operation: partial(self.visit, operation)))

    def visit(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        """The flows that one call gives; its arguments hold flows."""
        if isinstance(operation, keras.Model):
            return self._nested(operation, named_arguments(operation, args, kwargs))
        joint = joint_flow(flows_in((args, kwargs)))
        args, kwargs = tree.map_structure(partial(self._tensor, joint=joint), (args, kwargs))
        if joint.timed and remembers(operation):
            given = named_arguments(operation, args, kwargs)
            return self._remembered(operation, next(iter(given.values())), given.get("mask"))
        if getattr(operation, "_call_has_training_arg", False):
            kwargs = {**kwargs, "training": False}  # as `predict` does, whatever the model says of the call
        output = self.layer(operation, joint.span, args, kwargs)
        return tree.map_structure(partial(Flow, span=joint.span), output)

    def enter(self, tensor: tf.Tensor, planned: Flow) -> Flow:
        """A request's tensor at the model's input."""
        return replace(planned, tensor=tensor)

    def leave(self, flow: Flow) -> tf.Tensor:
        """The answer's tensor for the flow at the model's output."""
        return flow.tensor

    @abstractmethod
    def layer(self, layer: keras.Operation, span: Span, args: Any, kwargs: Any) -> Any:
        """The output of a layer that remembers nothing; its tensors all have the one span."""

    @abstractmethod
    def remembering(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """The output of one call of a layer that remembers."""

    @abstractmethod
    def spread(self, row: tf.Tensor, over: tf.Tensor) -> tf.Tensor:
        """A ROW's tensor at each time step of `over`, which is EACH's."""

    def concluded(self, row: tf.Tensor) -> tf.Tensor:
        """A ROW's tensor at the last time step."""
        return row

    def _nested(self, model: keras.Model, given: Mapping[str, Any]) -> list[Flow]:
        inputs = inner_arguments(model, next(iter(given.values())))
        for flow, mask in zip(inputs, tree.flatten(given.get("mask")), strict=False):
            if mask is not None:
                set_keras_mask(flow.tensor, mask.tensor)
        return self.run(model, inputs)

    def _tensor(self, leaf: Any, joint: Flow) -> Any:
        if not isinstance(leaf, Flow):
            return leaf
        if leaf.span is joint.span:
            return leaf.tensor
        return self.spread(leaf.tensor, joint.tensor) if joint.timed else self.concluded(leaf.tensor)

    def _remembered(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> Flow:
        mask = get_keras_mask(sequence) if mask is None else mask
        # Without the mask that Keras hangs on a tensor: a cell would warn that it cannot use it.
        output = self.remembering(layer, tf.identity(sequence), None if mask is None else tf.cast(mask, tf.bool))
        if not gives_sequence(layer):
            return Flow(output, Span.LAST)
        if mask is not None and layer.supports_masking:
            set_keras_mask(output, mask)
        return Flow(output, Span.EACH)


class Step(Walk):
    """One time step: tensors are [batch, ...] without a time axis; `states` are by name, [batch, *shape]."""

    def __init__(self, memories: Iterable[Memory], states: Mapping[str, tf.Tensor]) -> None:
        self._memories = iter(memories)
        self._states = states
        self.new_states: dict[str, tf.Tensor] = {}

    def layer(self, layer: keras.Operation, span: Span, args: Any, kwargs: Any) -> Any:
        return rules.step(layer, *args, **kwargs) if span is Span.EACH else layer(*args, **kwargs)

    def remembering(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        memory = next(self._memories)
        names = [state.name for state in memory.states]
        output, new_states = memory.step(sequence, mask, [self._states[name] for name in names])
        self.new_states.update(zip(names, new_states, strict=True))
        return output

    def spread(self, row: tf.Tensor, over: tf.Tensor) -> tf.Tensor:
        return row


class Whole(Walk):
    """Whole sequences, [batch, time, ...], each from its initial state.

    Each row ends at its own length, int32 [batch], where there are `lengths`, and otherwise with the array.
    """

    def __init__(self, memories: Iterable[Memory], lengths: tf.Tensor | None = None) -> None:
        self._memories = iter(memories)
        self._lengths = lengths

    def layer(self, layer: keras.Operation, span: Span, args: Any, kwargs: Any) -> Any:
        return rules.sequence(layer, *args, **kwargs) if span is Span.EACH else layer(*args, **kwargs)

    def remembering(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        memory = next(self._memories)
        output, _ = memory.scan(sequence, mask, memory.initial(tf.shape(sequence)[0]), self._lengths)
        return output

    def spread(self, row: tf.Tensor, over: tf.Tensor) -> tf.Tensor:
        return tf.repeat(row[:, tf.newaxis], tf.shape(over)[1], axis=1)


class Scan(Whole):
    """A chunk of time steps, [batch, time, ...], from given states; each row runs to its own length, int32 [batch].

    What belongs to the row is given anew at each time step: it comes as [batch, time, ...], and runs as that many rows.
    """

    def __init__(self, memories: Iterable[Memory], states: Mapping[str, tf.Tensor], lengths: tf.Tensor) -> None:
        super().__init__(memories, lengths)
        self._ends = tf.maximum(lengths - 1, 0)
        self._states = states
        self.new_states: dict[str, tf.Tensor] = {}

    def enter(self, tensor: tf.Tensor, planned: Flow) -> Flow:
        return super().enter(tensor if planned.timed else tf.reshape(tensor, [-1, *tensor.shape[2:]]), planned)

    def leave(self, flow: Flow) -> tf.Tensor:
        return self._unfolded(flow.tensor) if flow.span is Span.ROW else flow.tensor

    def remembering(self, layer: keras.Layer, sequence: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        memory = next(self._memories)
        names = [state.name for state in memory.states]
        output, new_states = memory.scan(sequence, mask, [self._states[name] for name in names], self._lengths)
        self.new_states.update(zip(names, new_states, strict=True))
        return output

    def spread(self, row: tf.Tensor, over: tf.Tensor) -> tf.Tensor:
        return self._unfolded(row)

    def concluded(self, row: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._unfolded(row), self._ends, axis=1, batch_dims=1)

    def _unfolded(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [tf.shape(self._lengths)[0], -1, *tf.unstack(tf.shape(rows)[1:])])


def graph_of(model: keras.Model) -> keras.Model | None:
    """The functional graph of a Sequential or functional model; None for any other."""
    graph = getattr(model, "_functional", model)
    return graph if hasattr(graph, "_run_through_graph") else None


def named_arguments(operation: keras.Operation, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call by the names of its parameters, in the parameters' order."""
    return inspect.signature(operation.call).bind(*args, **kwargs).arguments


def inner_arguments(model: keras.Model, given: Any) -> list[Any]:
    """What a nested model is called with, in the order of its inputs."""
    graph = graph_of(model)
    if graph is not None and isinstance(given, dict) and not isinstance(graph._inputs_struct, dict):
        return [given[each.name] for each in graph.inputs]
    return tree.flatten(given)


def flows_in(arguments: Any) -> list[Flow]:
    """The flows among nested arguments, in order."""
    return [leaf for leaf in tree.flatten(arguments) if isinstance(leaf, Flow)]


def joint_flow(flows: list[Flow]) -> Flow:
    """The flow whose span is that of a call on `flows`: a sequence outweighs a last step, and that a row."""
    return min(flows, key=lambda flow: flow.span.value)
