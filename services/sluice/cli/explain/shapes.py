"""How rows make batches, and how shapes are written for people.

It does not know what a model computes.
"""

from collections.abc import Sequence

from sluice.cli.text import counted
from sluice.policy.contract import TIME, Tensor

STEPS = "T"  # stands for a number of time steps that each array may choose

PICTURE = "picture"

Size = int | str


def grouped(rows: int, batch_size: int) -> list[tuple[int, int]]:
    """How many batches there are of which size: the full ones, and then the smaller last one if there is one."""
    full, rest = divmod(rows, batch_size)
    return [(count, size) for count, size in ((full, batch_size), (1, rest)) if count and size]


def batches(rows: int, batch_size: int, tensor: Tensor, time: Size = TIME) -> str:
    """Such as `2 batches of [40, time, 1] and a last one of [10, time, 1]`; `time` where the tensor leaves it open."""
    parts = grouped(rows, batch_size)
    if not parts:
        return "none"
    texts = [shape(size, tensor, time) for _, size in parts]
    last = f" and a last one of {texts[1]}" if len(parts) > 1 else ""
    return f"{counted(parts[0][0], 'batch')} of {texts[0]}{last}"


def readings(tensor: Tensor, n: int, batch_size: int, steps: int | None) -> list[tuple[str, str, str]]:
    """What `n` of something can be: in words, the array that they make, and its batches; the likeliest first.

    Args:
        tensor: an input with a time axis.
        n: what people have, rows or time steps.
        batch_size: rows in a full batch.
        steps: time steps of a row, None where nothing says it.
    """
    thing = thing_of(tensor)
    if steps is None:
        return [
            (f"{thing}s, each a row", shape(n, tensor, 1), batches(n, batch_size, tensor, 1)),
            (
                f"windows of {STEPS} {thing}s",
                shape(n, tensor, STEPS),
                batches(n, batch_size, tensor, STEPS),
            ),
            (
                f"one series, cut every {STEPS}",
                shape(f"{n} / {STEPS}", tensor, STEPS),
                f"batches of {shape(batch_size, tensor, STEPS)}",
            ),
            (f"one series of {counted(n, thing)}", shape(1, tensor, n), batches(1, batch_size, tensor, n)),
        ]
    rows, left = divmod(n, steps)
    rest = f" ({left} left over)" if left else ""
    whole = f"rows of {counted(steps, thing)}", shape(n, tensor, steps), batches(n, batch_size, tensor, steps)
    cut = f"{thing}s, {steps} to a row{rest}", shape(rows, tensor, steps), batches(rows, batch_size, tensor, steps)
    if not rows:
        return [whole]
    return [whole, cut] if whole_rows(tensor, n, steps) == n else [cut, whole]


def whole_rows(tensor: Tensor, n: int, steps: int | None) -> int:
    """How many rows `n` of something are likeliest: pictures lie about singly, and people count them so."""
    return n // steps if steps and n >= steps and thing_of(tensor) == PICTURE else n


def shape(rows: Size, tensor: Tensor, time: Size = TIME) -> str:
    """A batch's shape; `time` stands for the time steps where the tensor leaves them open."""
    return f"[{', '.join(map(str, [rows, *row_sizes(tensor, time)]))}]"


def row_shape(tensor: Tensor) -> str:
    """One row's shape, without a batch axis."""
    return f"[{', '.join(map(str, row_sizes(tensor)))}]"


def keras_shape(tensor: Tensor, time: int | None = None) -> str:
    """One row's shape as Keras takes it: a tuple, None where any size will do, `time` for the time steps if given."""
    sizes = [time if axis.size is None and axis.name == TIME else axis.size for axis in tensor.axes[1:]]
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def row_sizes(tensor: Tensor, time: Size = TIME) -> Sequence[Size]:
    return [
        axis.size if axis.size is not None else time if axis.name == TIME else axis.name for axis in tensor.axes[1:]
    ]


def thing_of(tensor: Tensor) -> str:
    """What one time step of a row is, as people count it."""
    axes = tensor.axes[2:]
    if {"height", "width"} <= {axis.name for axis in axes}:
        return PICTURE
    return "number" if all(axis.size == 1 for axis in axes) else "step"
