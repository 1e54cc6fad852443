"""Decides whether an exported folder answers as Keras does; it plays the calls in a fresh process (`replay`)."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.export import replay
from models.export.contract import LENGTHS, Description, Meaning, step_sizes
from models.export.errors import ExportError
from models.export.walk import Plan

# Largest difference allowed, relative to max(1, |expected|).
TOLERANCE = 1e-5

_SEED = 20260101
_STEPS = 8
_ROWS = 3
_FREE_SIZE = 16
# Two chunks of uneven lengths, one of them 0: 7, 4 and 2 steps in all.
_CHUNKS = ((4, 3, 0), (3, 1, 2))

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Call:
    """One call and what Keras says it must answer.

    Attributes:
        signature: the signature's name.
        inputs: arrays by name; states left out are those of the call before.
        expected: arrays by output name.
        valid: which elements of an output's first axes to compare, by output name; all where absent.
    """

    signature: str
    inputs: Arrays
    expected: Arrays
    valid: Arrays


def verify(model: keras.Model, plan: Plan, description: Description, folder: Path) -> None:
    """Compare the SavedModel in `folder`, loaded by a fresh process, with Keras on seeded random inputs.

    Raises:
        ExportError: the folder cannot be loaded and run, or an output differs by more than `TOLERANCE`.
    """
    calls = list(_calls(model, plan, description))
    for call, answer in zip(calls, _replayed(folder, calls), strict=True):
        _compare(call, answer)


def _calls(model: keras.Model, plan: Plan, description: Description) -> Iterator[Call]:
    typical = description.tensors.get(plan.input_name, Meaning()).typical
    x = _sample(model, plan, typical)
    with tf.device("/CPU:0"):
        if not plan.states:
            yield from _rows_calls(model, plan, x)
            return
        y = _running_outputs(model, plan, x)
    yield from _stateless_calls(plan, x, y)
    yield from _step_calls(plan, x, y)
    yield from _scan_calls(plan, x, y)


def _sample(model: keras.Model, plan: Plan, typical: tuple[float, float] | None) -> np.ndarray:
    """Random inputs, [rows, steps, ...]: whole numbers below the vocabulary where there is an embedding."""
    sizes = tuple(_FREE_SIZE if size is None else size for size in step_sizes(plan.input))
    shape = (_ROWS, *((_STEPS,) if plan.input.timed else ()), *sizes)
    dtype = plan.input.tensor.dtype
    if dtype == "string":
        raise ExportError(f"input '{plan.input_name}': expected numbers, got strings; look words up before the model")
    random = np.random.default_rng(_SEED)
    vocabularies = [layer.input_dim for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    if vocabularies or dtype.startswith(("int", "uint", "bool")):
        low, high = typical or (0, min(vocabularies, default=2) - 1)
        return random.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    return random.uniform(*(typical or (-1.0, 1.0)), shape).astype(tf.as_dtype(dtype).as_numpy_dtype)


def _running_outputs(model: keras.Model, plan: Plan, x: np.ndarray) -> Arrays:
    """What Keras answers after each time step of `x`, [rows, steps, ...]: each output is [rows, steps, ...]."""
    copy = _stateless_copy(model)
    prefixes = [_outputs(copy, plan, x[:, : t + 1]) for t in range(x.shape[1])]
    return {
        name: prefixes[-1][name] if flow.timed else np.stack([prefix[name] for prefix in prefixes], axis=1)
        for name, flow in plan.outputs.items()
    }


def _stateless_copy(model: keras.Model) -> keras.Model:
    """The same model, loaded from its own file, that takes any batch size and length and remembers nothing."""
    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        copy = keras.models.load_model(Path(folder) / "model.keras", compile=False)
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.stateful = layer.unroll = False
        if isinstance(layer, keras.Model):
            layer.input_spec = None
    return copy


def _outputs(model: keras.Model, plan: Plan, x: np.ndarray) -> Arrays:
    outputs = keras.tree.flatten(model(x, training=False))
    return {name: keras.ops.convert_to_numpy(output) for name, output in zip(plan.outputs, outputs, strict=True)}


def _rows_calls(model: keras.Model, plan: Plan, x: np.ndarray) -> Iterator[Call]:
    for rows in (1, _ROWS):
        yield Call("serving_default", {plan.input_name: x[:rows]}, _outputs(model, plan, x[:rows]), {})


def _stateless_calls(plan: Plan, x: np.ndarray, y: Arrays) -> Iterator[Call]:
    for rows, steps in ((1, _STEPS), (_ROWS, _STEPS - 1)):
        expected = {
            name: y[name][:rows, :steps] if flow.timed else y[name][:rows, steps - 1]
            for name, flow in plan.outputs.items()
        }
        yield Call("serving_default", {plan.input_name: x[:rows, :steps]}, expected, {})


def _step_calls(plan: Plan, x: np.ndarray, y: Arrays) -> Iterator[Call]:
    for rows in (1, _ROWS):
        for t in range(_STEPS):
            start = _zero_states(plan, rows) if t == 0 else {}
            expected = {name: after[:rows, t] for name, after in y.items()}
            yield Call("step", {plan.input_name: x[:rows, t]} | start, expected, {})


def _scan_calls(plan: Plan, x: np.ndarray, y: Arrays) -> Iterator[Call]:
    """Chunks of uneven lengths from each row's own position, then one step that shows where each row's state is."""
    rows = np.arange(_ROWS)
    done = np.zeros(_ROWS, np.int32)
    states = _zero_states(plan, _ROWS)
    for lengths in np.array(_CHUNKS, np.int32):
        yield _chunk_call(plan, x, y, done, lengths, states)
        done, states = done + lengths, {}
    yield Call("step", {plan.input_name: x[rows, done]}, {name: after[rows, done] for name, after in y.items()}, {})


def _chunk_call(plan: Plan, x: np.ndarray, y: Arrays, done: np.ndarray, lengths: np.ndarray, states: Arrays) -> Call:
    rows = np.arange(_ROWS)
    offsets = np.arange(lengths.max())
    steps = np.minimum(done[:, None] + offsets, _STEPS - 1)
    within, any_step = offsets < lengths[:, None], lengths > 0
    timed = {name: flow.timed for name, flow in plan.outputs.items()}
    return Call(
        "scan",
        {plan.input_name: x[rows[:, None], steps], LENGTHS: lengths} | states,
        {name: y[name][rows[:, None], steps] if timed[name] else y[name][rows, done + lengths - 1] for name in timed},
        {name: within if timed[name] else any_step for name in timed},
    )


def _zero_states(plan: Plan, rows: int) -> Arrays:
    return {
        state.name: np.zeros((rows, *state.shape), tf.as_dtype(state.dtype).as_numpy_dtype) for state in plan.states
    }


def _replayed(folder: Path, calls: list[Call]) -> list[Arrays]:
    with TemporaryDirectory() as scratch:
        files = [Path(scratch) / "calls.npz", Path(scratch) / "answers.npz"]
        named: dict[str, Any] = {
            f"{i}/{call.signature}/{name}": x for i, call in enumerate(calls) for name, x in call.inputs.items()
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


def _compare(call: Call, answer: Arrays) -> None:
    for name, expected in call.expected.items():
        difference = _difference(answer[name], expected, call.valid.get(name))
        if difference > TOLERANCE:
            raise ExportError(
                f"signature '{call.signature}', output '{name}': expected Keras's answer within {TOLERANCE:g} relative "
                f"to max(1, |y|), got a difference of {difference:.3g}; the model was not exported"
            )


def _difference(answer: np.ndarray, expected: np.ndarray, valid: np.ndarray | None) -> float:
    """The largest difference relative to max(1, |expected|); infinite where the shapes differ or only one is finite."""
    if answer.shape != expected.shape:
        return math.inf
    if valid is not None:
        answer, expected = answer[valid], expected[valid]
    answer, expected = answer.astype(np.float64), expected.astype(np.float64)
    relative = np.abs(answer - expected) / np.maximum(1.0, np.abs(expected))
    relative = np.where(np.isfinite(relative), relative, math.inf)
    same = (answer == expected) | (np.isnan(answer) & np.isnan(expected))
    return float(np.max(np.where(same, 0.0, relative), initial=0.0))
