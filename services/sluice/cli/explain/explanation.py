"""What a model takes, how rows are grouped, what it remembers: facts in, text and tables for a terminal out.

It does not know where the facts came from, nor Keras, nor HTTP.
"""

import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sluice.cli.explain.grouping import (
    PICTURE,
    STEPS,
    Size,
    batches,
    counted,
    grouped,
    keras_shape,
    readings,
    row_shape,
    shape,
    thing_of,
    whole_rows,
)
from sluice.policy.contract import TIME, Axis, Contract, Signature, State, Tensor, numpy_dtype

WRONG_USAGE = 2
KERAS_BATCH_SIZE = 32  # what `fit`, `evaluate` and `predict` take without `batch_size`
_BY = "×"  # noqa: RUF001 - matrices are multiplied, and this is how people write it
_LONGEST_REQUEST = 100  # characters of JSON in a command line; longer ones go into a file
_WHOLE = ("rows", "sequences")  # kinds of which a request gives whole rows, and gets all that belongs to them
_ORDER = (*_WHOLE, "encode", "scan", "step", "decode")


class CannotExplain(Exception):
    """Nothing is known about the model: the sentence says what was expected and what came. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Layer:
    """A recurrent layer: [batch, inputs] @ [inputs, width] + [batch, units] @ [units, width] at each time step.

    `units` is None for a layer that does something else than these two products. `inputs` and `width` are None where
    nothing says how many numbers of a row reach it, and how many gates it has.
    """

    name: str
    kind: str
    units: int | None = None
    inputs: int | None = None
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is explained.

    Attributes:
        name: the model's name in a gateway.
        source: where the facts come from, for people.
        contract: its signatures; in `rows`, a `time` axis has a size where the model fixes the number of time steps.
        layers: its recurrent layers, in order; empty if it has none or nothing is known about them.
        framewise: names of layers that run on every time step alone (TimeDistributed).
        batch: the batch size that the Keras model was built for, None for any.
        obstacle: why it cannot be exported as it is; empty if it can be, or is already.
        export: the command that exports it; empty if it is exported already.
        note: a sentence about what the source does not say.
        url: the gateway of the example requests.
    """

    name: str
    source: str
    contract: Contract
    layers: tuple[Layer, ...] = ()
    framewise: tuple[str, ...] = ()
    batch: int | None = None
    obstacle: str = ""
    export: str = ""
    note: str = ""
    url: str = ""

    @property
    def entry(self) -> Signature:
        """The signature that takes whole rows, or else the one that comes nearest."""
        return min(self.contract.signatures.values(), key=lambda each: _ORDER.index(each.kind))

    @property
    def tensor(self) -> Tensor:
        """The input that the numbers are explained with: the first one with a time axis, if there is any."""
        return min(self.entry.inputs.values(), key=lambda each: not each.has_time)

    @property
    def time(self) -> int | None:
        """How many time steps every row has, None if that is open or there is no time axis."""
        return self.tensor.axes[1].size if self.tensor.has_time else None

    @property
    def bounds(self) -> tuple[int, ...]:
        """The longest rows of the groups that rows are batched in by their length; empty where nothing says it."""
        return self.entry.bounds.get(TIME, ())

    @property
    def states(self) -> tuple[State, ...]:
        signature = self.contract.step or self.contract.scan
        return signature.states if signature else ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """The asker's own numbers, where given; `time` is how many time steps a row has."""

    rows: int | None = None
    batch_size: int | None = None
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    body: tuple[RenderableType, ...]


def explanation(subject: Subject, numbers: Numbers) -> list[Section]:
    """The sections, in order of reading.

    Raises:
        CannotExplain: the asker's time steps are not those of the model.
    """
    if numbers.time is not None:
        _check_time(subject, numbers.time)
    size = _full_batch(subject, numbers)
    return [
        Section("1. What goes in", tuple(_inputs(subject, size))),
        Section("2. How rows are grouped", tuple(_grouping(subject, numbers))),
        Section("3. What meets in one matrix product, and what follows", tuple(_products(subject, numbers, size))),
        Section("4. What it remembers", tuple(_memory(subject))),
        Section("5. How Sluice serves it", tuple(_serving(subject))),
    ]


def _full_batch(subject: Subject, numbers: Numbers) -> Size:
    """The first axis of the largest batch, in a number if there is one."""
    if numbers.rows is None:
        return numbers.batch_size or subject.batch or "batch"
    return min(_row_count(subject, numbers.rows, numbers), _batch_size(subject, numbers))


def _row_count(subject: Subject, rows: int, numbers: Numbers) -> int:
    return whole_rows(subject.tensor, rows, _steps(subject, numbers))


def _steps(subject: Subject, numbers: Numbers) -> int | None:
    """How many time steps a row has: what the model fixes, what the asker says, or else a clip as short as is usual."""
    given = subject.time or numbers.time
    return given or (subject.bounds[0] if subject.bounds and thing_of(subject.tensor) == PICTURE else None)


