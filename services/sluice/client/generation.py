"""Generate calls to and from the JSON and the messages of the gateway. It knows no transports."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sluice.client.errors import error_of
from sluice.client.grpc_messages import told
from sluice.client.predict_json import writable
from sluice.client.tensors import encoded, write_tensors
from sluice.client.values import (
    BARE,
    Array,
    Ended,
    GenerateCall,
    Generated,
    Results,
    Token,
    Values,
    array_of,
    by_name,
    is_text,
)
from sluice.policy.errors import BadRequest, EmptyInput, ShapeMismatch
from sluice.wire.messages.v1 import generation_pb2 as pb
from sluice.wire.rest import encode_floats, write_json


def instances_of(values: Values) -> dict[str, list[Array]]:
    """Own arrays of what a caller gave, by input name one for each instance, whose shapes may differ.

    Raises:
        BadRequest: they are no list.
        EmptyInput: there are none.
        ShapeMismatch: inputs of different numbers of instances, or an instance is made of lists of different lengths.
    """
    found = {
        name: [array_of(row, f"Instance {number}") for number, row in enumerate(_listed(rows))]
        for name, rows in by_name(values).items()
    }
    counts = {name: len(rows) for name, rows in found.items()}
    if not any(counts.values()):
        raise EmptyInput("A call needs one instance or more; got none.")
    if len(set(counts.values())) > 1:
        raise ShapeMismatch(f"All inputs have as many instances; got {counts}.")
    return found


def generate_body(call: GenerateCall, *, stream: bool) -> bytes:
    """The body of a call.

    Raises:
        DtypeMismatch: JSON has no form for an input's dtype.
    """
    fields = {
        "max_steps": call.max_steps,
        "beam": None if call.beam is None else _exact(asdict(call.beam)),
        "sampling": None if call.sampling is None else _exact(asdict(call.sampling)),
        "stream": stream or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    columns = {name: [_row(name, row) for row in rows] for name, rows in call.inputs.items()}
    bare = columns.get(BARE) if len(columns) == 1 else None
    rows = bare or [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return write_json({"instances": rows, **given})


def read_results(body: Mapping[str, Any]) -> Results:
    """Each instance's sequences, the best first."""
    return [_sequences(each if isinstance(each, list) else [each]) for each in body["results"]]


def read_event(name: str, data: Mapping[str, Any]) -> Token | Ended:
    if name == "token":
        return Token(data["index"], data["step"], data["token"], data.get("text", ""))
    if name == "error":
        error = error_of(data["code"], data["error"], details=data.get("details"))
        return Ended(data["index"], [], error)
    return Ended(data["index"], _sequences(data.get("results", [data])), None)


def generate_request(call: GenerateCall, *, stream: bool) -> pb.GenerateRequest:
    """The message of a call.

    Raises:
        ShapeMismatch: instances of different shapes, which are no array.
        BadRequest: a number that is beyond what a message holds, and so beyond what the gateway takes.
    """
    spec = call.spec
    try:
        request = pb.GenerateRequest(
            model=spec.model,
            version="" if spec.version is None else str(spec.version),
            label=spec.label or "",
            max_steps=call.max_steps,
            beam=None if call.beam is None else pb.Beam(**asdict(call.beam)),
            sampling=None if call.sampling is None else pb.Sampling(**asdict(call.sampling)),
            stream_tokens=stream,
        )
    except ValueError as error:
        raise BadRequest(
            f'"max_steps", "beam" and "sampling" hold numbers that a message can carry; {error}.'
        ) from None
    bare = call.inputs.get(BARE) if len(call.inputs) == 1 else None
    if bare and all(row.ndim == 0 and is_text(row) for row in bare):
        request.texts.extend(_text(row.item()) for row in bare)
    else:
        write_tensors(request.inputs, {name: _stacked(name, rows) for name, rows in call.inputs.items()})
    return request


def event(message: pb.GenerateEvent) -> Token | Ended:
    kind = message.WhichOneof("event")
    if kind == "token":
        token = message.token
        return Token(token.index, token.step, token.token, token.text)
    if kind == "error":
        return Ended(message.error.index, [], told(message.error.error))
    sequences = [
        Generated(each.text, tuple(each.tokens), each.score, each.steps, each.finished)
        for each in message.result.sequences
    ]
    return Ended(message.result.index, sequences, None)


def _listed(rows: Any) -> Sequence[Any]:
    if isinstance(rows, str | bytes) or not hasattr(rows, "__len__") or getattr(rows, "shape", None) == ():
        raise BadRequest(f"Instances are a list or an array [instances, ...]; got {rows!r:.80}.")
    listed: Sequence[Any] = rows
    return listed


def _exact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON writes them, NaN too, which the gateway is to refuse."""
    return {
        name: encode_floats(np.float64(value)) if isinstance(value, float) else value for name, value in fields.items()
    }


def _row(name: str, row: Array) -> Any:
    """A row as JSON writes it; text is plain, so that a model that takes characters gets them."""
    return _text(row.item()) if row.ndim == 0 and is_text(row) else writable(name, encoded(row))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _stacked(name: str, rows: Sequence[Array]) -> Array:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise ShapeMismatch(
            f"Over gRPC, instances are text or an array; those of {name or 'the input'!r} have the shapes "
            f"{sorted(shapes)}. Pad them and give their lengths by name, or use an http:// URL."
        )
    return np.stack([encoded(row) for row in rows])


def _sequences(results: Sequence[Mapping[str, Any]]) -> list[Generated]:
    return [
        Generated(each.get("text", ""), tuple(each.get("tokens", ())), each["score"], each["steps"], each["finished"])
        for each in results
    ]
