"""The contract: what is read from it, and the sentence for everything that cannot be."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from services.policy.contract import (
    Axis,
    ContractError,
    State,
    Tensor,
    fits,
    numpy_dtype,
    parse_contract,
)

from .puppet import CONTRACT, SCAN, STEP, contract_document

TEMPERATURE = Tensor(
    "sst", "float32", (Axis("batch"), Axis("time"), Axis("feature", 1)), meaning="sea-surface temperature", unit="°C"
)


def test_a_contract_is_read_signature_by_signature() -> None:
    assert list(CONTRACT.signatures) == ["serving_default", "step", "scan"]
    assert CONTRACT.summary == "hashes what it has seen"
    assert STEP.states == (
        State("hash", "hash_in", "hash_out", "float64", (2,), [1.0, 2.0]),
        State("count", "count_in", "count_out", "int64", (), 0),
    )
    assert (STEP.lengths, SCAN.lengths) == (None, "lengths")
    assert CONTRACT.document == contract_document()


def test_a_contract_knows_its_step_and_its_scan() -> None:
    assert (CONTRACT.step, CONTRACT.scan) == (STEP, SCAN)
    assert CONTRACT.kinds == ["session", "rows"]


def test_a_model_without_signatures_offers_nothing() -> None:
    empty = parse_contract({"schema": 1, "signatures": {}})
    assert (empty.step, empty.scan, empty.kinds, empty.summary) == (None, None, [], "")


def test_what_a_contract_leaves_out_has_plain_defaults() -> None:
    document = contract_document()
    del document["signatures"]["step"]["states"][0]["initial"]
    del document["signatures"]["serving_default"]["states"]
    contract = parse_contract(document)
    assert contract.signatures["step"].states[0].initial == 0.0
    assert contract.signatures["serving_default"].states == ()
    assert contract.signatures["step"].inputs["x"].meaning == ""


def test_a_tensor_says_in_words_what_it_is() -> None:
    assert str(TEMPERATURE) == "float32 [batch, time, feature=1], sea-surface temperature in °C"
    assert str(TEMPERATURE.row()) == "float32 [time, feature=1], sea-surface temperature in °C"
    assert str(Tensor("x", "int32", (Axis("batch"),))) == "int32 [batch]"


def test_a_tensor_knows_its_shape_and_whether_it_goes_along_time() -> None:
    assert TEMPERATURE.shape == (None, None, 1)
    assert TEMPERATURE.has_time
    assert not STEP.inputs["x"].has_time
    assert not Tensor("x", "int32", (Axis("batch"),)).has_time


def test_a_signature_says_what_goes_in_and_what_comes_out() -> None:
    assert str(STEP) == "takes x float64 [batch, feature=2] and gives y float64 [batch, feature=2]"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float32", np.float32),
        ("int64", np.int64),
        ("bool", bool),
        ("string", object),
        ("bfloat16", ml_dtypes.bfloat16),
    ],
)
def test_dtype_names_are_those_of_tensorflow(name: str, dtype: Any) -> None:
    assert numpy_dtype(name) == np.dtype(dtype)


def test_an_unknown_dtype_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        numpy_dtype("float31")


@pytest.mark.parametrize(
    ("shape", "fit"), [((3, 2), True), ((0, 2), True), ((3, 1), False), ((3,), False), ((3, 2, 1), False)]
)
def test_an_array_fits_a_shape_where_none_stands_for_any_size(shape: tuple[int, ...], fit: bool) -> None:
    assert fits(np.zeros(shape), (None, 2)) is fit


def test_all_that_was_promised_is_nothing_unlike_it() -> None:
    outputs = {"y": np.zeros((3, 2)), "hash_out": np.zeros((3, 2)), "count_out": np.zeros(3, np.int64)}
    assert STEP.unlike_promised(outputs, 3, None) == []
    assert set(STEP.unlike_promised(outputs, 4, None)) == {"y", "hash_out", "count_out"}
    assert set(STEP.unlike_promised({}, 3, None)) == {"y", "hash_out", "count_out"}
    assert STEP.unlike_promised(outputs | {"y": np.zeros((3, 2), np.float32)}, 3, None) == ["y"]


def test_a_scan_promises_as_many_time_steps_as_it_was_given() -> None:
    scan = parse_contract(contract_document()).scan
    assert scan is not None
    outputs = {"y": np.zeros((3, 5, 2)), "hash_out": np.zeros((3, 2)), "count_out": np.zeros(3, np.int64)}
    assert scan.unlike_promised(outputs, 3, 5) == []
    assert scan.unlike_promised(outputs, 3, 8) == ["y"]


def spoiled(*path: Any, value: Any) -> dict[str, Any]:
    """The puppet's contract with one field replaced."""
    document = contract_document()
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


