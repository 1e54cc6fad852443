"""What the asker's own numbers make of a model: how many rows there are, of how many time steps, and in a batch."""

from dataclasses import dataclass

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.cli.explain.shapes import PICTURE, Size, thing_of, whole_rows
from sluice.cli.explain.subject import Subject

KERAS_BATCH_SIZE = 32  # what `fit`, `evaluate` and `predict` take without `batch_size`


@dataclass(frozen=True, slots=True)
class Numbers:
    """The asker's own numbers, where given; `time` is how many time steps a row has."""

    rows: int | None = None
    batch_size: int | None = None
    time: int | None = None


def check_time(subject: Subject, time: int) -> None:
    longest = subject.bounds[-1] if subject.bounds else time
    if not subject.tensor.has_time:
        wanted = "none, as rows have no time steps here"
    elif subject.time not in {None, time}:
        wanted = f"{subject.time}, as every row has here"
    elif time > longest:
        wanted = f"{longest} or less, which is the longest row here"
    else:
        return
    raise CommandError(f"--time: expected {wanted}; got {time}", WRONG_USAGE)


def full_batch(subject: Subject, numbers: Numbers) -> Size:
    """The first axis of the largest batch, in a number if there is one."""
    if numbers.rows is None:
        return numbers.batch_size or subject.batch or "batch"
    return min(row_count(subject, numbers.rows, numbers), batch_size(subject, numbers))


def row_count(subject: Subject, rows: int, numbers: Numbers) -> int:
    return whole_rows(subject.tensor, rows, steps_of(subject, numbers))


def steps_of(subject: Subject, numbers: Numbers) -> int | None:
    """How many time steps a row has: what the model fixes, what the asker says, or else a clip as short as is usual."""
    given = subject.time or numbers.time
    return given or (subject.bounds[0] if subject.bounds and thing_of(subject.tensor) == PICTURE else None)


def batch_size(subject: Subject, numbers: Numbers) -> int:
    return numbers.batch_size or subject.batch or KERAS_BATCH_SIZE