def _check_time(subject: Subject, time: int) -> None:
    longest = subject.bounds[-1] if subject.bounds else time
    if not subject.tensor.has_time:
        wanted = "none, as rows have no time steps here"
    elif subject.time not in {None, time}:
        wanted = f"{subject.time}, as every row has here"
    elif time > longest:
        wanted = f"{longest} or less, which is the longest row here"
    else:
        return
    raise CannotExplain(f"--time: expected {wanted}; got {time}", WRONG_USAGE)


def _batch_size(subject: Subject, numbers: Numbers) -> int:
    return numbers.batch_size or subject.batch or KERAS_BATCH_SIZE


def _inputs(subject: Subject, size: Size) -> Iterator[RenderableType]:
    for tensor in subject.entry.inputs.values():
        yield _text(f"{tensor.name} takes {tensor}.")
        sizes = [
            "any" if size == "batch" else size,
            *("any" if axis.size is None else axis.size for axis in tensor.axes[1:]),
        ]
        yield _table(
            ("axis", "size", "what it is"),
            [(axis.name, size, _axis(axis, tensor)) for axis, size in zip(tensor.axes, sizes, strict=True)],
        )
    if subject.entry.outputs:
        yield _text(
            "It gives " + "; ".join(f"{tensor.name}, {tensor}" for tensor in subject.entry.outputs.values()) + "."
        )
    yield _text(f"In Keras that is shape={keras_shape(subject.tensor)}: what one row is, not how many rows there are.")
    fixed = [f"batches of exactly {subject.batch} rows"] if subject.batch else []
    fixed += [f"rows of exactly {counted(subject.time, 'time step')}"] if subject.time and subject.states else []
    if fixed:
        yield _text(f"The Keras model is built for {' and '.join(fixed)}; exported, it takes any number.")


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


def _grouping(subject: Subject, numbers: Numbers) -> Iterator[RenderableType]:
    tensor = subject.tensor
    if numbers.rows is None:
        size = numbers.batch_size or "B"
        yield _text(
            f"N rows at batch size {size} are N / {size} batches of {shape(size, tensor)}; if {size} does not divide "
            "N, the last batch is smaller. --rows N and --batch-size B show it with your numbers."
        )
        return
    size = _batch_size(subject, numbers)
    default = "" if numbers.batch_size else " (not given: the model's own)" if subject.batch else " (Keras's default)"
    rows, steps = _row_count(subject, numbers.rows, numbers), _steps(subject, numbers)
    yield _text(
        f"{_counted_rows(subject, numbers.rows, steps)} at batch size {size}{default}: "
        f"{batches(rows, size, tensor, steps or TIME)}."
    )
    if tensor.has_time:
        yield _text(f"A row (a sample) is {_row_words(tensor, steps)}. So it depends on what your {numbers.rows} are:")
        columns = (f"your {numbers.rows} are", "array", f"at batch size {size}")
        yield _table(columns, readings(tensor, numbers.rows, size, steps), whole=1)
    if steps and not subject.time and not numbers.time:
        yield _text(
            f"The model takes rows of any length up to {subject.bounds[-1]}. {steps} is assumed here, as its shortest "
            "rows are batched in that length; --time T says another."
        )
    if subject.batch and {each for _, each in grouped(numbers.rows, size)} != {subject.batch}:
        yield _text(f"Keras itself refuses batches of other than {subject.batch} rows here. Sluice does not.")


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


