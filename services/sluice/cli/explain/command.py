"""Finds a model, in a Keras file, an exported folder or behind a gateway, and prints what `explanation` says about it.

TensorFlow is imported for a Keras file and for a SavedModel without a contract only.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sluice.cli.explain.explanation import WRONG_USAGE, CannotExplain, Layer, Numbers, Subject, explanation
from sluice.log import quiet_import
from sluice.policy.contract import Contract, Signature, State
from sluice.policy.contract_document import ContractError, parse_contract

NOT_REACHABLE = 3
GATEWAY = "http://127.0.0.1:8080"
MODELS = Path("var/models")  # where `sluice models build` and the pages' exports go
_WIDEST = 100  # columns; wider text is hard to read
_ANSWER_WITHIN_S = 10.0
_NOT_FOUND = 404
_BEHIND_IT_IS_DOWN = (502, 503, 504)
_MAY_PASS = (429, 503, 504)
_GATES = 4  # of an LSTM
_STATES = "n counts the numbers that reach the layer at each time step; the contract does not say how many. {}"
_K = " k is 3 for a GRU, 1 for a SimpleRNN."
_BY_STATES = "It names states, not layers: h and c are an LSTM's, h alone is a GRU's or a SimpleRNN's."


def run(target: str, numbers: Numbers, url: str | None, imports: Sequence[str]) -> None:
    """Print the explanation of `target`.

    Raises:
        CannotExplain: there is no such file, folder or model, or it cannot be read.
    """
    show(find(target, url, imports), numbers, Console(highlight=False, emoji=False))


def find(target: str, given_url: str | None, imports: Sequence[str]) -> Subject:
    """What is known about FILE.keras, DIR/NAME/VERSION, or the NAME of a model.

    Without a gateway's address a NAME is looked for among the models that were built here, and then at `GATEWAY`.

    Raises:
        CannotExplain: as `run`.
    """
    path, url = Path(target), (given_url or GATEWAY).rstrip("/")
    if path.suffix == ".keras" or path.is_file():
        from sluice.cli.explain.keras_file import from_keras

        return from_keras(path, url, imports)
    is_name = path.name == target
    if given_url is None and is_name and (versions := versions_of(MODELS / target)):
        return from_folder(versions[-1], url)
    if path.is_dir() and (target.isdecimal() or not is_name):  # a served model may be called as a folder nearby is
        return from_folder(path, url)
    if not is_name:
        raise CannotExplain(
            f"{target}: expected FILE.keras, DIR/NAME/VERSION or the NAME of a served model; there is no such file "
            "or folder"
        )
    return from_gateway(target, url)


def show(subject: Subject, numbers: Numbers, console: Console) -> None:
    """Print all sections, no wider than reads well."""
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        console.print(Text(f"{subject.name} ({subject.source})", style="bold"))
        if subject.contract.summary:
            console.print(Text(subject.contract.summary))
        for section in explanation(subject, numbers):
            console.print()
            console.print(Text(section.title, style="bold"))
            for part in section.body:
                console.print(part, soft_wrap=isinstance(part, Text))  # commands are pasted, so they are never wrapped
    for line in captured.get().splitlines():
        console.file.write(f"{line.rstrip()}\n")


def from_folder(folder: Path, url: str) -> Subject:
    """What an exported version folder says; one without a contract is explained as rows."""
    folder = folder.resolve()
    if not (folder.name.isdecimal() and (folder / "saved_model.pb").is_file()):
        versions = versions_of(folder)
        hint = f"try {versions[-1]}" if versions else "export a model with `sluice export FILE.keras --out …`"
        raise CannotExplain(
            f"{folder}: expected an exported version, DIR/NAME/VERSION with a saved_model.pb in it and a whole number "
            f"as VERSION; got another folder; {hint}"
        )
    file = folder / "assets.extra" / "contract.json"
    read = (
        _read(_json(file.read_bytes(), str(file)), str(file)) if file.is_file() else _plain(_metadata(folder), folder)
    )
    keras_file = folder / "assets.extra" / "model.keras"
    hint = f"`sluice explain {_near(keras_file)}` knows them." if keras_file.is_file() else _BY_STATES
    return _described(folder.parent.name, f"version {folder.name}, exported to {_near(folder)}", read, url, hint)


def versions_of(folder: Path) -> list[Path]:
    """The version folders of a model's folder, the newest last; none where there is no such folder."""
    found = (each for each in folder.glob("*") if each.name.isdecimal())
    return sorted(found, key=lambda each: int(each.name))


def from_gateway(name: str, url: str) -> Subject:
    """What a gateway says about a served model; one without a contract is explained as rows."""
    address = f"{url}/v1/models/{urllib.parse.quote(name, safe='')}"
    answer = _get(f"{address}/contract")
    if not isinstance(answer, dict) or "contract" not in answer:
        raise CannotExplain(f"{address}/contract: expected a gateway's answer, with the field `contract`; got another")
    document = answer["contract"]
    read = _plain(_served(_get(f"{address}/metadata")), address) if document is None else _read(document, address)
    return _described(name, f"served at {url}", read, url, _BY_STATES)


