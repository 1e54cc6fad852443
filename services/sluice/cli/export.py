"""Exports a Keras file for `sluice export`, as it is or as a classifier of known classes, and says how to try it.

It does not know how signatures are made, nor what rows look like in files.
"""

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice.cli.ask import GATEWAY
from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.labelled_rows import check_data, places_of, read_data
from sluice.cli.model_folders import contract_file
from sluice.cli.requests import requests
from sluice.export import Classes, ExportError, export, export_recognizer
from sluice.export.classifier import classifier
from sluice.export.errors import reason
from sluice.export.exporter import Writer, keras_asset
from sluice.export.imports import import_classes, load
from sluice.policy.contract import Axis, Contract, Tensor
from sluice.policy.contract_document import parse_contract

Inputs = Mapping[str, NDArray[Any]]

_REQUEST = "request.json"


@dataclass(frozen=True, slots=True)
class Source:
    """A Keras file, what is imported before it is loaded, and whether one that holds Python code is refused."""

    file: Path
    imports: Sequence[str]
    safe_mode: bool

    def load(self) -> keras.Model:
        import_classes(self.imports)
        return load(self.file, safe_mode=self.safe_mode)


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is asked for: the classes, and the layer, training data and methods of scores, if there are to be any."""

    classes: str | None
    features: str | None
    train: Path | None
    methods: Sequence[str]


def run(source: Source, out: Path, steps: bool, asked: Recognition) -> Path:
    """Export a file; the folder that it went to. What the exporter has to say of it goes to standard error.

    Raises:
        CommandError: the file, the data, or what is asked for is not as it has to be.
    """
    _check(asked, steps)
    names = None if asked.classes is None else _names(asked.classes)
    try:
        with _heard():
            model = source.load()
            assets = keras_asset(model, source.file) | {_REQUEST: _write_request}
            if names is None:
                return export(model, out, assets=assets, steps=steps)
            return _recognizer(model, out, names, asked, assets)
    except ExportError as error:
        raise CommandError(str(error)) from None


def how_to_ask(out: Path) -> str:
    """How to serve what was exported to `out`, and lines to paste that ask it."""
    version = out if len(out.parts) > 2 and ".." not in out.parts else out.resolve()
    name, models = version.parent.name, version.parent.parent
    contract = _contract(contract_file(version))
    lines = [f"sluice serve --models {shlex.quote(str(models))}"]
    lines += [each.line(str(contract_file(version).with_name(_REQUEST))) for each in requests(name, contract, GATEWAY)]
    text = "\n".join(
        [
            f"Serve it, and ask it from another terminal at {GATEWAY}, where it listens by default:",
            *(indent(line, "    ") for line in lines),
        ]
    )
    if not contract.recognition:
        return text
    calibrate = f"sluice calibrate {shlex.quote(name)} --known DATA --models {shlex.quote(str(models))}"
    return f"{text}\nThat gives logits. For :recognize, calibrate it with rows that it has not seen:\n    {calibrate}"


def _write_request(file: Path) -> None:
    """The body of the request that takes the example, for `curl -d @…`."""
    *_, last = requests("", _contract(file.with_name("contract.json")), "")
    file.write_text(f"{last.text}\n", encoding="utf-8")


def _contract(file: Path) -> Contract:
    return parse_contract(json.loads(file.read_bytes()))


@contextmanager
def _heard() -> Iterator[None]:
    """What the exporter logs is told as it is."""
    log, handler = logging.getLogger("sluice.export"), logging.StreamHandler()
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True


def _check(asked: Recognition, steps: bool) -> None:
    if steps and asked.classes is not None:
        raise CommandError("expected --steps or --classes A,B,…, got both; a recognizer takes whole rows", WRONG_USAGE)
    given = [name for name in ("features", "train") if getattr(asked, name) is not None]
    if asked.methods and not given:
        raise CommandError("--method: expected --features LAYER and --train DATA, too; scores need both", WRONG_USAGE)
    if given and asked.classes is None:
        raise CommandError(f"--{given[0]}: expected --classes A,B,…, too; they say what logits mean", WRONG_USAGE)
    if len(given) == 1:
        raise CommandError(f"expected --features LAYER and --train DATA, or neither; got --{given[0]}", WRONG_USAGE)
    if asked.train is not None:
        check_data(asked.train)  # a wrong name is told before anything is loaded


def _names(classes: str) -> list[str]:
    names = [name.strip() for name in classes.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise CommandError(
            f"--classes: expected the classes' names in the order of the logits, all different, as in cat,dog; got "
            f"{classes!r}",
            WRONG_USAGE,
        )
    return names


def _recognizer(
    model: keras.Model, out: Path, names: list[str], asked: Recognition, assets: Mapping[str, Writer]
) -> Path:
    classes = Classes(names)
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