IN_STEP = ("signatures", "step")


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (7, "contract: expected an object; got int"),
        ({}, "contract.schema: expected 1, got None; export the model again or update Sluice"),
        (spoiled("schema", value=2), "contract.schema: expected 1, got 2"),
        (spoiled("signatures", value=[]), "contract.signatures: expected an object; got list"),
        (spoiled(*IN_STEP, value=None), "contract.signatures.step: expected an object; got NoneType"),
        (spoiled(*IN_STEP, "kind", value="dance"), "step.kind: expected one of rows, step, scan; got 'dance'"),
        (
            spoiled("signatures", "scan", "lengths", value=None),
            "scan.lengths: a scan names its lengths input; got None",
        ),
        (spoiled(*IN_STEP, "inputs", value=[]), "step.inputs: expected an object; got list"),
        (spoiled(*IN_STEP, "outputs", "y", value=1), "step.outputs.y: expected an object; got int"),
        (spoiled(*IN_STEP, "inputs", "x", "axes", value={}), "step.inputs.x.axes: expected an array; got dict"),
        (spoiled(*IN_STEP, "inputs", "x", "axes", value=[]), "x.axes: the batch axis comes first; got none"),
        (spoiled(*IN_STEP, "inputs", "x", "axes", 1, value=2), "x.axes[1]: expected an object; got int"),
        (spoiled(*IN_STEP, "inputs", "x", "axes", 1, "name", value=""), "x.axes[1].name: expected a name; got ''"),
        (
            spoiled(*IN_STEP, "inputs", "x", "axes", 1, "size", value=-1),
            "x.axes[1].size: expected a whole number or nothing; got -1",
        ),
        (spoiled(*IN_STEP, "inputs", "x", "axes", 1, "size", value="2"), "whole number or nothing; got '2'"),
        (spoiled(*IN_STEP, "inputs", "x", "dtype", value=None), "step.inputs.x.dtype: expected a name; got None"),
        (
            spoiled(*IN_STEP, "inputs", "x", "dtype", value="decimal"),
            "a dtype such as float32, int64 or string; got 'dec",
        ),
        (spoiled(*IN_STEP, "states", 0, "shape", value=[9]), "step, scan must have the same states, by name, dtype"),
        (spoiled(*IN_STEP, "states", value={}), "step.states: expected an array; got dict"),
        (spoiled(*IN_STEP, "states", value=[]), "step.states: a step has one state or more; got none"),
        (spoiled("signatures", "scan", "states", value=[]), "scan.states: a scan has one state or more; got none"),
        (spoiled(*IN_STEP, "states", 1, value=3), "step.states[1]: expected an object; got int"),
        (spoiled(*IN_STEP, "states", 0, "output", value=None), "states[0].output: expected a name; got None"),
        (spoiled(*IN_STEP, "states", 0, "shape", value=None), "states[0].shape: expected an array; got NoneType"),
        (spoiled(*IN_STEP, "states", 0, "shape", value=[None, 2]), "a state's row has a fixed shape; got [None, 2]"),
        (spoiled(*IN_STEP, "states", 0, "shape", value=[-1]), "a state's row has a fixed shape; got [-1]"),
    ],
)
def test_a_contract_that_cannot_be_read_says_where_and_why(document: Any, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_contract(document)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("contract")


def test_a_contract_is_frozen() -> None:
    with pytest.raises(AttributeError):
        CONTRACT.summary = "other"  # type: ignore[misc]
