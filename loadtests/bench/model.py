"""Builds the models of the bench; those that are there and newer than the exporter are used again."""

from pathlib import Path

from loadtests.bench.processes import ROOT, python, run
from loadtests.bench.workload import MODELS, Model

_LIMIT_S = 600


def build_models(folder: Path) -> Path:
    """Have every model in `folder`/NAME/1; the folder. TensorFlow stays out of this process.

    Raises:
        Failed: the export failed.
    """
    for model in MODELS:
        if not _is_fresh(folder, model):
            run(python("loadtests.bench.export", model.name, folder / model.name / "1"), _LIMIT_S)
    return folder


def _is_fresh(folder: Path, model: Model) -> bool:
    built = folder / model.name / "1" / "saved_model.pb"
    sources = [*(ROOT / "models" / "export").glob("*.py"), ROOT / "loadtests" / "bench" / "export.py"]
    return built.exists() and built.stat().st_mtime > max(source.stat().st_mtime for source in sources)
