"""Rows of text files, read line by line: objects of .jsonl files, records of .csv files.

It does not know what their values mean.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from sluice.data import bounds
from sluice.data.columns import Found
from sluice.data.lines import BEGIN, Index, Lines, Place
from sluice.policy.errors import BadRequest

Record = Mapping[str, Any]


class Form(Protocol):
    """How rows are written in lines, which end as `ends` says."""

    ends: str

    def found(self, lines: Lines) -> Found:
        """The columns, from the beginning of a file; none if it is empty."""

    def records(self, found: Found, lines: Lines) -> Iterator[Record]:
        """The rows that come, by column."""


class JsonLines:
    """Objects, one a line, all with the same fields."""

    ends = "\n"  # text may hold what else ends lines

    def found(self, lines: Lines) -> Found:
        first = next((_object(lines, line) for line in lines if line.strip()), {})
        return Found(lines.file, tuple(first), frozenset(), typed=True)

    def records(self, found: Found, lines: Lines) -> Iterator[Record]:
        fields = {*found.names}
        for line in lines:
            if line.strip():
                row = _object(lines, line)
                if row.keys() != fields:
                    raise _other_fields(lines)
                yield row


class Csv:
    """Values, all of them text, under their columns' names."""

    ends = ""  # any of them, and none is changed

    def found(self, lines: Lines) -> Found:
        head = next(_records(lines), [])
        names = tuple(name.strip() for name in head)
        if len(set(names)) < len(names) or not all(names):
            raise BadRequest(f"{lines.file}, line 1: expected the columns' names, all different; got {head!r:.80}")
        return Found(lines.file, names, frozenset(names), typed=False)

    def records(self, found: Found, lines: Lines) -> Iterator[Record]:
        has_head, rows = lines.place.offset == 0, _records(lines)
        if has_head:
            next(rows, None)
        for row in rows:
            if len(row) != len(found.names):
                raise BadRequest(
                    f"{lines.file}, line {lines.place.line}: expected {len(found.names)} values, as in line 1; got "
                    f"{len(row)}"
                )
            yield dict(zip(found.names, row, strict=True))


FORMS: Mapping[str, Form] = {".csv": Csv(), ".jsonl": JsonLines()}


class TextTable:
    """One file of rows in lines. A jump begins at the last place before it that the index knows."""

    def __init__(self, form: Form, found: Found, stream: BinaryIO, index: Index) -> None:
        self.found = found
        self._form, self._index = form, index
        self._begin(stream, 0, BEGIN)

    def read(self, start: int, stop: int, names: Sequence[str]) -> Mapping[str, list[Any]]:
        self._go_to(start)
        records, self._first, self._lines_of = list[Record](), start, list[int]()
        begin = self._lines.place.offset
        while len(records) < stop - start and self._lines.place.offset - begin < bounds.AT_ONCE_BYTES:
            record = self._next()
            if record is None:
                break
            records.append(record)
            self._lines_of.append(self._lines.place.line)
        return {name: [record[name] for record in records] for name in names}

    def where(self, row: int) -> str:
        return f"line {self._lines_of[row - self._first]}"

    def close(self) -> None:
        self._lines.close()

    def _begin(self, stream: BinaryIO, row: int, place: Place) -> None:
        self._row = row
        self._lines = Lines(self.found.file, stream, self._form.ends, place)
        self._records = self._form.records(self.found, self._lines)

    def _go_to(self, row: int) -> None:
        known, place = self._index.before(row)
        if not known <= self._row <= row:
            stream = self._lines.detach()
            stream.seek(place.offset)
            self._begin(stream, known, place)
        while self._row < row and self._next() is not None:
            pass

    def _next(self) -> Record | None:
        self._index.note(self._row, self._lines.place)
        self._lines.begun = self._lines.place.offset
        record = next(self._records, None)
        self._row += record is not None
        return record


def _object(lines: Lines, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{lines.file}, line {lines.place.line}: expected an object in JSON; {error}") from None
    if not isinstance(row, dict):
        raise _other_fields(lines)
    return row


def _other_fields(lines: Lines) -> BadRequest:
    return BadRequest(f"{lines.file}, line {lines.place.line}: expected an object with the fields of line 1")


def _records(lines: Lines) -> Iterator[list[str]]:
    """Those that are not empty."""
    try:
        for row in csv.reader(lines, strict=True):
            if row:
                yield row
    except csv.Error as error:
        raise BadRequest(f"{lines.file}, line {lines.place.line}: expected a CSV file; {error}") from None
