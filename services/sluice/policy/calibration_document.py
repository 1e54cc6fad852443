"""Reads and writes a calibration's JSON document (docs/recognition.md), or says which field is wrong.

It does not know where the document lies, nor what scores mean.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.policy.contract import Recognition
from sluice.policy.errors import BadRequest
from sluice.policy.recognition import Calibrated, Calibration, check_method, parts_of
from sluice.policy.scores import OpenMax

SCHEMA = 1
Array = NDArray[Any]

_REQUIRED = (
    "schema",
    "model",
    "version",
    "made_at",
    "level",
    "rows",
    "data",
    "default_method",
    "temperature",
    "methods",
)
_OPTIONAL = ("openmax", "sets", "unknown")
_MOST = float(np.finfo(np.float64).max)
_NAME = re.compile(r".+"), "a name"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "a date such as 2026-11-26T05:00:00Z"
_SHA256 = re.compile(r"[0-9a-f]{64}"), "64 hexadecimal digits"


class CalibrationError(ValueError):
    """A calibration that cannot be used: the sentence names the field, what was expected and what came."""


def parse_calibration(document: Any) -> Calibration:
    """Read a calibration's JSON document.

    Raises:
        CalibrationError: a field is missing, unknown, or of the wrong form; the schema is another; or there are too
            few scores for the calibration's own level.
    """
    where = "calibration"
    schema = _object(document, where).get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise CalibrationError(
            f"{where}.schema: expected {SCHEMA}, got {schema!r:.80}; calibrate again or update Sluice"
        )
    fields = _fields(document, where, _REQUIRED, _OPTIONAL)
    named = _object(fields["methods"], f"{where}.methods")
    rows = _whole(fields["rows"], f"{where}.rows")
    calibration = Calibration(
        model=_text(fields["model"], f"{where}.model"),
        version=_whole(fields["version"], f"{where}.version"),
        made_at=_text(fields["made_at"], f"{where}.made_at", _DATE),
        level=_number(fields["level"], f"{where}.level", 0, 1),
        rows=rows,
        checksum=_text(
            _fields(fields["data"], f"{where}.data", ("sha256",))["sha256"], f"{where}.data.sha256", _SHA256
        ),
        default_method=_text(fields["default_method"], f"{where}.default_method"),
        temperature=_number(fields["temperature"], f"{where}.temperature", 0, _MOST),
        methods={name: _calibrated(value, f"{where}.methods.{name}", rows) for name, value in named.items()},
        openmax=_openmax(fields["openmax"], f"{where}.openmax") if "openmax" in fields else None,
        set_scores=_sets(fields["sets"], f"{where}.sets", rows) if "sets" in fields else None,
        unknown=_unknown(fields.get("unknown", {}), f"{where}.unknown"),
    )
    _check_methods(calibration, where)
    return calibration


def write_calibration(calibration: Calibration) -> dict[str, Any]:
    """The document from which `parse_calibration` reads the same calibration."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model": calibration.model,
        "version": calibration.version,
        "made_at": calibration.made_at,
        "level": calibration.level,
        "rows": calibration.rows,
        "data": {"sha256": calibration.checksum},
        "default_method": calibration.default_method,
        "temperature": calibration.temperature,
        "methods": {name: _written(calibrated) for name, calibrated in calibration.methods.items()},
    }
    if calibration.openmax is not None:
        document["openmax"] = {
            "means": calibration.openmax.means.tolist(),
            "weibull": calibration.openmax.weibull.tolist(),
            "alpha": calibration.openmax.alpha,
        }
    if calibration.set_scores is not None:
        document["sets"] = {"scores": calibration.set_scores.tolist()}
    if calibration.unknown:
        document["unknown"] = {name: dict(measures) for name, measures in calibration.unknown.items()}
    return document


def check_fits(calibration: Calibration, model: str, version: int, recognition: Recognition | None) -> None:
    """Whether a calibration belongs to this version of this model; `recognition` is what its contract says.

    Raises:
        CalibrationError: it is another's, or the model has no scores for one of its methods, or other classes.
    """
    if (calibration.model, calibration.version) != (model, version):
        raise CalibrationError(
            f"calibration.model, calibration.version: expected {model} version {version}; got {calibration.model} "
            f"version {calibration.version}. A calibration belongs to one version: calibrate this one too"
        )
    if recognition is None:
        raise CalibrationError(f"{model} version {version}: expected a contract with recognition; it has none")
    for name, calibrated in calibration.methods.items():
        try:
            check_method(recognition, name)
        except BadRequest as error:
            raise CalibrationError(f"calibration.methods: {error.message}") from None
        if calibrated.by_class is not None and calibrated.by_class.keys() != set(recognition.classes):
            raise CalibrationError(
                f"calibration.methods.{name}.class_scores: expected the classes {', '.join(recognition.classes)}; got "
                f"{', '.join(calibrated.by_class)}"
            )
    if calibration.openmax is not None and len(calibration.openmax.means) != len(recognition.classes):
        raise CalibrationError(
            f"calibration.openmax.means: expected {len(recognition.classes)} classes; got "
            f"{len(calibration.openmax.means)}"
        )


