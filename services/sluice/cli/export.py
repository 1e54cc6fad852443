"""Exports a Keras file for `sluice export`: as it is, or as a classifier that recognizes its classes.

It does not know how signatures are made, nor what rows look like in files.
"""

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
from sluice.export.errors import reason
from sluice.export.exporter import keras_asset
from sluice.export.imports import import_classes, load
from sluice.policy.contract import Axis, Tensor

Inputs = Mapping[str, NDArray[Any]]


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
    classes, assets = Classes(names), keras_asset(model, file)
    if asked.train is None:
        return export_recognizer(model, None, None, out, classes=classes, assets=assets)
    whole = classifier(model, asked.features).whole  # what is wrong with the model is told before rows are read
    inputs = {each._keras_history.operation.name: _tensor(each) for each in whole.inputs}  # noqa: SLF001 - its name
    x, labels = _trained_on(asked.train, inputs, names)
    rows = x if len(x) > 1 else next(iter(x.values()))
    try:
        return export_recognizer(
            model, asked.features, (rows, labels), out, classes=classes, methods=asked.methods or None, assets=assets
        )
    except (ValueError, tf.errors.OpError) as error:
        raise CommandError(f"{asked.train}: expected rows that the model takes; {reason(error)}") from None


def _tensor(each: keras.KerasTensor) -> Tensor:
    axes = (Axis(f"axis {place}", size) for place, size in enumerate(each.shape[1:], 1))
    return Tensor(each._keras_history.operation.name, each.dtype, (Axis("batch"), *axes))  # noqa: SLF001 - its name


def _trained_on(path: Path, inputs: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Inputs, NDArray[np.int64]]:
    data = read_data(path, inputs)
    return data.inputs, places_of(data, names, path, "Leave rows of no class out")