def _described(name: str, source: str, contract: Contract, url: str, hint: str) -> Subject:
    layers = layers_of(contract)
    gates = _K if any(layer.units and layer.width is None for layer in layers) else ""
    note = _STATES.format(hint) + gates if any(layer.units for layer in layers) else ""
    return Subject(name, source, contract, layers=layers, note=note, url=url)


def layers_of(contract: Contract) -> tuple[Layer, ...]:
    """The recurrent layers, as far as their states tell: `<layer>/h` and `<layer>/c` (docs/contract.md)."""
    signature = contract.step or contract.scan
    grouped = groupby(signature.states if signature else (), key=lambda state: state.name.rpartition("/")[0])
    return tuple(_layer(name, {state.name.rpartition("/")[2]: state for state in states}) for name, states in grouped)


def _layer(name: str, states: Mapping[str, State]) -> Layer:
    if not (states.keys() in ({"h"}, {"h", "c"}) and all(len(state.shape) == 1 for state in states.values())):
        return Layer(name, f"states {', '.join(states)}")
    units = states["h"].shape[0]
    if "c" in states:
        return Layer(name, "LSTM", units, None, _GATES * units)
    return Layer(name, "GRU or SimpleRNN", units)


def _read(document: Any, where: str) -> Contract:
    try:
        read = parse_contract(document)
    except ContractError as error:
        raise CannotExplain(f"{where}: {error}") from None
    if not read.signatures:
        raise CannotExplain(f"{where}: expected a contract with signatures; got one without any")
    return read


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CannotExplain(f"{where}: expected JSON; {error}") from None


def _plain(definitions: Mapping[str, Any], where: object) -> Contract:
    """The signatures of a SavedModel without a contract, `SignatureDef` by name: all of them take rows."""
    from sluice.wire.signatures import can_be_called, plain_signature

    signatures: dict[str, Signature] = {
        name: plain_signature(name, definition)
        for name, definition in sorted(definitions.items())
        if definition.inputs and can_be_called(definition)
    }
    if not signatures:
        raise CannotExplain(f"{where}: expected a model with a signature that takes tensors; got one without any")
    return Contract("", signatures, {})


def _metadata(folder: Path) -> Mapping[str, Any]:
    with quiet_import():
        from google.protobuf.message import DecodeError
        from tensorflow.core.protobuf import saved_model_pb2
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise CannotExplain(f"{folder / 'saved_model.pb'}: expected a SavedModel; {error}") from None
    return {name: each for graph in saved.meta_graphs for name, each in graph.signature_def.items()}


def _served(metadata: Any) -> Mapping[str, Any]:
    from google.protobuf.json_format import ParseDict, ParseError

    from sluice.wire.messages.tfs.v1 import serving_pb2

    try:
        found = ParseDict(
            metadata["metadata"]["signature_def"], serving_pb2.SignatureDefMap(), ignore_unknown_fields=True
        )
    except (KeyError, TypeError, ParseError) as error:
        raise CannotExplain(f"expected the model's metadata as TensorFlow Serving writes it; {error!r}") from None
    return found.signature_def


def _get(address: str) -> Any:
    return get(address, "The name of a file ends in .keras, and that of a version folder is DIR/NAME/VERSION")


class NotNow(CannotExplain):
    """The gateway, or what is behind it, cannot answer at the moment; `retry_after_s` is when to ask again, if told."""

    def __init__(self, message: str, code: int, retry_after_s: int | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, code)


def get(address: str, otherwise: str, body: bytes | None = None, within_s: float = _ANSWER_WITHIN_S) -> Any:
    """The JSON that a gateway answers, to a `body` if there is one; where none is, the sentence ends with `otherwise`.

    Raises:
        NotNow: no gateway is there, or it is too busy, or nothing behind it answers.
        CannotExplain: it refuses.
    """
    url = address.partition("/v1/")[0]
    if not url.startswith(("http://", "https://")):
        raise CannotExplain(f"--url: expected http://HOST:PORT, got {url!r}", WRONG_USAGE)
    try:
        with urllib.request.urlopen(address, body, within_s) as answer:  # noqa: S310 - the scheme is checked
            return _json(answer.read(), address)
    except urllib.error.HTTPError as error:
        with error:
            hint = " GET /v1/models lists the models that are served." if error.code == _NOT_FOUND else ""
            sentence = f"{address} answered {error.code}: {_reason(error.read())}{hint}"
            told = error.headers.get("Retry-After", "")
            code = NOT_REACHABLE if error.code in _BEHIND_IT_IS_DOWN else 1
            if error.code in _MAY_PASS:
                raise NotNow(sentence, code, int(told) if told.isdecimal() else None) from None
            raise CannotExplain(sentence, code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotNow(
            f"{url}: expected a gateway there, got {reason}; start one with `sluice serve`, or give another --url. "
            f"{otherwise}",
            NOT_REACHABLE,
        ) from None


def _reason(body: bytes) -> str:
    """The sentence of a gateway's error, or the beginning of whatever came."""
    try:
        sentence: str = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "no reason given"
    return sentence


def _near(path: Path) -> Path:
    """As short as it can be written from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
