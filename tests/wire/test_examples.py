"""Classify and regress JSON: what TensorFlow reads out of the examples, what is refused, what is written."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from sluice.policy.errors import BadRequest, EmptyInput, MissingInput, SluiceError
from sluice.wire.examples import encode_classifications, encode_regressions, parse_examples, serialized_examples
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs


def parsed(body: Any, method: str = "classify") -> Any:
    return parse_examples(body if isinstance(body, bytes) else json.dumps(body).encode(), method)


def features(serialized: bytes) -> dict[str, tuple[str | None, list[Any]]]:
    """Name → kind and values, as TensorFlow's own message has them."""
    found = example_pb2.Example.FromString(serialized).features.feature
    kinds = {name: each.WhichOneof("kind") for name, each in found.items()}
    return {name: (kind, [*getattr(found[name], kind).value] if kind else []) for name, kind in kinds.items()}


def read(**example: Any) -> dict[str, tuple[str | None, list[Any]]]:
    return features(serialized_examples(parsed({"examples": [example]}).input)[0])


@pytest.mark.parametrize(
    ("value", "feature"),
    [
        (3, ("int64_list", [3])),
        ([3, -4], ("int64_list", [3, -4])),
        (-(2**63), ("int64_list", [-(2**63)])),
        (True, ("int64_list", [1])),
        ([1, False], ("int64_list", [1, 0])),
        (2.5, ("float_list", [2.5])),
        ([0.5, -1.0], ("float_list", [0.5, -1.0])),
        (-(2**63) - 1, ("float_list", [-(2.0**63)])),  # as numbers of more than 64 bits are
        (1e39, ("float_list", [math.inf])),
        ("", ("bytes_list", [b""])),
        (["a", "h\u00e9"], ("bytes_list", [b"a", "h\u00e9".encode()])),
        ({"b64": "//4A"}, ("bytes_list", [b"\xff\xfe\0"])),
        (["a", {"b64": "YQ"}], ("bytes_list", [b"a", b"a"])),
        ([], (None, [])),
    ],
    ids=str,
)
def test_a_feature_is_what_its_values_are(value: Any, feature: tuple[str, list[Any]]) -> None:
    assert read(age=value) == {"age": feature}


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
        | st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=3)
        | st.lists(st.text(max_size=3), min_size=1, max_size=3),
        max_size=3,
    )
)
def test_any_features_come_through(given: dict[str, list[Any]]) -> None:
    values = {name: found for name, (_, found) in read(**given).items()}
    assert values == {
        name.split("\0")[0]: [each.encode() if isinstance(each, str) else each for each in given[name]]
        for name in given
    }


def test_numbers_that_are_not_finite_are_read() -> None:
    asked = parsed(b'{"examples": [{"age": NaN}, {"age": [-Infinity, 1.0]}]}')
    first, second = map(features, serialized_examples(asked.input))
    assert math.isnan(first["age"][1][0])
    assert second["age"] == ("float_list", [-math.inf, 1.0])


def test_examples_keep_their_order_and_may_have_no_features() -> None:
    asked = parsed({"examples": [{"n": 1}, {}, {"n": 3}], "signature_name": "mine", "more": 5})
    assert asked.signature_name == "mine"
    assert [*map(features, serialized_examples(asked.input))] == [
        {"n": ("int64_list", [1])}, {}, {"n": ("int64_list", [3])},
    ]  # fmt: skip


@pytest.mark.parametrize("official", [False, True])
def test_of_a_context_an_example_gets_the_features_that_it_lacks(official: bool) -> None:
    given: Any = parsed({"context": {"age": 1.5, "n": 1}, "examples": [{"n": 2}, {}]}).input
    if official:
        given = input_pb2.Input.FromString(given.SerializeToString())
    assert [*map(features, serialized_examples(given))] == [
        {"age": ("float_list", [1.5]), "n": ("int64_list", [2])},
        {"age": ("float_list", [1.5]), "n": ("int64_list", [1])},
    ]


