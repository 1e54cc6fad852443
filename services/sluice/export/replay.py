"""Loads a SavedModel as TensorFlow Serving does and plays recorded calls to it, in a process of its own.

    python replay.py FOLDER CALLS.npz ANSWERS.npz

CALLS holds arrays named "<call>/<signature>/<input>", calls numbered from 0; inputs that a call leaves out, such as
states, are the previous call's outputs of the same name. ANSWERS receives arrays named "<call>/<output>".
"""

import sys
from collections import defaultdict
from typing import Any

import numpy as np

if __name__ == "__main__":  # the folder must do without Keras; TensorFlow would import it, which takes as long again
    sys.modules["keras"] = None  # type: ignore[assignment]
import tensorflow as tf

Arrays = dict[str, np.ndarray]


def replay(session: tf.compat.v1.Session, signatures: Any, calls_file: str, answers_file: str) -> None:
    """Make the calls in one file, one after another, and write the answers to the other."""
    with np.load(calls_file) as arrays:
        calls = _calls(dict(arrays))
    answers: list[Arrays] = []
    for name, inputs in calls:
        carried = answers[-1] if answers else {}
        answers.append(_run(session, signatures[name], carried | inputs))
    named: dict[str, Any] = {
        f"{i}/{name}": storable(x) for i, answer in enumerate(answers) for name, x in answer.items()
    }
    np.savez(answers_file, **named)


def _run(session: tf.compat.v1.Session, signature: Any, values: Arrays) -> Arrays:
    feeds = {info.name: values[key] for key, info in signature.inputs.items()}
    return session.run({key: info.name for key, info in signature.outputs.items()}, feeds)


def storable(array: np.ndarray) -> np.ndarray:
    """An array that numpy can write to a file: it has no bfloat16, and float32 holds all its values; texts as bytes."""
    if array.dtype == object:
        return array.astype(np.bytes_)
    return array.astype(np.float32) if array.dtype == tf.bfloat16.as_numpy_dtype else array


def _calls(arrays: Arrays) -> list[tuple[str, Arrays]]:
    grouped: dict[tuple[int, str], Arrays] = defaultdict(dict)
    for key, array in arrays.items():
        index, signature, name = key.split("/", 2)
        grouped[int(index), signature][name] = array
    return [(signature, inputs) for (_, signature), inputs in sorted(grouped.items())]


def main(folder: str, calls_file: str, answers_file: str) -> None:
    """Load the folder and replay the calls."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder).signature_def
        replay(session, signatures, calls_file, answers_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
