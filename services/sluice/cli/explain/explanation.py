"""What a model takes, how rows are grouped, what it remembers: facts in, text and tables for a terminal out.

It does not know where the facts came from, nor Keras, nor HTTP.
"""

from rich.console import RenderableType
from rich.text import Text

from sluice.cli.explain.grouping import grouping
from sluice.cli.explain.inputs import inputs
from sluice.cli.explain.memory import memory
from sluice.cli.explain.numbers import Numbers, check_time, full_batch
from sluice.cli.explain.products import products
from sluice.cli.explain.serving import serving
from sluice.cli.explain.subject import Subject
from sluice.cli.text import heading


def explanation(subject: Subject, numbers: Numbers) -> list[RenderableType]:
    """The sections, in order of reading.

    Raises:
        CommandError: the asker's time steps are not those of the model.
    """
    if numbers.time is not None:
        check_time(subject, numbers.time)
    size = full_batch(subject, numbers)
    sections = (
        ("1. What goes in", inputs(subject, size)),
        ("2. How rows are grouped", grouping(subject, numbers)),
        ("3. What meets in one matrix product, and what follows", products(subject, numbers, size)),
        ("4. What it remembers", memory(subject)),
        ("5. How Sluice serves it", serving(subject)),
    )
    return [part for title, body in sections for part in (Text(), heading(title), *body)]
