"""Recognize calls to and from the JSON and the messages of the gateway. It knows no transports."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sluice.client.predict_json import writable
from sluice.client.tensors import encoded, write_tensors
from sluice.client.values import BARE, Array, RecognizeCall, Recognized, RecognizedRow, input_word
from sluice.policy.errors import EmptyInput, ShapeMismatch
from sluice.wire.messages.v1 import recognition_pb2 as pb
from sluice.wire.rest import encode_floats, write_json

_MOST = (1 << 31) - 1  # candidates that a message can ask for; no model has as many classes


def check_rows(inputs: Mapping[str, Array]) -> None:
    """Whether inputs are rows; JSON alone could not say of what width no rows are.

    Raises:
        ShapeMismatch: the inputs have no axis of rows, or do not agree on how many there are.
        EmptyInput: there are no rows.
    """
    shapes = {name: array.shape for name, array in inputs.items()}
    counts = {shape[:1] for shape in shapes.values()}
    if len(counts) != 1 or () in counts:
        told = "; ".join(f"{input_word(name)} has the shape {[*shape]}" for name, shape in shapes.items())
        raise ShapeMismatch(f"Rows are arrays [rows, ...], all inputs with as many rows. {told}.")
    if (0,) in counts:
        raise EmptyInput("A call needs one row or more; got none.")


def recognize_body(call: RecognizeCall) -> bytes:
    """The body of a call.

    Raises:
        DtypeMismatch: JSON has no form for an input's dtype.
    """
    fields = {
        "method": call.method or None,
        "level": None if call.level is None else encode_floats(np.float64(call.level)),
        "top_k": call.top_k,
        "sets": call.sets or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return write_json({"instances": _instances(call.inputs), **given})


def read_recognized(answer: Mapping[str, Any]) -> Recognized:
    """What an answer says; fields that a newer gateway adds are left out, as over gRPC."""
    shared = {**RecognizedRow._field_defaults, "threshold": answer["threshold"]}
    rows = [RecognizedRow(**_known(RecognizedRow._fields, shared | each | _lists(each))) for each in answer["results"]]
    return Recognized(**_known(Recognized.__slots__, {**answer, "results": rows}))


def recognize_request(call: RecognizeCall) -> pb.RecognizeRequest:
    spec = call.spec
    request = pb.RecognizeRequest(
        model=spec.model,
        version="" if spec.version is None else str(spec.version),
        label=spec.label or "",
        method=call.method or "",
        level=call.level,
        top_k=None if call.top_k is None else min(call.top_k, _MOST),
        sets=call.sets,
    )
    write_tensors(request.inputs, call.inputs)
    return request


def recognized(reply: pb.RecognizeResponse, call: RecognizeCall) -> Recognized:
    return Recognized(
        reply.model,
        reply.version,
        reply.method,
        reply.level,
        reply.threshold if reply.HasField("threshold") else None,
        [_row(each, sets=call.sets) for each in reply.results],
    )


def _instances(inputs: Mapping[str, Array]) -> Any:
    """The rows: bare values, or objects by input name."""
    arrays = {name: encoded(array) for name, array in inputs.items()}
    if arrays.keys() == {BARE}:
        return writable(BARE, arrays[BARE])
    count = len(next(iter(arrays.values())))
    return [{name: writable(name, array[row, ...]) for name, array in arrays.items()} for row in range(count)]


def _known(names: Iterable[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in names}


def _lists(result: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON writes as lists."""
    found: dict[str, Any] = {"candidates": tuple((each["label"], each["probability"]) for each in result["candidates"])}
    return found | {"set": tuple(result["set"])} if "set" in result else found


def _row(result: pb.Recognized, *, sets: bool) -> RecognizedRow:
    reason: Any = result.reason or None
    return RecognizedRow(
        result.label if result.HasField("label") else None,
        result.known,
        result.closed_set_label,
        result.score,
        result.threshold,
        result.p_value,
        reason,
        tuple((each.label, each.probability) for each in result.candidates),
        tuple(result.set) if sets else None,
    )
