"""What a layer remembers from one time step to the next: a recurrent layer its cell's states, a convolution its window.

It runs one layer over one time step or many; it does not know the model's graph.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, tree

from sluice.export.errors import CannotStep

Tensors = list[tf.Tensor]

# The names of a cell's states, in the cell's order; those of any other cell are numbered.
_NAMES: Mapping[type, tuple[str, ...]] = {
    layers.SimpleRNNCell: ("h",),
    layers.GRUCell: ("h",),
    layers.LSTMCell: ("h", "c"),
}
_RECURRENT = (layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM)


@dataclass(frozen=True, slots=True)
class State:
    """One tensor that one call of a layer remembers, [batch, *shape].

    Attributes:
        name: its name in signatures and contract, `<layer>/<state>`.
        layer: the layer's name.
        dtype: as Keras writes it, such as "float32".
        shape: of one row.
        initial: the row a sequence starts from, an array of `shape`.
    """

    name: str
    layer: str
    dtype: str
    shape: tuple[int, ...]
    initial: np.ndarray


class Memory(ABC):
    """One call of a layer that remembers. Subclasses say how it runs; `states` are in the order they take and give."""

    states: tuple[State, ...]

    @abstractmethod
    def step(self, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors) -> tuple[tf.Tensor, Tensors]:
        """One time step: inputs and output [batch, ...], mask bool [batch]; the output and the new states."""

    @abstractmethod
    def scan(
        self, sequence: tf.Tensor, mask: tf.Tensor | None, states: Tensors, lengths: tf.Tensor | None
    ) -> tuple[tf.Tensor, Tensors]:
        """Many time steps.

        Args:
            sequence: [batch, time, ...].
            mask: bool [batch, time], True where a step counts; None where all do.
            states: before the first step, each [batch, *shape].
            lengths: int32 [batch], the number of steps of each row; None for all of them.
        Returns:
            [batch, time, ...], or [batch, ...] after each row's last step where the layer gives no sequence; and the
            states after each row's last step.
        """

    def initial(self, rows: tf.Tensor) -> Tensors:
        """The states that sequences start from, for a batch of `rows` rows."""
        return [_repeated(state.initial, rows) for state in self.states]


def remembers(layer: keras.Operation) -> bool:
    """Whether `layer` needs earlier time steps in a way that a `Memory` can hold."""
    return isinstance(layer, layers.RNN) or _is_causal(layer)


def gives_sequence(layer: keras.Layer) -> bool:
    """Whether a layer that remembers answers at each time step, not only at the last."""
    return bool(getattr(layer, "return_sequences", True))


def refusal(layer: keras.Layer) -> str | None:
    """Why a layer that remembers cannot be run one time step at a time, or None if it can."""
    return _recurrent_refusal(layer) if isinstance(layer, layers.RNN) else _causal_refusal(layer)


def memory_of(layer: keras.Layer, prefix: str, sequence: tf.Tensor, mask: tf.Tensor | None) -> Memory:
    """The memory of one call of `layer` on `sequence`, [batch, time, ...]; its states' names begin with `prefix`.

    Raises:
        CannotStep: the initial state is not the same for every row and every call, or the mask is not [batch, time].
    """
    if isinstance(layer, layers.RNN):
        return CellMemory(layer, prefix, sequence, mask)
    return WindowMemory(layer, prefix, sequence)


class CellMemory(Memory):
    """One call of a recurrent layer: the states of its cell and, under a mask, the output before.

    Keras keeps the state at a masked step and repeats the previous output, zeros where there is none yet; with
    `zero_output_for_mask` it gives zeros instead, and nothing has to be remembered for it.
    """

    def __init__(self, layer: layers.RNN, prefix: str, sequence: tf.Tensor, mask: tf.Tensor | None) -> None:
        if mask is not None and (len(mask.shape) < 2 or any(size != 1 for size in mask.shape[2:])):
            raise CannotStep(layer, f"its mask has {len(mask.shape)} axes; one of batch and time alone is needed")
        self._layer = layer
        self._structure, rows = _initial_rows(layer)
        names = _state_names(layer.cell, self._structure)
        self._cell_states = tuple(
            State(f"{prefix}/{name}", layer.name, str(row.dtype), row.shape, row)
            for name, row in zip(names, rows, strict=True)
        )
        self._output = self._row_of_output(sequence)
        self._repeats = mask is not None and not layer.zero_output_for_mask
        previous = State(f"{prefix}/output", layer.name, str(self._output.dtype), self._output.shape, self._output)
        self.states = (*self._cell_states, *([previous] if self._repeats else []))

    def step(self, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors) -> tuple[tf.Tensor, Tensors]:
        output, new_states = self._advance(inputs, mask, *self._split(states, tf.shape(inputs)[0]))
        return self._cast(output), self._joined(output, new_states)

    def scan(
        self, sequence: tf.Tensor, mask: tf.Tensor | None, states: Tensors, lengths: tf.Tensor | None
    ) -> tuple[tf.Tensor, Tensors]:
        time = tf.shape(sequence)[1]
        steps = _unstacked(sequence)
        masks = None if mask is None else _unstacked(mask)

        def body(t: tf.Tensor, outputs: tf.TensorArray, previous: tf.Tensor, states: Tensors) -> tuple[Any, ...]:
            counts = None if masks is None else masks.read(t)
            output, new_states = self._advance(steps.read(t), counts, previous, states)
            if lengths is not None:
                within = t < lengths
                output = _where(within, output, previous)
                new_states = [_where(within, new, old) for new, old in zip(new_states, states, strict=True)]
            return t + 1, outputs.write(t, output), output, new_states

        previous, states = self._split(states, tf.shape(sequence)[0])
        outputs = tf.TensorArray(previous.dtype, time, element_shape=previous.shape)
        _, outputs, last, states = tf.while_loop(lambda t, *_: t < time, body, (0, outputs, previous, states))
        answer = _batch_first(outputs.stack()) if self._layer.return_sequences else last
        return self._cast(answer), self._joined(last, states)

    def _advance(
        self, inputs: tf.Tensor, mask: tf.Tensor | None, previous: tf.Tensor, states: Tensors
    ) -> tuple[tf.Tensor, Tensors]:
        """One step of the cell; `previous` is the output before, and is what a masked row answers."""
        output, new_states = self._run_cell(inputs, states)
        if mask is None:
            return output, new_states
        masked = tf.zeros_like(output) if self._layer.zero_output_for_mask else previous
        kept = [_where(mask, new, old) for new, old in zip(new_states, states, strict=True)]
        return _where(mask, output, masked), kept

    def _run_cell(self, inputs: tf.Tensor, states: Tensors) -> tuple[tf.Tensor, Tensors]:
        cell = self._layer.cell
        training = {"training": False} if getattr(cell, "_call_has_training_arg", False) else {}
        output, new_states = cell(inputs, tuple(tree.pack_sequence_as(self._structure, states)), **training)
        flat = tree.flatten(new_states)
        for new, old in zip(flat, states, strict=True):
            new.set_shape(old.shape)
        return output, flat

    def _row_of_output(self, sequence: tf.Tensor) -> np.ndarray:
        """Zeros of the shape and dtype of one row of the cell's output."""
        rows = tf.shape(sequence)[0]
        inputs = tf.zeros((rows, *sequence.shape[2:]), sequence.dtype)
        starts = [_repeated(state.initial, rows) for state in self._cell_states]
        output, _ = self._run_cell(inputs, starts)
        return np.zeros(output.shape[1:], output.dtype.as_numpy_dtype)

    def _split(self, states: Tensors, rows: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        """The output before, zeros where it is not remembered, and the cell's states."""
        if self._repeats:
            return states[-1], states[:-1]
        return tf.zeros((rows, *self._output.shape), self._output.dtype), states

    def _joined(self, output: tf.Tensor, states: Tensors) -> Tensors:
        return [*states, output] if self._repeats else states

    def _cast(self, output: tf.Tensor) -> tf.Tensor:
        return tf.cast(output, self._layer.compute_dtype)


class WindowMemory(Memory):
    """One call of a causal convolution: the last inputs that its kernel still reaches, zeros before the first.

    The state is [batch, (kernel - 1) * dilation, channels].
    """

    def __init__(self, layer: layers.Conv1D, prefix: str, sequence: tf.Tensor) -> None:
        self._layer = layer
        self._reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        zeros = np.zeros((self._reach, sequence.shape[-1]), tf.as_dtype(layer.compute_dtype).as_numpy_dtype)
        self.states = (State(f"{prefix}/window", layer.name, layer.compute_dtype, zeros.shape, zeros),)

    def step(self, inputs: tf.Tensor, mask: tf.Tensor | None, states: Tensors) -> tuple[tf.Tensor, Tensors]:
        reached = self._after(states, inputs[:, tf.newaxis])
        return self._convolved(reached)[:, 0], [reached[:, 1:]]

    def scan(
        self, sequence: tf.Tensor, mask: tf.Tensor | None, states: Tensors, lengths: tf.Tensor | None
    ) -> tuple[tf.Tensor, Tensors]:
        reached = self._after(states, sequence)
        ends = tf.fill(tf.shape(sequence)[:1], tf.shape(sequence)[1]) if lengths is None else lengths
        window = tf.gather(reached, ends[:, tf.newaxis] + tf.range(self._reach), axis=1, batch_dims=1)
        return self._convolved(reached), [window]

    def _after(self, states: Tensors, sequence: tf.Tensor) -> tf.Tensor:
        return tf.concat([states[0], tf.cast(sequence, self._layer.compute_dtype)], axis=1)

    def _convolved(self, reached: tf.Tensor) -> tf.Tensor:
        with _padding(self._layer, "valid"):
            return self._layer(reached)


@contextmanager
def _padding(layer: layers.Conv1D, padding: str) -> Iterator[None]:
    """The layer pads so for a while: it has no argument for it, and its weights cannot be shared with another."""
    before, layer.padding = layer.padding, padding
    try:
        yield
    finally:
        layer.padding = before


def _is_causal(layer: keras.Operation) -> bool:
    """A kernel of one step needs no window."""
    return isinstance(layer, layers.Conv1D) and layer.padding == "causal" and layer.kernel_size[0] > 1


def _recurrent_refusal(layer: layers.RNN) -> str | None:
    if isinstance(layer, layers.ConvLSTM1D | layers.ConvLSTM2D | layers.ConvLSTM3D):
        return "convolutional recurrent layers are not supported"
    if layer.go_backwards:
        return "go_backwards=True reads the sequence from its end"
    if layer.return_state:
        return "return_state=True; the exported signatures give the state already"
    if any(getattr(type(layer), name) not in _own(name) for name in ("call", "inner_loop")):
        return "it does not run its cell as keras.layers.RNN does (it has a `call` or `inner_loop` of its own)"
    return None


def _own(name: str) -> list[Any]:
    return [getattr(recurrent, name) for recurrent in _RECURRENT]


def _causal_refusal(layer: layers.Conv1D) -> str | None:
    if type(layer) is not layers.Conv1D:
        return "it is not known how its causal padding works"
    if layer.data_format != "channels_last":
        return f"data_format='{layer.data_format}' puts the time axis last"
    strides = layer.strides[0]
    return f"strides={strides} skips time steps, and there would be no answer at some" if strides > 1 else None


def _initial_rows(layer: layers.RNN) -> tuple[Any, list[np.ndarray]]:
    """The nested structure of the cell's states, and the row that each starts from, without the batch axis.

    Raises:
        CannotStep: rows start differently, or the state starts differently each time.
    """
    dtype = getattr(layer.cell, "compute_dtype", layer.compute_dtype)
    with tf.init_scope():
        structure, again = (layer.get_initial_state(batch_size=2) for _ in range(2))
        states, others = (
            [np.asarray(keras.ops.cast(state, dtype)) for state in tree.flatten(given)] for given in (structure, again)
        )
    for state, other in zip(states, others, strict=True):
        if not (np.array_equal(state[0], state[1]) and np.array_equal(state, other)):
            raise CannotStep(layer, "its initial state is not the same for every row and every sequence")
    return structure, [state[0] for state in states]


def _state_names(cell: Any, structure: Any) -> list[str]:
    """A name for each state tensor, in the order of `structure`; those of stacked cells begin with its number."""
    if isinstance(cell, layers.StackedRNNCells):
        stacked = enumerate(zip(cell.cells, structure, strict=True))
        return [f"cell_{i}/{name}" for i, (each, states) in stacked for name in _state_names(each, states)]
    count = len(tree.flatten(structure))
    known = _NAMES.get(type(cell), ())
    return list(known) if len(known) == count else [f"state_{i}" for i in range(count)]


def _repeated(row: np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(tf.constant(row), [rows, *row.shape])


def _unstacked(sequence: tf.Tensor) -> tf.TensorArray:
    """[batch, time, ...] as an array of time steps [batch, ...]."""
    steps = tf.TensorArray(sequence.dtype, tf.shape(sequence)[1], element_shape=(None, *sequence.shape[2:]))
    return steps.unstack(_batch_first(sequence))


def _batch_first(sequence: tf.Tensor) -> tf.Tensor:
    """Exchange the first two axes."""
    return tf.transpose(sequence, [1, 0, *range(2, len(sequence.shape))])


def _where(rows: tf.Tensor, here: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
    """`here` in the rows where `rows`, bool [batch], is True, `there` in the others."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (len(here.shape) - 1)), here, there)