def test_no_input_holds_no_examples() -> None:
    assert serialized_examples(tfs.Input()) == []


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (BadRequest, b"{"), (BadRequest, b"[]"), (MissingInput, {}), (MissingInput, {"instances": [{}]}),
        (EmptyInput, {"examples": []}), (BadRequest, {"examples": {"n": 1}}), (BadRequest, {"examples": [1]}),
        (BadRequest, {"examples": [{}, None]}), (BadRequest, {"examples": [{}], "context": [1]}),
        (BadRequest, {"examples": [{}], "context": None}), (BadRequest, {"examples": [{}], "signature_name": 5}),
        (BadRequest, {"examples": [{"n": None}]}), (BadRequest, {"examples": [{"n": {"a": 1}}]}),
        (BadRequest, {"examples": [{"n": [[1]]}]}), (BadRequest, {"examples": [{"n": [1, 2.5]}]}),
        (BadRequest, {"examples": [{"n": [1, "a"]}]}), (BadRequest, {"examples": [{"n": 2**63}]}),
        (BadRequest, {"examples": [{"n": {"b64": 5}}]}),
        (BadRequest, {"examples": [{"n": {"b64": "!"}}]}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_example_is_refused(error: type[SluiceError], body: Any) -> None:
    with pytest.raises(error):
        parsed(body)


def test_a_feature_that_is_refused_is_named_with_its_example() -> None:
    with pytest.raises(BadRequest, match=r"'age' of example 1 mixes fractions and text"):
        parsed({"examples": [{}, {"age": [1.5, "a"]}]})
    with pytest.raises(BadRequest, match=r"'age' of the context"):
        parsed({"examples": [{}], "context": {"age": None}})
    with pytest.raises(MissingInput, match="To regress"):
        parsed({}, "regress")


def test_classes_are_written_as_pairs_and_scores_as_short_as_they_can_be() -> None:
    result = classification_pb2.ClassificationResult()
    first, second = result.classifications.add().classes, result.classifications.add().classes
    first.add(label="old", score=0.1)
    first.add(label="h\u00e9")
    second.add(score=math.nan)
    written = encode_classifications(result)
    assert written == '{"results":[[["old",0.1],["h\u00e9",0.0]],[["",NaN]]]}'.encode()


@given(st.lists(st.floats(width=32), max_size=4))
def test_values_are_written_and_read_again_without_loss(values: list[float]) -> None:
    result = regression_pb2.RegressionResult(regressions=[{"value": value} for value in values])
    back = json.loads(encode_regressions(result))["results"]
    np.testing.assert_array_equal(np.array(back, np.float32), np.array(values, np.float32))


@pytest.mark.parametrize(
    "body", [b'{"signature_name": "\xff", "examples": [{"age": 1.0}]}', b'{"examples": [{"\xff": 1.0}]}']
)
def test_names_are_utf8_as_they_are_in_messages(body: bytes) -> None:
    with pytest.raises(BadRequest, match="Names are text in UTF-8"):
        parse_examples(body, "classify")


def test_of_a_feature_that_comes_twice_the_last_counts_and_of_a_field_the_first() -> None:
    body = b'{"examples": [{"age": 1.0, "age": 2.0}], "examples": [], "signature_name": "a", "signature_name": 5}'
    asked = parse_examples(body, "classify")
    (example,) = asked.input.example_list.examples
    assert (asked.signature_name, [*example.features.feature["age"].float_list.value]) == ("a", [2.0])
    with pytest.raises(BadRequest, match="numbers or text"):
        parse_examples(b'{"examples": [{"age": null, "age": 2.0}]}', "classify")


def test_bytes_of_text_that_are_not_utf8_stay() -> None:
    asked = parse_examples(b'{"examples": [{"name": ["\xff", "\xc3\xa9"]}]}', "regress")
    (example,) = asked.input.example_list.examples
    assert [*example.features.feature["name"].bytes_list.value] == [b"\xff", b"\xc3\xa9"]
