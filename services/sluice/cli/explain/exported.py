"""Reads an exported version folder for `explain`. TensorFlow is imported for one without a contract only."""

import json
from collections.abc import Mapping
from pathlib import Path

from sluice.cli.errors import CommandError
from sluice.cli.explain.contracts import BY_STATES, by_contract, without_contract
from sluice.cli.explain.subject import Subject
from sluice.cli.extras import need
from sluice.cli.model_folders import contract_file, versions_of
from sluice.log import quiet_import
from sluice.policy.contract import Contract, Signature
from sluice.policy.contract_document import ContractError, parse_contract
from sluice.wire.signatures import plain_signature


def from_folder(folder: Path, url: str) -> Subject:
    """What an exported version folder says; one without a contract is explained as rows."""
    folder = folder.resolve()
    if not (folder.name.isdecimal() and (folder / "saved_model.pb").is_file()):
        versions = versions_of(folder)
        hint = f"try {versions[-1]}" if versions else "export a model with `sluice export FILE.keras --out …`"
        raise CommandError(
            f"{folder}: expected an exported version, DIR/NAME/VERSION with a saved_model.pb in it and a whole number "
            f"as VERSION; got another folder; {hint}"
        )
    file = contract_file(folder)
    contract = _read(file) if file.is_file() else without_contract(_signatures(folder), folder)
    keras_file = folder / "assets.extra" / "model.keras"
    hint = f"`sluice explain {_near(keras_file)}` knows them." if keras_file.is_file() else BY_STATES
    return by_contract(folder.parent.name, f"version {folder.name}, exported to {_near(folder)}", contract, url, hint)


def _read(file: Path) -> Contract:
    try:
        return parse_contract(json.loads(file.read_bytes()))
    except ContractError as error:
        raise CommandError(f"{file}: {error}") from None
    except ValueError as error:
        raise CommandError(f"{file}: expected JSON; {error}") from None


def _signatures(folder: Path) -> Mapping[str, Signature]:
    need("explain DIR/NAME/VERSION", "export")
    with quiet_import():
        from google.protobuf.message import DecodeError
        from tensorflow.core.protobuf import saved_model_pb2
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise CommandError(f"{folder / 'saved_model.pb'}: expected a SavedModel; {error}") from None
    return {
        name: plain_signature(name, each) for graph in saved.meta_graphs for name, each in graph.signature_def.items()
    }


def _near(path: Path) -> Path:
    """As short as it can be written from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
