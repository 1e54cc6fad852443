"""Reads labelled rows from files: arrays of .npz, columns of .csv and .parquet, objects of .jsonl files.

It does not know what rows are for; the inputs of a signature say what they look like.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.cli.errors import CommandError
from sluice.policy.contract import Tensor, numpy_dtype
from sluice.policy.errors import BadRequest
from sluice.policy.tensors import read_tensor

Array = NDArray[Any]
Columns = dict[str, Any]  # name → a value for each row

LABEL = "label"
ONLY = "x"  # the name of the only input, whatever the model calls it
_READ = (".npz", ".csv", ".jsonl", ".parquet")
_INDEX = "__index_level_"  # how pandas writes an index into a Parquet file


@dataclass(frozen=True, slots=True)
class Data:
    """Rows: by input `[row, ...]`, their labels as they were written if there are any, and the SHA-256 of the files."""

    inputs: Mapping[str, Array]
    labels: tuple[str, ...] | None
    sha256: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def read_data(path: Path, inputs: Mapping[str, Tensor]) -> Data:
    """The rows of a file, or of all files of a folder by their names, for these inputs.

    Raises:
        CommandError: a file cannot be read, or does not hold what the inputs take; the sentence says where.
    """
    files = files_of(path)
    digest, parts, labels = hashlib.sha256(), list[dict[str, Array]](), list[list[str] | None]()
    for file in files:
        try:
            content = file.read_bytes()
            columns = _columns(file, content, inputs)
        except (OSError, UnicodeError) as error:
            raise CommandError(f"{file}: expected a file of rows; {error}") from None
        digest.update(content)
        labels.append(_labels(columns.pop(LABEL, None), file))
        parts.append(_read(columns, inputs, file))
        _check_count(labels[-1], parts[-1], file)
    given = [each for each in labels if each is not None]
    if given and len(given) < len(files):
        without = files[labels.index(None)]
        raise CommandError(f"{without}: expected labels, as the other files have them; got none")
    if not any(len(array) for part in parts for array in part.values()):
        raise CommandError(f"{path}: expected rows; got none")
    joined = {name: _joined(name, [part[name] for part in parts], path) for name in inputs}
    return Data(joined, tuple(label for each in given for label in each) if given else None, digest.hexdigest())


def places_of(data: Data, classes: Sequence[str], path: Path, hint: str) -> Array:
    """The labels as places of classes, int64 `[row]`: they are all names of classes, or else all places.

    Raises:
        CommandError: there are no labels, or others; `hint` says where rows of no class go.
    """
    if data.labels is None:
        raise CommandError(f"{path}: expected a label for each row, under the name `label`; got none")
    places = {name: place for place, name in enumerate(classes)}
    if not set(data.labels) <= places.keys():
        places = {str(place): place for place in range(len(classes))}
    if strange := set(data.labels) - places.keys():
        raise CommandError(
            f"{path}: expected labels of known classes, {', '.join(classes)}, or their places from 0; got "
            f"{min(strange)!r}. {hint}"
        )
    return np.array([places[label] for label in data.labels])


def files_of(path: Path) -> Sequence[Path]:
    """The files that `read_data` reads.

    Raises:
        CommandError: there are none, or it is of another kind.
    """
    if not path.exists():
        raise CommandError(f"{path}: expected a file of rows or a folder of them; there is no such file")
    found = sorted(each for each in path.glob("*") if each.suffix.lower() in _READ) if path.is_dir() else [path]
    if not found or found[0].suffix.lower() not in _READ:
        raise CommandError(f"{path}: expected a file that ends in {', '.join(_READ)}, or a folder of them")
    return found


def _columns(file: Path, content: bytes, inputs: Mapping[str, Tensor]) -> Columns:
    match file.suffix.lower():
        case ".npz":
            return _arrays(file, content)
        case ".csv":
            return _cells(file, content, inputs)
        case ".parquet":
            return _table(file, content, inputs)
        case _:
            return _objects(file, content)


def _arrays(file: Path, content: bytes) -> Columns:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # what a damaged archive makes numpy, zipfile and zlib raise is not said anywhere
        raise CommandError(f"{file}: expected arrays, as `numpy.savez` writes them; {error}") from None


def _objects(file: Path, content: bytes) -> Columns:
    """Objects, one a line, all with the same fields."""
    rows = list[dict[str, Any]]()
    for number, line in enumerate(content.decode("utf-8-sig").split("\n"), 1):  # text may hold what else ends lines
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CommandError(f"{file}, line {number}: expected an object in JSON; {error}") from None
            if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
                raise CommandError(f"{file}, line {number}: expected an object with the fields of line 1")
            rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _cells(file: Path, content: bytes, inputs: Mapping[str, Tensor]) -> Columns:
    """Columns by name: `NAME` for an input of one number a row, else `NAME.0`, `NAME.1` and so on.

    Where there is one input, all columns but the label are its numbers, in order, whatever their names.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    except csv.Error as error:
        raise CommandError(f"{file}: expected a CSV file; {error}") from None
    if not rows:
        return {}
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names) or not all(names):
        raise CommandError(f"{file}, line 1: expected the columns' names, all different; got {rows[0]!r:.80}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise CommandError(f"{file}, row {number}: expected {len(names)} values, as in line 1; got {len(row)}")
    columns: Columns = {}
    if LABEL in names:
        columns[LABEL] = [row[names.index(LABEL)].strip() for row in rows[1:]]
    for name, tensor in inputs.items():
        places = [names.index(column) for column in _columns_of(name, names, inputs)]
        columns[name] = _numbers([[row[place] for place in places] for row in rows[1:]], tensor, file)
    return columns


def _columns_of(name: str, columns: Sequence[str], inputs: Mapping[str, Tensor]) -> list[str]:
    return [each for each in columns if each != LABEL and (len(inputs) == 1 or each.partition(".")[0] == name)]


def _numbers(cells: list[list[str]], tensor: Tensor, file: Path) -> Any:
    """A row's cells in the shape that the input has, which has a fixed size."""
    sizes = _sizes(len(cells[0]), tensor, file) if cells else ()
    dtype = numpy_dtype(tensor.dtype)
    try:
        values = np.array(cells, object if dtype.hasobject else dtype if dtype.kind in "iu" else np.float64)
    except ValueError as error:
        raise CommandError(f"{file}: expected numbers for the input {tensor.name}; {error}") from None
    return values.reshape(len(cells), *sizes)


def _sizes(columns: int, tensor: Tensor, file: Path) -> Sequence[int]:
    """The shape of a row of the input, which so many columns must fill."""
    sizes = [size for size in tensor.shape[1:] if size is not None]
    if len(sizes) < len(tensor.shape) - 1:
        raise CommandError(
            f"{file}: expected rows of one fixed shape, as columns are; the input {tensor.name}, {tensor.row()}, has "
            "none. Give the rows as .npz or .jsonl"
        )
    if columns != (wanted := int(np.prod(sizes))):
        raise CommandError(
            f"{file}: expected {wanted} columns for the input {tensor.name}, {tensor.row()}; got {columns}"
        )
    return sizes


def _table(file: Path, content: bytes, inputs: Mapping[str, Tensor]) -> Columns:
    """Columns by name; an input that has none of its own name is in columns of numbers, as in a CSV file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise CommandError(f"{file}: expected a Parquet file; {error}") from None
    names = [name for name in table.column_names if not name.startswith(_INDEX)]
    if len(set(names)) < len(names):
        raise CommandError(f"{file}: expected columns' names that are all different; got {names!r:.80}")
    columns: Columns = {name: _values(table[name]) for name in names}
    single = [name for name in names if not pa.types.is_nested(table.schema.field(name).type)]
    for name, tensor in inputs.items():
        whole = name if name in columns or len(inputs) > 1 else ONLY
        own = [] if whole in columns else _columns_of(name, single, inputs)
        if whole in single and set(tensor.shape[1:]) == {1}:
            own = [whole]
        if own:
            cells = np.stack([columns[each] for each in own], axis=1)
            columns[whole if whole in columns else name] = cells.reshape(-1, *_sizes(len(own), tensor, file))
    return columns


def _values(column: Any) -> Any:
    """A value for each row of a `pyarrow.ChunkedArray`: an array where these are numbers, or lists of one shape."""
    from pyarrow import types

    values, sizes = column.combine_chunks(), list[int]()
    while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            return column.to_pylist()  # what is wrong with them is told like that of any lists
        sizes.append(lengths[0])
        values = values.flatten()
    if types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type):
        return values.to_numpy(zero_copy_only=False).reshape(-1, *sizes)
    return column.to_pylist()


def _labels(column: Any, file: Path) -> list[str] | None:
    if column is None:
        return None
    try:
        labels = np.asarray(column)
    except ValueError:  # lists of different lengths
        labels = np.array(column, object)
    if labels.shape[:1] == (0,):
        return []
    if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        raise CommandError(
            f"{file}: expected {LABEL!r} to hold a name or a whole number for each row; got {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    try:
        return [each.decode() if isinstance(each, bytes) else str(each) for each in labels.tolist()]
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: expected {LABEL!r} to hold text in UTF-8; {error}") from None


def _read(columns: Columns, inputs: Mapping[str, Tensor], file: Path) -> dict[str, Array]:
    if len(inputs) == 1 and ONLY in columns:
        columns = {next(iter(inputs)): columns[ONLY]}
    if missing := [name for name in inputs if name not in columns]:
        raise CommandError(
            f"{file}: expected the input {missing[0]}, {inputs[missing[0]]}; got {', '.join(columns) or 'no rows'}"
        )
    try:
        found = {name: read_tensor(columns[name], tensor) for name, tensor in inputs.items()}
    except BadRequest as error:
        raise CommandError(f"{file}: {error.message}") from None
    if len({len(array) for array in found.values()}) > 1:
        raise CommandError(f"{file}: expected as many rows of each input; got {[len(each) for each in found.values()]}")
    return found


def _check_count(labels: Sequence[str] | None, part: Mapping[str, Array], file: Path) -> None:
    rows = len(next(iter(part.values())))
    if labels is not None and len(labels) != rows:
        raise CommandError(f"{file}: expected a label for each of the {rows} rows; got {len(labels)}")


def _joined(name: str, parts: Sequence[Array], path: Path) -> Array:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise CommandError(f"{path}: expected rows of one shape of the input {name} in all files; got {shapes}")
    return np.concatenate(parts)
