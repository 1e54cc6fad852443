"""Decides whether an exported folder answers as Keras does; it plays the calls in a fresh process (`replay`)."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import get_keras_mask
from keras.src.models.functional import operation_fn

from sluice.export import replay
from sluice.export.contract import FREE_SIZE, SEQUENCES, Description, Meaning, example_rows
from sluice.export.entries import Entry, entries
from sluice.export.errors import ExportError, refused
from sluice.export.imports import load
from sluice.export.names import legal_scopes
from sluice.export.padding import Run, hushed
from sluice.export.plan import Plan
from sluice.export.signatures import called
from sluice.export.walk import Flow, Span, graph_of

# Largest difference allowed, relative to max(1, |expected|), by the coarsest dtype the model computes in: eight units
# in the last place of the two short ones.
TOLERANCES: Mapping[str, float] = {"bfloat16": 2**-4, "float16": 2**-7}
TOLERANCE = 1e-5

_SEED = 20260101
_STEPS = 8
_ROWS = 3
_MASKED = 0.3
_WORDS, _NO_WORD = 4, "zyzzyva"  # of a text, and one that no vocabulary is likely to hold
# Of the rows of one batch, the first as long as the array; what stands beyond them must change nothing.
_LENGTHS = (_STEPS, 1, 5)
# Two chunks of uneven lengths, one of them 0: 7, 4 and 2 steps in all.
_CHUNKS = ((4, 3, 0), (3, 1, 2))

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Call:
    """One call and what Keras says it must answer.

    Attributes:
        signature: the signature's name.
        inputs: arrays by name; states left out are those of the call before.
        expected: arrays by output name, of bytes where the output is a string.
        valid: which elements of an output's first axes to compare, by output name; all where absent.
    """

    signature: str
    inputs: Arrays
    expected: Arrays
    valid: Arrays


def verify(folder: Path, calls: Sequence[Call], allowed: float = TOLERANCE) -> None:
    """Compare the SavedModel in `folder`, loaded by a fresh process, with what Keras answers.

    Raises:
        ExportError: the folder cannot be loaded and run, or an output differs by more than is allowed.
    """
    for call, answer in zip(calls, _replayed(folder, calls), strict=True):
        _compare(call, answer, allowed)


def tolerance(model: keras.Model) -> float:
    """The largest difference that rounding explains, by the coarsest dtype that the model computes in."""
    computed = {layer.compute_dtype for layer in model._flatten_layers()}
    return next((allowed for dtype, allowed in TOLERANCES.items() if dtype in computed), TOLERANCE)


def calls(model: keras.Model, plan: Plan, description: Description) -> Iterator[Call]:
    """Calls of a planned model on seeded random inputs, with Keras's answers."""
    x = samples(model, plan, description)
    asked = _stateless_copy(model) if plan.states else model
    with tf.device("/CPU:0"), refused("run by Keras"), legal_scopes(asked):
        _check_repeats(asked, [*_cut(plan, x, _ROWS, 2 if plan.states else FREE_SIZE).values()])
        if not plan.states:
            yield from _rows_calls(model, plan, x)
            if plan.is_ragged:
                yield _uneven_call(model, plan, x)
            return
        y = _running_outputs(asked, plan, x)
    yield from _whole_calls(plan, x, y)
    if plan.is_ragged:
        yield _sequences_call(plan, x, y)
    yield from _step_calls(plan, x, y)
    yield from _scan_calls(plan, x, y)


def samples(model: keras.Model, plan: Plan, description: Description) -> Arrays:
    """Random inputs by name, [rows, steps, ...] where timed; some time steps are masked if the model can mask."""
    random = np.random.default_rng(_SEED)
    found = entries(graph_of(model))
    x = {
        name: _sample(random, flow, _steps(plan), found[name], description.tensors.get(name, Meaning()).typical)
        for name, flow in plan.inputs.items()
    }
    for name, row in example_rows(plan, description).items():
        if x[name].dtype == object and description.example is not None and not found[name].words:
            x[name][...] = np.resize(np.char.encode(np.array(row, str), "utf-8"), x[name].shape[1:])
    for value in _mask_values(model):
        for name in (name for name, flow in plan.inputs.items() if flow.timed):
            x[name][random.random(x[name].shape[:2]) < _MASKED] = value
            if not plan.states:  # what attends to nothing at all has no answer
                first = x[name][:, 0]
                first[first == value] = value + 1
    return x


