"""Calibrations: read as they were written, and the sentence for everything that cannot be used."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sluice.policy.calibration_document import CalibrationError, check_fits, parse_calibration, write_calibration
from sluice.policy.recognition import Calibration

from .recognizers import PLAIN, calibration_of, recognition_of, rows_of

Document = dict[str, Any]


def made(*methods: str, by_class: bool = False) -> Calibration:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    logits, own = rows_of(rng, labels)
    return calibration_of(PLAIN, methods, logits, own, labels, by_class=by_class)


def document(*methods: str, by_class: bool = False) -> Document:
    """As it lies in a file, fresh and free to be spoiled."""
    return json.loads(json.dumps(write_calibration(made(*(methods or ("knn", "openmax")), by_class=by_class))))


def put(value: Any, *path: Any) -> Callable[[Document], None]:
    def spoil(spoiled: Document) -> None:
        for key in path[:-1]:
            spoiled = spoiled[key]
        spoiled[path[-1]] = value

    return spoil


@pytest.mark.parametrize("by_class", [False, True])
def test_a_calibration_is_read_as_it_was_written(by_class: bool) -> None:
    calibration = made("knn", "energy", "openmax", by_class=by_class)
    written = write_calibration(calibration)
    read = parse_calibration(json.loads(json.dumps(written)))
    assert write_calibration(read) == written
    assert (read.model, read.version, read.rows, read.level) == ("animals", 2, 90, 0.05)
    assert (read.made_at, read.checksum, read.unknown) == (calibration.made_at, "ab" * 32, {"knn": {"auroc": 0.97}})
    assert read.methods["knn"].scores.tolist() == calibration.methods["knn"].scores.tolist()
    assert (read.methods["knn"].by_class is None) != by_class
    assert read.openmax is not None
    assert calibration.openmax is not None
    assert read.openmax.means.tolist() == calibration.openmax.means.tolist()
    assert read.set_scores is not None


def test_what_a_calibration_may_leave_out_is_left_out_again() -> None:
    plain = document("knn")
    for key in ("sets", "unknown"):
        del plain[key]
    read = parse_calibration(plain)
    assert (read.openmax, read.set_scores, read.unknown) == (None, None, {})
    assert write_calibration(read) == plain


def test_a_default_may_be_an_agreement_of_two() -> None:
    both = document("knn", "vim")
    both["default_method"] = "knn+vim"
    assert parse_calibration(both).default_method == "knn+vim"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (put(2, "schema"), "calibration.schema: expected 1, got 2; calibrate again or update Sluice"),
        (put(True, "schema"), "calibration.schema: expected 1, got True"),
        (put("", "model"), "calibration.model: expected a name; got ''"),
        (put(0, "version"), "calibration.version: expected a whole number, 1 or more; got 0"),
        (put(1.5, "version"), "calibration.version: expected a whole number"),
        (put("yesterday", "made_at"), "calibration.made_at: expected a date such as .*; got 'yesterday'"),
        (put(0, "level"), "calibration.level: expected a number above 0 and below 1; got 0"),
        (put("0.05", "level"), "calibration.level: expected a number"),
        (put(float("nan"), "temperature"), "calibration.temperature: expected a number above 0"),
        (put(10**400, "temperature"), "calibration.temperature: expected a number above 0"),
        (put({}, "data"), "calibration.data.sha256: expected a value; it is missing"),
        (put("AB" * 32, "data", "sha256"), "calibration.data.sha256: expected 64 hexadecimal digits"),
        (put(3, "colour"), "calibration: expected schema, .*; got 'colour' too"),
        (put(3, "methods", "knn", "colour"), "methods.knn: expected scores, class_scores; got 'colour' too"),
        (put([], "methods"), "calibration.methods: expected an object; got list"),
        (put({}, "methods"), "calibration.methods: expected one method or more, each alone; got none"),
        (put({"scores": [1.0] * 30}, "methods", "knn+vim"), "each alone; got knn, openmax, knn"),
        (put({}, "methods", "knn", "scores"), "calibration.methods.knn.scores: expected an array; got dict"),
        (put([], "methods", "knn", "scores"), "methods.knn.scores: expected 1 to 90 numbers, as there are rows; got 0"),
        (put([1.0] * 91, "methods", "knn", "scores"), "expected 1 to 90 numbers, as there are rows; got 91"),
        (put([1.0, None], "methods", "knn", "scores"), "methods.knn.scores: expected finite numbers; got None"),
        (put([1.0, float("inf")], "methods", "knn", "scores"), "expected finite numbers; got inf"),
        (put([1.0, 10**400], "methods", "knn", "scores"), "expected finite numbers; got 1000"),
        (put([1.0, True], "methods", "knn", "scores"), "expected finite numbers; got True"),
        (put([2.0, 1.0], "methods", "knn", "scores"), "methods.knn.scores: expected numbers that rise; they do not"),
        (put([1.0] * 18, "methods", "knn", "scores"), "methods.knn: The level 0.05 takes 19 .*; there are 18"),
        (put("vim", "default_method"), "default_method: expected one of knn, openmax, or two of them; got 'vim'"),
        (put("knn+vim", "default_method"), "default_method: expected one of knn, openmax"),
        (lambda spoiled: spoiled.pop("openmax"), "calibration.openmax: expected where there is a method of that name"),
        (put([[1.0, 2.0]], "openmax", "means"), r"openmax.means: expected as many numbers as classes; got \[1, 2\]"),
        (put([], "openmax", "means"), "openmax.means: expected rows of one length, one or more"),
        (put([[1.0], [1.0, 2.0]], "openmax", "means"), "openmax.means: expected rows of one length"),
        (put([[1.0, 0.0]] * 3, "openmax", "weibull"), "openmax.weibull: expected shape and scale of each class"),
        (put([[1.0, 1.0]] * 2, "openmax", "weibull"), "openmax.weibull: expected shape and scale of each class"),
        (put(0, "openmax", "alpha"), "openmax.alpha: expected a whole number, 1 or more; got 0"),
        (put([0.5, 0.1], "sets", "scores"), "calibration.sets.scores: expected numbers that rise"),
        (put("good", "unknown", "knn", "auroc"), "calibration.unknown.knn.auroc: expected a number"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_named(spoil: Callable[[Document], Any], sentence: str) -> None:
    spoiled = document()
    spoil(spoiled)
    with pytest.raises(CalibrationError, match=sentence):
        parse_calibration(spoiled)


@pytest.mark.parametrize("value", [None, [], "calibration", 1])
def test_what_is_no_object_is_no_calibration(value: Any) -> None:
    with pytest.raises(CalibrationError, match="calibration: expected an object"):
        parse_calibration(value)


@pytest.mark.parametrize(
    "key", ["model", "version", "made_at", "level", "rows", "data", "default_method", "temperature", "methods"]
)
def test_a_field_that_is_missing_is_named(key: str) -> None:
    cut = document()
    del cut[key]
    with pytest.raises(CalibrationError, match=f"calibration.{key}: expected a value; it is missing"):
        parse_calibration(cut)


def test_too_few_rows_of_a_class_are_refused() -> None:
    few = document("knn", by_class=True)
    few["methods"]["knn"]["class_scores"]["owl"] = [1.0] * 10
    with pytest.raises(CalibrationError, match=r"methods.knn: The level 0.05 takes 19 .* of each class; there are 10"):
        parse_calibration(few)


def test_a_calibration_belongs_to_one_version_of_one_model() -> None:
    calibration = made("knn", "openmax", by_class=True)
    check_fits(calibration, "animals", 2, PLAIN)
    for model, version in (("animals", 3), ("plants", 2)):
        with pytest.raises(CalibrationError, match=f"expected {model} version {version}; got animals version 2"):
            check_fits(calibration, model, version, PLAIN)
    with pytest.raises(CalibrationError, match="expected a contract with recognition; it has none"):
        check_fits(calibration, "animals", 2, None)


def test_a_calibration_fits_what_the_contract_offers() -> None:
    without_vim = recognition_of(scores={"knn": "scores/knn"})
    with pytest.raises(CalibrationError, match=r"calibration.methods: .* got 'vim'"):
        check_fits(made("knn", "vim"), "animals", 2, without_vim)
    fewer = recognition_of(2, classes=["cat", "dog"])
    with pytest.raises(CalibrationError, match=r"knn.class_scores: expected the classes cat, dog; got cat, dog, owl"):
        check_fits(made("knn", by_class=True), "animals", 2, fewer)
    with pytest.raises(CalibrationError, match=r"openmax.means: expected 2 classes; got 3"):
        check_fits(made("openmax"), "animals", 2, fewer)
