"""Finds a classifier's features, its logits and what lies between them. It does not know what they are good for."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from sluice.export.errors import ExportError
from sluice.export.scores import Head
from sluice.export.walk import graph_of

# What turns logits into probabilities and can be taken off again.
_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier taken apart.

    Attributes:
        whole: inputs to [features [batch, d], logits [batch, class]].
        head: features to logits; None where the logits depend on more.
    """

    whole: keras.Model
    head: Head | None


def classifier(model: keras.Model, features_layer: str | None) -> Classifier:
    """Take a classifier apart at the layer of this name; without one its logits are its features.

    A softmax or sigmoid at the end, a layer of its own or the activation of the last dense layer, is left out.

    Raises:
        ExportError: not a built Sequential or functional model with one output [batch, class]; it ends in another
            activation; or there is no such layer, or one whose output is not [batch, d].
    """
    graph = graph_of(model)
    if graph is None or len(graph.outputs) != 1 or len(graph.outputs[0].shape) != 2:
        raise ExportError(
            f"model '{model.name}': expected a Sequential or functional Keras model whose input shape is known, with "
            "one output [batch, class]"
        )
    logits = _logits(graph.outputs[0])
    if features_layer is None:
        return Classifier(keras.Model(graph.inputs, [logits, logits], name=model.name), None)
    features = _features(graph, features_layer)
    return Classifier(keras.Model(graph.inputs, [features, logits], name=model.name), _head(features, logits))


def _features(graph: keras.Model, name: str) -> keras.KerasTensor:
    nodes = [node for _, level in sorted(graph._nodes_by_depth.items(), reverse=True) for node in level]
    named = {node.operation.name: node.outputs[0] for node in nodes if not node.is_input}
    if name not in named:
        raise ExportError(f"features layer '{name}': expected a layer of '{graph.name}' ({', '.join(named)})")
    output = named[name]
    if len(output.shape) != 2 or output.shape[1] is None:
        sizes = ", ".join("any" if size is None else str(size) for size in output.shape[1:])
        raise ExportError(
            f"features layer '{name}': expected an output of [batch, d], got [batch, {sizes}]; choose a layer after "
            "pooling or flattening"
        )
    return output


def _logits(output: keras.KerasTensor) -> keras.KerasTensor:
    last = _maker(output)
    activation = getattr(last, "activation", keras.activations.linear)
    if isinstance(last, layers.Softmax) or (isinstance(last, layers.Activation) and activation in _PROBABILITIES):
        return _given(output)
    if activation is keras.activations.linear:
        return output
    if isinstance(last, layers.Dense) and activation in _PROBABILITIES:
        return _linear(last, _given(output))
    raise ExportError(
        f"layer '{last.name}': expected logits, or a softmax or sigmoid after them, got the activation "
        f"'{getattr(activation, '__name__', activation)}'"
    )


def _linear(dense: layers.Dense, given: keras.KerasTensor) -> keras.KerasTensor:
    """What the dense layer gives before its activation."""
    copy = layers.Dense.from_config(dense.get_config() | {"activation": "linear", "name": f"{dense.name}_logits"})
    logits = copy(given)
    copy.set_weights(dense.get_weights())
    return logits


def _head(features: keras.KerasTensor, logits: keras.KerasTensor) -> Head | None:
    try:
        after = keras.Model(features, logits)
    except ValueError:
        return None
    last = _maker(logits)
    if not isinstance(last, layers.Dense) or _given(logits) is not features:
        return Head(lambda x: after(x, training=False))
    kernel = keras.ops.convert_to_numpy(last.kernel).astype(np.float64)
    bias = keras.ops.convert_to_numpy(last.bias).astype(np.float64) if last.use_bias else np.zeros(kernel.shape[1])
    return Head(lambda x: after(x, training=False), kernel, bias)


def _maker(tensor: keras.KerasTensor) -> Any:
    """The layer that gave a tensor."""
    return tensor._keras_history.operation


def _given(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What the layer that gave a tensor was called with."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]
