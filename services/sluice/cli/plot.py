"""The option --plot: which files can be drawn to, and what is said where that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.writable import check_writable

_PICTURES = (".png", ".svg")


def check_plot(file: Path | None) -> None:
    """Raises: CommandError: the file's name is of another kind of picture, or it cannot be written."""
    if file is None:
        return
    if file.suffix.lower() not in _PICTURES:
        raise CommandError(f"--plot: expected a file that ends in .png or .svg, got {file}", WRONG_USAGE)
    check_writable("--plot", file)


@contextmanager
def plotting(file: Path, otherwise: str = "") -> Iterator[None]:
    """Raises: CommandError: the file cannot be written; the sentence ends with `otherwise`."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"--plot: {file} cannot be written; {error}{otherwise}") from None
