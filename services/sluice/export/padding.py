"""Runs a model by Keras's own layers on padded rows, and hides what stands beyond a row's length where a layer lets it.

It does not know whether that is enough (`uneven`), nor what can be stepped.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import layers, tree
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.models.functional import operation_fn

from sluice.export import rules
from sluice.export.plan import has_free_time
from sluice.export.walk import graph_of, inner_arguments, named_arguments

# What layers that take no mask are shown beyond a row's length: what Keras itself puts behind a row that ends there.
_SHOWN: dict[type, Callable[[tf.DType], Any]] = {
    **dict.fromkeys((layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D), lambda _: 0),
    layers.GlobalMaxPooling1D: lambda dtype: dtype.min,
}


@contextmanager
def hushed() -> Iterator[None]:
    """Without what Keras warns of: that a layer drops a mask, or that there is a softmax over one time step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


class Run:
    """One run of a model as it predicts, on [batch, time, ...]; `within`, bool [batch, time], are each row's own steps.

    A layer sees them as its mask, and as much of the mask as Keras would give it. Without `within` all steps count.

    Attributes:
        gave: by call, in order, the outputs, and whether each has a time axis.
        running: the layer or function that was called last.
    """

    def __init__(self, within: tf.Tensor | None = None) -> None:
        self._within = within
        self.gave: list[tuple[keras.Operation, list[tuple[tf.Tensor, bool]]]] = []
        self.running: keras.Operation | None = None

    def run(self, model: keras.Model, tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """The model's outputs in order for its inputs in order."""
        graph = graph_of(model)
        assert graph is not None
        values = {id(each): self._ended(each, x) for each, x in zip(graph.inputs, tensors, strict=True)}
        for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
            for node in (node for node in nodes if not node.is_input):
                args, kwargs = node.arguments.fill_in(values)
                given = tree.flatten(self._call(node.operation, args, kwargs))
                outputs = [self._ended(each, y) for each, y in zip(node.outputs, given, strict=True)]
                values.update(zip(map(id, node.outputs), outputs, strict=True))
                self.gave.append((node.operation, [*zip(outputs, map(has_free_time, node.outputs), strict=True)]))
        return [values[id(each)] for each in graph.outputs]

    def _call(self, operation: keras.Operation, args: Any, kwargs: Any) -> Any:
        if graph_of(operation) is not None:
            return self._nested(operation, named_arguments(operation, args, kwargs))
        self.running = operation
        if isinstance(operation, layers.TimeDistributed):
            return rules.sequence(operation, *args, **kwargs)
        args, kwargs = tree.map_structure(partial(self._shown, operation), (args, kwargs))
        if self._within is not None and kwargs.get("initial_state") is not None:  # which Keras then gives no mask
            kwargs = {"mask": self._within, **kwargs}
        return operation_fn(operation, training=False)(*args, **kwargs)

    def _nested(self, model: keras.Model, given: dict[str, Any]) -> list[tf.Tensor]:
        inputs = inner_arguments(model, next(iter(given.values())))
        for tensor, mask in zip(inputs, tree.flatten(given.get("mask")), strict=False):
            if mask is not None:
                set_keras_mask(tensor, mask)
        return self.run(model, inputs)

    def _shown(self, operation: keras.Operation, leaf: Any) -> Any:
        """An argument as the layer is to see it; attention takes the mask off what it is given."""
        mask = get_keras_mask(leaf)
        if mask is None:
            return leaf
        if self._within is None or type(operation) not in _SHOWN:
            shown = tf.identity(leaf)
            set_keras_mask(shown, mask)
            return shown
        return tf.where(self._spread(leaf), leaf, tf.cast(_SHOWN[type(operation)](leaf.dtype), leaf.dtype))

    def _ended(self, symbol: keras.KerasTensor, tensor: tf.Tensor) -> tf.Tensor:
        """A tensor whose rows end at their lengths; one of another time than the request's stays as it is."""
        if self._within is None or not has_free_time(symbol) or tensor.shape[1] != self._within.shape[1]:
            return tensor
        mask = get_keras_mask(tensor)
        if tensor.dtype == tf.bool:  # it may be a mask that is given to a layer by hand
            tensor = tensor & self._spread(tensor)
        set_keras_mask(tensor, self._within if mask is None else tf.cast(mask, tf.bool) & self._spread(mask))
        return tensor

    def _spread(self, over: tf.Tensor) -> tf.Tensor:
        """The lengths' mask with as many axes as `over`."""
        return tf.reshape(self._within, tf.concat([tf.shape(self._within), [1] * (len(over.shape) - 2)], 0))
