"""The serving contract: what a model version says about how it wants to be served.

It does not know how that is written down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

TIME = "time"  # the name of the axis along which a scan goes
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Kind = Literal["rows", "sequences", "step", "scan", "encode", "decode"]
Text = Literal["utf-8", "words"]
# What is known of the first axis of a signature's tensors: that it is the batch; that it looks so, and a request whose
# outputs come back with other rows is run again as it is; or that it is not, and every request runs as it is.
BatchAxis = Literal["promised", "assumed", "none"]


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a dtype name; strings are object arrays of `bytes`.

    Raises:
        TypeError: no such dtype.
    """
    if name == "string":
        return np.dtype(object)
    if not name.isalnum() or not name[:1].isalpha():  # numpy has a language for dtypes; names are meant here
        raise TypeError(name)
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def fits(given: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Whether an array's shape is `shape`, where None stands for any size."""
    return len(given) == len(shape) and all(
        size is None or size == found for size, found in zip(shape, given, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor; `size` is None where a request may choose it.

    Along a `ragged` one rows of one request may differ, each with `least` elements or more.
    """

    name: str
    size: int | None = None
    meaning: str = ""
    ragged: bool = False
    least: int = 1

    def __str__(self) -> str:
        if self.ragged:
            return f"{self.name}≥{self.least}"
        return self.name if self.size is None else f"{self.name}={self.size}"


@dataclass(frozen=True)
class Tensor:
    """An input or an output. `axes` starts with the batch axis; there are none where the rank is not known, `ranked`.

    `pad` fills what is padded along ragged axes. Where `text` says so, a client may give a string for the values along
    the ragged axis: its UTF-8 bytes, or its words.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...]
    meaning: str = ""
    unit: str = ""
    pad: Any = 0
    text: Text | None = None
    ranked: bool = True

    @cached_property
    def shape(self) -> tuple[int | None, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def has_time(self) -> bool:
        """Whether its second axis is time, so that a scan gives one row per time step."""
        return len(self.axes) > 1 and self.axes[1].name == TIME

    def shape_of(self, rows: int, time: int | None) -> tuple[int | None, ...]:
        """The shape for a batch of `rows` rows and, where there is a time axis, `time` steps."""
        return (rows, time, *self.shape[2:]) if self.has_time else (rows, *self.shape[1:])

    def row(self) -> "Tensor":
        """The same tensor without its batch axis: what one client sends or gets."""
        return replace(self, axes=self.axes[1:])

    def __str__(self) -> str:
        """For people, such as `float32 [time, feature=1], sea-surface temperature in °C`."""
        meaning = f", {self.meaning}" if self.meaning else ""
        unit = f" in {self.unit}" if self.unit else ""
        shape = f"[{', '.join(map(str, self.axes))}]" if self.ranked else "of any shape"
        return f"{self.dtype} {shape}{meaning}{unit}"


@dataclass(frozen=True, slots=True)
class State:
    """One tensor of recurrent state: `input` takes it, `output` gives the next one; `shape` has no batch axis."""

    name: str
    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    initial: Any = 0.0  # a number, or a nested list of `shape`


@dataclass(frozen=True, eq=False)
class Signature:
    """One way to call the model, equal to itself only. `inputs` and `outputs` leave out states, lengths and masks.

    `name` is what the model server calls it. `lengths` is a scan's input. Of sequences, `length_inputs` and
    `mask_inputs` name the inputs that hold a ragged axis's lengths, int32 `[batch]`, and its mask, bool
    `[batch, axis]`; `bounds` are the inclusive upper bounds of an axis's buckets, where the model gives any;
    `scanning` is how they can run in chunks instead.
    """

    name: str
    kind: Kind
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    states: tuple[State, ...] = ()
    lengths: str | None = None
    batch_axis: BatchAxis = "promised"
    length_inputs: Mapping[str, str] = field(default_factory=dict)
    mask_inputs: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scanning: "Scanning | None" = None

    @cached_property
    def ragged_axes(self) -> tuple[Axis, ...]:
        """The axes along which rows may differ, in the order in which the inputs have them."""
        named = {axis.name: axis for tensor in self.inputs.values() for axis in tensor.axes if axis.ragged}
        return tuple(named.values())

    @cached_property
    def measures(self) -> Mapping[str, Tensor]:
        """The inputs that hold lengths and masks: a client may give them beside arrays that it has padded itself."""
        batch = Axis("batch")
        lengths = {name: Tensor(name, "int32", (batch,)) for name in self.length_inputs.values()}
        return lengths | {name: Tensor(name, "bool", (batch, Axis(axis))) for axis, name in self.mask_inputs.items()}

    def unlike_promised(self, outputs: Mapping[str, NDArray[Any]], rows: int, time: int | None) -> list[str]:
        """The outputs, new states included, that are missing or not as promised for a batch of this size.

        `rows` counts the batch's rows and `time` the time steps of a scan.
        """
        states = {state.output: ((rows, *state.shape), state.dtype) for state in self.states}
        visible = {name: (tensor.shape_of(rows, time), tensor.dtype) for name, tensor in self.outputs.items()}
        return [
            name
            for name, (shape, dtype) in (visible | states).items()
            if name not in outputs or not fits(outputs[name].shape, shape) or outputs[name].dtype != numpy_dtype(dtype)
        ]

    def __str__(self) -> str:
        """For people: what goes in and what comes out, axis by axis."""
        given = "; ".join(f"{tensor.name} {tensor}" for tensor in self.inputs.values())
        gotten = "; ".join(f"{tensor.name} {tensor}" for tensor in self.outputs.values())
        return f"takes {given} and gives {gotten}"


@dataclass(frozen=True, slots=True)
class Scanning:
    """Sequences may run in chunks of time steps: by `signature`, a scan that gives the same answers.

    `chunk` is how many time steps a chunk has: None: the gateway decides, and whether there are chunks at all.
    """

    signature: Signature
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """How an encoder-decoder generates: `encode` gives a row's first states, `decode` the logits of the next token.

    `input` is the int32 input of `decode` that takes the last token, `logits` its output `[batch, token]`; `start` is
    the first token, `end` the last one, `max_steps` the most that are generated; `tokens` is each token's text.
    """

    encode: Signature
    decode: Signature
    input: str
    logits: str
    start: int
    end: int
    max_steps: int
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Detector:
    """A served model that is called beside this one, with the same inputs: its two logits say whether a row is known.

    `known` is the place of "known" among them.
    """

    model: str
    known: int


@dataclass(frozen=True, slots=True)
class Recognition:
    """How a classifier answers "none of these": where its logits and its scores are, and what the logits mean.

    `logits` is the output of `signature`, `[batch, class]`, or `[batch, unit]` with a code book `codes`, a row of 0 and
    1 for each class. `classes` is the text of each known class, in the order of the logits; `other` the place of an
    extra class "none of these", the last one. `scores` are outputs `[batch]` of `scores_signature` by method, larger =
    stranger; that signature gives the logits too. `range` is the usual least and greatest value of the inputs.
    """

    signature: Signature
    logits: str
    classes: tuple[str, ...]
    scores_signature: Signature | None = None
    scores: Mapping[str, str] = field(default_factory=dict)
    other: int | None = None
    codes: tuple[tuple[int, ...], ...] | None = None
    detector: Detector | None = None
    range: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        """How many logits a row has."""
        return len(self.codes[0]) if self.codes else len(self.classes) + (self.other is not None)


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything the gateway knows about one model version's signatures. `document` is the JSON it was read from."""

    summary: str
    signatures: Mapping[str, Signature]
    document: Mapping[str, Any]
    generation: Generation | None = None
    recognition: Recognition | None = None
    step: Signature | None = field(init=False)
    scan: Signature | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", self._first("step"))
        object.__setattr__(self, "scan", self._first("scan"))

    @property
    def kinds(self) -> list[str]:
        """What a client can do with the model, in the API's words."""
        kinds = {signature.kind for signature in self.signatures.values()}
        offered = {
            "session": "step" in kinds,
            "sequences": "sequences" in kinds,
            "recognition": self.recognition is not None,
            "generation": self.generation is not None,
            "rows": "rows" in kinds,
        }
        return [kind for kind, is_offered in offered.items() if is_offered]

    def _first(self, kind: Kind) -> Signature | None:
        return next((signature for signature in self.signatures.values() if signature.kind == kind), None)
