"""Reads labelled rows from files: arrays of an .npz file, columns of a .csv file, objects of a .jsonl file.

It does not know what rows are for; the inputs of a signature say what they look like.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cli.explanation import CannotExplain
from services.policy.contract import Tensor, numpy_dtype
from services.policy.errors import BadRequest
from services.policy.tensors import read_tensor

Array = NDArray[Any]
Columns = dict[str, Any]  # name → a value for each row

LABEL = "label"
ONLY = "x"  # the name of the only input, whatever the model calls it
_READ = (".npz", ".csv", ".jsonl")


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
        CannotExplain: a file cannot be read, or does not hold what the inputs take; the sentence says where.
    """
    files = files_of(path)
    digest, parts, labels = hashlib.sha256(), list[dict[str, Array]](), list[list[str] | None]()
    for file in files:
        try:
            content = file.read_bytes()
            columns = _columns(file, content, inputs)
        except (OSError, UnicodeError) as error:
            raise CannotExplain(f"{file}: expected a file of rows; {error}") from None
        digest.update(content)
        labels.append(_labels(columns.pop(LABEL, None), file))
        parts.append(_read(columns, inputs, file))
    given = [each for each in labels if each is not None]
    if given and len(given) < len(files):
        without = files[labels.index(None)]
        raise CannotExplain(f"{without}: expected labels, as the other files have them; got none")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
    return Data(joined, tuple(label for each in given for label in each) if given else None, digest.hexdigest())


def files_of(path: Path) -> Sequence[Path]:
    """The files that `read_data` reads.

    Raises:
        CannotExplain: there are none, or it is of another kind.
    """
    if not path.exists():
        raise CannotExplain(f"{path}: expected a file of rows or a folder of them; there is no such file")
    if path.suffix.lower() == ".parquet":
        raise CannotExplain(
            f"{path}: expected .npz, .csv or .jsonl; Parquet needs pyarrow, which Sluice does without. With pandas: "
            'read_parquet(…).to_json("data.jsonl", orient="records", lines=True)'
        )
    found = sorted(each for each in path.glob("*") if each.suffix.lower() in _READ) if path.is_dir() else [path]
    if not found or found[0].suffix.lower() not in _READ:
        raise CannotExplain(f"{path}: expected a file that ends in {', '.join(_READ)}, or a folder of them")
    return found


def _columns(file: Path, content: bytes, inputs: Mapping[str, Tensor]) -> Columns:
    match file.suffix.lower():
        case ".npz":
            return _arrays(file, content)
        case ".csv":
            return _cells(file, content, inputs)
        case _:
            return _objects(file, content)


def _arrays(file: Path, content: bytes) -> Columns:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise CannotExplain(f"{file}: expected arrays, as `numpy.savez` writes them; {error}") from None


def _objects(file: Path, content: bytes) -> Columns:
    """Objects, one a line, all with the same fields."""
    rows = list[dict[str, Any]]()
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CannotExplain(f"{file}, line {number}: expected an object in JSON; {error}") from None
            if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
                raise CannotExplain(f"{file}, line {number}: expected an object with the fields of line 1")
            rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _cells(file: Path, content: bytes, inputs: Mapping[str, Tensor]) -> Columns:
    """Columns by name: `NAME` for an input of one number a row, else `NAME.0`, `NAME.1` and so on.

    Where there is one input, all columns but the label are its numbers, in order, whatever their names.
    """
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    if not rows:
        return {}
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names) or not all(names):
        raise CannotExplain(f"{file}, line 1: expected the columns' names, all different; got {rows[0]!r:.80}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise CannotExplain(f"{file}, row {number}: expected {len(names)} values, as in line 1; got {len(row)}")
    columns: Columns = {}
    if LABEL in names:
        columns[LABEL] = [row[names.index(LABEL)].strip() for row in rows[1:]]
    for name, tensor in inputs.items():
        places = [
            place
            for place, column in enumerate(names)
            if column != LABEL and (len(inputs) == 1 or column.partition(".")[0] == name)
        ]
        columns[name] = _numbers([[row[place] for place in places] for row in rows[1:]], tensor, file)
    return columns


def _numbers(cells: list[list[str]], tensor: Tensor, file: Path) -> Any:
    """A row's cells in the shape that the input has, which has a fixed size."""
    sizes = [size or 0 for size in tensor.shape[1:]]
    wanted = int(np.prod(sizes))
    if cells and len(cells[0]) != wanted:
        raise CannotExplain(
            f"{file}: expected {wanted} columns for the input {tensor.name}, {tensor.row()}; got {len(cells[0])}"
        )
    dtype = numpy_dtype(tensor.dtype)
    try:
        values = np.array(cells, object if dtype.hasobject else dtype if dtype.kind in "iu" else np.float64)
    except ValueError as error:
        raise CannotExplain(f"{file}: expected numbers for the input {tensor.name}; {error}") from None
    return values.reshape(len(cells), *sizes)


def _labels(column: Any, file: Path) -> list[str] | None:
    if column is None:
        return None
    labels = np.asarray(column)
    if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        raise CannotExplain(
            f"{file}: expected {LABEL!r} to hold a name or a whole number for each row; got {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    return [each.decode() if isinstance(each, bytes) else str(each) for each in labels.tolist()]


def _read(columns: Columns, inputs: Mapping[str, Tensor], file: Path) -> dict[str, Array]:
    if len(inputs) == 1 and ONLY in columns:
        columns = {next(iter(inputs)): columns[ONLY]}
    if missing := [name for name in inputs if name not in columns]:
        raise CannotExplain(
            f"{file}: expected the input {missing[0]}, {inputs[missing[0]]}; got {', '.join(columns) or 'no rows'}"
        )
    try:
        found = {name: read_tensor(columns[name], tensor) for name, tensor in inputs.items()}
    except BadRequest as error:
        raise CannotExplain(f"{file}: {error.message}") from None
    if len({len(array) for array in found.values()}) > 1:
        raise CannotExplain(
            f"{file}: expected as many rows of each input; got {[len(each) for each in found.values()]}"
        )
    return found
