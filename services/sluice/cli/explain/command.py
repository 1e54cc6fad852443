"""Finds a model, in a Keras file, an exported folder or behind a gateway, and prints what there is to say about it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from sluice.cli.ask import GATEWAY
from sluice.cli.errors import CommandError
from sluice.cli.explain.explanation import explanation
from sluice.cli.explain.exported import from_folder
from sluice.cli.explain.numbers import Numbers
from sluice.cli.explain.served import from_gateway
from sluice.cli.explain.subject import Subject
from sluice.cli.model_folders import MODELS, versions_of
from sluice.cli.text import heading, write

_FILES = (".keras", ".h5", ".hdf5", ".py")  # what is a file by its name, even if it is not there; a .py file is told so


def run(target: str, numbers: Numbers, url: str | None, imports: Sequence[str], safe_mode: bool) -> None:
    """Print the explanation of `target`.

    Raises:
        CommandError: there is no such file, folder or model, or it cannot be read.
    """
    subject = find(target, url, imports, safe_mode)
    write([*_title(subject), *explanation(subject, numbers)], Console(highlight=False, emoji=False))


def find(target: str, given_url: str | None, imports: Sequence[str], safe_mode: bool) -> Subject:
    """What is known about FILE.keras, DIR/NAME/VERSION, or the NAME of a model.

    Without a gateway's address a NAME is looked for among the models that were built here, and then at `GATEWAY`.

    Raises:
        CommandError: as `run`.
    """
    path, url = Path(target), (given_url or GATEWAY).rstrip("/")
    if path.suffix in _FILES or path.is_file():
        from sluice.cli.explain.keras_file import from_keras

        return from_keras(path, url, imports, safe_mode)
    is_name = path.name == target
    if given_url is None and is_name and (versions := versions_of(MODELS / target)):
        return from_folder(versions[-1], url)
    if path.is_dir() and (target.isdecimal() or not is_name):  # a served model may be called as a folder nearby is
        return from_folder(path, url)
    if not is_name:
        raise CommandError(
            f"{target}: expected FILE.keras, DIR/NAME/VERSION or the NAME of a served model; there is no such file "
            "or folder"
        )
    return from_gateway(target, url)


def _title(subject: Subject) -> Iterator[RenderableType]:
    yield heading(f"{subject.name} ({subject.source})")
    if subject.contract.summary:
        yield Text(subject.contract.summary)
