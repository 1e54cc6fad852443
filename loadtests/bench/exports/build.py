"""Builds the models of the bench; those that are there from the same sources are used again."""

from pathlib import Path

from loadtests.bench.workloads.generation import GENERATOR
from loadtests.bench.workloads.recognition import DETECTOR, RECOGNIZER
from loadtests.bench.workloads.sequences import SEQUENCES
from loadtests.bench.workloads.steps import MODELS, PLAIN
from loadtests.processes import python, run
from sluice_models.fingerprint import fingerprint, is_fresh, keep

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
        version, exporter = folder / name / "1", f"loadtests.bench.exports.{module}"
        if not is_fresh(version, fingerprint(exporter)):
            run(python(exporter, name, version), _LIMIT_S)
            keep(version, fingerprint(exporter))
    return folder
