"""Reads lengths from a file: one a line, a column of a CSV file, or an array of an .npz file.

It does not know what is as long as that.
"""

import csv
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sluice.cli.errors import CommandError

Counts = Mapping[int, float]  # length → how often it came

NAMELESS = ""  # the column of a file that names none
_LONGEST = 2**31 - 1  # lengths are int32 where a model takes them


def read_lengths(file: Path) -> dict[str, Counts]:
    """How often each length occurs, by column or array; every one of them has to hold lengths.

    Raises:
        CommandError: the file cannot be read, or something in it is no length; the sentence says where.
    """
    try:
        match file.suffix.lower():
            case ".npz":
                columns = _arrays(file)
            case ".csv":
                columns = _columns(file)
            case _:
                columns = {NAMELESS: _counted(_lines(file), file)}
    except (OSError, UnicodeError) as error:
        raise CommandError(f"{file}: expected a file of lengths; {error}") from None
    if not columns or not all(columns.values()):
        raise CommandError(f"{file}: expected one length or more; got none")
    return columns


def _lines(file: Path) -> Iterable[tuple[str, str]]:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _columns(file: Path) -> dict[str, Counts]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened)
        rows = [(reader.line_num, row) for row in reader if row]
    if not rows:
        return {}
    names = [name.strip() for name in rows[0][1]]
    if len(names) == 1 and _is_length(names[0]):  # without a head
        names = [NAMELESS]
    else:
        del rows[0]
        if not all(names) or len(set(names)) < len(names) or any(map(_is_length, names)):
            raise CommandError(f"{file}, line 1: expected the columns' names, all different; got {names}")
    for number, row in rows:
        if len(row) != len(names):
            raise CommandError(f"{file}, line {number}: expected {len(names)} values, as in line 1; got {len(row)}")
    return {
        name: _counted(
            [(f"line {number}{f', column {name}' if name else ''}", row[place]) for number, row in rows], file
        )
        for place, name in enumerate(names)
    }


def _counted(values: Iterable[tuple[str, str]], file: Path) -> Counts:
    """Counts texts, each with the place where it stands."""
    counts: Counter[int] = Counter()
    for place, text in values:
        if not _is_length(text):
            raise CommandError(
                f"{file}, {place}: expected a length, a whole number from 0 to {_LONGEST}; got {text.strip()!r}. A "
                "CSV file's name ends in .csv, and all of its columns are lengths"
            )
        counts[int(text)] += 1
    return counts


def _is_length(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _LONGEST


def _arrays(file: Path) -> dict[str, Counts]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            loaded = {name: np.asarray(arrays[name]) for name in arrays.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise CommandError(f"{file}: expected arrays, as `numpy.savez` writes them; {error}") from None
    for name, array in loaded.items():
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise CommandError(
                f"{file}, array {name}: expected whole numbers in one axis, each the length of a row; got "
                f"{array.dtype} of shape {list(array.shape)}. All arrays of the file are lengths"
            )
        wrong = array[(array < 0) | (array > _LONGEST)]
        if wrong.size:
            raise CommandError(f"{file}, array {name}: expected lengths from 0 to {_LONGEST}; got {wrong[0]}")
    return {name: Counter(array.tolist()) for name, array in loaded.items()}
