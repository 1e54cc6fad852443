"""Reads some rows of one file at once, as the inputs take them. It does not know of other files."""

import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sluice.data.columns import Layout
from sluice.data.labels import labels_of
from sluice.data.rows import Array, Column, Labels, Rows, evened
from sluice.data.tables import Table
from sluice.data.values import Values, Wrong, input_of, is_text, names_of, side_by_side, weights_of
from sluice.policy.contract import Axis, Signature, Tensor
from sluice.policy.errors import BadRequest
from sluice.policy.sequences import rows_of

_NUMBERS = Tensor("", "float64", ())  # labels in columns side by side


class Inputs(NamedTuple):
    """What rows are read for: inputs by name, and the inputs that hold lengths by ragged axis."""

    tensors: Mapping[str, Tensor]
    lengths: Mapping[str, str]


def read_piece(table: Table, layout: Layout, inputs: Inputs, start: int, stop: int, begin: int) -> Rows | None:
    """Rows of a file whose first one has the place `begin`: one or more from `start` up to `stop`; None at its end.

    Raises:
        BadRequest: they are not what the inputs take; says where.
    """
    raw = table.read(start - begin, stop - begin, layout.columns())
    rows = len(next(iter(raw.values())))
    if not rows:
        return None
    try:
        return _Piece(raw, layout, table.found.typed).rows(inputs, np.arange(start, start + rows))
    except Wrong as error:
        at = "" if error.row is None else f", {table.where(start - begin + error.row)}"
        raise BadRequest(f"{table.found.file}{at}: {error.message}") from None


class _Piece(NamedTuple):
    raw: Mapping[str, Values]
    layout: Layout
    typed: bool

    def rows(self, inputs: Inputs, places: NDArray[np.int64]) -> Rows:
        found = {name: self._input(tensor) for name, tensor in inputs.tensors.items()}
        return Rows(
            places,
            self._cut(found, inputs.tensors) if self.layout.lengths else found,
            self._labels(),
            np.ones(len(places)) if "weight" not in self.layout.beside else weights_of(*self._column("weight")),
            None if "group" not in self.layout.beside else names_of(*self._column("group")),
            None if "session" not in self.layout.beside else names_of(*self._column("session")),
        )

    def _input(self, tensor: Tensor) -> Column:
        columns, sizes = self.layout.inputs[tensor.name]
        values = [self.raw[name] for name in columns]
        return input_of(values[0] if sizes is None else side_by_side(values, sizes, tensor, typed=self.typed), tensor)

    def _labels(self) -> Labels | None:
        if "label" not in self.layout.beside:
            return None
        columns, sizes = self.layout.beside["label"]
        if sizes is None:
            return labels_of(*self._column("label"))
        values = side_by_side([self.raw[name] for name in columns], sizes, _NUMBERS, typed=self.typed)
        return labels_of(values, f"{columns[0]} …")

    def _column(self, role: str) -> tuple[Values, str]:
        """A column beside the inputs, and its name."""
        [name] = self.layout.beside[role].columns
        return (self.raw[name] if self.typed else [cell.strip() for cell in self.raw[name]]), name

    def _cut(self, found: Mapping[str, Column], tensors: Mapping[str, Tensor]) -> Mapping[str, Column]:
        """Padded rows, cut to the lengths beside them; text is as long as it is."""
        padded: dict[str, Array] = {}
        for name, tensor in tensors.items():
            column = found[name]
            if any(axis.name in self.layout.lengths for axis in tensor.axes) and not is_text(column, tensor):
                if isinstance(column, list):
                    told = ", ".join(self.layout.lengths.values())
                    raise Wrong(
                        f"expected rows of {name!r} that are padded, with {told} beside them; got rows of different "
                        f"lengths. Leave {told} out"
                    )
                padded[name] = column
        if not padded:
            return found
        signature = Signature(
            "", "sequences", {name: tensors[name] for name in padded}, {}, length_inputs=self.layout.lengths
        )
        lengths = {name: self._lengths(name) for name in self.layout.lengths.values()}
        try:
            rows = rows_of(signature, padded | lengths, sys.maxsize)
        except BadRequest as error:
            raise Wrong(error.message) from None
        return {**found, **{name: evened([[*each]]) for name, each in rows.items()}}

    def _lengths(self, name: str) -> Array:
        tensor = Tensor(name, "int32", (Axis("batch"),))
        return side_by_side([self.raw[name]], (), tensor, typed=self.typed)
