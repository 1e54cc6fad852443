"""Which models lie in a folder of models, and which files in a version. It does not know what is loaded."""

from pathlib import Path

from sluice.model_folder import is_model
from sluice.model_server.config import Configs, ModelConfig

Files = frozenset[tuple[str, int, int]]


def models_in(path: Path) -> Configs:
    """Every model in a folder of models, by name, each with its newest version; one version has files at least.

    What is in the folder and cannot be read is none.

    Raises:
        OSError: the folder itself is there and cannot be read.
    """
    if not path.is_dir():
        return {}
    return {each.name: ModelConfig(each.name, each) for each in sorted(path.iterdir()) if _is_model(each)}


def _is_model(path: Path) -> bool:
    try:
        return is_model(path)
    except OSError:
        return False


def files_in(path: Path) -> Files:
    """Name, size in bytes and time of change of each file below a folder."""
    stats = ((str(each), each.stat()) for each in path.rglob("*"))
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
