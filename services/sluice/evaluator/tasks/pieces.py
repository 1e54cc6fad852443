"""Rows of sessions as series: those of one session are, in their order, consecutive pieces of one series.

It does not know what becomes of a series.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sluice.data import Rows
from sluice.evaluator.tasks.asking import refused
from sluice.evaluator.tasks.task import Array
from sluice.policy.contract import fits
from sluice.policy.errors import BadRequest

Shapes = Mapping[str, tuple[int | None, ...]]  # by input, of one time step


@dataclass(frozen=True, slots=True)
class Pieces:
    """One series: the numbers of its rows, how many time steps each has, and by input its values, `[time, ...]`.

    Rows are `single` where each is one time step, without an axis for time.
    """

    rows: Sequence[int]
    steps: Sequence[int]
    series: Mapping[str, Array]
    single: bool

    def __len__(self) -> int:
        return sum(self.steps)

    def cut(self, series: Array) -> list[Array]:
        """A series of as many time steps as rows of these shapes."""
        parts = np.split(series, np.cumsum(self.steps)[:-1])
        return [part[0] for part in parts] if self.single else parts

    def joined(self, rows: Sequence[Array]) -> Array:
        """The reverse: what belongs to the rows, each in its form, as a series."""
        return np.stack(rows) if self.single else np.concatenate(rows)

    def row_at(self, step: int) -> int:
        """The number of the row that holds this time step of the series."""
        return self.rows[int(np.searchsorted(np.cumsum(self.steps), step, side="right"))]


def pieces_of(rows: Rows, shapes: Shapes) -> list[Pieces]:
    """Each session's series, in order of their first rows.

    Raises:
        BadRequest: an input is missing, or a row is no time step and no piece of a series of the model's.
    """
    if any(name not in rows.inputs for name in shapes):
        raise BadRequest(
            f"The model's time steps take {', '.join(map(repr, shapes))}; the data has {', '.join(rows.inputs)}."
        )
    sessions: dict[str, list[int]] = {}
    for number, name in enumerate(rows.sessions or ()):
        sessions.setdefault(name, []).append(number)
    single = len(rows) > 0 and _are_single(rows, shapes)
    return [_pieces(rows, numbers, shapes, single=single) for numbers in sessions.values()]


def _are_single(rows: Rows, shapes: Shapes) -> bool:
    name, shape = next(iter(shapes.items()))
    return np.ndim(rows.inputs[name][0]) == len(shape)


def _pieces(rows: Rows, numbers: Sequence[int], shapes: Shapes, *, single: bool) -> Pieces:
    steps: list[int] = []
    for number in numbers:
        found = {name: np.shape(rows.inputs[name][number]) for name in shapes}
        own = {(1,) if single else shape[:1] for shape in found.values()}
        rest = {name: shape if single else shape[1:] for name, shape in found.items()}
        odd = next((name for name, shape in shapes.items() if not fits(rest[name], shape)), None)
        if odd is not None or len(own) != 1 or own in ({()}, {(0,)}):
            name = odd or next(iter(shapes))
            wanted = [*shapes[name]] if single else ["time", *shapes[name]]
            raise refused(rows, number, f"{name!r} of shape {wanted}", list(found[name]))
        steps.append(own.pop()[0])
    parts = {name: [np.asarray(rows.inputs[name][number]) for number in numbers] for name in shapes}
    series = {name: np.stack(each) if single else np.concatenate(each) for name, each in parts.items()}
    return Pieces(numbers, steps, series, single)
