"""The contract: what is read from it, and the sentence for everything that cannot be."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sluice.policy.contract import Axis, State, Tensor, fits, numpy_dtype
from sluice.policy.contract_document import ContractError, parse_contract

from .puppet import CONTRACT, SCAN, STEP, contract_document
from .test_sequences import document as sequences_document

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
    assert fits(shape, (None, 2)) is fit


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
        (
            spoiled(*IN_STEP, "kind", value="dance"),
            "step.kind: expected one of rows, sequences, step, scan, encode, decode; got 'dance'",
        ),
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
        (
            spoiled(*IN_STEP, "inputs", "x", "dtype", value="7float32"),
            "a dtype such as float32, int64 or string; got '7f",
        ),
        (spoiled(*IN_STEP, "inputs", "x", "dtype", value="f4,("), "a dtype such as float32, int64 or string; got 'f4,"),
        (
            spoiled(*IN_STEP, "states", 0, "dtype", value="float32"),
            "step, scan must have the same states, by name, dtype",
        ),
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


IN_SEQUENCES = ("signatures", "serving_default")
IN_X = (*IN_SEQUENCES, "inputs", "x")


def generating() -> dict[str, Any]:
    """An encoder-decoder's contract."""
    states = [{"name": "h", "input": "h", "output": "h", "dtype": "float32", "shape": [4]}]
    text = {"dtype": "int32", "text": "utf-8", "axes": [{"name": "batch"}, {"name": "byte", "ragged": True}]}
    encode = {"kind": "encode", "inputs": {"text": text}, "outputs": {}, "lengths": {"byte": "lengths"}}
    logits = {"dtype": "float32", "axes": [{"name": "batch"}, {"name": "token", "size": 3}]}
    token = {"dtype": "int32", "axes": [{"name": "batch"}]}
    return {
        "schema": 1,
        "signatures": {
            "encode": {**encode, "states": states},
            "decode": {"kind": "decode", "inputs": {"token": token}, "outputs": {"logits": logits}, "states": states},
        },
        "generation": {
            "encode": "encode", "decode": "decode", "input": "token", "logits": "logits", "start": 0, "end": 2,
            "max_steps": 12, "tokens": ["", "a", ""],
        },
    }  # fmt: skip


def changed(document: dict[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def test_a_contract_says_how_a_model_generates() -> None:
    contract = parse_contract(generating())
    generation = contract.generation
    assert generation is not None
    assert (generation.encode, generation.decode) == (contract.signatures["encode"], contract.signatures["decode"])
    assert (generation.start, generation.end, generation.max_steps, generation.tokens) == (0, 2, 12, ("", "a", ""))
    assert contract.kinds == ["generation"]
    assert contract.step is None


def test_a_contract_of_sequences_offers_them_and_pads_with_what_it_says() -> None:
    contract = parse_contract(sequences_document())
    assert contract.kinds == ["sequences"]
    assert contract.signatures["serving_default"].inputs["x"].pad == -9.0
    words = changed(sequences_document(), *IN_X, "dtype", value="string")
    del words["signatures"]["serving_default"]["inputs"]["x"]["pad"]
    assert parse_contract(words).signatures["serving_default"].inputs["x"].pad == b""


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (changed(sequences_document(), *IN_X, "text", value="utf-8"), "x.text: expected utf-8 for an int32 input"),
        (changed(sequences_document(), *IN_X, "pad", value="no"), "x.pad: expected a value of dtype float64; got 'no'"),
        (changed(sequences_document(), *IN_X, "axes", 1, "ragged", value=1), "axes[1].ragged: expected true where the"),
        (changed(sequences_document(), *IN_X, "axes", 1, "size", value=4), "axes[1].ragged: expected true where"),
        (changed(sequences_document(), *IN_X, "axes", 1, "least", value=-1), "least: expected a whole number from 0"),
        (changed(sequences_document(), *IN_X, "axes", 2, "size", value=None), "axes that are ragged or have a size; "),
        (changed(sequences_document(), *IN_SEQUENCES, "kind", value="rows"), "ragged axes are what sequences and enc"),
        (changed(generating(), "signatures", "encode", "inputs", value={}), "ragged axes are what sequences and enc"),
        (changed(sequences_document(), *IN_SEQUENCES, "lengths", value={}), "an input for the lengths of 'source'"),
        (changed(sequences_document(), *IN_SEQUENCES, "lengths", value={"z": "l"}), "lengths: expected ragged axes, "),
        (changed(sequences_document(), *IN_SEQUENCES, "lengths", value={"source": 3}), "lengths.source: expected a na"),
        (changed(sequences_document(), *IN_SEQUENCES, "buckets", value={"source": []}), "source: expected incr"),
        (changed(sequences_document(), *IN_SEQUENCES, "buckets", value={"source": [4, 4]}), "increasing lengths; g"),
        (changed(sequences_document(), *IN_SEQUENCES, "buckets", value={"source": [0]}), "a whole number from 1 to"),
        (changed(sequences_document(), *IN_SEQUENCES, "calls", value=""), "serving_default.calls: expected a name"),
        (changed(generating(), "signatures", "decode", "states", value=[]), "decode.states: a decode has one state"),
        (changed(generating(), "generation", value=3), "contract.generation: expected an object; got int"),
        (changed(generating(), "generation", "encode", value="decode"), "expected a signature of kind encode; got "),
        (changed(generating(), "generation", "decode", value="none"), "expected a signature of kind decode; got "),
        (changed(generating(), "generation", "input", value="x"), "the only input of decode, int32 [batch], and an"),
        (changed(generating(), "generation", "logits", value="x"), "the only input of decode, int32 [batch], and an"),
        (changed(generating(), "signatures", "decode", "inputs", "token", "dtype", value="int64"), "int32 [batch]"),
        (changed(changed(sequences_document(), *IN_X, "dtype", value="float32"), *IN_X, "pad", value=1e300), "pad"),
        (changed(generating(), "signatures", "encode", "inputs", "text", "pad", value=2.5), "pad: expected a value"),
        (changed(generating(), "signatures", "encode", "inputs", "text", "pad", value=1 << 40), "pad: expected a val"),
        (changed(sequences_document(), *IN_X, "dtype", value="object"), "pad: expected a value of dtype object"),
        (changed(changed(sequences_document(), *IN_X, "dtype", value="bool"), *IN_X, "pad", value=2), "pad: expected"),
        (changed(generating(), "generation", "tokens", value=[]), "tokens: expected the text of each token; got []"),
        (changed(generating(), "generation", "tokens", value=[1]), "tokens: expected the text of each token; got [1]"),
        (changed(generating(), "generation", "end", value=3), "generation.end: expected a whole number from 0 to 2"),
        (changed(generating(), "generation", "max_steps", value=0), "max_steps: expected a whole number from 1 to"),
    ],
)  # fmt: skip
def test_a_contract_of_sequences_that_cannot_be_read_says_where_and_why(document: Any, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_contract(document)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("contract")
