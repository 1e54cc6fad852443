"""Builds the models of the bench; those that are there and newer than the exporter are used again."""

from pathlib import Path

from loadtests.bench.processes import ROOT, python, run
from loadtests.bench.workloads.generation import GENERATOR
from loadtests.bench.workloads.recognition import DETECTOR, RECOGNIZER
from loadtests.bench.workloads.sequences import SEQUENCES
from loadtests.bench.workloads.steps import MODELS, PLAIN

_LIMIT_S = 600


def build_models(folder: Path) -> Path:
    """Have every model in `folder`/NAME/1; the folder. TensorFlow stays out of this process.

    Raises:
        Failed: the export failed.
    """
    exports = dict.fromkeys((*(model.name for model in MODELS), PLAIN), "steps")
    exports |= dict.fromkeys((SEQUENCES, GENERATOR), "sequences")
    exports |= dict.fromkeys((RECOGNIZER, DETECTOR), "recognizer")
    for name, module in exports.items():
        if not _is_fresh(folder, name, module):
            run(python(f"loadtests.bench.exports.{module}", name, folder / name / "1"), _LIMIT_S)
    return folder


def _is_fresh(folder: Path, name: str, module: str) -> bool:
    built = folder / name / "1" / "saved_model.pb"
    exporter, here = ROOT / "services" / "sluice" / "export", Path(__file__).parent
    sources = [*exporter.glob("*.py"), here / f"{module}.py"]
    return built.exists() and built.stat().st_mtime > max(source.stat().st_mtime for source in sources)
