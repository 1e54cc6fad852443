"""A data set: all rows of its files, looked at once, then read in any ranges. It does not know what they are for."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from threading import RLock
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sluice.data import bounds
from sluice.data.columns import Columns, Found, Layout, layout
from sluice.data.files import File
from sluice.data.labels import LabelKind
from sluice.data.lines import Index
from sluice.data.piece import Inputs, read_piece
from sluice.data.rows import Rows, joined
from sluice.data.tables import Checksum, Table, fingerprint_of, first_look, table_of
from sluice.data.values import Wrong
from sluice.policy.contract import Tensor
from sluice.policy.errors import BadRequest

_OPEN = 8  # files at once


class Session(NamedTuple):
    """The rows of one sequence, by their places in the data set, in its order."""

    name: str
    places: NDArray[np.int64]


class _Part(NamedTuple):
    """One file, as it was looked at; `begin` is the place of its first row."""

    file: File
    fingerprint: str
    found: Found
    places: Index | None
    layout: Layout
    begin: int
    rows: int


class _Facts(NamedTuple):
    inputs: Inputs
    parts: Sequence[_Part]
    labels: LabelKind
    sha256: str
    bytes: int
    sessions: Sequence[Session]


class DataSet:
    """The rows of some files, in their order. It can be pickled. Threads that use it take turns.

    Attributes:
        rows: how many there are.
        sha256: of all bytes of the files, one after the other, in hex.
        bytes: how many these are.
        given: which of `label`, `weight`, `group` and `session` the rows have.
        found: the columns of the first file.
        unused: those of them that hold nothing of these, and no input.
        sessions: in the order in which they begin; none without such a column.
    """

    def __init__(self, facts: _Facts) -> None:
        self._facts = facts
        self._begins = [part.begin for part in facts.parts]
        self._tables: dict[int, Table] = {}
        self._lock = RLock()  # of the tables, which are read from where they are
        self.rows = facts.parts[-1].begin + facts.parts[-1].rows
        self.sha256, self.bytes, self.sessions = facts.sha256, facts.bytes, facts.sessions
        self.found, plan = facts.parts[0].found, facts.parts[0].layout
        self.given = frozenset(plan.beside)
        self.unused = [name for name in self.found.names if name not in plan.columns()]

    def __reduce__(self) -> tuple[type["DataSet"], tuple[_Facts]]:
        return DataSet, (self._facts,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; reading opens them again."""
        with self._lock:
            while self._tables:
                self._tables.popitem()[1].close()

    def check_unchanged(self) -> None:
        """Raises: BadRequest: a file is no more as it was; rows that were read since may not be those of `sha256`."""
        for part in self._facts.parts:
            if fingerprint_of(part.file) != part.fingerprint:
                raise _changed(part)

    def read(self, start: int, stop: int) -> Rows:
        """The rows from `start` up to `stop`; from where the last call stopped, it goes on without a detour.

        Raises:
            BadRequest: a file is no more as it was.
        """
        if not 0 <= start < stop <= self.rows:
            raise ValueError(f"expected one row or more from 0 up to {self.rows}; got {start} up to {stop}")
        with self._lock:
            return joined([*self._pieces(start, stop)])

    def read_rows(self, places: Sequence[int] | NDArray[np.int64]) -> Rows:
        """The rows at these places, one or more, in their order.

        Raises:
            BadRequest: as `read`.
        """
        wanted = np.asarray(places, np.int64)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        runs = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
        with self._lock:
            return joined([self.read(int(run[0]), int(run[-1]) + 1) for run in runs]).take(np.argsort(order))

    def _pieces(self, start: int, stop: int) -> Iterator[Rows]:
        while start < stop:
            number = bisect_right(self._begins, start) - 1
            part = self._facts.parts[number]
            end = min(stop, part.begin + part.rows)
            rows = read_piece(self._table(number), part.layout, self._facts.inputs, start, end, part.begin)
            if rows is None:
                raise _changed(part)
            if rows.labels is not None:
                rows = replace(rows, labels=self._facts.labels.of(rows.labels))
            yield rows
            start += len(rows)

    def _table(self, number: int) -> Table:
        if number not in self._tables:
            if len(self._tables) == _OPEN:
                self._tables.pop(next(iter(self._tables))).close()
            part = self._facts.parts[number]
            if fingerprint_of(part.file) != part.fingerprint:
                raise _changed(part)
            self._tables[number] = table_of(part.file, part.found, part.places)
        return self._tables[number]


