"""Exports the models whose contracts are written by hand: one over sequences, and an encoder-decoder.

`python -m loadtests.bench.exports.sequences NAME FOLDER`; the weights are random, from a fixed seed.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.bench.workloads import generation, sequences
from loadtests.bench.workloads.steps import FEATURES, INPUT, OUTPUT
from sluice.log import quiet_import

with quiet_import():
    import keras
    import tensorflow as tf

    from sluice.export import export_endpoints
    from sluice.export.verify import Call

_SEED = 5
_UNITS = 256
_NEVER = -1e4  # added to a logit
_CHECKED = 7  # time steps of the calls that verify an export

Tensors = dict[str, Any]
Contract = Mapping[str, Any]


def main(name: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    keras.utils.set_random_seed(_SEED)
    export = {sequences.SEQUENCES: export_sequences, generation.GENERATOR: export_generator}[name]
    export(folder)


def export_sequences(folder: Path) -> None:
    """An LSTM of 256 that answers each sequence with one vector, after its last step."""
    row = keras.Input((None, FEATURES))
    lstm, dense = keras.layers.LSTM(_UNITS, return_sequences=True, return_state=True), keras.layers.Dense(FEATURES)
    whole = keras.Model(row, dense(lstm(row)[0]))

    def run(given: Tensors) -> Tensors:
        """What stands behind a row's end cannot change the steps before it, so its last step is picked."""
        steps, *_ = lstm(given[INPUT])
        return {OUTPUT: dense(tf.gather(steps, given[sequences.LENGTHS] - 1, batch_dims=1))}

    def scan(given: Tensors) -> Tensors:
        """From given states to those at each row's own end: the mask keeps them from there on."""
        mask = tf.sequence_mask(given[sequences.LENGTHS], tf.shape(given[INPUT])[1])
        _, *after = lstm(given[INPUT], initial_state=[given[name] for name in sequences.STATES], mask=mask)
        return {OUTPUT: dense(after[0]), **dict(zip(sequences.STATES, after, strict=True))}

    specs = {
        INPUT: tf.TensorSpec([None, None, FEATURES], "float32", INPUT),
        sequences.LENGTHS: tf.TensorSpec([None], "int32", sequences.LENGTHS),
    }
    states = {name: tf.TensorSpec([None, _UNITS], "float32", name) for name in sequences.STATES}
    rows = np.random.default_rng(_SEED).normal(size=(2, _CHECKED, FEATURES)).astype(np.float32)
    lengths = np.array([_CHECKED, 3], np.int32)
    expected = np.stack([whole(rows[:1]).numpy()[0, -1], whole(rows[1:, :3]).numpy()[0, -1]])
    calls = [
        Call(name, {INPUT: rows, sequences.LENGTHS: lengths}, {OUTPUT: expected}, {})
        for name in (sequences.RAGGED, sequences.PADDED)
    ]
    zeros = {name: np.zeros((2, _UNITS), np.float32) for name in sequences.STATES}
    calls.append(Call(sequences.SCAN, {INPUT: rows, sequences.LENGTHS: lengths, **zeros}, {OUTPUT: expected}, {}))
    endpoints = {
        sequences.RAGGED: (run, specs), sequences.PADDED: (run, specs), sequences.SCAN: (scan, specs | states),
    }  # fmt: skip
    export_endpoints(whole, endpoints, _sequences_contract(), folder, calls)


def _sequences_contract() -> Contract:
    batch, feature = {"name": "batch"}, {"name": "feature", "size": FEATURES}
    outputs = {OUTPUT: {"dtype": "float32", "axes": [batch, feature]}}
    ragged = {"dtype": "float32", "pad": 0.0, "axes": [batch, {"name": "time", "ragged": True}, feature]}
    padded = {"dtype": "float32", "axes": [batch, {"name": "time"}, feature]}
    return {
        "schema": 1,
        "summary": "An LSTM over sequences of different lengths",
        "signatures": {
            sequences.RAGGED: {
                "kind": "sequences",
                "inputs": {INPUT: ragged},
                "outputs": outputs,
                "lengths": {"time": sequences.LENGTHS},
                "scan": {"signature": sequences.SCAN},
            },
            sequences.SCAN: {
                "kind": "scan",
                "inputs": {INPUT: padded},
                "outputs": outputs,
                "lengths": sequences.LENGTHS,
                "states": [
                    {"name": name, "input": name, "output": name, "dtype": "float32", "shape": [_UNITS], "initial": 0.0}
                    for name in sequences.STATES
                ],
            },
            sequences.PADDED: {
                "kind": "rows",
                "inputs": {INPUT: padded, sequences.LENGTHS: {"dtype": "int32", "axes": [batch]}},
                "outputs": outputs,
            },
        },
    }


