"""Decides which layers of a recurrent model can be run one time step at a time, how, and why the others cannot.

It does not know the model's graph, nor the recurrent layers' states: that is `walk`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

TIME_AXIS = 1

Refusal = Callable[[keras.Layer, int], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one type of layer meets the time axis.

    Attributes:
        refusal: (layer, rank of its input with batch and time) → why this layer cannot be stepped, or None.
        step: (layer, *arguments) → output, both [batch, ...] without a time axis.
        sequence: (layer, *arguments) → output, both [batch, time, ...].
    """

    refusal: Refusal
    step: Callable[..., Any]
    sequence: Callable[..., Any]


def refusal(layer: keras.Operation, rank: int) -> str | None:
    """Why `layer` cannot be run on one time step of a tensor of `rank` (batch and time counted), or None if it can."""
    rule = RULES.get(type(layer))
    return rule.refusal(layer, rank) if rule else _REASONS.get(type(layer), _UNKNOWN)


def masking(layer: keras.Layer) -> str | None:
    """Why `layer` cannot be part of a recurrent model because it masks time steps, or None if it does not.

    Keras computes masks by raw functions in the graph, so this is asked of all layers before any other question.
    """
    if isinstance(layer, layers.Masking):
        return _MASKS
    return f"mask_zero=True: {_MASKS}" if getattr(layer, "mask_zero", False) else None


def step(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    """Run `layer` on one time step: tensors in and out are [batch, ...] without a time axis."""
    return RULES[type(layer)].step(layer, *args, **kwargs)


def sequence(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    """Run `layer` on whole sequences: tensors in and out are [batch, time, ...]."""
    return RULES[type(layer)].sequence(layer, *args, **kwargs)


def _never(layer: keras.Layer, rank: int) -> None:
    """The layer treats every element, or every time step, alone."""


def _along_last_axis(layer: keras.Layer, rank: int) -> str | None:
    return _along_time([-1], rank)


def _along_own_axes(layer: keras.Layer, rank: int) -> str | None:
    return _along_time(keras.tree.flatten(layer.axis), rank)


def _along_time(axes: list[int | None], rank: int) -> str | None:
    along = any(axis is not None and axis % rank == TIME_AXIS for axis in axes)
    return f"it works along axis {TIME_AXIS}, which is the time axis" if along else None


def _own_slopes(layer: layers.PReLU, rank: int) -> str | None:
    shared = TIME_AXIS in (layer.shared_axes or ())
    return None if shared else f"its slopes differ from one time step to the next; give it shared_axes=[{TIME_AXIS}]"


def _as_it_is(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)


def _with_time_axis(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    """For layers that name an axis by number, or ask for a rank: a time axis of length 1."""
    expanded = keras.tree.map_structure(lambda tensor: keras.ops.expand_dims(tensor, TIME_AXIS), args)
    return keras.ops.squeeze(layer(*expanded, **kwargs), TIME_AXIS)


def _inner_layer(layer: layers.TimeDistributed, *args: Any, **kwargs: Any) -> Any:
    return layer.layer(*args, **kwargs)


def _folded(layer: layers.TimeDistributed, frames: Any, **kwargs: Any) -> Any:
    """All time steps of all rows as one batch: Keras 3.15 runs `batch` steps, not `time`, where `time` is unknown."""
    batch, time, *sizes = keras.ops.shape(frames)
    output = layer.layer(keras.ops.reshape(frames, (-1, *sizes)), **kwargs)
    return keras.ops.reshape(output, (batch, time, *keras.ops.shape(output)[1:]))


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
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
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

RULES: dict[type, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, Rule(_never, _as_it_is, _as_it_is)),
    **dict.fromkeys((layers.Activation, layers.Dense), Rule(_along_last_axis, _as_it_is, _as_it_is)),
    **dict.fromkeys(_OWN_AXES, Rule(_along_own_axes, _with_time_axis, _as_it_is)),
    layers.PReLU: Rule(_own_slopes, _with_time_axis, _as_it_is),
    layers.SpatialDropout1D: Rule(_never, _with_time_axis, _as_it_is),
    layers.TimeDistributed: Rule(_never, _inner_layer, _folded),
}

_UNKNOWN = "it is not known to treat each time step alone; if it does, wrap it in TimeDistributed"
_MASKS = "a masked step repeats the previous output, which the state does not hold"
_NEIGHBOURS = "it looks at neighbouring time steps"
_WHOLE = "it looks at the whole sequence"
_REARRANGED = "it rearranges the time axis"
_CONVOLUTIONAL_STATE = "convolutional recurrent layers are not supported"

_REASONS: dict[type, str] = {
    **dict.fromkeys(
        (
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            layers.AveragePooling3D,
            layers.Conv1D,
            layers.Conv1DTranspose,
            layers.Conv2D,
            layers.Conv2DTranspose,
            layers.Conv3D,
            layers.Conv3DTranspose,
            layers.DepthwiseConv1D,
            layers.DepthwiseConv2D,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.MaxPooling3D,
            layers.SeparableConv1D,
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
    **dict.fromkeys((layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D), _CONVOLUTIONAL_STATE),
    layers.Bidirectional: "it also reads the sequence from its end",
    layers.RNN: "only SimpleRNN, GRU and LSTM are supported, not RNN around other cells",
}
