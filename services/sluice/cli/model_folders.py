"""Folders of exported models, NAME/VERSION, as `sluice models build` and `sluice export` write them."""

from pathlib import Path

from sluice.model_folder import versions_in

MODELS = Path("var/models")  # where they go, on the pages too


def versions_of(folder: Path) -> list[Path]:
    """The version folders of a model's folder, the newest last; none where there is no such folder."""
    return [each for _, each in sorted(versions_in(folder).items())] if folder.is_dir() else []


def contract_file(version: Path) -> Path:
    """Where the contract of an exported version lies, if it has one."""
    return version / "assets.extra" / "contract.json"
