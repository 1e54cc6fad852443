"""Writes a SavedModel from functions, with its contract in a signature and beside it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tensorflow.saved_model.experimental import TrackableResource

Tensors = dict[str, tf.Tensor]
Endpoint = Callable[[Tensors], Tensors]
Endpoints = Mapping[str, tuple[Endpoint, Mapping[str, tf.TensorSpec]]]  # by signature: what runs, what it takes


def write_saved_model(model: keras.Model, endpoints: Endpoints, contract: Mapping[str, Any], folder: Path) -> None:
    """Write a SavedModel of these signatures, which use `model`'s variables, to `folder`.

    The contract goes into the signature `contract` and into `assets.extra`.
    """
    stated = _contract(json.dumps(contract, ensure_ascii=False)), {"probe": tf.TensorSpec([None], "int32", "probe")}
    signatures = {
        name: tf.function(endpoint, input_signature=[specs], autograph=False).get_concrete_function()
        for name, (endpoint, specs) in ({"contract": stated} | dict(endpoints)).items()
    }
    with _only_errors_logged():
        tf.saved_model.save(_root(model, signatures.values()), folder, signatures)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(json.dumps(contract, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _root(model: keras.Model, functions: Iterable[Any]) -> tf.Module:
    """What is saved: the variables that functions use, and the model's tables.

    A Keras model itself, or a `keras.export.ExportArchive`, would trace all that it can do once or twice more.
    """
    root = tf.Module()
    root.all_variables = list({id(each): each for function in functions for each in function.variables}.values())
    root.tables = list({id(each): each for each in _trackables(model) if isinstance(each, TrackableResource)}.values())
    return root


def _trackables(model: keras.Model) -> Iterator[Any]:
    """All that hangs on a model's layers, some of it more than once.

    Layers that were made late, and what stands in a layer's lists, dicts and sets, Keras shows where it traces, too.
    """
    for layer in model._flatten_layers():
        for each in (layer, *_members([getattr(layer, name) for name in layer._tracked])):
            yield from tf.train.TrackableView(each).descendants()


def _members(value: Any) -> Iterator[Any]:
    """The trackable things in nested collections."""
    if isinstance(value, tf.__internal__.tracking.Trackable):
        yield value
    elif isinstance(value, dict | list | tuple | set):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _members(each)


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
