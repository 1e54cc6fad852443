"""Reads a Keras file for `explain`: the contract that an export would write, and what only the layers know."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sluice.cli.errors import CommandError
from sluice.cli.explain.subject import Layer, Subject
from sluice.cli.keras_import import import_keras
from sluice.cli.requests import WHOLE
from sluice.policy.contract import TIME, Axis, Contract, Signature, Tensor
from sluice.policy.contract_document import parse_contract

_AXES = {1: ("feature",), 3: ("height", "width", "channel")}  # as the exporter names them
_LONGEST_SEQUENCE_RANK = 3  # [batch, time, features]; what has more axes says where time is by its first layer


def from_keras(file: Path, url: str, imports: Sequence[str], safe_mode: bool) -> Subject:
    """What a Keras file says; a model that cannot be exported is explained as rows.

    Args:
        file: FILE.keras.
        url: of the gateway in the example requests.
        imports: modules or .py files with custom layers, imported first.
        safe_mode: whether a file that holds Python code is refused.

    Raises:
        CommandError: no such file, no Keras model, or a model whose input shape is not known.
    """
    import_keras("explain FILE.keras", file)
    model = _loaded(file, imports, safe_mode)
    contract, limits, obstacle = _exported(model)
    if not getattr(model, "inputs", None):
        raise CommandError(f"{file}: {obstacle}")
    return Subject(
        name=file.stem,
        source=f"Keras file {file}",
        contract=contract or _rows(model),
        layers=tuple(_recurrent(model)),
        framewise=tuple(layer.name for layer in _layers(model) if type(layer).__name__ == "TimeDistributed"),
        batch=model.inputs[0].shape[0],
        obstacle=obstacle,
        limits=limits,
        export=f"sluice export {file} --out var/models/{file.stem}/1",
        url=url,
    )


def _loaded(file: Path, imports: Sequence[str], safe_mode: bool) -> Any:
    from sluice.export import ExportError
    from sluice.export.imports import import_classes, load

    try:
        import_classes(imports)
        return load(file, safe_mode=safe_mode)
    except ExportError as error:
        raise CommandError(str(error)) from None


def _exported(model: Any) -> tuple[Contract | None, str, str]:
    """The contract that an export would write, with the sizes that it leaves out, and its limits; or why there is none.

    The limits come second, the obstacle third.
    """
    from sluice.export import ExportError
    from sluice.export.contract import UNDESCRIBED, contract
    from sluice.export.uneven import planned

    try:
        plan = planned(model)
        read = parse_contract(contract(plan, UNDESCRIBED))
    except ExportError as error:
        return None, "", str(error)
    rows = {name: each for name, each in read.signatures.items() if each.kind in WHOLE}
    timed = plan.is_timed or _begins_with_time(model)
    sized = {name: replace(each, inputs=_inputs(model, timed)) for name, each in rows.items()}
    return replace(read, signatures={**read.signatures, **sized}), plan.limits, ""


def _rows(model: Any) -> Contract:
    """One signature that takes whole rows, as Keras's `predict` does."""
    inputs = _inputs(model, _begins_with_time(model))
    return Contract("", {"serving_default": Signature("serving_default", "rows", inputs, {})}, {})


def _inputs(model: Any, timed: bool) -> dict[str, Tensor]:
    """The inputs by the names of their layers, with every size that the Keras model fixes except the batch size."""
    tensors = {each._keras_history.operation.name: each for each in model.inputs}  # noqa: SLF001 - the name that counts
    return {name: Tensor(name, each.dtype, _axes(each.shape, timed)) for name, each in tensors.items()}


def _axes(shape: tuple[int | None, ...], timed: bool) -> tuple[Axis, ...]:
    time = [TIME] if timed and len(shape) > 1 else []
    rest = len(shape) - 1 - len(time)
    names = [*time, *_AXES.get(rest, [f"feature_{i + 1}" for i in range(rest)])]
    return (Axis("batch"), *(Axis(name, size) for name, size in zip(names, shape[1:], strict=True)))


def _begins_with_time(model: Any) -> bool:
    """Whether the axis after the batch axis is time: rows are sequences, and not pictures cut into strips later on."""
    from keras import layers

    sequential = layers.RNN | layers.Bidirectional
    first = next((each for each in model.layers if not isinstance(each, layers.InputLayer)), None)
    if isinstance(first, sequential | layers.TimeDistributed):
        return True
    recurrent = any(isinstance(each, sequential) for each in _layers(model))
    return recurrent and len(model.inputs[0].shape) <= _LONGEST_SEQUENCE_RANK


def _layers(model: Any) -> Iterator[Any]:
    """Every layer once, those inside other layers and models too."""
    return iter({id(each): each for each in model._flatten_layers()}.values())  # noqa: SLF001 - wrappers hide theirs


def _recurrent(model: Any) -> Iterator[Layer]:
    from keras.layers import RNN

    for layer in _layers(model):
        if isinstance(layer, RNN):
            cells = getattr(layer.cell, "cells", [layer.cell])
            for cell in cells:
                named = layer if len(cells) == 1 and type(layer) is not RNN else cell
                yield _layer(layer.name if len(cells) == 1 else cell.name, type(named).__name__, cell)


def _layer(name: str, kind: str, cell: Any) -> Layer:
    """What a cell multiplies: its two matrices, if it has the two and no more than two axes in each."""
    shapes = [tuple(getattr(getattr(cell, each, None), "shape", ())) for each in ("kernel", "recurrent_kernel")]
    if any(len(shape) != 2 for shape in shapes):
        return Layer(name, kind)
    (inputs, width), (units, _) = shapes
    return Layer(name, kind, units, inputs, width)
