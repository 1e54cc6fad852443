"""The section that says how Sluice serves a model: the calls there are, and requests to paste."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from sluice.cli.explain.shapes import row_shape, shape
from sluice.cli.explain.subject import Subject
from sluice.cli.requests import WHOLE, requests
from sluice.cli.text import code, paragraph, table
from sluice.policy.contract import Signature, Tensor


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
    if subject.limits:
        yield paragraph(f"{subject.limits[:1].upper()}{subject.limits[1:]}.")
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
    for each in requests(subject.name, subject.contract, subject.url):
        yield code(each.line("request.json"))
        if each.is_long and each.signature:
            yield paragraph(f"request.json: {json.dumps(_outlined(each.body, each.signature), ensure_ascii=False)}")


def _outlined(body: Mapping[str, Any], signature: Signature) -> Mapping[str, Any]:
    """The body with words in place of its rows."""
    rows: dict[str, Any] = {name: f"nested lists, {row_shape(tensor)}" for name, tensor in signature.inputs.items()}
    row = next(iter(rows.values())) if len(rows) == 1 else rows
    held: dict[str, Any] = {"inputs": rows} if "inputs" in body else {"instances": [row]}
    return {**body, **held}