def _products(subject: Subject, numbers: Numbers, size: Size) -> Iterator[RenderableType]:
    """Three answers: what is computed at once, what waits for what, and what never meets."""
    rows = "rows" if size in {"batch", 1} else f"{size} rows"
    if subject.framewise and subject.tensor.has_time:
        yield _text(_framewise(subject, _steps(subject, numbers), size))
    if subject.layers:
        yield from _each_step(subject, size, rows)
    elif not subject.framewise:
        yield _text(
            f"All {rows} of a batch go through each layer at once: a Dense layer from n numbers to m units is one "
            f"product [{size}, n] {_BY} [n, m]. No row waits for another."
        )
    yield _text(
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
        yield _text(f"{together} In a recurrent layer they meet in two matrix products, which are added:")
        columns = ("layer", f"input {_BY} weights", f"state {_BY} weights", "width")
        yield _table(columns, [_product(layer, size) for layer in multiplied])
        if subject.note:
            yield _text(subject.note)
    others = [f"{layer.name} ({layer.kind})" for layer in subject.layers if layer.units is None]
    if others:
        yield _text(
            f"{'' if multiplied else together + ' '}{', '.join(others)}: computed from that step's input and the state "
            f"before it, for all {rows} at once."
        )
    turns = f", {subject.time} in turn" if subject.time else ", as many in turn as a row has steps"
    yield _text(f"Time steps follow one another{turns}, because each needs the state that the one before has left.")


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


def _memory(subject: Subject) -> Iterator[RenderableType]:
    if not subject.states:
        kept = "Nothing from one call to the next" if subject.layers else "Nothing"
        yield _text(f"{kept}: each row begins afresh, and its answer does not depend on the rows before it.")
        return
    yield _table(
        ("state", "what it is", "one row", "dtype", "begins as", "bytes"),
        [
            (state.name, _state(state), list(state.shape), state.dtype, _initial(state), _bytes(state))
            for state in subject.states
        ],
    )
    total = counted(sum(map(_bytes, subject.states)), "byte")
    yield _text(
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


def _serving(subject: Subject) -> Iterator[RenderableType]:
    if subject.obstacle:
        yield _text(f"Not as it is: {subject.obstacle.rstrip('.')}. Keras's own `predict` takes:")
    yield _table(("call", "takes", "what it is"), list(_calls(subject)))
    if subject.contract.step:
        yield _text(
            "Steps of many clients share batches of any mixture; each client gets what it would have got alone."
        )
    if subject.entry.kind == "sequences":
        groups = f", in groups of up to {', '.join(map(str, subject.bounds))} time steps" if subject.bounds else ""
        yield _text(
            f"Rows of different lengths may come in one request. They are padded to share batches{groups}; padding "
            "changes no answer."
        )
    if not subject.obstacle:
        yield Text()
        if subject.export:
            yield _code(subject.export)
        yield from _requests(subject)


def _calls(subject: Subject) -> Iterator[tuple[str, str, str]]:
    step, scan = subject.contract.step, subject.contract.scan
    if step:
        yield "step", _taken(step, row_shape), "one time step of a session: no batch axis"
    if scan:
        yield "scan", _taken(scan, row_shape), "some time steps of a session, in order"
    for name, signature in subject.contract.signatures.items():
        if signature.kind in _WHOLE:
            named = "" if name == "serving_default" else f" {name}"
            words = "rows, each from the initial state" if subject.layers else "rows"
            yield f"predict{named}", _taken(signature, lambda tensor: shape("rows", tensor)), words

    if generation := subject.contract.generation:
        taken = _taken(generation.encode, lambda tensor: shape("rows", tensor))
        yield "generate", taken, "rows; the answer to each is written token by token"


def _taken(signature: Signature, write: Callable[[Tensor], str]) -> str:
    written = {name: write(tensor) for name, tensor in signature.inputs.items()}
    return ", ".join(written.values() if len(written) == 1 else (f"{name} {text}" for name, text in written.items()))


def _requests(subject: Subject) -> Iterator[RenderableType]:
    """Commands to paste: the contract's own example."""
    name, inputs = _example(subject)
    signature = subject.contract.signatures[name]
    model = f"{subject.url}/v1/models/{subject.name}"
    if signature.kind in {*_WHOLE, "encode"}:
        row = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        generates = signature.kind == "encode"
        which = {} if generates or name == "serving_default" else {"signature_name": name}
        call = f"curl -s {model}:{'generate' if generates else 'predict'}"
        yield from _request(call, which | {"instances": [row]}, signature)
        return
    yield _code(f"curl -s {model}/sessions -H 'Content-Type: application/json' \\\n  -d '{{\"session\": \"mine\"}}'")
    yield from _request(f"curl -s {subject.url}/v1/sessions/mine:{signature.kind}", {"inputs": inputs}, signature)


def _request(command: str, body: Mapping[str, Any], signature: Signature) -> Iterator[RenderableType]:
    written = json.dumps(body, ensure_ascii=False)
    if len(written) <= _LONGEST_REQUEST:
        yield _code(f"{command} \\\n  -d {shlex.quote(written)}")
        return
    yield _code(f"{command} \\\n  -d @request.json")
    rows: dict[str, Any] = {name: f"nested lists, {row_shape(tensor)}" for name, tensor in signature.inputs.items()}
    row = next(iter(rows.values())) if len(rows) == 1 else rows
    held: dict[str, Any] = {"inputs": rows} if "inputs" in body else {"instances": [row]}
    yield _text(f"request.json: {json.dumps({**body, **held}, ensure_ascii=False)}")


def _example(subject: Subject) -> tuple[str, Mapping[str, Any]]:
    """The contract's example request, or zeros where it has none."""
    given = subject.contract.document.get("example")
    if isinstance(given, dict) and given.get("signature") in subject.contract.signatures:
        return given["signature"], given["inputs"]
    signature = subject.contract.step or subject.entry
    return signature.name, {name: _zeros(tensor) for name, tensor in signature.inputs.items()}


def _zeros(tensor: Tensor) -> Any:
    row: Any = {"O": "", "b": False, "i": 0, "u": 0}.get(numpy_dtype(tensor.dtype).kind, 0.0)
    for size in reversed(tensor.shape[1:]):
        row = [row] * (1 if size is None else size)
    return row


def _text(words: str) -> Padding:
    return _indented(Text(words))


def _code(words: str) -> Text:
    """Lines to paste, which must not be wrapped."""
    return Text("\n".join(f"    {line}" for line in words.splitlines()), style="cyan")


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]], whole: int | None = None) -> Padding:
    """A table; the cells of column `whole`, counted from 0, are not wrapped."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="italic")
    for i, heading in enumerate(headings):
        table.add_column(heading, no_wrap=i == whole)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return _indented(table, 4)


def _indented(body: RenderableType, columns: int = 2) -> Padding:
    return Padding(body, (0, 0, 0, columns))
