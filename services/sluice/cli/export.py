"""Exports a Keras file for `sluice export`: as it is, or as a classifier that can say "none of these"."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.cli.data_files import places_of, read_data
from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.export import Classes, ExportError, export_file, export_recognizer
from sluice.export.contract import UNDESCRIBED, contract
from sluice.export.exporter import keras_asset
from sluice.export.imports import import_classes, load
from sluice.export.plan import rows_plan
from sluice.policy.contract_document import parse_contract


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is said about a classifier: its classes by comma, a layer, and the data that it was trained on."""

    classes: str | None
    features: str | None
    train: Path | None


def run(file: Path, out: Path, imports: Sequence[str], asked: Recognition) -> Path:
    """Export the file to `out`.

    Raises:
        CommandError: it cannot be exported, or what is asked for is not as it has to be.
    """
    if asked.classes is None and (asked.features or asked.train):
        raise CommandError("expected --classes beside --features and --train, got none", WRONG_USAGE)
    if (asked.features is None) != (asked.train is None):
        raise CommandError("expected --features and --train together, got one of them", WRONG_USAGE)
    try:
        if asked.classes is None:
            return export_file(file, out, imports=imports)
        import_classes(imports)
        return _classifier(file, out, _names(asked.classes), asked)
    except ExportError as error:
        raise CommandError(str(error)) from None


def _names(classes: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in classes.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise CommandError(f"--classes: expected names, all different, with commas between; got {classes}", WRONG_USAGE)
    return names


def _classifier(file: Path, out: Path, names: tuple[str, ...], asked: Recognition) -> Path:
    model = load(file)
    data = None
    if asked.train is not None:
        inputs = parse_contract(contract(rows_plan(model), UNDESCRIBED)).signatures["serving_default"].inputs
        rows = read_data(asked.train, inputs)
        data = dict(rows.inputs), places_of(rows, names, asked.train, "Leave rows of no class out")
    return export_recognizer(model, asked.features, data, out, classes=Classes(names), assets=keras_asset(model, file))
