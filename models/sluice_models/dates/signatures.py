"""How the trained network is served: its signatures, the contract that names them, and the calls that verify them."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sluice.export import Call
from sluice.export.saved_model import Endpoints, Tensors
from sluice_models.dates.buckets import ANSWER_TOKENS, BOUNDS, END, PAD, START, TOKENS, Ids, iso, padded, tokens
from sluice_models.dates.measure import token_losses
from sluice_models.dates.network import MAX_STEPS, UNITS, decode, encode, greedy, log_probabilities

_STATES: list[dict[str, Any]] = [
    {"name": name, "input": name, "output": name, "dtype": "float32", "shape": [UNITS], "initial": 0.0}
    for name in ("decoder/h", "decoder/c")
]
_BATCH = {"name": "batch"}
_TEXT: dict[str, Any] = {
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
_TARGET = {
    "dtype": "int32",
    "axes": [_BATCH, {"name": "token", "ragged": True, "meaning": "one token of the answer"}],
    "meaning": "the answer to score: each token's number in generation.tokens, without the start, the end token last",
    "pad": PAD,
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
        "score": {
            "kind": "sequences",
            "inputs": {**_TEXT["inputs"], "target": _TARGET},
            "outputs": {
                "log_probabilities": {
                    "dtype": "float32",
                    "axes": [_BATCH, {"name": "token"}],
                    "meaning": "of each token of the target, given the text and the tokens before it",
                    "unit": "nats",
                }
            },
            "lengths": {**_TEXT["lengths"], "token": "target_lengths"},
            "buckets": {**_TEXT["buckets"], "token": [ANSWER_TOKENS, MAX_STEPS]},
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
    """The network's encoder, one step of its decoder, the whole greedy decode, and the score, by signature."""

    def encoded(given: Tensors) -> Tensors:
        h, c = encode(model, given["text"], given["lengths"])
        return {"decoder/h": h, "decoder/c": c}

    def decoded(given: Tensors) -> Tensors:
        logits, h, c = decode(model, given["token"], given["decoder/h"], given["decoder/c"])
        return {"logits": logits, "decoder/h": h, "decoder/c": c}

    def rewritten(given: Tensors) -> Tensors:
        answer = greedy(model, given["text"], given["lengths"])
        return {"iso": tf.strings.reduce_join(tf.gather(TOKENS, answer), axis=1)}

    def scored(given: Tensors) -> Tensors:
        return {"log_probabilities": log_probabilities(model, **given)}

    text = {"text": tf.TensorSpec([None, None], "int32", "text"), "lengths": tf.TensorSpec([None], "int32", "lengths")}
    target = {
        "target": tf.TensorSpec([None, None], "int32", "target"),
        "target_lengths": tf.TensorSpec([None], "int32", "target_lengths"),
    }
    token = {"token": tf.TensorSpec([None], "int32", "token")}
    states = {state["name"]: tf.TensorSpec([None, UNITS], "float32", state["name"]) for state in _STATES}
    return {
        "encode": (encoded, text),
        "decode": (decoded, token | states),
        "serving_default": (rewritten, text),
        "score": (scored, text | target),
    }


def calls(model: keras.Model) -> Iterator[Call]:
    """Short texts in every bucket, each time decoded step by step and as a whole, and Keras's answers in the first.

    Besides, each time the right answers are scored, padded, too.
    """
    right = tokens([*_VERIFIED.values()])
    text, lengths = padded([*_VERIFIED], BOUNDS[0])
    h, c = model.get_layer("encoder")([text, lengths])
    states = {"decoder/h": keras.ops.convert_to_numpy(h), "decoder/c": keras.ops.convert_to_numpy(c)}
    logits = keras.ops.convert_to_numpy(model({"text": text, "lengths": lengths, "tokens": right}))
    dates = np.array(iso(_greedy(model, text, lengths)), np.bytes_)
    padding = (0, 0), (0, MAX_STEPS - ANSWER_TOKENS)
    target = {
        "target": np.pad(right[:, 1:], padding),
        "target_lengths": np.full(len(right), ANSWER_TOKENS, np.int32),
    }
    scores = {"log_probabilities": np.pad(-token_losses(logits[:, :-1], right[:, 1:]), padding)}
    for bound in BOUNDS:
        text, lengths = padded([*_VERIFIED], bound)
        yield Call("encode", {"text": text, "lengths": lengths}, states, {})
        for step, token in enumerate(right.T):
            yield Call("decode", {"token": token}, {"logits": logits[:, step]}, {})
        yield Call("serving_default", {"text": text, "lengths": lengths}, {"iso": dates}, {})
        yield Call("score", {"text": text, "lengths": lengths, **target}, scores, {})


def _greedy(model: keras.Model, text: Ids, lengths: Ids) -> Ids:
    """As `network.greedy`, but each step runs the trained network on the whole answer so far."""
    answer = np.full((len(text), 1), START, np.int32)
    for _ in range(MAX_STEPS):
        logits = keras.ops.convert_to_numpy(model({"text": text, "lengths": lengths, "tokens": answer}))
        likeliest = np.where((answer == END).any(axis=1), PAD, logits[:, -1].argmax(axis=-1))
        answer = np.column_stack([answer, likeliest.astype(np.int32)])
    return answer
