"""The trained network as it is served: words in, a language out, and the contract that says so."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sluice.export import Call
from sluice.export.saved_model import Endpoint, Endpoints, Tensors
from sluice_models.language.batches import BUCKETS
from sluice_models.language.catalogues import LANGUAGES
from sluice_models.language.data import Text
from sluice_models.language.lookup import WordRows

SIGNATURE = "serving_default"
EXAMPLE = "Bitte geben Sie eine gültige Adresse ein."

_VERIFIED_ROWS = 3


def serving_model(model: keras.Model, word_rows: WordRows) -> keras.Model:
    """The network with the lookup in front: words, string [batch, word], and lengths, int32 [batch], to logits."""
    words = keras.Input([None], dtype="string", name="words")
    lengths = keras.Input([], dtype="int32", name="lengths")
    return keras.Model([words, lengths], model([word_rows(words), lengths]), name="language_of_words")


def endpoints(served: keras.Model) -> Endpoints:
    """The signature that is served, of a `serving_model`."""
    specs = {
        "words": tf.TensorSpec([None, None], tf.string, "words"),
        "lengths": tf.TensorSpec([None], tf.int32, "lengths"),
    }
    return {SIGNATURE: (_endpoint(served), specs)}


def _endpoint(served: keras.Model) -> Endpoint:
    def answer(given: Tensors) -> Tensors:
        logits = served([given["words"], given["lengths"]], training=False)
        return {
            "language": tf.gather(tf.constant(LANGUAGES), tf.argmax(logits, axis=-1)),
            "probabilities": tf.nn.softmax(logits),
        }

    return answer


def contract() -> dict[str, Any]:
    """The document of docs/contract.md."""
    batch = {"name": "batch"}
    words = {
        "dtype": "string",
        "pad": "",
        "text": "words",
        "axes": [batch, {"name": "word", "ragged": True, "meaning": "one word"}],
        "meaning": "a short text",
    }
    language = {
        "dtype": "string",
        "axes": [batch],
        "meaning": "code of the language that the text is in; where it changes its language, of the one it ends in",
    }
    probabilities = {
        "dtype": "float32",
        "axes": [batch, {"name": "language", "size": len(LANGUAGES), "meaning": ", ".join(LANGUAGES)}],
        "meaning": "how probable each language is",
    }
    signature = {
        "kind": "sequences",
        "inputs": {"words": words},
        "outputs": {"language": language, "probabilities": probabilities},
        "lengths": {"word": "lengths"},
        "buckets": {"word": list(BUCKETS)},
    }
    return {
        "schema": 1,
        "summary": f"Which of {len(LANGUAGES)} languages a short text is in (LSTM, one word at a time).",
        "signatures": {SIGNATURE: signature},
        "example": {
            "signature": SIGNATURE,
            "inputs": {"words": EXAMPLE.split(" ")},
        },
    }


def padded(texts: Sequence[Text], words: int) -> dict[str, np.ndarray]:
    """The signature's inputs for these texts, each padded to `words` words."""
    rows = [text.text.split(" ") for text in texts]
    return {
        "words": np.array([row + [""] * (words - len(row)) for row in rows]),
        "lengths": np.array([len(row) for row in rows], np.int32),
    }


def calls(served: keras.Model, texts: Sequence[Text]) -> list[Call]:
    """One call for each bucket, of a few texts that it takes, and what Keras answers."""
    answer = _endpoint(served)
    made = []
    for bound in BUCKETS:
        inputs = padded([text for text in texts if text.words <= bound][-_VERIFIED_ROWS:], bound)
        expected = answer({name: tf.constant(value) for name, value in inputs.items()})
        made.append(Call(SIGNATURE, inputs, {name: output.numpy() for name, output in expected.items()}, {}))
    return made
