"""The section that says how rows are grouped into batches, and what the asker's rows can be."""

from collections.abc import Iterator

from rich.console import RenderableType

from sluice.cli.explain.numbers import Numbers, batch_size, row_count, steps_of
from sluice.cli.explain.shapes import (
    PICTURE,
    STEPS,
    batches,
    grouped,
    keras_shape,
    readings,
    shape,
    thing_of,
    whole_rows,
)
from sluice.cli.explain.subject import Subject
from sluice.cli.text import counted, paragraph, table
from sluice.policy.contract import TIME, Tensor


def grouping(subject: Subject, numbers: Numbers) -> Iterator[RenderableType]:
    tensor = subject.tensor
    if numbers.rows is None:
        size = numbers.batch_size or "B"
        yield paragraph(
            f"N rows at batch size {size} are N / {size} batches of {shape(size, tensor)}; if {size} does not divide "
            "N, the last batch is smaller. --rows N and --batch-size B show it with your numbers."
        )
        return
    size = batch_size(subject, numbers)
    default = "" if numbers.batch_size else " (not given: the model's own)" if subject.batch else " (Keras's default)"
    rows, steps = row_count(subject, numbers.rows, numbers), steps_of(subject, numbers)
    yield paragraph(
        f"{_counted_rows(subject, numbers.rows, steps)} at batch size {size}{default}: "
        f"{batches(rows, size, tensor, steps or TIME)}."
    )
    if tensor.has_time:
        yield paragraph(
            f"A row (a sample) is {_row_words(tensor, steps)}. So it depends on what your {numbers.rows} are:"
        )
        columns = (f"your {numbers.rows} are", "array", f"at batch size {size}")
        yield table(columns, readings(tensor, numbers.rows, size, steps), whole=1)
    if steps and not subject.time and not numbers.time:
        yield paragraph(
            f"The model takes rows of any length up to {subject.bounds[-1]}. {steps} is assumed here, as its shortest "
            "rows are batched in that length; --time T says another."
        )
    if subject.batch and {each for _, each in grouped(numbers.rows, size)} != {subject.batch}:
        yield paragraph(f"Keras itself refuses batches of other than {subject.batch} rows here. Sluice does not.")


def _counted_rows(subject: Subject, n: int, steps: int | None) -> str:
    rows = whole_rows(subject.tensor, n, steps)
    if rows == n or not steps:
        return counted(n, "row")
    left = f", {n % steps} left over" if n % steps else ""
    return f"{counted(n, PICTURE)} ({counted(rows, 'clip')} of {steps}{left})"


def _row_words(tensor: Tensor, steps: int | None) -> str:
    thing = thing_of(tensor)
    if steps is None:
        return f"a whole sequence of {thing}s, as long as your array says; {STEPS} stands for its length"
    clip = "a clip of " if thing == PICTURE else ""
    return f"{clip}{counted(steps, thing)}, {keras_shape(tensor, steps)}"
