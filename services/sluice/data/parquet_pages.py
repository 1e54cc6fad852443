"""What the pages of a .parquet file say that they expand to, before pyarrow believes them.

The footer's own sizes are of what is encoded: one value that is repeated a billion times takes a few bytes there. The
format is https://github.com/apache/parquet-format, its headers thrift's compact protocol. It reads no value.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

_FOOTER_BYTES = 16 << 20
_TAIL = 8  # the footer's length, and the format's name
_HEADER_BYTES, _HEADER_LIMIT = 256, 16 << 20  # read at first, and at most

# Numbers of fields.
_ROW_GROUPS, _COLUMNS, _COLUMN = 4, 1, 3
_COMPRESSED, _DATA_OFFSET, _DICTIONARY_OFFSET = 7, 9, 11
_PAGE_BYTES, _PAGE_COMPRESSED, _PAGE_VALUES = 2, 3, 1
_PAGES_OF_VALUES = (5, 8)  # data pages of both versions

_VALUE_BYTES = 4  # of a value in memory, at least
_PAGES_LIMIT, _BITS = 1_000_000, 64


def expanded(stream: BinaryIO) -> Sequence[int]:
    """How many bytes each row group has in memory, about; texts that a dictionary has count once.

    Raises:
        ValueError, IndexError, RecursionError, KeyError, TypeError: the file is damaged.
    """
    found, pages = list[int](), 0
    for group in _row_groups(stream):
        found.append(0)
        for column in group[_COLUMNS]:
            for size, values in _pages(stream, column[_COLUMN]):
                found[-1] += max(0, size, _VALUE_BYTES * values)
                pages += 1
                if pages > _PAGES_LIMIT:
                    raise ValueError(f"it has more than {_PAGES_LIMIT:,} pages")
    return found


def _row_groups(stream: BinaryIO) -> Any:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(size - _TAIL)
    length = int.from_bytes(stream.read(4), "little")
    if length > _FOOTER_BYTES:
        raise ValueError(f"its list of columns has {length:,} bytes, of {_FOOTER_BYTES:,} at most")
    stream.seek(size - _TAIL - length)
    return _Thrift(stream.read(length)).struct().get(_ROW_GROUPS, ())


def _pages(stream: BinaryIO, column: Mapping[int, Any]) -> Iterator[tuple[int, int]]:
    """Of each page, the bytes when it is decompressed, and how many values it then gives; a dictionary gives none."""
    offsets = column[_DATA_OFFSET], column.get(_DICTIONARY_OFFSET, 0)
    at = min(filter(None, offsets), default=0)  # 0 is none: an empty column has no data pages
    end = at + column[_COMPRESSED]
    while at < end:
        header, length = _header(stream, at)
        values = [header[number][_PAGE_VALUES] for number in _PAGES_OF_VALUES if number in header]
        yield header[_PAGE_BYTES], max(values, default=0)
        at += length + max(0, header[_PAGE_COMPRESSED])


def _header(stream: BinaryIO, at: int) -> tuple[Mapping[int, Any], int]:
    """A page's header, and its own length."""
    size = _HEADER_BYTES
    while True:
        stream.seek(at)
        thrift = _Thrift(stream.read(size))
        try:
            return thrift.struct(), thrift.at
        except IndexError:
            if size == _HEADER_LIMIT:
                raise
            size = min(16 * size, _HEADER_LIMIT)


class _Thrift:
    """Reads structs from the beginning of `data`, fields by number; `at` is behind what was read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> Mapping[int, Any]:
        found, field = dict[int, Any](), 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            found[field] = head & 15 == 1 if head & 15 in (1, 2) else self._value(head & 15)
        return found

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7 | 8:
                return self._skip(8 if kind == 7 else self._varint())
            case 9 | 10:
                head = self._byte()
                count = self._varint() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15) for _ in range(count)]
            case 11:
                count = self._varint()
                kinds = self._byte() if count else 0
                return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
            case 12:
                return self.struct()
            case _:
                raise ValueError(f"there is no kind {kind} of field")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise IndexError("it ends in the middle")

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found
            if shift > _BITS:
                raise ValueError("a number has too many digits")

    def _integer(self) -> int:
        found = self._varint()
        return found >> 1 ^ -(found & 1)
