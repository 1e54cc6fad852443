"""From a trained Keras model to a SavedModel that says how it wants to be served (docs/exporting.md)."""

from models.export.contract import Description, Meaning
from models.export.errors import CannotStep, ExportError
from models.export.exporter import export, export_endpoints, export_file
from models.export.recognition import Classes, Detector
from models.export.recognizer import export_recognizer
from models.export.scores import ScoreOptions
from models.export.verify import Call

__all__ = [
    "Call", "CannotStep", "Classes", "Description", "Detector", "ExportError", "Meaning", "ScoreOptions",
    "export", "export_endpoints", "export_file", "export_recognizer",
]  # fmt: skip