def _check_methods(calibration: Calibration, where: str) -> None:
    if not calibration.methods or any(len(parts_of(name)) > 1 for name in calibration.methods):
        raise CalibrationError(
            f"{where}.methods: expected one method or more, each alone; got {', '.join(calibration.methods) or 'none'}"
        )
    parts = parts_of(calibration.default_method)
    if not set(parts) <= calibration.methods.keys():
        raise CalibrationError(
            f"{where}.default_method: expected one of {', '.join(calibration.methods)}, or two of them; got "
            f"{calibration.default_method!r:.80}"
        )
    if ("openmax" in calibration.methods) != (calibration.openmax is not None):
        raise CalibrationError(f"{where}.openmax: expected where there is a method of that name, and only there")
    for part in parts:
        calibrated = calibration.methods[part]
        for label in calibrated.by_class or (None,):
            try:
                calibrated.threshold(calibration.level, label, len(parts))
            except BadRequest as error:
                raise CalibrationError(f"{where}.methods.{part}: {error.message}") from None


def _calibrated(value: Any, where: str, rows: int) -> Calibrated:
    fields = _fields(value, where, ("scores",), ("class_scores",))
    by_class = None
    if "class_scores" in fields:
        named = _object(fields["class_scores"], f"{where}.class_scores")
        by_class = {label: _rising(own, f"{where}.class_scores.{label}", rows) for label, own in named.items()}
    return Calibrated(_rising(fields["scores"], f"{where}.scores", rows), by_class)


def _written(calibrated: Calibrated) -> dict[str, Any]:
    written: dict[str, Any] = {"scores": calibrated.scores.tolist()}
    if calibrated.by_class is not None:
        written["class_scores"] = {label: own.tolist() for label, own in calibrated.by_class.items()}
    return written


def _openmax(value: Any, where: str) -> OpenMax:
    fields = _fields(value, where, ("means", "weibull", "alpha"))
    means = _table(fields["means"], f"{where}.means")
    weibull = _table(fields["weibull"], f"{where}.weibull")
    if means.shape[0] != means.shape[1]:
        raise CalibrationError(f"{where}.means: expected as many numbers as classes; got {list(means.shape)}")
    if weibull.shape != (len(means), 2) or not (weibull > 0).all():
        raise CalibrationError(f"{where}.weibull: expected shape and scale of each class, above 0")
    return OpenMax(means, weibull, _whole(fields["alpha"], f"{where}.alpha"))


def _sets(value: Any, where: str, rows: int) -> Array:
    return _rising(_fields(value, where, ("scores",))["scores"], f"{where}.scores", rows)


def _unknown(value: Any, where: str) -> dict[str, dict[str, float]]:
    return {
        method: {
            name: _number(number, f"{where}.{method}.{name}", -_MOST, _MOST)
            for name, number in _object(measures, f"{where}.{method}").items()
        }
        for method, measures in _object(value, where).items()
    }


def _rising(value: Any, where: str, rows: int) -> Array:
    numbers = _numbers(value, where)
    if not 1 <= len(numbers) <= rows:
        raise CalibrationError(f"{where}: expected 1 to {rows} numbers, as there are rows; got {len(numbers)}")
    if (np.diff(numbers) < 0).any():
        raise CalibrationError(f"{where}: expected numbers that rise; they do not")
    return numbers


def _table(value: Any, where: str) -> Array:
    rows = [_numbers(row, f"{where}[{i}]") for i, row in enumerate(_array(value, where))]
    if not rows or len({len(row) for row in rows}) != 1:
        raise CalibrationError(f"{where}: expected rows of one length, one or more")
    return np.stack(rows)


def _numbers(value: Any, where: str) -> Array:
    numbers = _array(value, where)
    if wrong := [each for each in numbers if type(each) not in (int, float) or not abs(each) <= _MOST]:
        raise CalibrationError(f"{where}: expected finite numbers; got {wrong[0]!r:.80}")
    return np.array(numbers, np.float64)


def _fields(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """An object with all of the `required` keys, maybe the `optional` ones, and no others."""
    fields = _object(value, where)
    if missing := [key for key in required if key not in fields]:
        raise CalibrationError(f"{where}.{missing[0]}: expected a value; it is missing")
    if unknown := fields.keys() - {*required, *optional}:
        raise CalibrationError(f"{where}: expected {', '.join((*required, *optional))}; got {min(unknown)!r:.80} too")
    return fields


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CalibrationError(f"{where}: expected an object; got {type(value).__name__}")
    return value


def _array(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise CalibrationError(f"{where}: expected an array; got {type(value).__name__}")
    return value


def _text(value: Any, where: str, form: tuple[re.Pattern[str], str] = _NAME) -> str:
    pattern, meaning = form
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise CalibrationError(f"{where}: expected {meaning}; got {value!r:.80}")
    return value


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or value < 1:
        raise CalibrationError(f"{where}: expected a whole number, 1 or more; got {value!r:.80}")
    return value


def _number(value: Any, where: str, above: float, below: float) -> float:
    if type(value) not in (int, float) or not above < value < below:
        raise CalibrationError(f"{where}: expected a number above {above:g} and below {below:g}; got {value!r:.80}")
    return float(value)
