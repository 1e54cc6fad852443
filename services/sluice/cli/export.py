"""Exports a Keras file for `sluice export`: as it is, or as a classifier that recognizes its classes.

It does not know how signatures are made, nor what rows look like in files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice.cli.data_files import files_of, places_of, read_data
from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.export import Classes, ExportError, export_file, export_recognizer
from sluice.export.classifier import classifier
from sluice.export.imports import import_classes, load
from sluice.policy.contract import Axis, Tensor, numpy_dtype

Inputs = Mapping[str, NDArray[Any]]

# What TensorFlow and Keras put into an error's sentence for terminals and for themselves.
_MARKS = re.compile(r"\x1b\[\d+m|\{\{.*?\}\} ?| \[Op:\w+\]")
_FREE_SIZE = 16  # of an axis of any size, in rows that stand for training data
_SEED = 20260101


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is asked for: the classes, and the layer, training data and methods of scores, if there are to be any."""

    classes: str | None
    features: str | None
    train: Path | None
    methods: Sequence[str]


def run(file: Path, out: Path, imports: Sequence[str], asked: Recognition) -> Path:
    """Export a file; the folder that it went to.

    Raises:
        CommandError: the file, the data, or what is asked for is not as it has to be.
    """
    _check(asked)
    names = None if asked.classes is None else _names(asked.classes)
    try:
        if names is None:
            return export_file(file, out, imports=imports)
        import_classes(imports)
        return _recognizer(file, load(file), out, names, asked)
    except ExportError as error:
        raise CommandError(str(error)) from None


def _check(asked: Recognition) -> None:
    given = [name for name in ("features", "train") if getattr(asked, name) is not None]
    if asked.methods and not given:
        raise CommandError("--method: expected --features LAYER and --train DATA, too; scores need both", WRONG_USAGE)
    if given and asked.classes is None:
        raise CommandError(f"--{given[0]}: expected --classes A,B,…, too; they say what logits mean", WRONG_USAGE)
    if len(given) == 1:
        raise CommandError(f"expected --features LAYER and --train DATA, or neither; got --{given[0]}", WRONG_USAGE)
    if asked.train is not None:
        files_of(asked.train)  # a wrong name is told before anything is loaded


def _names(classes: str) -> list[str]:
    names = [name.strip() for name in classes.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise CommandError(
            f"--classes: expected the classes' names in the order of the logits, all different, as in cat,dog; got "
            f"{classes!r}",
            WRONG_USAGE,
        )
    return names


def _recognizer(file: Path, model: keras.Model, out: Path, names: list[str], asked: Recognition) -> Path:
    layer = asked.features or _last_layer(model)
    whole = classifier(model, layer).whole  # what is wrong with the model is told before rows are read
    inputs = {each._keras_history.operation.name: _tensor(each) for each in whole.inputs}  # noqa: SLF001 - its name
    x, labels = _samples(inputs, len(names)) if asked.train is None else _trained_on(asked.train, inputs, names)
    try:
        return export_recognizer(
            model,
            layer,
            (x if len(x) > 1 else next(iter(x.values())), labels),
            out,
            classes=Classes(names),
            methods=() if asked.features is None else asked.methods or None,
            assets={"model.keras": model.save},
        )
    except (ValueError, tf.errors.OpError) as error:
        reason = _MARKS.sub("", " ".join(str(error).split("\n\n")[:2]))
        raise CommandError(f"{asked.train or file}: expected rows that the model takes; {reason}") from None


def _last_layer(model: keras.Model) -> str:
    """The layer that gives the model's output; without scores it does not matter which one is looked at."""
    outputs = getattr(model, "outputs", None)  # which models that are neither Sequential nor functional do not have
    return outputs[0]._keras_history.operation.name if outputs else ""  # noqa: SLF001 - its name


def _tensor(each: keras.KerasTensor) -> Tensor:
    axes = (Axis(f"axis {place}", size) for place, size in enumerate(each.shape[1:], 1))
    return Tensor(each._keras_history.operation.name, each.dtype, (Axis("batch"), *axes))  # noqa: SLF001 - its name


def _trained_on(path: Path, inputs: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Inputs, NDArray[np.int64]]:
    data = read_data(path, inputs)
    return data.inputs, places_of(data, names, path, "Leave rows of no class out")


def _samples(inputs: Mapping[str, Tensor], classes: int) -> tuple[Inputs, NDArray[np.int64]]:
    """A row for each class, to call the model with: numbers around 0, or its first words or classes."""
    random = np.random.default_rng(_SEED)
    found: dict[str, NDArray[Any]] = {}
    for name, tensor in inputs.items():
        shape = (classes, *(_FREE_SIZE if size is None else size for size in tensor.shape[1:]))
        dtype = numpy_dtype(tensor.dtype)
        if dtype.hasobject:
            found[name] = np.full(shape, b"", object)
        else:
            found[name] = (random.uniform(-1, 1, shape) if dtype.kind in "fV" else np.zeros(shape)).astype(dtype)
    return found, np.arange(classes)
