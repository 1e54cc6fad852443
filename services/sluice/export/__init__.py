"""From a trained Keras model to a SavedModel that says how it wants to be served (docs/exporting.md)."""

from sluice.export.contract import Description, Meaning
from sluice.export.errors import CannotStep, ExportError
from sluice.export.exporter import export, export_endpoints, export_file
from sluice.export.recognition import Classes, Detector
from sluice.export.recognizer import export_recognizer
from sluice.export.scores import ScoreOptions
from sluice.export.verify import Call

__all__ = [
    "Call", "CannotStep", "Classes", "Description", "Detector", "ExportError", "Meaning", "ScoreOptions",
    "export", "export_endpoints", "export_file", "export_recognizer",
]  # fmt: skip
