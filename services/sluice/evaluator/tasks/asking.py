"""Finds what of a model is judged, and reads labels and answers as arrays; refusals name the row's place.

It does not know what is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.data import Column, Rows, bounds
from sluice.data.values import check_digits
from sluice.evaluator.spec import Options
from sluice.evaluator.tasks.task import Array, Subject
from sluice.policy.contract import Signature, Tensor
from sluice.policy.errors import BadRequest

_NOT_FINITE = "NaN or infinity"


def signature_of(subject: Subject, name: str) -> Signature:
    """The signature of this name, by the contract or else by the metadata.

    Raises:
        BadRequest: there is none.
    """
    named = {**subject.signatures, **(subject.contract.signatures if subject.contract else {})}
    if name not in named:
        raise BadRequest(
            f"`options.signature` is a signature of {subject.model} version {subject.version}: "
            f"{', '.join(sorted(named))}; got {name!r}."
        )
    return named[name]


def output_of(signature: Signature, options: Options, fits: Callable[[Tensor], bool], what: str) -> Tensor:
    """The output that is judged: the one that `options` name, or else the only one that `fits`; `what` it must be.

    Raises:
        BadRequest: there is none, or there are several.
    """
    listed = ", ".join(signature.outputs)
    if options.output is not None:
        if options.output not in signature.outputs:
            raise BadRequest(f"`options.output` is an output of {signature.name!r}: {listed}; got {options.output!r}.")
        named = signature.outputs[options.output]
        if not fits(named):
            raise BadRequest(f"`options.output` names an output of {what}; {options.output!r} is {named}.")
        return named
    found = [tensor for tensor in signature.outputs.values() if fits(tensor)]
    if not found:
        fitting = [task for task, takes in _TAKES.items() if any(map(takes, signature.outputs.values()))]
        gives = "; ".join(f"{name} is {tensor}" for name, tensor in signature.outputs.items())
        raise BadRequest(
            f"Signature {signature.name!r} has no output of {what}; {gives}."
            + (f" Is the task {fitting[0]}?" if fitting else "")
        )
    if len(found) > 1:
        names = [tensor.name for tensor in found]
        raise BadRequest(
            f"Signature {signature.name!r} has {len(found)} outputs of {what}: {', '.join(names)}. Name the one that "
            f'is judged in `options.output`; in NAME.evaluation.json: "options": {{"output": "{names[0]}"}}.'
        )
    return found[0]


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor holds floats of any width."""
    return tensor.dtype == "bfloat16" or tensor.dtype.startswith("float")


def has_classes(tensor: Tensor) -> bool:
    """Whether a tensor can hold a number for each class."""
    return is_float(tensor) and (not tensor.ranked or (len(tensor.axes) == 2 and tensor.axes[1].size != 1))


def is_discrete(tensor: Tensor) -> bool:
    """Whether a tensor holds text or whole numbers."""
    return tensor.dtype == "string" or tensor.dtype.startswith(("int", "uint"))


_TAKES = {"classification": has_classes, "regression": is_float, "sequences": is_discrete}


def answered(answers: Mapping[str, Column], name: str, rows: Rows) -> Column:
    """One output's rows, as they came.

    Raises:
        BadRequest: there is not one for each row that was asked.
    """
    column = answers[name]
    if len(column) != len(rows):
        raise BadRequest(
            f"A signature that can be evaluated gives a row of {name!r} for each row it takes; {len(rows)} were asked, "
            f"{len(column)} came."
        )
    return column


def answered_numbers(answers: Mapping[str, Column], name: str, rows: Rows) -> Column:
    """One output's rows in float64.

    Raises:
        BadRequest: as `answered`, or a number is not finite.
    """
    column = answered(answers, name, rows)
    if not isinstance(column, list) and not column.dtype.hasobject:
        column = column.astype(np.float64)
        _check_finite(column, rows, f"an answer of finite numbers as {name!r}")
        return column
    own = [np.asarray(row, np.float64) for row in column]
    for number, row in enumerate(own):
        _check_row(row, rows, number, f"an answer of finite numbers as {name!r}")
    return own


def labels_of(rows: Rows) -> Any:
    """The rows' labels, which all data that is evaluated has."""
    assert rows.labels is not None
    return rows.labels


def numbers_of(rows: Rows, like: Column) -> Column:
    """The labels as float64, each row's in the shape of its answer in `like`; axes of size 1 may be left out.

    Raises:
        BadRequest: a label is no finite number, or of another shape.
    """
    labels = labels_of(rows)
    numeric = isinstance(labels, np.ndarray) and labels.dtype.kind in "fiub"
    if numeric and not isinstance(like, list) and _without_ones(labels.shape[1:]) == _without_ones(like.shape[1:]):
        found: Array = labels.astype(np.float64).reshape(like.shape)
        _check_finite(found, rows, "a label of finite numbers")
        return found
    own = [_numbers(rows, number, labels[number], np.shape(answer)) for number, answer in enumerate(like)]
    return own if isinstance(like, list) else np.stack(own) if own else np.zeros(np.shape(like))


def text_of(value: Any) -> str:
    """A label or an answer as text; whole numbers as they are written."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return text_of(value.item())
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def refused(rows: Rows, number: int, expected: str, came: object, advice: str = "") -> BadRequest:
    """What is wrong with a row, by its place in the data set; `advice` is a sentence."""
    place = int(rows.places[number])
    return BadRequest(f"Row {place}: expected {expected}; got {_shown(came)}.{advice and f' {advice}'}", row=place)


def _shown(came: object) -> str:
    if isinstance(came, str) and came == _NOT_FINITE:
        return came
    plain = came.tolist() if isinstance(came, np.ndarray | np.generic) else came
    return f"{plain!r:.80}"


def _numbers(rows: Rows, number: int, label: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        written = np.asarray(label.decode() if isinstance(label, bytes) else label)
        check_digits(written.ravel().tolist() if written.dtype.kind == "U" else ())
        found = written.astype(np.float64)
    except (ValueError, TypeError, UnicodeDecodeError):
        raise refused(rows, number, "a label of numbers", label) from None
    if _without_ones(found.shape) != _without_ones(shape):
        several = len(shape) == 1 and shape[0] > 1
        columns = f"In a CSV file these are columns, label.0 to label.{shape[0] - 1}." if several else ""
        raise refused(rows, number, f"a label of the answer's shape, {list(shape)}", list(found.shape), columns)
    _check_row(found, rows, number, "a label of finite numbers")
    return found.reshape(shape)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _check_finite(array: Array, rows: Rows, expected: str) -> None:
    strange = ~_are_usual(array).reshape(len(array), -1).all(axis=1)
    if strange.any():
        number = int(strange.argmax())
        _check_row(array[number], rows, number, expected)


def _check_row(row: Array, rows: Rows, number: int, expected: str) -> None:
    """Raises: BadRequest: a row has a number that is not finite, or too large for sums of squares to be."""
    if (usual := _are_usual(row)).all():
        return
    came = row[~usual].flat[0]
    if not np.isfinite(came):
        raise refused(rows, number, expected, _NOT_FINITE)
    raise refused(rows, number, f"{expected}, up to {bounds.NUMBER:g}", came)


def _are_usual(array: Array) -> NDArray[np.bool_]:
    return np.asarray(np.abs(array) <= bounds.NUMBER)
