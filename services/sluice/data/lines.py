"""The lines of a text file, counted in lines and bytes, so that reading can begin again where a row begins."""

import io
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from sluice.data import bounds
from sluice.policy.errors import BadRequest

_EVERY = 256  # rows between two places of the index


class Place(NamedTuple):
    """Where a row begins: how many lines are before it, and how many bytes."""

    line: int = 0
    offset: int = 0


BEGIN = Place()


@dataclass(frozen=True, slots=True)
class Index:
    """Where some rows of a file begin, in order: each is noted once the rows before it were read."""

    rows: list[int] = field(default_factory=lambda: [0])
    places: list[Place] = field(default_factory=lambda: [BEGIN])

    def note(self, row: int, place: Place) -> None:
        if row >= self.rows[-1] + _EVERY:
            self.rows.append(row)
            self.places.append(place)

    def before(self, row: int) -> tuple[int, Place]:
        """The last row up to `row` whose place is known, and the place."""
        at = bisect_right(self.rows, row) - 1
        return self.rows[at], self.places[at]


class Lines:
    """The lines of `file` from a place on, where the stream is; `place` is behind the last one that was read.

    `ends` is how lines end, as `io.TextIOWrapper` has it. Whoever reads rows sets `begun` to where one begins.
    """

    def __init__(self, file: str, stream: BinaryIO, ends: str, place: Place = BEGIN) -> None:
        self.file, self.place, self.begun = file, place, place.offset
        self._text = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline=ends)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Raises: BadRequest: it is not UTF-8, or longer than a row may be."""
        line = self._text.readline(bounds.LINE_BYTES + 1)
        if not line:
            raise StopIteration
        number = self.place.line + 1
        size = len(line) if line.isascii() else self._size(line, number)
        self.place = Place(number, self.place.offset + size)
        if self.place.offset - self.begun > bounds.LINE_BYTES:
            raise BadRequest(
                f"{self.file}, line {number}: expected rows of at most {bounds.LINE_BYTES:,} bytes; got a longer one"
            )
        return line.removeprefix("\ufeff") if number == 1 else line

    def close(self) -> None:
        self._text.close()

    def detach(self) -> BinaryIO:
        """The stream, which stays open."""
        return self._text.detach()

    def _size(self, line: str, number: int) -> int:
        encoded = line.encode("utf-8", "surrogateescape")
        try:
            encoded.decode()
        except UnicodeError as error:
            raise BadRequest(f"{self.file}, line {number}: expected text in UTF-8; {error}") from None
        return len(encoded)
