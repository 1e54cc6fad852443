"""Decides which layers of a recurrent model can be run one time step at a time, how, and why the others cannot.

It does not know the model's graph, nor what layers remember: that is `walk` and `memory`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import layers, tree
from keras.src.backend import get_keras_mask, set_keras_mask

TIME_AXIS = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer or function.

    Attributes:
        operation: the layer, or a function of `keras.ops`.
        args: its positional arguments.
        rank: how many axes the tensors among them have.
        fixed: how many of these, from the first, it must leave alone: batch, and time where there is one.
    """

    operation: keras.Operation
    args: tuple[Any, ...]
    rank: int
    fixed: int


Refusal = Callable[[Call], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one type of layer or function meets the time axis.

    Attributes:
        refusal: why this call cannot be run on one time step, or None if it can.
        sequence: (layer, *arguments) → output, both [batch, time, ...].
        any_rank: whether `sequence` runs one time step, [batch, ...], just as well.
    """

    refusal: Refusal
    sequence: Callable[..., Any]
    any_rank: bool = False


def refusal(call: Call) -> str | None:
    """Why a call cannot be run on one time step, or on one row alone, or None if it can."""
    rule = _rule(call.operation)
    return rule.refusal(call) if rule else unknown(call.operation)


def unknown(operation: keras.Operation) -> str | None:
    """Why no call of `operation` can be run on one time step, or None if it depends on the call."""
    return None if _rule(operation) else _REASONS.get(type(operation), _UNKNOWN)


def broadcasts(layer: keras.Operation) -> bool:
    """Whether `layer` gives an argument without a time axis to each time step of the others."""
    return type(layer) in _MERGES


def step(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    """Run `layer` on one time step: tensors in and out are [batch, ...] without a time axis."""
    rule = _rule(layer)
    assert rule is not None
    if rule.any_rank:
        return rule.sequence(layer, *args, **kwargs)
    args, kwargs = tree.map_structure(_expanded, (args, kwargs))
    return tree.map_structure(_squeezed, rule.sequence(layer, *args, **kwargs))


def sequence(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    """Run `layer` on whole sequences: tensors in and out are [batch, time, ...]."""
    rule = _rule(layer)
    assert rule is not None
    return rule.sequence(layer, *args, **kwargs)


def _rule(operation: keras.Operation) -> Rule | None:
    if type(operation).__module__.startswith("keras.src.ops."):
        return _FUNCTIONS.get(type(operation).__name__)
    return RULES.get(type(operation))


def _never(call: Call) -> None:
    """The layer treats every element, or every time step, alone."""


def _along_last_axis(call: Call) -> str | None:
    return _along([-1], call)


def _along_own_axes(call: Call) -> str | None:
    return _along([axis for axis in tree.flatten(call.operation.axis) if axis is not None], call)


def _along(axes: list[int], call: Call) -> str | None:
    along = sorted({axis % call.rank for axis in axes} & set(range(call.fixed)))
    names = ("batch", "time")
    return f"it works along axis {along[-1]}, which is the {names[along[-1]]} axis" if along else None


def _own_slopes(call: Call) -> str | None:
    shared = TIME_AXIS in (call.operation.shared_axes or ())
    return None if shared else f"its slopes differ from one time step to the next; give it shared_axes=[{TIME_AXIS}]"


def _kernel_of_one(call: Call) -> str | None:
    layer = call.operation
    if max(layer.kernel_size) > 1:
        return f"{_NEIGHBOURS}; Conv1D with padding='causal' looks at earlier ones only"
    if max(layer.strides) > 1:
        return f"strides={layer.strides[0]} skips time steps, and there would be no answer at some"
    return None if layer.data_format == "channels_last" else f"data_format='{layer.data_format}' mixes the time steps"


def _inner_state(call: Call) -> str | None:
    inner = call.operation.layer
    kept = any(getattr(layer, "stateful", False) for layer in (inner, *inner._flatten_layers()))
    return "the layer in it is stateful" if kept else None


def _small_constants(call: Call) -> str | None:
    """A constant of fewer axes meets each time step alike."""
    constants = [len(leaf.shape) for leaf in tree.flatten(call.args) if hasattr(leaf, "shape") and not _is_flow(leaf)]
    small = max(constants, default=0) <= call.rank - call.fixed
    return None if small else "it joins a constant that may differ from one time step to the next"


def _along_given_axes(call: Call) -> str | None:
    """For functions whose `axis` says along which axes they work; None are all of them."""
    if call.operation.axis is None:
        return _along([*range(call.rank)], call)
    return _along_own_axes(call)


def _new_axis(call: Call) -> str | None:
    return _along(tree.flatten(call.operation.axis), Call(call.operation, call.args, call.rank + 1, call.fixed))


def _untouched_axes(call: Call) -> str | None:
    """For `tensor[key]`: whole slices of batch and time, and no new axes."""
    key = tuple(call.args[1]) if isinstance(call.args[1], tuple | list) else (call.args[1],)  # a list in a file
    given = len([part for part in key if part is not Ellipsis])
    spread = [slice(None)] * (call.rank - given)
    at = key.index(Ellipsis) if Ellipsis in key else len(key)
    full = [*key[:at], *spread, *key[at + 1 :]]
    whole = all(part == slice(None) for part in full[: call.fixed])
    return None if whole and None not in key else "it takes apart the time axis or the batch"


def _as_it_is(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)


def _is_flow(leaf: Any) -> bool:
    """Tensors that flow through the model have no value yet; constants do."""
    return tf.is_tensor(leaf) and tf.is_symbolic_tensor(leaf)


def _expanded(leaf: Any) -> Any:
    """A tensor of one time step and its mask, with a time axis of length 1; anything else as it is."""
    return _with_mask(leaf, lambda tensor: tf.expand_dims(tensor, TIME_AXIS)) if _is_flow(leaf) else leaf


def _squeezed(tensor: tf.Tensor) -> tf.Tensor:
    return _with_mask(tensor, lambda each: tf.squeeze(each, TIME_AXIS))


def _with_mask(tensor: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    changed, mask = change(tensor), get_keras_mask(tensor)
    if mask is not None:
        set_keras_mask(changed, change(mask))
    return changed


def _folded(layer: layers.TimeDistributed, frames: Any, mask: Any = None, training: bool = False) -> Any:
    """All time steps of all rows as one batch: Keras 3.15 runs `batch` steps, not `time`, where `time` is unknown."""
    mask = get_keras_mask(frames) if mask is None else mask
    batch, time, *sizes = keras.ops.shape(frames)
    given: dict[str, Any] = {"training": False} if layer.layer._call_has_training_arg else {}
    if layer.layer._call_has_mask_arg and mask is not None:
        given["mask"] = keras.ops.reshape(mask, (-1, *keras.ops.shape(mask)[2:]))
    output = layer.layer(keras.ops.reshape(frames, (-1, *sizes)), **given)
    output = keras.ops.reshape(output, (batch, time, *keras.ops.shape(output)[1:]))
    if mask is not None:
        set_keras_mask(output, mask)
    return output


_MERGES = (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract)
_ELEMENTWISE = (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.ELU,
    layers.Embedding,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Rescaling,
    *_MERGES,
)
_OWN_AXES = (
    layers.BatchNormalization,
    layers.Concatenate,
    layers.LayerNormalization,
    layers.Normalization,
    layers.RMSNormalization,
    layers.Softmax,
    layers.UnitNormalization,
)
_CONVOLUTIONS = (layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D)

RULES: dict[type, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, Rule(_never, _as_it_is, any_rank=True)),
    **dict.fromkeys(
        (layers.Activation, layers.Dense, layers.Masking), Rule(_along_last_axis, _as_it_is, any_rank=True)
    ),
    **dict.fromkeys(_OWN_AXES, Rule(_along_own_axes, _as_it_is)),
    **dict.fromkeys(_CONVOLUTIONS, Rule(_kernel_of_one, _as_it_is)),
    layers.PReLU: Rule(_own_slopes, _as_it_is),
    layers.SpatialDropout1D: Rule(_never, _as_it_is),
    layers.TimeDistributed: Rule(_inner_state, _folded),
}

# Functions of `keras.ops`, by the name of their class. Keras computes masks by them, so they stand in models that only
# use layers.
_ELEMENTWISE_FUNCTIONS = """
    Abs Absolute Add Cast Ceil Clip Cos Divide DivideNoNan Elu Equal Exp Expm1 Floor Gelu Greater GreaterEqual
    HardSigmoid Isfinite Isnan LeakyRelu Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr LogicalXor Maximum
    Minimum Mod Multiply Negative NotEqual OnesLike Power Reciprocal Relu Relu6 Round Rsqrt Selu Sigmoid Sign Silu Sin
    Softplus Softsign Sqrt Square StopGradient Subtract Tanh TrueDivide Where ZerosLike
"""
_FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE_FUNCTIONS.split(), Rule(_small_constants, _as_it_is, any_rank=True)),
    **dict.fromkeys(
        ("All", "Any", "Concatenate", "LogSoftmax", "Max", "Mean", "Min", "Prod", "Softmax", "Squeeze", "Std", "Sum"),
        Rule(_along_given_axes, _as_it_is),
    ),
    "ExpandDims": Rule(_new_axis, _as_it_is),
    "GetItem": Rule(_untouched_axes, _as_it_is),
}

_UNKNOWN = "it is not known to treat each time step alone; if it does, wrap it in TimeDistributed"
_NEIGHBOURS = "it looks at neighbouring time steps"
_WHOLE = "it looks at the whole sequence"
_REARRANGED = "it rearranges the time axis"

_REASONS: dict[type, str] = {
    **dict.fromkeys(
        (
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            layers.AveragePooling3D,
            layers.Conv1DTranspose,
            layers.Conv2D,
            layers.Conv2DTranspose,
            layers.Conv3D,
            layers.Conv3DTranspose,
            layers.DepthwiseConv2D,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.MaxPooling3D,
            layers.SeparableConv2D,
        ),
        _NEIGHBOURS,
    ),
    **dict.fromkeys(
        (
            layers.AdditiveAttention,
            layers.Attention,
            layers.Dot,
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.GlobalMaxPooling3D,
            layers.GroupNormalization,
            layers.GroupQueryAttention,
            layers.MultiHeadAttention,
        ),
        _WHOLE,
    ),
    **dict.fromkeys(
        (
            layers.Cropping1D,
            layers.Flatten,
            layers.Permute,
            layers.RepeatVector,
            layers.Reshape,
            layers.UpSampling1D,
            layers.ZeroPadding1D,
        ),
        _REARRANGED,
    ),
    layers.Bidirectional: "it also reads the sequence from its end",
}
