"""Decides which inputs of a model are sequences, by following their second axis to the layers that remember.

It does not know whether those layers can be stepped.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, tree

from sluice.export.memory import gives_sequence
from sluice.export.walk import graph_of

Sources = frozenset[str]


@dataclass(slots=True)
class Entry:
    """One input of a model.

    Attributes:
        tensor: its shape and dtype, [batch, ...].
        is_sequence: whether its second axis is time.
        vocabulary: the size of the smallest embedding that it is looked up in; None if there is none.
    """

    tensor: keras.KerasTensor
    is_sequence: bool = False
    vocabulary: int | None = None


def entries(graph: keras.Model) -> dict[str, Entry]:
    """The inputs of a functional graph by the name of their input layer, in order.

    An input is a sequence if its second axis reaches a recurrent layer, or a convolution where there is none. If that
    is true of no input, or if there is only one, all are.
    """
    found = {tensor._keras_history.operation.name: Entry(tensor) for tensor in graph.inputs}
    for receivers in ((layers.RNN, layers.Bidirectional), (layers.Conv1D,)):
        _Trail(found, receivers).follow(graph, [frozenset([name]) for name in found])
        if any(entry.is_sequence for entry in found.values()):
            break
    none = len(found) == 1 or not any(entry.is_sequence for entry in found.values())
    for entry in found.values():
        entry.is_sequence = entry.is_sequence or none
    return found


@dataclass(frozen=True, slots=True)
class _Trail:
    """Notes in `found` which inputs reach `receivers`; a tensor's sources are the inputs whose second axis it has."""

    found: dict[str, Entry]
    receivers: tuple[type, ...]

    def follow(self, graph: keras.Model, given: Iterable[Sources]) -> list[Sources]:
        """The sources of the graph's outputs, for those of its inputs."""
        sources = dict(zip(map(id, graph.inputs), given, strict=True))
        for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
            for node in nodes:
                if not node.is_input:
                    sources.update(zip(map(id, node.outputs), self._visit(node, sources), strict=False))
        return [sources[id(tensor)] for tensor in graph.outputs]

    def _visit(self, node: Any, sources: dict[int, Sources]) -> list[Sources]:
        operation = node.operation
        tensors = [leaf for leaf in tree.flatten(node.arguments.args) if isinstance(leaf, keras.KerasTensor)]
        inner = graph_of(operation)
        if inner is not None:
            return self.follow(inner, [sources[id(tensor)] for tensor in tensors])
        rank = max((len(tensor.shape) for tensor in tensors), default=0)
        own = Sources().union(*(sources[id(tensor)] for tensor in tensors if len(tensor.shape) == rank))
        self._note(operation, own)
        keeps = gives_sequence(operation) and not isinstance(operation, layers.RepeatVector)
        return [own if keeps else Sources()] * len(node.outputs)

    def _note(self, operation: keras.Operation, sources: Sources) -> None:
        for entry in (self.found[name] for name in sources):
            entry.is_sequence |= isinstance(operation, self.receivers)
            if isinstance(operation, layers.Embedding):
                entry.vocabulary = min(operation.input_dim, entry.vocabulary or operation.input_dim)
