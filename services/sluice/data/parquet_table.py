"""Rows of .parquet files, batch by batch. It does not know what the columns mean; it needs pyarrow."""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sluice.data import bounds
from sluice.data.columns import Found
from sluice.data.parquet_pages import expanded
from sluice.policy.errors import BadRequest, SluiceError

_INDEX = "__index_level_"  # how pandas writes an index
_BUFFER = 1 << 16
_LEAST = 4  # bytes that a row has in memory


class ParquetTable:
    """The columns of one file, which may have been `found` before. A jump begins at its row group."""

    def __init__(self, file: str, stream: BinaryIO, found: Found | None) -> None:
        import pyarrow as pa  # noqa: PLC0415 - only this format needs it
        from pyarrow import parquet  # noqa: PLC0415 - as above

        self._name, self._stream = file, stream
        try:
            options = {"pre_buffer": False, "buffer_size": _BUFFER, "page_checksum_verification": True}
            metadata = parquet.read_metadata(stream)
            leaves = [metadata.schema.column(number) for number in range(metadata.num_columns)]
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]  # may be one over and over
            self._file = parquet.ParquetFile(stream, metadata=metadata, read_dictionary=texts, **options)
            schema = self._file.schema_arrow
            # Of the columns' own sizes pyarrow is not asked: for those of a damaged one it ends the process.
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            sizes = [found.bytes] if found else expanded(stream)
        except Exception as error:
            raise self._damaged(error) from None
        names = tuple(name for name in schema.names if not name.startswith(_INDEX))
        if len(set(names)) < len(names):
            raise BadRequest(f"{file}: expected columns' names that are all different; got {names!r:.80}")
        flat = frozenset(name for name in names if not pa.types.is_nested(schema.field(name).type))
        self._begins = [0, *accumulate(group.num_rows for group in groups)]  # of row groups, and the end
        if found is None:
            self._check(sizes)
        self.found = Found(file, names, flat, typed=True, bytes=sum(sizes))
        self._names: Sequence[str] = ()
        self._first = self._row = 0  # of the batch that was read last, and behind it

    def read(self, start: int, stop: int, names: Sequence[str]) -> Mapping[str, Any]:
        if start >= self._begins[-1]:
            return {name: [] for name in names}
        try:
            group = bisect_right(self._begins, start) - 1
            if names != self._names or start < self._first or self._row < self._begins[group]:
                self._begin(group, names)
            while self._row <= start:
                self._batch = next(self._batches)
                self._first, self._row = self._row, self._row + self._batch.num_rows
            batch = self._batch.slice(start - self._first, stop - start)
            batch = batch.slice(0, self._count(batch))
            return {name: _values(batch[name]) for name in names}
        except Exception as error:  # what a damaged file makes pyarrow raise is not said anywhere
            raise self._damaged(error) from None

    def where(self, row: int) -> str:
        return f"row {row}"

    def close(self) -> None:
        self._stream.close()

    def _begin(self, group: int, names: Sequence[str]) -> None:
        row_bytes = max(1, self.found.bytes // self._begins[-1])
        self._batches = self._file.iter_batches(
            batch_size=max(1, min(bounds.AT_ONCE_ROWS, bounds.AT_ONCE_BYTES // row_bytes)),
            row_groups=range(group, len(self._begins) - 1),
            columns=[*names],
            use_threads=False,
        )
        self._names = names
        self._first = self._row = self._begins[group]

    def _check(self, sizes: Sequence[int]) -> None:
        """Raises: BadRequest: row groups expand to more than rows do, or than there is memory for."""
        size, total = self._stream.seek(0, io.SEEK_END), max(sum(sizes), _LEAST * self._begins[-1])
        if bounds.is_bomb(total, size):
            raise BadRequest(
                f"{self._name}: expected columns of rows; they expand to {total:,} bytes or more from a file of "
                f"{size:,}, far more than rows do. Write them uncompressed, without a dictionary"
            )
        if max(sizes, default=0) > bounds.ROW_GROUP_BYTES:
            raise BadRequest(
                f"{self._name}: expected row groups of at most {bounds.ROW_GROUP_BYTES:,} bytes; got one that expands "
                f"to {max(sizes):,}. Write fewer rows to each: `row_group_size` of pyarrow and pandas"
            )

    def _count(self, batch: Any) -> int:
        """How many of the rows are taken at once, one or more, as their texts may be longer than their pages are."""
        texts = sum(_text_bytes(column) for column in batch.columns)
        if np.max(texts) > bounds.LINE_BYTES:
            raise BadRequest(
                f"{self._name}: expected rows of at most {bounds.LINE_BYTES:,} bytes of text; got {np.max(texts):,}"
            )
        return max(1, int(np.searchsorted(np.cumsum(texts), bounds.AT_ONCE_BYTES, side="right")))

    def _damaged(self, error: Exception) -> SluiceError:
        if isinstance(error, SluiceError):
            return error
        return BadRequest(f"{self._name}: expected a Parquet file; {str(error) or type(error).__name__}")


def _text_bytes(values: Any) -> NDArray[np.int64]:
    """How long the texts of each row are, which stand in a dictionary."""
    from pyarrow import compute, types  # noqa: PLC0415 - as above

    if types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        ends = np.cumsum(values.value_lengths().fill_null(0).to_numpy())
        sums = np.cumsum([0, *_text_bytes(values.flatten())])
        return sums[ends] - sums[[0, *ends[:-1]]]  # type: ignore[no-any-return]
    kind = values.type.value_type if types.is_dictionary(values.type) and len(values.dictionary) else values.type
    if kind is values.type or not (types.is_string(kind) or types.is_binary(kind)):
        return np.zeros(len(values), np.int64)
    lengths = compute.binary_length(values.dictionary).fill_null(0).to_numpy()
    return lengths[values.indices.fill_null(0).to_numpy()]  # type: ignore[no-any-return]


def _values(values: Any) -> Any:
    """A value for each row of a `pyarrow.Array`: an array of numbers, or of lists of them of one shape; or a list."""
    from pyarrow import types  # noqa: PLC0415 - as above

    column, sizes = values, list[int]()
    while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            return column.to_pylist()  # what is wrong with them is told like that of any lists
        sizes.append(lengths[0])
        values = values.flatten()
    numbers = types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type)
    if values.null_count or not numbers:
        return column.to_pylist()
    return values.to_numpy(zero_copy_only=False).reshape(len(column), *sizes)
