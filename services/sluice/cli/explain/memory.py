"""The section that says what a model remembers from one call to the next: its states, and what they take."""

import math
from collections.abc import Iterator

from rich.console import RenderableType

from sluice.cli.explain.subject import Subject
from sluice.cli.text import counted, paragraph, table
from sluice.policy.contract import State, numpy_dtype


def memory(subject: Subject) -> Iterator[RenderableType]:
    if not subject.states:
        kept = "Nothing from one call to the next" if subject.layers else "Nothing"
        yield paragraph(f"{kept}: each row begins afresh, and its answer does not depend on the rows before it.")
        return
    yield table(
        ("state", "what it is", "one row", "dtype", "begins as", "bytes"),
        [
            (state.name, _state(state), list(state.shape), state.dtype, _initial(state), _bytes(state))
            for state in subject.states
        ],
    )
    total = counted(sum(map(_bytes, subject.states)), "byte")
    yield paragraph(
        f"One session takes {total} of state, however many steps it has done, and up to about 1 KiB of the gateway's "
        "own bookkeeping."
    )


def _state(state: State) -> str:
    layer, _, part = state.name.rpartition("/")
    words = {"h": "last output", "c": "cell"}.get(part, "state")
    return f"{words} of {layer}" if layer else words


def _initial(state: State) -> str:
    return f"{state.initial:g}" if isinstance(state.initial, int | float) else "its own row"


def _bytes(state: State) -> int:
    return math.prod(state.shape) * numpy_dtype(state.dtype).itemsize