def _steps(plan: Plan) -> int:
    """How many time steps a sequence has."""
    return _STEPS if plan.states else FREE_SIZE


def _sample(
    random: np.random.Generator, flow: Flow, steps: int, entry: Entry, typical: tuple[float, float] | None
) -> np.ndarray:
    """Whole numbers below the vocabulary where there is an embedding."""
    sizes = tuple(FREE_SIZE if size is None else size for size in flow.row)
    shape = (_ROWS, *((steps,) if flow.timed else ()), *sizes)
    dtype = flow.tensor.dtype
    if dtype == "string":
        return _texts(random, entry, shape)
    if entry.vocabulary or dtype.startswith(("int", "uint", "bool")):
        low, high = typical or (0, (entry.vocabulary or 2) - 1)
        return random.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    return random.uniform(*(typical or (-1.0, 1.0)), shape).astype(tf.as_dtype(dtype).as_numpy_dtype)


def _texts(random: np.random.Generator, entry: Entry, shape: tuple[int, ...]) -> np.ndarray:
    """Words of the vocabulary, and one that is not in it; several to a text where a layer splits texts."""
    words = [*(entry.words or ()), _NO_WORD]
    texts = np.empty(shape, object)
    for place in np.ndindex(shape):
        texts[place] = " ".join(random.choice(words, _WORDS if entry.is_text else 1)).encode()
    return texts


def _mask_values(model: keras.Model) -> list[float]:
    every = model._flatten_layers()
    return [
        getattr(layer, "mask_value", 0)
        for layer in every
        if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    ]


def _running_outputs(model: keras.Model, plan: Plan, x: Arrays) -> Arrays:
    """What Keras answers after each time step of `x`: each output is [rows, steps, ...]."""
    whole = _outputs(model, plan, _cut(plan, x, _ROWS, _STEPS))
    if all(flow.timed for flow in plan.outputs.values()):
        return whole
    prefixes = [*(_outputs(model, plan, _cut(plan, x, _ROWS, t)) for t in range(1, _STEPS)), whole]
    return {
        name: whole[name] if flow.timed else np.stack([prefix[name] for prefix in prefixes], axis=1)
        for name, flow in plan.outputs.items()
    }


def _check_repeats(model: keras.Model, inputs: Sequence[np.ndarray]) -> None:
    """Raises: ExportError: a layer answers differently when it is asked again."""
    for (layer, first), (_, second) in zip(*(_by_operation(model, inputs) for _ in range(2)), strict=True):
        if not all(map(_same, first, second)):
            raise ExportError(
                f"layer '{layer.name}' ({type(layer).__name__}): expected one answer to the same input, got another "
                "when Keras was asked again: it draws random numbers even in `predict`. Remove what does, then export "
                "again"
            )


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(((first == second) | ((first != first) & (second != second))).all())  # noqa: PLR0124 - NaN, of any dtype