def export_generator(folder: Path) -> None:
    """A GRU of 256 that reads tokens, and one that writes them; which ones, random weights decide."""
    source = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(generation.TOKENS, 32)
    encoder = keras.layers.GRU(_UNITS, return_sequences=True)
    cell, dense = keras.layers.GRUCell(_UNITS), keras.layers.Dense(generation.TOKENS)
    token, state = keras.Input((), dtype="int32"), keras.Input((_UNITS,))
    model = keras.Model([source, token, state], [encoder(embedding(source)), dense(cell(embedding(token), [state])[0])])
    never = tf.one_hot(generation.END, generation.TOKENS, on_value=_NEVER)

    def encode(given: Tensors) -> Tensors:
        steps = encoder(embedding(given[generation.SOURCE]))
        return {generation.STATE: tf.gather(steps, given[generation.LENGTHS] - 1, batch_dims=1)}

    def decode(given: Tensors) -> Tensors:
        out, [after] = cell(embedding(given[generation.TOKEN]), [given[generation.STATE]])
        return {generation.LOGITS: dense(out) + never, generation.STATE: after}

    endpoints = {
        generation.ENCODE: (encode, {
            generation.SOURCE: tf.TensorSpec([None, None], "int32", generation.SOURCE),
            generation.LENGTHS: tf.TensorSpec([None], "int32", generation.LENGTHS),
        }),
        generation.DECODE: (decode, {
            generation.TOKEN: tf.TensorSpec([None], "int32", generation.TOKEN),
            generation.STATE: tf.TensorSpec([None, _UNITS], "float32", generation.STATE),
        }),
    }  # fmt: skip
    read = {generation.SOURCE: np.full((2, 5), 7, np.int32), generation.LENGTHS: np.array([5, 2], np.int32)}
    given = {generation.TOKEN: np.array([1, 9], np.int32), generation.STATE: np.zeros((2, _UNITS), np.float32)}
    calls = [
        Call(name, inputs, {key: np.asarray(value) for key, value in run(inputs).items()}, {})
        for name, run, inputs in ((generation.ENCODE, encode, read), (generation.DECODE, decode, given))
    ]
    export_endpoints(model, endpoints, _generator_contract(), folder, calls)


def _generator_contract() -> Contract:
    batch = {"name": "batch"}
    states = [{
        "name": generation.STATE, "input": generation.STATE, "output": generation.STATE,
        "dtype": "float32", "shape": [_UNITS], "initial": 0.0,
    }]  # fmt: skip
    return {
        "schema": 1,
        "summary": "An encoder-decoder",
        "signatures": {
            generation.ENCODE: {
                "kind": "encode",
                "inputs": {
                    generation.SOURCE: {"dtype": "int32", "pad": 0, "axes": [batch, {"name": "time", "ragged": True}]}
                },
                "outputs": {},
                "lengths": {"time": generation.LENGTHS},
                "buckets": {"time": [8, 16, generation.SOURCE_LONGEST]},
                "states": states,
            },
            generation.DECODE: {
                "kind": "decode",
                "inputs": {generation.TOKEN: {"dtype": "int32", "axes": [batch]}},
                "outputs": {
                    generation.LOGITS: {
                        "dtype": "float32", "axes": [batch, {"name": "token", "size": generation.TOKENS}],
                    }
                },
                "states": states,
            },
        },
        "generation": {
            "encode": generation.ENCODE, "decode": generation.DECODE,
            "input": generation.TOKEN, "logits": generation.LOGITS,
            "start": generation.START, "end": generation.END, "max_steps": generation.MAX_STEPS,
            "tokens": ["", "", "", *(f"{token:02d} " for token in range(generation.END + 1, generation.TOKENS))],
        },
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
