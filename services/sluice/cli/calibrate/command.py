"""Calibrates a served classifier for `sluice calibrate`: rows through the gateway, a calibration into a file.

It does not know how scores are made, how good a method is, nor how that is shown.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluice.cli.calibrate.answers import Recognizer, find
from sluice.cli.calibrate.fit import Fitted, all_methods, fit
from sluice.cli.calibrate.report import show
from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.labelled_rows import Data, check_data, places_of, read_data
from sluice.cli.model_folders import MODELS
from sluice.cli.own_gateway import own_gateway
from sluice.cli.plot import check_plot, plotting
from sluice.cli.writable import check_writable
from sluice.policy.calibration_document import parse_calibration, write_calibration
from sluice.policy.contract import Recognition
from sluice.policy.errors import BadRequest, SluiceError
from sluice.policy.plausibility import check_values
from sluice.policy.recognition import Calibration, check_method

ALL = "all"


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for: rows, methods (`all`, or some), the level, and where things go."""

    known: Path
    unknown: Path | None
    methods: Sequence[str]
    level: float
    by_class: bool
    calibrations: Path
    plot: Path | None


def run(model: str, url: str | None, models: Path | None, options: Options) -> None:
    """Calibrate the newest version of `model` and print what was found.

    The gateway is the one at `url`, or else one of our own over the folder `models`, until the rows are answered.

    Raises:
        CommandError: the gateway, the data, or what is asked for is not as it has to be.
    """
    if not 0 < options.level < 1:
        raise CommandError(f"--level: expected a share of rows between 0 and 1, got {options.level:g}", WRONG_USAGE)
    check_plot(options.plot)
    check_writable("--calibrations", options.calibrations / f"{model}.json")
    if url is not None and models is not None:
        raise CommandError("expected --url or --models, got both; --models is for a gateway of its own", WRONG_USAGE)
    for path in (options.known, options.unknown):
        if path is not None:
            check_data(path)  # a wrong name is told before anything is started
    with own_gateway("calibrate", model, models or MODELS) if url is None else nullcontext() as own:
        fitted = _fitted(find(model, own.http if own else (url or "").rstrip("/")), options)
    file = write(fitted.calibration, options.calibrations)
    show(fitted, file, Console(highlight=False, emoji=False, markup=False))
    if options.plot is not None:
        from sluice.cli.calibrate.picture import draw

        with plotting(options.plot, f". The calibration is in {file}"):
            draw(fitted, options.plot)


def _fitted(served: Recognizer, options: Options) -> Fitted:
    model = served.model
    every = list(options.methods) == [ALL]
    methods = list(all_methods(served.recognition) if every else dict.fromkeys(options.methods))
    left_out: dict[str, str] = {}
    if every and (reason := served.lacks_detector()):
        methods.remove("detector")
        left_out["detector"] = reason
    known = _data(options.known, served.recognition)
    labels = places_of(known, served.recognition.classes, options.known, "Rows of no class go to --unknown")
    unknown = None if options.unknown is None else _data(options.unknown, served.recognition)
    blank = Calibration(
        model=model, version=served.version, made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        level=options.level, rows=len(known), checksum=known.sha256, default_method="", temperature=1.0, methods={},
    )  # fmt: skip
    try:
        for method in methods:
            check_method(served.recognition, method)
        with _progress(len(known) + (0 if unknown is None else len(unknown))) as told:
            answers = served.answers(known.inputs, methods, told)
            strangers = None if unknown is None else served.answers(unknown.inputs, methods, told)
        fitted = fit(
            served.recognition, blank, methods, answers, labels, strangers, every=every, by_class=options.by_class
        )
        return replace(fitted, left_out={**left_out, **fitted.left_out})
    except SluiceError as error:
        raise CommandError(f"{model}: {error.message}") from None
    except ValueError as error:
        raise CommandError(f"{model}: {error}") from None


def write(calibration: Calibration, folder: Path) -> Path:
    """FOLDER/MODEL-VERSION.json, whole or not at all: a gateway may read it at any time.

    Raises:
        CommandError: it cannot be written.
    """
    document = write_calibration(calibration)
    parse_calibration(document)  # a gateway must be able to read it
    file = folder / f"{calibration.model}-{calibration.version}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as own:
            part = Path(own) / file.name
            part.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
            part.chmod(0o644)
            part.replace(file)
    except OSError as error:
        raise CommandError(f"--calibrations: {file} cannot be written; {error}") from None
    return file


def _data(path: Path, recognition: Recognition) -> Data:
    """The rows, of numbers that the gateway would recognize."""
    data = read_data(path, recognition.signature.inputs)
    for name, array in data.inputs.items():
        try:
            check_values(name, array, recognition.range)
        except BadRequest as error:
            raise CommandError(f"{path}: {error.message}") from None
    return data


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows through the gateway", total=rows)
        yield lambda count: progress.advance(task, count)
