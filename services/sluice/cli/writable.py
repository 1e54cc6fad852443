"""Whether a file can be written, before the work that it is for: nothing is made for that."""

import os
from pathlib import Path

from sluice.cli.errors import CommandError


def check_writable(flag: str, file: Path) -> None:
    """Raises: CommandError: the file of a flag cannot be written, nor made with the folders above it."""
    there = next(each for each in (file, *file.absolute().parents) if each.exists())
    if file.is_dir():
        reason = "it is a folder"
    elif there != file and not there.is_dir():
        reason = f"{there} is a file"
    elif not os.access(there, os.W_OK):
        reason = f"{there} may not be written to"
    else:
        return
    raise CommandError(f"{flag}: {file} cannot be written; {reason}. Name another one")
