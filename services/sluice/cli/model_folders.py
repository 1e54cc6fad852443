"""Folders of exported models, NAME/VERSION, as `sluice models build` and `sluice export` write them."""

from pathlib import Path

MODELS = Path("var/models")  # where they go, on the pages too


def versions_of(folder: Path) -> list[Path]:
    """The version folders of a model's folder, the newest last; none where there is no such folder."""
    found = (each for each in folder.glob("*") if each.name.isdecimal())
    return sorted(found, key=lambda each: int(each.name))


def contract_file(version: Path) -> Path:
    """Where the contract of an exported version lies, if it has one."""
    return version / "assets.extra" / "contract.json"
