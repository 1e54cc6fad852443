"""The section that says what goes in: every input, axis by axis."""

from collections.abc import Iterator

from rich.console import RenderableType

from sluice.cli.explain.shapes import Size, keras_shape
from sluice.cli.explain.subject import Subject
from sluice.cli.text import counted, paragraph, table
from sluice.policy.contract import Axis, Tensor


def inputs(subject: Subject, size: Size) -> Iterator[RenderableType]:
    for tensor in subject.entry.inputs.values():
        yield paragraph(f"{tensor.name} takes {tensor}.")
        sizes = [
            "any" if size == "batch" else size,
            *("any" if axis.size is None else axis.size for axis in tensor.axes[1:]),
        ]
        yield table(
            ("axis", "size", "what it is"),
            [(axis.name, size, _axis(axis, tensor)) for axis, size in zip(tensor.axes, sizes, strict=True)],
        )
    if subject.entry.outputs:
        yield paragraph(
            "It gives " + "; ".join(f"{tensor.name}, {tensor}" for tensor in subject.entry.outputs.values()) + "."
        )
    yield paragraph(
        f"In Keras that is shape={keras_shape(subject.tensor)}: what one row is, not how many rows there are."
    )
    fixed = [f"batches of exactly {subject.batch} rows"] if subject.batch else []
    fixed += [f"rows of exactly {counted(subject.time, 'time step')}"] if subject.time and subject.states else []
    if fixed:
        yield paragraph(f"The Keras model is built for {' and '.join(fixed)}; exported, it takes any number.")


def _axis(axis: Axis, tensor: Tensor) -> str:
    whole = "step" if tensor.has_time else "row"
    words = {
        "batch": "rows side by side" + (", each a sequence of its own" if tensor.has_time else ""),
        "time": "time steps, one after another" + (f"; each is {axis.meaning}" if axis.meaning else ""),
        "feature": f"the one number of each {whole}" if axis.size == 1 else f"the numbers of each {whole}",
        "height": "lines of the picture",
        "width": "pixels of a line",
        "channel": "values of a pixel, such as red, green and blue",
    }.get(axis.name, f"an axis of each {whole}'s own values")
    return words if axis.name == "time" or not axis.meaning else f"{words}: {axis.meaning}"
