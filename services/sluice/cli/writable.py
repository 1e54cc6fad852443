"""Whether a file can be written, before the work that it is for: nothing is made for that."""

import os
from pathlib import Path

from sluice.cli.errors import CommandError


def check_writable(flag: str, file: Path) -> None:
    """Raises: CommandError: the file of a flag cannot be written, nor made with the folders above it."""
    try:
        reason = _reason(file)
    except OSError as error:  # such as a folder that may not be looked into
        reason = error.strerror or type(error).__name__
    if reason:
        raise CommandError(f"{flag}: {file} cannot be written; {reason}. Name another one")


def _reason(file: Path) -> str:
    there = next(each for each in (file, *file.absolute().parents) if each.exists())
    if file.is_dir():
        return "it is a folder"
    if there != file and not there.is_dir():
        return f"{there} is a file"
    return "" if os.access(there, os.W_OK) else f"{there} may not be written to"
