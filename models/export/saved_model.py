"""Writes a SavedModel from functions, with its contract in a signature and beside it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

Tensors = dict[str, tf.Tensor]
Endpoint = Callable[[Tensors], Tensors]
Endpoints = Mapping[str, tuple[Endpoint, Mapping[str, tf.TensorSpec]]]  # by signature: what runs, what it takes


def write_saved_model(model: keras.Model, endpoints: Endpoints, contract: Mapping[str, Any], folder: Path) -> None:
    """Write a SavedModel of these signatures, which use `model`'s variables, to `folder`.

    The contract goes into the signature `contract` and into `assets.extra`.
    """
    archive = keras.export.ExportArchive()
    archive.track(_holder(model))
    stated = _contract(json.dumps(contract, ensure_ascii=False)), {"probe": tf.TensorSpec([None], "int32", "probe")}
    for name, (endpoint, specs) in ({"contract": stated} | dict(endpoints)).items():
        archive.add_endpoint(name, endpoint, input_signature=[specs])
    with _only_errors_logged():
        archive.write_out(folder, verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(json.dumps(contract, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _holder(model: keras.Model) -> tf.Module:
    """What is tracked for the model's tables: tracked by itself, a Keras model's variables are written twice."""
    holder = tf.Module()
    holder.model = model
    return holder


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """TensorFlow warns that a name such as `lstm/h` is no Python parameter; the signature's key keeps the slash."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _contract(text: str) -> Endpoint:
    """The same text in every row; the probe gives the number of rows, for a signature without inputs is refused."""
    return lambda given: {"contract": tf.fill(tf.shape(given["probe"]), text)}