def _by_operation(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[tuple[keras.Operation, list[np.ndarray]]]:
    """What each call in the model gives, in order, when the model predicts."""
    found: list[tuple[keras.Operation, list[np.ndarray]]] = []

    def recorded(operation: keras.Operation) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            output = operation_fn(operation, training=False)(*args, **kwargs)
            found.append((operation, [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(output)]))
            return output

        return call

    graph = graph_of(model)
    assert graph is not None
    given = keras.tree.pack_sequence_as(graph._inputs_struct, inputs)
    graph._run_through_graph(graph._standardize_inputs(given), recorded)
    return found


def _cut(plan: Plan, x: Arrays, rows: int, steps: int) -> Arrays:
    """The first rows, and the first time steps of what has any."""
    return {name: x[name][:rows, :steps] if flow.timed else x[name][:rows] for name, flow in plan.inputs.items()}


def _at(plan: Plan, x: Arrays, rows: np.ndarray, steps: np.ndarray) -> Arrays:
    """The inputs of these rows at these time steps; `rows` and `steps` are broadcast together."""
    rows = np.broadcast_to(rows, np.broadcast_shapes(rows.shape, steps.shape))
    return {name: x[name][rows, steps] if flow.timed else x[name][rows] for name, flow in plan.inputs.items()}


def _stateless_copy(model: keras.Model) -> keras.Model:
    """The same model, loaded from its own file, that takes any batch size and length and remembers nothing."""
    every = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    own = {name: each for name, each in every.items() if not each.__module__.startswith("keras.")}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        copy = load(file, own)
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.stateful = layer.unroll = False
        if isinstance(layer, keras.Model):
            layer.input_spec = None
    return copy


def _outputs(model: keras.Model, plan: Plan, x: Arrays) -> Arrays:
    outputs = called(model, [x[name] for name in plan.inputs])
    return {name: keras.ops.convert_to_numpy(output) for name, output in zip(plan.outputs, outputs, strict=True)}


def _rows_calls(model: keras.Model, plan: Plan, x: Arrays) -> Iterator[Call]:
    for rows in (1, _ROWS):
        cut = _cut(plan, x, rows, _steps(plan))
        yield Call("serving_default", cut, _outputs(model, plan, cut), {})


def _uneven_call(model: keras.Model, plan: Plan, x: Arrays) -> Call:
    """Rows of uneven lengths together, and what Keras answers to each of them alone."""
    lengths = lengths_of(plan, x)
    rows = [row_of(plan, x, row, length) for row, length in enumerate(lengths)]
    with hushed():
        expected = [_outputs(model, plan, row) for row in rows]
        outputs = [
            dict(zip(plan.outputs, Run().run(model, [*map(tf.convert_to_tensor, row.values())]), strict=True))
            for row in rows
        ]
    return Call(
        SEQUENCES,
        {**x, plan.lengths: lengths},
        {name: _stacked([each[name] for each in expected]) for name in plan.outputs},
        {name: _stacked([meant(each[name]) for each in outputs]) for name, flow in plan.outputs.items() if flow.timed},
    )


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows [1, ...] of any lengths as one array of the longest, zeros or False beyond the others."""
    stacked = np.zeros((len(rows), *max(row.shape[1:] for row in rows)), rows[0].dtype)
    for whole, row in zip(stacked, rows, strict=True):
        whole[tuple(map(slice, row.shape[1:]))] = row[0]
    return stacked


def lengths_of(plan: Plan, x: Arrays) -> np.ndarray:
    """Uneven lengths of the rows of `x`, int32 [batch], the first as long as the array."""
    return np.array([_steps(plan), *_LENGTHS[1:]], np.int32)


def row_of(plan: Plan, x: Arrays, row: int, length: int) -> Arrays:
    """One row [1, ...], with its first time steps."""
    return {name: each[row : row + 1] for name, each in _cut(plan, x, _ROWS, length).items()}


def meant(alone: tf.Tensor) -> np.ndarray:
    """Bool [batch, time]: the steps of an output that Keras has not marked as masked, where a value means nothing."""
    mask = get_keras_mask(alone)
    if mask is None:
        return np.ones(alone.shape[:2], bool)
    return keras.ops.convert_to_numpy(mask).astype(bool).reshape(*alone.shape[:2], -1).any(axis=-1)


def _whole_calls(plan: Plan, x: Arrays, y: Arrays) -> Iterator[Call]:
    for rows, steps in ((1, _STEPS), (_ROWS, _STEPS - 1)):
        expected = {
            name: y[name][:rows, :steps] if flow.timed else y[name][:rows, steps - 1]
            for name, flow in plan.outputs.items()
        }
        yield Call("serving_default", _cut(plan, x, rows, steps), expected, {})


def _sequences_call(plan: Plan, x: Arrays, y: Arrays) -> Call:
    lengths = np.array(_LENGTHS, np.int32)
    return Call(
        SEQUENCES,
        {**x, plan.lengths: lengths},
        {
            name: y[name] if flow.timed else y[name][np.arange(_ROWS), lengths - 1]
            for name, flow in plan.outputs.items()
        },
        {name: np.arange(_STEPS) < lengths[:, None] for name, flow in plan.outputs.items() if flow.timed},
    )


def _step_calls(plan: Plan, x: Arrays, y: Arrays) -> Iterator[Call]:
    for rows in (1, _ROWS):
        for t in range(_STEPS):
            start = _initial_states(plan, rows) if t == 0 else {}
            expected = {name: after[:rows, t] for name, after in y.items()}
            yield Call("step", _at(plan, x, np.arange(rows), np.array(t)) | start, expected, {})


def _scan_calls(plan: Plan, x: Arrays, y: Arrays) -> Iterator[Call]:
    """Chunks of uneven lengths from each row's own position, then one step that shows where each row's state is."""
    rows = np.arange(_ROWS)
    done = np.zeros(_ROWS, np.int32)
    states = _initial_states(plan, _ROWS)
    for lengths in np.array(_CHUNKS, np.int32):
        yield _chunk_call(plan, x, y, done, lengths, states)
        done, states = done + lengths, {}
    yield Call("step", _at(plan, x, rows, done), {name: after[rows, done] for name, after in y.items()}, {})


def _chunk_call(plan: Plan, x: Arrays, y: Arrays, done: np.ndarray, lengths: np.ndarray, states: Arrays) -> Call:
    rows = np.arange(_ROWS)
    offsets = np.arange(lengths.max())
    steps = np.minimum(done[:, None] + offsets, _STEPS - 1)
    within, any_step = offsets < lengths[:, None], lengths > 0
    ends = {name: flow.span is Span.LAST for name, flow in plan.outputs.items()}
    return Call(
        "scan",
        _at(plan, x, rows[:, None], steps) | {plan.lengths: lengths} | states,
        {name: y[name][rows, done + lengths - 1] if ends[name] else y[name][rows[:, None], steps] for name in ends},
        {name: any_step if ends[name] else within for name in ends},
    )


def _initial_states(plan: Plan, rows: int) -> Arrays:
    return {state.name: np.repeat(state.initial[np.newaxis], rows, axis=0) for state in plan.states}


def _replayed(folder: Path, calls: Sequence[Call]) -> list[Arrays]:
    with TemporaryDirectory() as scratch:
        files = [Path(scratch) / "calls.npz", Path(scratch) / "answers.npz"]
        named: dict[str, Any] = {
            f"{i}/{call.signature}/{name}": replay.storable(x)
            for i, call in enumerate(calls)
            for name, x in call.inputs.items()
        }
        np.savez(files[0], **named)
        _run_replay(folder, *files)
        with np.load(files[1]) as answers:
            return [{name: answers[f"{i}/{name}"] for name in call.expected} for i, call in enumerate(calls)]


def _run_replay(folder: Path, *files: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", replay.__file__, folder, *files],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"the exported model cannot be loaded and run as TensorFlow Serving does: {reason}")


def _compare(call: Call, answer: Arrays, allowed: float) -> None:
    for name, expected in call.expected.items():
        found = difference(answer[name], expected, call.valid.get(name))
        if found > allowed:
            raise ExportError(
                f"signature '{call.signature}', output '{name}': expected Keras's answer within {allowed:g} relative "
                f"to max(1, |y|), got a difference of {found:.3g}; the model was not exported"
            )


def difference(answer: np.ndarray, expected: np.ndarray, valid: np.ndarray | None) -> float:
    """The largest relative to max(1, |expected|); infinite where shapes or texts differ, or only one is finite."""
    if answer.shape != expected.shape:
        return math.inf
    if valid is not None:
        answer, expected = answer[valid], expected[valid]
    if answer.dtype.kind == "S":
        return 0.0 if (answer == replay.storable(expected)).all() else math.inf
    answer, expected = answer.astype(np.float64), expected.astype(np.float64)
    relative = np.abs(answer - expected) / np.maximum(1.0, np.abs(expected))
    relative = np.where(np.isfinite(relative), relative, math.inf)
    same = (answer == expected) | (np.isnan(answer) & np.isnan(expected))
    return float(np.max(np.where(same, 0.0, relative), initial=0.0))
