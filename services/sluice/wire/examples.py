"""TensorFlow Serving's classify and regress JSON: examples with their features, to messages and back.

It does not know HTTP or models; the gateway and the model server both use it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sluice.policy.errors import BadRequest, EmptyInput, MissingInput
from sluice.wire.exact_json import pairs_of
from sluice.wire.messages.tf.v1 import tensorflow_pb2 as tf
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.rest import (
    DEFAULT_SIGNATURE,
    encode_floats,
    from_base64,
    is_base64,
    parse_as_tf_serving,
    write_json,
)
from sluice.wire.shown import as_json

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class ExamplesBody:
    """A classify or regress request as written."""

    signature_name: str
    input: tfs.Input


def parse_examples(body: bytes, method: str) -> ExamplesBody:
    """The fields of a request; `method` is classify or regress, for the sentences of errors.

    Raises:
        BadRequest, MissingInput, EmptyInput: what is wrong with them.
    """
    fields = parse_as_tf_serving(body)
    signature = fields.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise BadRequest(f'"signature_name" is a name; got {as_json(signature)}.')
    _check_name(signature)
    if "examples" not in fields:
        raise MissingInput(f'To {method}, the body has "examples", a list of objects of features; it has none.')
    examples = fields["examples"]
    if not isinstance(examples, list):
        raise BadRequest(f'"examples" is a list of objects of features; got {as_json(examples)}.')
    if not examples:
        raise EmptyInput('"examples" is empty: send one example or more.')
    listed = [_example(each, f"example {i}") for i, each in enumerate(examples)]
    if "context" not in fields:
        return ExamplesBody(signature, tfs.Input(example_list=tfs.ExampleList(examples=listed)))
    context = _example(fields["context"], "the context")
    with_context = tfs.ExampleListWithContext(examples=listed, context=context)
    return ExamplesBody(signature, tfs.Input(example_list_with_context=with_context))


def serialized_examples(input: Any) -> list[bytes]:
    """Each `tf.Example` of an `Input`, ours or the official one; of a context it gets the features that it lacks."""
    if input.WhichOneof("kind") != "example_list_with_context":
        return [example.SerializeToString() for example in input.example_list.examples]
    whole = []
    for example in input.example_list_with_context.examples:
        merged = type(example)()
        merged.CopyFrom(example)
        for name, feature in input.example_list_with_context.context.features.feature.items():
            if name not in example.features.feature:
                merged.features.feature[name].CopyFrom(feature)
        whole.append(merged.SerializeToString())
    return whole


def encode_classifications(result: Any) -> bytes:
    """The REST body for a `ClassificationResult`: `{"results": [[[label, score], …], …]}`."""
    rows = [
        [[each.label, encode_floats(np.float32(each.score))] for each in classified.classes]
        for classified in result.classifications
    ]
    return write_json({"results": rows})


def encode_regressions(result: Any) -> bytes:
    """The REST body for a `RegressionResult`: `{"results": [value, …]}`."""
    return write_json({"results": encode_floats(np.array([each.value for each in result.regressions], np.float32))})


def _example(value: Any, where: str) -> tf.Example:
    if not isinstance(value, dict):
        raise BadRequest(f"An example is an object of features; {where} is {as_json(value)}.")
    made = tf.Example()
    made.features.SetInParent()
    for key, each in pairs_of(value):  # of a feature that comes twice the last one counts
        name = key.partition("\0")[0]
        _check_name(name)
        made.features.feature[name].CopyFrom(_feature(each, f"Feature {name!r} of {where}"))
    return made


def _check_name(name: str) -> None:
    """Raises: BadRequest: it is not UTF-8, as the text of messages is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"Names are text in UTF-8; got {name!r:.80}.") from None


def _feature(value: Any, where: str) -> tf.Feature:
    values = value if isinstance(value, list) else [value]
    kinds = {_kind(each, where) for each in values}
    if len(kinds) > 1:
        raise BadRequest(f"{where} mixes {' and '.join(sorted(kinds))}; send one or the other.")
    kind = next(iter(kinds), None)
    if kind == "whole numbers":
        return tf.Feature(int64_list=tf.Int64List(value=_int64s(values, where)))
    if kind == "fractions":
        with np.errstate(over="ignore"):
            return tf.Feature(float_list=tf.FloatList(value=np.array(values, np.float32).tolist()))
    if kind == "text":
        return tf.Feature(bytes_list=tf.BytesList(value=map(_bytes, values)))
    return tf.Feature()


def _kind(value: Any, where: str) -> str:
    if isinstance(value, bool | int):
        return "whole numbers"
    if isinstance(value, float):
        return "fractions"
    if isinstance(value, str) or (isinstance(value, dict) and is_base64(value)):
        return "text"
    raise BadRequest(f"{where} holds numbers or text, alone or in one list; got {as_json(value)}.")


def _int64s(values: Iterable[int], where: str) -> list[int]:
    whole = [int(value) for value in values]
    if beyond := [value for value in whole if value not in _INT64]:
        raise BadRequest(f"{where} holds whole numbers of 64 bits; got {beyond[0]}.")
    return whole


def _bytes(value: Any) -> bytes:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else from_base64(value["b64"])
