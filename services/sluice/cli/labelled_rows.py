"""All rows of a command's DATA at once, and their labels as places of classes. It does not know formats."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice.cli.errors import CommandError
from sluice.data import Columns, files_of, look
from sluice.policy.contract import Tensor
from sluice.policy.errors import BadRequest

Array = NDArray[Any]

_COLUMNS = Columns(weight=None, group=None, session=None)


@dataclass(frozen=True, slots=True)
class Data:
    """Rows: by input `[row, ...]`, their labels as text if there are any, and the SHA-256 of the files."""

    inputs: Mapping[str, Array]
    labels: tuple[str, ...] | None
    sha256: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def check_data(path: Path) -> None:
    """Raises: CommandError: there are no files of rows, or of another kind."""
    with _told():
        files_of(path)


def read_data(path: Path, inputs: Mapping[str, Tensor]) -> Data:
    """The rows of a file, or of all files of a folder by their names, for these inputs.

    Raises:
        CommandError: a file cannot be read, or does not hold what the inputs take; the sentence says where.
    """
    with _told(), look(files_of(path), inputs, columns=_COLUMNS) as data_set:
        rows = data_set.read(0, data_set.rows)
    arrays = dict[str, Array]()
    for name, column in rows.inputs.items():
        if isinstance(column, list):
            raise CommandError(f"{path}: expected rows of one shape of the input {name}; theirs differ in length")
        arrays[name] = column
    return Data(arrays, _texts(rows.labels, path), data_set.sha256)


def places_of(data: Data, classes: Sequence[str], path: Path, otherwise: str) -> NDArray[np.int64]:
    """The labels as places of classes, `[row]`: they are all names of classes, or else all places.

    Raises:
        CommandError: there are none, or others; ends in what to do `otherwise`.
    """
    if data.labels is None:
        raise CommandError(f"{path}: expected a label for each row, under the name `label`; got none")
    given, forms = set(data.labels), (classes, [*map(str, range(len(classes)))])
    for form in forms:
        places = {label: place for place, label in enumerate(form)}
        if given <= places.keys():
            return np.array([places[label] for label in data.labels])
    strange = given.difference(*forms) or given.difference(classes)  # the latter where names and places are mixed
    raise CommandError(
        f"{path}: expected labels of known classes, {', '.join(classes)}, or their places from 0; got "
        f"{min(strange)!r}. {otherwise}"
    )


def _texts(labels: Any, path: Path) -> tuple[str, ...] | None:
    if labels is None:
        return None
    found = labels.tolist() if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" else labels
    if not isinstance(found, list) or not all(isinstance(label, str | int) for label in found):
        raise CommandError(
            f"{path}: expected 'label' to hold a name or a whole number for each row; got lists or fractions"
        )
    return tuple(map(str, found))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BadRequest as error:
        raise CommandError(error.message) from None
