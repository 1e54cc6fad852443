"""Decides which columns of a file hold which input, and what is written beside them. It does not read any value."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from math import prod
from typing import NamedTuple

from sluice.policy.contract import Tensor
from sluice.policy.errors import BadRequest

ONLY = "x"  # a name for the only input, whatever the model calls it
_SHOWN = 20  # names in a sentence
_OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns mean what. `inputs` has, by input, its column where that has another name.

    A default name need not be there, and None stands for no column. A column that holds an input is nothing else.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    label: str | None = "label"
    weight: str | None = "weight"
    group: str | None = "group"
    session: str | None = "session"


class Found(NamedTuple):
    """The columns of a file. `flat` ones hold one value a row; `typed`: these are what they are, and not all text.

    `bytes` is how many they have in memory, about, where that is not plain from the values.
    """

    file: str
    names: Sequence[str]
    flat: Collection[str]
    typed: bool
    bytes: int = 0


class Source(NamedTuple):
    """The columns that hold a value. Side by side they fill a row of the shape `sizes`; None: one holds it whole."""

    columns: tuple[str, ...]
    sizes: tuple[int, ...] | None = None


class Layout(NamedTuple):
    """Where a file holds each input, the lengths of padded rows, and each of label, weight, group, session it has."""

    inputs: Mapping[str, Source]
    lengths: Mapping[str, str]
    beside: Mapping[str, Source]

    def columns(self) -> list[str]:
        sources = (*self.inputs.values(), *self.beside.values())
        return list(dict.fromkeys([*(name for each in sources for name in each.columns), *self.lengths.values()]))


def layout(found: Found, inputs: Mapping[str, Tensor], lengths: Mapping[str, str], columns: Columns) -> Layout:
    """Where everything is.

    `lengths` are, by ragged axis, the inputs that hold rows' lengths along it: so are the columns of padded arrays.

    Raises:
        BadRequest: an input is nowhere, or a column that was named; the sentence says which columns there are. Or a
            column is named for an input that there is not.
    """
    if unknown := next((name for name in columns.inputs if name not in {*inputs, *lengths.values()}), None):
        raise BadRequest(f"{found.file}: a column is named for the input {unknown!r:.80}; there is {', '.join(inputs)}")
    named = {columns.inputs.get(name, name) for name in inputs}
    _check_separated(found, named)
    beside = dict(_beside(found, columns, named))
    measures = {axis: name for axis, name in lengths.items() if name in found.names and name not in named}
    others = {*measures.values(), *(name for source in beside.values() for name in source.columns)}
    rest = [name for name in found.names if name in found.flat and name not in others]
    return Layout({name: _input(found, inputs, name, columns, rest) for name in inputs}, measures, beside)


def _check_separated(found: Found, named: Collection[str]) -> None:
    """Raises: BadRequest: there is one column, whose name seems to be the names of several."""
    if found.typed or len(found.names) != 1 or found.names[0] in named:
        return
    for sign, word in _OTHER_SIGNS.items():
        if sign in found.names[0]:
            raise BadRequest(
                f"{found.file}: expected columns with commas between them; got {found.names[0]!r:.80}, which seems to "
                f"be separated by {word}. Write commas there, and points in numbers"
            )


def _beside(found: Found, columns: Columns, named: Collection[str]) -> Iterator[tuple[str, Source]]:
    for role in ("label", "weight", "group", "session"):
        name = getattr(columns, role)
        if name is None or name in named:
            continue
        side_by_side = _numbered(found, name) if role == "label" else ()
        if name in found.names:
            yield role, Source((name,))
        elif side_by_side:
            yield role, Source(side_by_side, (len(side_by_side),))
        elif name != role:
            raise BadRequest(f"{found.file}: expected the column {name} for the {role}; got {listed(found.names)}")


def _input(found: Found, inputs: Mapping[str, Tensor], name: str, columns: Columns, rest: Sequence[str]) -> Source:
    tensor, asked = inputs[name], columns.inputs.get(name)
    only = len(inputs) == 1 and asked is None
    one = next((each for each in (asked or name, *([ONLY] if only else [])) if each in found.names), None)
    if one is not None and (one not in found.flat or tensor.text):
        return Source((one,))
    cells = _numbered(found, asked or name) or (() if one is None else (one,))
    wanted = None if None in tensor.shape[1:] else prod(size or 0 for size in tensor.shape[1:])
    if only and len(cells) != wanted and rest:
        cells = tuple(rest)
    if not cells:
        what = f"the column {asked} for the input {name}" if asked else f"the input {name}"
        raise BadRequest(f"{found.file}: expected {what}, {tensor}; got {listed(found.names) or 'no rows'}")
    if wanted is None:
        raise BadRequest(
            f"{found.file}: expected rows of one fixed shape, as columns are; the input {name}, {tensor.row()}, has "
            "none. Give the rows as .npz or .jsonl"
        )
    if len(cells) != wanted:
        others = ", ".join(filter(None, (columns.label, columns.weight, columns.group, columns.session)))
        advice = f". Columns that are no inputs are named {others}" if len(cells) > wanted else ""
        raise BadRequest(
            f"{found.file}: expected {wanted} columns for the input {name}, {tensor.row()}; got {len(cells)}: "
            f"{listed(cells)}{advice}"
        )
    return Source(cells, tuple(size for size in tensor.shape[1:] if size is not None))


def _numbered(found: Found, name: str) -> tuple[str, ...]:
    """NAME.0, NAME.1 and so on, as far as there are any."""
    return tuple(takewhile(lambda each: each in found.flat, (f"{name}.{place}" for place in count())))


def listed(names: Sequence[str]) -> str:
    """Names of columns, for a sentence."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
