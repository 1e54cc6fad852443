"""Writes a SavedModel from functions, with its contract in a signature and beside it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.saved_model.experimental import TrackableResource

from sluice.export.errors import refused
from sluice.export.names import legal, legal_scopes, legal_variables, unused_name

Tensors = dict[str, tf.Tensor]
Endpoint = Callable[[Tensors], Tensors]
Endpoints = Mapping[str, tuple[Endpoint, Mapping[str, tf.TensorSpec]]]  # by signature: what runs, what it takes


def write_saved_model(model: keras.Model, endpoints: Endpoints, contract: Mapping[str, Any], folder: Path) -> None:
    """Write a SavedModel of these signatures, which use `model`'s variables, to `folder`.

    The contract goes into the signature `contract` and into `assets.extra`.
    """
    stated = _contract(json.dumps(contract, ensure_ascii=False)), {"probe": tf.TensorSpec([None], "int32", "probe")}
    every = {"contract": stated, **endpoints}
    keys = {name: _legal_keys(specs) for name, (_, specs) in every.items()}
    with refused("written as a SavedModel"), legal_scopes(model), _without_cudnn(model):
        signatures = {name: _traced(endpoint, specs, keys[name]) for name, (endpoint, specs) in every.items()}
        root = _root(model, signatures.values())
        with legal_variables(root.all_variables), _only_errors_logged():
            tf.saved_model.save(root, folder, signatures)
    _name_inputs(folder, keys)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(json.dumps(contract, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _legal_keys(names: Iterable[str]) -> dict[str, str]:
    """By input, what a traced function can call it."""
    taken: set[str] = set()
    return {name: unused_name(legal(name), taken) for name in names}


def _traced(endpoint: Endpoint, specs: Mapping[str, tf.TensorSpec], keys: Mapping[str, str]) -> Any:
    def run(given: Tensors) -> Tensors:
        return endpoint({name: given[key] for name, key in keys.items()})

    signature = {key: tf.TensorSpec(specs[name].shape, specs[name].dtype, key) for name, key in keys.items()}
    return tf.function(run, input_signature=[signature], autograph=False).get_concrete_function()


def _name_inputs(folder: Path, keys: Mapping[str, Mapping[str, str]]) -> None:
    """Give a saved model's inputs the names that clients call them by: a signature may hold any text."""
    changed = {signature: {key: name for name, key in each.items() if name != key} for signature, each in keys.items()}
    if not any(changed.values()):
        return
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for signature, names in changed.items():
            inputs = graph.signature_def[signature].inputs
            given = {name: deepcopy(inputs[key]) for key, name in names.items()}
            for key in names:
                del inputs[key]
            for name, info in given.items():
                inputs[name].CopyFrom(info)
    file.write_bytes(saved.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # that of the file before; nothing needs one


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
def _without_cudnn(model: keras.Model) -> Iterator[None]:
    """Keras takes operations of cuDNN where it finds a GPU, and these run nowhere else."""
    before = [(layer, layer.use_cudnn) for layer in model._flatten_layers() if hasattr(layer, "use_cudnn")]
    for layer, _ in before:
        layer.use_cudnn = False
    try:
        yield
    finally:
        for layer, use_cudnn in before:
            layer.use_cudnn = use_cudnn


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
