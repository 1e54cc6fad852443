"""How the trained network is served: its signatures, the contract that names them, and the calls that verify them."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sluice.export import Call
from sluice.export.saved_model import Endpoints, Tensors
from sluice_models.dates.buckets import BOUNDS, END, PAD, START, TOKENS, Ids, iso, padded, tokens
from sluice_models.dates.network import MAX_STEPS, UNITS, decode, encode, greedy

_STATES: list[dict[str, Any]] = [
    {"name": name, "input": name, "output": name, "dtype": "float32", "shape": [UNITS], "initial": 0.0}
    for name in ("decoder/h", "decoder/c")
]
_BATCH = {"name": "batch"}
_TEXT = {
    "inputs": {
        "text": {
            "dtype": "int32",
            "axes": [_BATCH, {"name": "byte", "ragged": True, "meaning": "one byte of UTF-8"}],
            "meaning": "a date between 1900 and 2099 as people write it",
            "text": "utf-8",
            "pad": 0,
        }
    },
    "lengths": {"byte": "lengths"},
    "buckets": {"byte": [*BOUNDS]},
}

# Texts that fit every bucket.
_VERIFIED = {"25/12/1999": "1999-12-25", "3 mai 2024": "2024-05-03", "20480229": "2048-02-29"}

CONTRACT: dict[str, Any] = {
    "schema": 1,
    "summary": "Dates as people write them, in many languages, to ISO 8601 (LSTM encoder and decoder, three buckets).",
    "signatures": {
        "encode": {"kind": "encode", **_TEXT, "outputs": {}, "states": _STATES},
        "decode": {
            "kind": "decode",
            "inputs": {"token": {"dtype": "int32", "axes": [_BATCH], "meaning": "the last token, at first the start"}},
            "outputs": {
                "logits": {
                    "dtype": "float32",
                    "axes": [_BATCH, {"name": "token", "size": len(TOKENS)}],
                    "meaning": "of the next token",
                }
            },
            "states": _STATES,
        },
        "serving_default": {
            "kind": "sequences",
            **_TEXT,
            "outputs": {"iso": {"dtype": "string", "axes": [_BATCH], "meaning": "the date as YYYY-MM-DD"}},
        },
    },
    "generation": {
        "encode": "encode",
        "decode": "decode",
        "input": "token",
        "logits": "logits",
        "start": START,
        "end": END,
        "max_steps": MAX_STEPS,
        "tokens": [*TOKENS],
    },
    "example": {"signature": "serving_default", "inputs": {"text": "Dienstag, 5. März 2024"}},
}


def endpoints(model: keras.Model) -> Endpoints:
    """The network's encoder, one step of its decoder, and the whole greedy decode, by signature."""

    def encoded(given: Tensors) -> Tensors:
        h, c = encode(model, given["text"], given["lengths"])
        return {"decoder/h": h, "decoder/c": c}

    def decoded(given: Tensors) -> Tensors:
        logits, h, c = decode(model, given["token"], given["decoder/h"], given["decoder/c"])
        return {"logits": logits, "decoder/h": h, "decoder/c": c}

    def rewritten(given: Tensors) -> Tensors:
        answer = greedy(model, given["text"], given["lengths"])
        return {"iso": tf.strings.reduce_join(tf.gather(TOKENS, answer), axis=1)}

    text = {"text": tf.TensorSpec([None, None], "int32", "text"), "lengths": tf.TensorSpec([None], "int32", "lengths")}
    token = {"token": tf.TensorSpec([None], "int32", "token")}
    states = {state["name"]: tf.TensorSpec([None, UNITS], "float32", state["name"]) for state in _STATES}
    return {"encode": (encoded, text), "decode": (decoded, token | states), "serving_default": (rewritten, text)}


def calls(model: keras.Model) -> Iterator[Call]:
    """Short texts in every bucket, each time decoded step by step and as a whole, and Keras's answers in the first."""
    right = tokens([*_VERIFIED.values()])
    text, lengths = padded([*_VERIFIED], BOUNDS[0])
    h, c = model.get_layer("encoder")([text, lengths])
    states = {"decoder/h": keras.ops.convert_to_numpy(h), "decoder/c": keras.ops.convert_to_numpy(c)}
    logits = keras.ops.convert_to_numpy(model({"text": text, "lengths": lengths, "tokens": right}))
    dates = np.array(iso(_greedy(model, text, lengths)), np.bytes_)
    for bound in BOUNDS:
        text, lengths = padded([*_VERIFIED], bound)
        yield Call("encode", {"text": text, "lengths": lengths}, states, {})
        for step, token in enumerate(right.T):
            yield Call("decode", {"token": token}, {"logits": logits[:, step]}, {})
        yield Call("serving_default", {"text": text, "lengths": lengths}, {"iso": dates}, {})


def _greedy(model: keras.Model, text: Ids, lengths: Ids) -> Ids:
    """As `network.greedy`, but each step runs the trained network on the whole answer so far."""
    answer = np.full((len(text), 1), START, np.int32)
    for _ in range(MAX_STEPS):
        logits = keras.ops.convert_to_numpy(model({"text": text, "lengths": lengths, "tokens": answer}))
        likeliest = np.where((answer == END).any(axis=1), PAD, logits[:, -1].argmax(axis=-1))
        answer = np.column_stack([answer, likeliest.astype(np.int32)])
    return answer
