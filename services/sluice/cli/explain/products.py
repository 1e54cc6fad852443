"""The section that says what meets in one matrix product, what waits for what, and what never meets."""

from collections.abc import Iterator

from rich.console import RenderableType

from sluice.cli.explain.numbers import Numbers, steps_of
from sluice.cli.explain.shapes import Size, thing_of
from sluice.cli.explain.subject import Layer, Subject
from sluice.cli.text import paragraph, table

_BY = "×"  # noqa: RUF001 - matrices are multiplied, and this is how people write it


def products(subject: Subject, numbers: Numbers, size: Size) -> Iterator[RenderableType]:
    """Three answers: what is computed at once, what waits for what, and what never meets."""
    rows = "rows" if size in {"batch", 1} else f"{size} rows"
    if subject.framewise and subject.tensor.has_time:
        yield paragraph(_framewise(subject, steps_of(subject, numbers), size))
    if subject.layers:
        yield from _each_step(subject, size, rows)
    elif not subject.framewise:
        yield paragraph(
            f"All {rows} of a batch go through each layer at once: a Dense layer from n numbers to m units is one "
            f"product [{size}, n] {_BY} [n, m]. No row waits for another."
        )
    yield paragraph(
        "Rows never mix: the answer for a row depends on that row alone. The batch size changes how long it takes and "
        "how much memory, not the answers."
    )


def _framewise(subject: Subject, steps: int | None, size: Size) -> str:
    named = ", ".join(subject.framewise)
    text = f"{named} (TimeDistributed) takes every {thing_of(subject.tensor)} alone, and none waits for another"
    if steps is None or isinstance(size, str):
        return f"{text}."
    return f"{text}: {size} {_BY} {steps} = {size * steps} in a full batch."


def _each_step(subject: Subject, size: Size, rows: str) -> Iterator[RenderableType]:
    thing = thing_of(subject.tensor)
    together = (
        f"At each time step all {rows} of a batch go in together, one {thing} of each: neither one {thing} alone nor "
        "the whole batch at once."
    )
    multiplied = [layer for layer in subject.layers if layer.units is not None]
    if multiplied:
        yield paragraph(f"{together} In a recurrent layer they meet in two matrix products, which are added:")
        columns = ("layer", f"input {_BY} weights", f"state {_BY} weights", "width")
        yield table(columns, [_product(layer, size) for layer in multiplied])
        if subject.note:
            yield paragraph(subject.note)
    others = [f"{layer.name} ({layer.kind})" for layer in subject.layers if layer.units is None]
    if others:
        yield paragraph(
            f"{'' if multiplied else together + ' '}{', '.join(others)}: computed from that step's input and the state "
            f"before it, for all {rows} at once."
        )
    turns = f", {subject.time} in turn" if subject.time else ", as many in turn as a row has steps"
    yield paragraph(f"Time steps follow one another{turns}, because each needs the state that the one before has left.")


def _product(layer: Layer, size: Size) -> tuple[str, str, str, str]:
    units = layer.units or 0
    inputs = "n" if layer.inputs is None else layer.inputs
    width = f"k·{units}" if layer.width is None else layer.width
    return (
        f"{layer.name}: {layer.kind}({units})",
        f"[{size}, {inputs}] {_BY} [{inputs}, {width}]",
        f"[{size}, {units}] {_BY} [{units}, {width}]",
        _width(units, layer.width),
    )


def _width(units: int, width: int | None) -> str:
    if width is None:
        return "k = 3 or 1"
    return "1 for each unit" if width == units else f"{width // units} gates {_BY} {units}"
