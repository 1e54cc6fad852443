"""Decides which inputs of a model are sequences, by following their second axis to the layers that remember.

It does not know whether those layers can be stepped.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import keras
from keras import layers, tree

from sluice.export.memory import gives_sequence
from sluice.export.walk import graph_of, inner_arguments, named_arguments

Sources = frozenset[str]

_LOOKUPS = (layers.StringLookup, layers.TextVectorization)


@dataclass(slots=True)
class Entry:
    """One input of a model.

    Attributes:
        tensor: its shape and dtype, [batch, ...].
        is_sequence: whether its second axis is time.
        vocabulary: the size of the smallest embedding that it is looked up in; None if there is none.
        words: those that a layer looks its texts up among, if one does.
        is_text: whether a layer splits its texts into words.
    """

    tensor: keras.KerasTensor
    is_sequence: bool = False
    vocabulary: int | None = None
    words: tuple[str, ...] = ()
    is_text: bool = False


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
        given = named_arguments(operation, node.arguments.args, node.arguments.kwargs)
        masks = given.pop("mask", None)
        inner = graph_of(operation)
        if inner is not None:
            inputs = [sources[id(tensor)] for tensor in inner_arguments(operation, next(iter(given.values())))]
            masking = [sources.get(id(mask), Sources()) for mask in tree.flatten(masks)] if masks is not None else []
            return self.follow(inner, [a | b for a, b in zip_longest(inputs, masking, fillvalue=Sources())])
        tensors = _tensors(given)
        rank = max((len(tensor.shape) for tensor in tensors), default=0)
        timed = [tensor for tensor in tensors if len(tensor.shape) == rank] + _tensors(masks)
        own = Sources().union(*(sources[id(tensor)] for tensor in timed))
        self._note(operation, own)
        keeps = gives_sequence(operation) and not isinstance(operation, layers.RepeatVector)
        return [own if keeps else Sources()] * len(node.outputs)

    def _note(self, operation: keras.Operation, sources: Sources) -> None:
        for entry in (self.found[name] for name in sources):
            entry.is_sequence |= isinstance(operation, self.receivers)
            if isinstance(operation, layers.Embedding):
                entry.vocabulary = min(operation.input_dim, entry.vocabulary or operation.input_dim)
            if isinstance(operation, _LOOKUPS) and entry.tensor.dtype == "string":
                entry.words = tuple(map(str, operation.get_vocabulary(include_special_tokens=False)))
                entry.is_text = isinstance(operation, layers.TextVectorization)


def _tensors(arguments: Any) -> list[keras.KerasTensor]:
    return [leaf for leaf in tree.flatten(arguments) if isinstance(leaf, keras.KerasTensor)]
