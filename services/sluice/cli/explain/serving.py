"""The section that says how Sluice serves a model: the calls there are, and requests to paste."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from sluice.cli.explain.shapes import row_shape, shape
from sluice.cli.explain.subject import WHOLE, Subject
from sluice.cli.text import code, paragraph, table
from sluice.policy.contract import Signature, Tensor, numpy_dtype

_LONGEST_REQUEST = 100  # characters of JSON in a command line; longer ones go into a file


def serving(subject: Subject) -> Iterator[RenderableType]:
    if subject.obstacle:
        yield paragraph(f"Not as it is: {subject.obstacle.rstrip('.')}. Keras's own `predict` takes:")
    yield table(("call", "takes", "what it is"), list(_calls(subject)))
    if subject.contract.step:
        yield paragraph(
            "Steps of many clients share batches of any mixture; each client gets what it would have got alone."
        )
    if subject.entry.kind == "sequences":
        groups = f", in groups of up to {', '.join(map(str, subject.bounds))} time steps" if subject.bounds else ""
        yield paragraph(
            f"Rows of different lengths may come in one request. They are padded to share batches{groups}; padding "
            "changes no answer."
        )
    if not subject.obstacle:
        yield Text()
        if subject.export:
            yield code(subject.export)
        yield from _requests(subject)


def _calls(subject: Subject) -> Iterator[tuple[str, str, str]]:
    step, scan = subject.contract.step, subject.contract.scan
    if step:
        yield "step", _taken(step, row_shape), "one time step of a session: no batch axis"
    if scan:
        yield "scan", _taken(scan, row_shape), "some time steps of a session, in order"
    for name, signature in subject.contract.signatures.items():
        if signature.kind in WHOLE:
            named = "" if name == "serving_default" else f" {name}"
            words = "rows, each from the initial state" if subject.layers else "rows"
            yield f"predict{named}", _taken(signature, lambda tensor: shape("rows", tensor)), words

    if generation := subject.contract.generation:
        taken = _taken(generation.encode, lambda tensor: shape("rows", tensor))
        yield "generate", taken, "rows; the answer to each is written token by token"


def _taken(signature: Signature, write: Callable[[Tensor], str]) -> str:
    written = {name: write(tensor) for name, tensor in signature.inputs.items()}
    return ", ".join(written.values() if len(written) == 1 else (f"{name} {text}" for name, text in written.items()))


def _requests(subject: Subject) -> Iterator[RenderableType]:
    """Commands to paste: the contract's own example."""
    name, inputs = _example(subject)
    signature = subject.contract.signatures[name]
    model = f"{subject.url}/v1/models/{subject.name}"
    if signature.kind in {*WHOLE, "encode"}:
        row = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        generates = signature.kind == "encode"
        which = {} if generates or name == "serving_default" else {"signature_name": name}
        call = f"curl -s {model}:{'generate' if generates else 'predict'}"
        yield from _request(call, which | {"instances": [row]}, signature)
        return
    yield code(f"curl -s {model}/sessions -H 'Content-Type: application/json' \\\n  -d '{{\"session\": \"mine\"}}'")
    yield from _request(f"curl -s {subject.url}/v1/sessions/mine:{signature.kind}", {"inputs": inputs}, signature)


def _request(command: str, body: Mapping[str, Any], signature: Signature) -> Iterator[RenderableType]:
    written = json.dumps(body, ensure_ascii=False)
    if len(written) <= _LONGEST_REQUEST:
        yield code(f"{command} \\\n  -d {shlex.quote(written)}")
        return
    yield code(f"{command} \\\n  -d @request.json")
    rows: dict[str, Any] = {name: f"nested lists, {row_shape(tensor)}" for name, tensor in signature.inputs.items()}
    row = next(iter(rows.values())) if len(rows) == 1 else rows
    held: dict[str, Any] = {"inputs": rows} if "inputs" in body else {"instances": [row]}
    yield paragraph(f"request.json: {json.dumps({**body, **held}, ensure_ascii=False)}")


def _example(subject: Subject) -> tuple[str, Mapping[str, Any]]:
    """The contract's example request, or zeros where it has none."""
    given = subject.contract.document.get("example")
    if isinstance(given, dict) and given.get("signature") in subject.contract.signatures:
        return given["signature"], given["inputs"]
    signature = subject.contract.step or subject.entry
    return signature.name, {name: _zeros(tensor) for name, tensor in signature.inputs.items()}


def _zeros(tensor: Tensor) -> Any:
    row: Any = {"O": "", "b": False, "i": 0, "u": 0}.get(numpy_dtype(tensor.dtype).kind, 0.0)
    for size in reversed(tensor.shape[1:]):
        row = [row] * (1 if size is None else size)
    return row
