"""From a trained Keras model to a SavedModel that says how it wants to be served (docs/exporting.md)."""

from models.export.contract import Description, Meaning
from models.export.errors import CannotStep, ExportError
from models.export.exporter import export, export_endpoints, export_file
from models.export.verify import Call

__all__ = [
    "Call", "CannotStep", "Description", "ExportError", "Meaning", "export", "export_endpoints", "export_file",
]  # fmt: skip
