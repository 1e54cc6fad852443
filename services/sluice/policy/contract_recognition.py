"""Reads the part of a contract's JSON document that says what a classifier's logits mean, or which field is wrong.

It does not know where the document came from.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sluice.policy.contract import Detector, Recognition, Signature, Tensor
from sluice.policy.contract_fields import ContractError, array_of, holds, object_of, signature_of, text_of, whole_of
from sluice.policy.scores import OWN_METHODS


def recognition_of(value: Any, signatures: Mapping[str, Signature]) -> Recognition:
    where = "contract.recognition"
    fields = object_of(value, where)
    signature = signature_of(fields, "rows", where, signatures, "signature")
    classes = array_of(fields.get("classes"), f"{where}.classes")
    if not classes or not all(isinstance(each, str) for each in classes) or len(set(classes)) < len(classes):
        raise ContractError(f"{where}.classes: expected the text of each class, all different; got {classes!r:.80}")
    other = whole_of(fields["other"], f"{where}.other", 0, len(classes)) if "other" in fields else None
    if other not in (None, len(classes)):
        raise ContractError(f"{where}.other: expected {len(classes)}, the place behind the classes; got {other}")
    recognition = Recognition(
        signature=signature,
        logits=text_of(fields, "logits", where),
        classes=tuple(classes),
        other=other,
        codes=_codes(fields["codes"], len(classes), f"{where}.codes") if "codes" in fields else None,
        detector=_detector(fields["detector"], f"{where}.detector") if "detector" in fields else None,
        range=_range(fields["range"], f"{where}.range") if "range" in fields else None,
    )
    if recognition.other is not None and recognition.codes is not None:
        raise ContractError(f'{where}.codes: expected codes or an "other" class; got both')
    _check_output(signature, recognition.logits, (None, recognition.width), f"{where}.logits")
    return _with_scores(recognition, fields, where, signatures)


def _with_scores(
    recognition: Recognition, fields: Mapping[str, Any], where: str, signatures: Mapping[str, Signature]
) -> Recognition:
    if ("scores" in fields) != ("scores_signature" in fields):
        raise ContractError(f"{where}.scores: expected scores and scores_signature, or neither; got one of them")
    if "scores" not in fields:
        return recognition
    signature = signature_of(fields, "rows", where, signatures, "scores_signature")
    if _whole_forms(signature.inputs) != _whole_forms(recognition.signature.inputs):
        raise ContractError(
            f"{where}.scores_signature: expected the inputs of {recognition.signature.name}; got those of "
            f"{signature.name}, {', '.join(signature.inputs)}"
        )
    _check_output(signature, recognition.logits, (None, recognition.width), f"{where}.scores_signature")
    named = object_of(fields["scores"], f"{where}.scores")
    scores = {method: text_of(named, method, f"{where}.scores") for method in named}
    for method, output in scores.items():
        if not method or "+" in method or method in OWN_METHODS:
            raise ContractError(
                f"{where}.scores: expected names of methods without +, and none of {', '.join(OWN_METHODS)}; "
                f"got {method!r}"
            )
        _check_output(signature, output, (None,), f"{where}.scores.{method}")
    return replace(recognition, scores_signature=signature, scores=scores)


def _whole_forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """What tensors have, by name: dtype and shape."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _check_output(signature: Signature, name: str, shape: tuple[int | None, ...], where: str) -> None:
    """An output is there, holds floats, and has this shape, or leaves it open."""
    tensor = signature.outputs.get(name)
    if (
        tensor is None
        or len(tensor.axes) != len(shape)
        or not _is_float(tensor.dtype)
        or not all(given is None or given == size for given, size in zip(tensor.shape[1:], shape[1:], strict=True))
    ):
        form = ", ".join(["batch", *map(str, shape[1:])])
        raise ContractError(
            f"{where}: expected an output of {signature.name}, float [{form}]; got {name!r}"
            + (f", {tensor}" if tensor else "")
        )


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _codes(value: Any, classes: int, where: str) -> tuple[tuple[int, ...], ...]:
    book = tuple(tuple(array_of(row, f"{where}[{i}]")) for i, row in enumerate(array_of(value, where)))
    if wrong := [unit for row in book for unit in row if type(unit) is not int or unit not in (0, 1)]:
        raise ContractError(f"{where}: expected rows of 0 and 1; got {wrong[0]!r:.80}")
    units = {len(row) for row in book}
    if len(book) != classes or len(set(book)) < classes or len(units) != 1 or units == {0}:
        raise ContractError(f"{where}: expected {classes} rows, one for each class, all different and of one length")
    return book


def _detector(value: Any, where: str) -> Detector:
    fields = object_of(value, where)
    return Detector(text_of(fields, "model", where), whole_of(fields.get("known"), f"{where}.known", 0, 1))


def _range(value: Any, where: str) -> tuple[float, float]:
    ends = array_of(value, where)
    if (
        len(ends) != 2
        or not all(type(end) in (int, float) and holds(np.dtype(np.float64), end) for end in ends)
        or not ends[0] < ends[1]
    ):
        raise ContractError(f"{where}: expected the least and the greatest usual value; got {value!r:.80}")
    return float(ends[0]), float(ends[1])
