"""The contract's recognition: what is read from it, and the sentence for everything that cannot be."""

from collections.abc import Callable
from typing import Any

import pytest

from sluice.policy.contract import Detector
from sluice.policy.contract_document import ContractError, parse_contract

from .recognizers import BOOK, CLASSES, recognition_document, recognition_of, tensor

Document = dict[str, Any]


def section(**fields: Any) -> Callable[[Document], None]:
    return lambda spoiled: spoiled["recognition"].update(fields)


def without(field: str) -> Callable[[Document], Any]:
    return lambda spoiled: spoiled["recognition"].pop(field)


def inputs(**tensors: Any) -> Callable[[Document], None]:
    return lambda spoiled: spoiled["signatures"]["recognize"].update(inputs=tensors)


def logits(signature: str, tensor: Any) -> Callable[[Document], None]:
    return lambda spoiled: spoiled["signatures"][signature]["outputs"].update(logits=tensor)


def test_recognition_is_read_with_its_signatures() -> None:
    contract = parse_contract(recognition_document(range=[0, 1]))
    found = contract.recognition
    assert found is not None
    assert (found.signature, found.logits) == (contract.signatures["serving_default"], "logits")
    assert found.scores_signature is contract.signatures["recognize"]
    assert found.scores == {"knn": "scores/knn", "vim": "scores/vim"}
    assert (found.classes, found.range, found.width) == (CLASSES, (0.0, 1.0), 3)
    assert (found.other, found.codes, found.detector) == (None, None, None)
    assert contract.kinds == ["recognition", "rows"]


def test_recognition_needs_no_scores() -> None:
    document = recognition_document()
    for key in ("scores", "scores_signature"):
        del document["recognition"][key]
    found = parse_contract(document).recognition
    assert found is not None
    assert (found.scores_signature, found.scores) == (None, {})


def test_logits_have_a_place_for_the_other_class_or_for_each_unit_of_a_code() -> None:
    assert (recognition_of(4, other=3).other, recognition_of(4, other=3).width) == (3, 4)
    coded = recognition_of(15, codes=BOOK)
    assert coded.codes == tuple(map(tuple, BOOK))
    assert coded.width == 15


def test_a_detector_is_a_model_and_the_place_of_known() -> None:
    assert recognition_of(detector={"model": "animal_detector", "known": 1}).detector == Detector("animal_detector", 1)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda spoiled: spoiled.update(recognition=[]), "contract.recognition: expected an object; got list"),
        (section(signature="predict"), "recognition.signature: expected a signature of kind rows; got 'predict'"),
        (section(signature=None), "recognition.signature: expected a name; got None"),
        (section(scores_signature="none"), "scores_signature: expected a signature of kind rows; got 'none'"),
        (section(logits=""), "recognition.logits: expected a name; got ''"),
        (section(logits="p"), r"logits: expected an output of serving_default, float \[batch, 3\]; got 'p'"),
        (section(classes=["a", "b"]), r"recognition.logits: .*float \[batch, 2\]; got 'logits', float32"),
        (section(classes=[]), "recognition.classes: expected the text of each class, all different; got"),
        (section(classes=["a", "a", "b"]), "recognition.classes: expected the text of each class, all different"),
        (section(classes=["a", 1, "b"]), "recognition.classes: expected the text of each class"),
        (section(classes="abc"), "recognition.classes: expected an array; got str"),
        (section(other=1), "recognition.other: expected 3, the place behind the classes; got 1"),
        (section(other=4), "recognition.other: expected a whole number from 0 to 3; got 4"),
        (section(other=None), "recognition.other: expected a whole number"),
        (section(other=3), r"recognition.logits: .*float \[batch, 4\]; got 'logits'"),
        (section(other=3, codes=BOOK), 'recognition.codes: expected codes or an "other" class; got both'),
        (section(codes=BOOK), r"recognition.logits: .*float \[batch, 15\]; got 'logits'"),
        (section(codes=BOOK[:2]), "recognition.codes: expected 3 rows, one for each class, all different"),
        (section(codes=[[0, 1], [0, 1], [1, 1]]), "recognition.codes: expected 3 rows, .*all different"),
        (section(codes=[[0, 1], [0, 1, 1], [1, 1]]), "recognition.codes: .*all different and of one length"),
        (section(codes=[[0, 1], [0, 2], [1, 1]]), "recognition.codes: expected rows of 0 and 1; got 2"),
        (section(codes=[[0, 1], [0, 0.0], [1, 1]]), "recognition.codes: expected rows of 0 and 1; got 0.0"),
        (section(codes=[[0, 1], [0, [0]], [1, 1]]), r"recognition.codes: expected rows of 0 and 1; got \[0\]"),
        (section(codes=[1]), r"recognition.codes\[0\]: expected an array; got int"),
        (section(detector={"model": "", "known": 0}), "recognition.detector.model: expected a name"),
        (section(detector={"model": "d", "known": 2}), "detector.known: expected a whole number from 0 to 1"),
        (section(range=[1, 0]), r"recognition.range: expected the least and the greatest usual value; got \[1, 0\]"),
        (section(range=[0]), "recognition.range: expected the least and the greatest usual value"),
        (section(range=[0, "1"]), "recognition.range: expected the least and the greatest usual value"),
        (section(range=[0, float("inf")]), "recognition.range: expected the least and the greatest usual value"),
        (section(range=[0, 10**400]), "recognition.range: expected the least and the greatest usual value"),
        (without("scores"), "recognition.scores: expected scores and scores_signature, or neither"),
        (without("scores_signature"), "recognition.scores: expected scores and scores_signature, or neither"),
        (section(scores={"knn": "gone"}), r"scores.knn: expected an output of recognize, float \[batch\]; got 'gone'"),
        (section(scores={"knn": "logits"}), r"scores.knn: .*float \[batch\]; got 'logits', float32"),
        (section(scores={"knn": 1}), "recognition.scores.knn: expected a name; got 1"),
        (section(scores={"a+b": "scores/knn"}), r"recognition.scores: expected names of methods without \+"),
        (section(scores={"energy": "scores/knn"}), "recognition.scores: .*and none of top_probability.*; got 'energy'"),
        (section(scores={"": "scores/knn"}), "recognition.scores: expected names of methods"),
        (inputs(y=tensor(4)), "scores_signature: expected the inputs of serving_default; got those of recognize, y"),
        (inputs(x=tensor(5)), "scores_signature: expected the inputs"),
        (logits("recognize", tensor(2)), r"scores_signature: expected an output of recognize, float \[batch, 3\]"),
        (logits("serving_default", tensor(3, dtype="int32")), "recognition.logits: expected an output"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_read_is_named(spoil: Callable[[Document], Any], sentence: str) -> None:
    spoiled = recognition_document()
    spoil(spoiled)
    with pytest.raises(ContractError, match=sentence):
        parse_contract(spoiled)