def look(
    files: Sequence[File],
    inputs: Mapping[str, Tensor],
    lengths: Mapping[str, str] | None = None,
    columns: Columns = Columns(),  # noqa: B008 - a value
    go_on: Callable[[], object] = bool,
) -> DataSet:
    """Read all rows of some files once, in order, in bounded memory: what is wrong with them is told now.

    `lengths` are, by ragged axis, the inputs that hold rows' lengths along it (`Signature.length_inputs`): columns of
    these names cut what is padded. `go_on` is called time and again; what it raises ends the look.

    Raises:
        BadRequest: a file cannot be read, or does not hold what the inputs take; the sentence says where.
        BackendUnavailable: its store does not answer.
    """
    if not files:
        raise BadRequest("expected files of rows; got none")
    wanted = Inputs(inputs, lengths or {})
    checksum, seen, parts = Checksum(go_on), _Seen(wanted), list[_Part]()
    for file in files:
        fingerprint, begin = fingerprint_of(file), seen.rows
        table, index = first_look(file, checksum)
        with closing(table):
            plan = layout(table.found, inputs, wanted.lengths, columns)
            for rows in _all_rows(table, plan, wanted, begin):
                seen.see(file, rows)
                go_on()
        parts.append(_Part(file, fingerprint, table.found, index, plan, begin, seen.rows - begin))
    _check_beside(parts)
    if not seen.rows:
        raise BadRequest(f"{', '.join(file.name for file in files):.200}: expected rows; got none")
    filled = [part for part in parts if part.rows]
    return DataSet(_Facts(wanted, filled, seen.labels, checksum.hex(), checksum.bytes, seen.sessions()))


def _all_rows(table: Table, plan: Layout, wanted: Inputs, begin: int) -> Iterator[Rows]:
    start = begin
    while (rows := read_piece(table, plan, wanted, start, start + bounds.AT_ONCE_ROWS, begin)) is not None:
        yield rows
        start += len(rows)


class _Seen:
    """What all rows have in common, and where sessions have theirs."""

    def __init__(self, wanted: Inputs) -> None:
        self.rows = 0
        self.labels = LabelKind()
        self._fixed = [name for name, tensor in wanted.tensors.items() if not any(axis.ragged for axis in tensor.axes)]
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._sessions: dict[str, array[int]] = {}

    def see(self, file: File, rows: Rows) -> None:
        for name in self._fixed:
            shape = np.shape(rows.inputs[name])[1:]
            if (first := self._shapes.setdefault(name, shape)) != shape:
                shapes = sorted({first, shape})
                raise BadRequest(
                    f"{file.name}: expected rows of one shape of the input {name} in all files; got {shapes}"
                )
        if rows.labels is not None:
            try:
                self.labels.see(rows.labels)
            except Wrong as error:
                raise BadRequest(f"{file.name}: {error.message}") from None
        for place, name in enumerate(rows.sessions or (), self.rows):
            self._sessions.setdefault(name, array("q")).append(place)
        self.rows += len(rows)

    def sessions(self) -> list[Session]:
        return [Session(name, np.frombuffer(places, np.int64)) for name, places in self._sessions.items()]


def _check_beside(parts: Sequence[_Part]) -> None:
    """Raises: BadRequest: some files have labels, weights, groups or sessions and some have not."""
    for role in ("label", "weight", "group", "session"):
        without = [part for part in parts if role not in part.layout.beside]
        if without and len(without) < len(parts):
            raise BadRequest(f"{without[0].file.name}: expected {role}s, as the other files have them; got none")


def _changed(part: _Part) -> BadRequest:
    return BadRequest(f"{part.file.name}: expected the file as it was when it was looked at; it has changed since")
