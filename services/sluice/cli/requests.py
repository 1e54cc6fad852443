"""The requests that try a served model, as lines to paste: what its contract gives as an example."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sluice.policy.contract import Contract, Signature, Tensor, numpy_dtype

WHOLE = ("rows", "sequences")  # kinds of which a request gives whole rows, and gets all that belongs to them
_ORDER = (*WHOLE, "encode", "scan", "step", "decode")
_LONGEST = 100  # characters of JSON in a command line; longer ones go into a file


@dataclass(frozen=True, slots=True)
class Request:
    """A request: where to, its body, and the signature that it calls, if it calls one."""

    url: str
    body: Mapping[str, Any]
    signature: Signature | None = None

    @property
    def text(self) -> str:
        """The body as JSON."""
        return json.dumps(self.body, ensure_ascii=False)

    @property
    def is_long(self) -> bool:
        return len(self.text) > _LONGEST

    def line(self, file: str) -> str:
        """A command; a long body is in `file`."""
        data = f"@{file}" if self.is_long else self.text
        return f"curl -s {shlex.quote(self.url)} \\\n  -d {shlex.quote(data)}"


def requests(name: str, contract: Contract, url: str) -> Iterator[Request]:
    """What to ask the model `name` behind a gateway at `url`, one after another: the last takes the example."""
    signature_name, inputs = _example(contract)
    signature = contract.signatures[signature_name]
    model = f"{url}/v1/models/{quote(name)}"
    if signature.kind not in {*WHOLE, "encode"}:
        yield Request(f"{model}/sessions", {"session": "mine", "if_exists": "restart"})
        yield Request(f"{url}/v1/sessions/mine:{signature.kind}", {"inputs": inputs}, signature)
        return
    row = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    generates = signature.kind == "encode"
    which = {} if generates or signature_name == "serving_default" else {"signature_name": signature_name}
    yield Request(f"{model}:{'generate' if generates else 'predict'}", which | {"instances": [row]}, signature)


def entry(contract: Contract) -> Signature:
    """The signature that takes whole rows, or else the one that comes nearest."""
    return min(contract.signatures.values(), key=lambda each: _ORDER.index(each.kind))


def _example(contract: Contract) -> tuple[str, Mapping[str, Any]]:
    """The contract's example request, or zeros where it has none."""
    given = contract.document.get("example")
    if isinstance(given, dict) and given.get("signature") in contract.signatures:
        return given["signature"], given["inputs"]
    signature = contract.step or entry(contract)
    return signature.name, {name: _zeros(tensor) for name, tensor in signature.inputs.items()}


def _zeros(tensor: Tensor) -> Any:
    row: Any = {"O": "", "b": False, "i": 0, "u": 0}.get(numpy_dtype(tensor.dtype).kind, 0.0)
    for size in reversed(tensor.shape[1:]):
        row = [row] * (1 if size is None else size)
    return row
