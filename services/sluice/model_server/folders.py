"""Which versions lie in a model's folder, and which models in a folder of models. It does not know what is loaded."""

import re
from pathlib import Path

from sluice.model_server.config import Configs, ModelConfig

_VERSION = re.compile(r"[0-9]{1,18}")

Files = frozenset[tuple[str, int, int]]


def found_versions(path: Path) -> dict[int, Path]:
    """The versions in a model's folder, by number, whatever is in them.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    return {int(each.name): each for each in path.iterdir() if _VERSION.fullmatch(each.name) and each.is_dir()}


def models_in(path: Path) -> Configs:
    """Every model in a folder of models, by name, each with its newest version; one version has files at least.

    Raises:
        OSError: the folder is there and cannot be read.
    """
    if not path.is_dir():
        return {}
    folders = (each for each in sorted(path.iterdir()) if each.is_dir() and _is_model(each))
    return {each.name: ModelConfig(each.name, each) for each in folders}


def _is_model(path: Path) -> bool:
    return any((version / "saved_model.pb").is_file() for version in found_versions(path).values())


def files_in(path: Path) -> Files:
    """Name, size in bytes and time of change of each file below a folder."""
    stats = ((str(each), each.stat()) for each in path.rglob("*"))
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
