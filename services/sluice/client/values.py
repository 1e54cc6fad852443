"""What a client says and what it is told, whatever the transport: arrays and plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sluice.policy import recognition
from sluice.policy.contract import Signature
from sluice.policy.errors import BadRequest, ShapeMismatch, SluiceError
from sluice.policy.generation import Beam, Sampling
from sluice.policy.nested import unevenness

Array = NDArray[Any]
Column = Array | list[Array]  # rows of one shape, or each row's own array
Values = ArrayLike | Mapping[str, ArrayLike]
IfExists = Literal["error", "return", "restart"]
Kind = Literal["step", "scan"]
RecognizedRow = recognition.Recognized  # the answer for one row

BARE = ""  # the name of a value that came without one: it belongs to the model's only input


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as the gateway sees it; times are in UTC, `step` counts time steps, `state_bytes` is one state."""

    session: str
    model: str
    version: str
    step: int
    waiting: int
    opened_at: datetime
    last_used_at: datetime
    expires_at: datetime
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a model's sessions in order of id; `next` is what to give as `after`, or None if there are no more."""

    sessions: list[SessionView]
    next: str | None


@dataclass(frozen=True, slots=True)
class Columns:
    """What became of one time step of many sessions, by their order in the call.

    `outputs` are name → `[sessions, ...]`, zeros (or empty bytes) where a session has an error, and empty if all have;
    `steps` and `errors` hold None where there is the other.
    """

    outputs: dict[str, Array]
    steps: list[int | None]
    errors: list[SluiceError | None]


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is to be opened; what is None is the gateway's choice."""

    model: str
    session: str | None = None
    version: str | None = None
    label: str | None = None
    state: Mapping[str, Array] | None = None
    ttl_s: float | None = None
    if_exists: IfExists = "error"


@dataclass(frozen=True, slots=True)
class Opened:
    session: str
    model: str
    version: str
    step: int


@dataclass(frozen=True, slots=True)
class Call:
    """A step or a scan; `inputs` without a batch axis, `step` None for a call without a number, no `outputs` for all.

    Model and version are the session's own.
    """

    session: str
    model: str
    version: str
    inputs: Mapping[str, Array]
    step: int | None
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class ManyCall:
    """One time step of many sessions of a model; `inputs` are `[sessions, ...]`."""

    model: str
    sessions: Sequence[str]
    versions: Sequence[str]
    inputs: Mapping[str, Array]
    steps: Sequence[int | None]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model in the newest version, unless `version` or `label` names one."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version of a model; `state` is the model server's word, AVAILABLE where it can be called."""

    version: int
    state: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is served; `kinds` say what it can be asked: session, sequences, recognition, generation, rows."""

    name: str
    versions: list[ServedVersion]
    kinds: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class AxisBuckets:
    """The buckets of a ragged axis: increasing, inclusive bounds; the last is the longest sequence accepted.

    `learned` says whether they follow the lengths that come; `lengths` are how often each came, those of late count 1,
    older ones less.
    """

    bounds: tuple[int, ...]
    learned: bool
    lengths: dict[int, float]


@dataclass(frozen=True, slots=True)
class Buckets:
    """To what lengths a model version's sequences are padded: signature → axis → buckets.

    `chunks` are, by signature, the time steps of the chunks in which its sequences run now; 0: whole, in buckets.
    """

    model: str
    version: int
    signatures: dict[str, dict[str, AxisBuckets]]
    chunks: dict[str, int]


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """A file of the gateway's folder of calibrations: its status, and the reason where it is not in use."""

    file: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class PredictCall:
    """A call of a model's signature; `inputs` are as it takes them, no `outputs` for all.

    Of sequences, inputs are arrays, or all of them lists with each row's array.
    """

    spec: ModelSpec
    signature: Signature
    inputs: Mapping[str, Column]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class RecognizeCall:
    """Rows for a classifier; `inputs` are `[rows, ...]`, and what is None is the calibration's or the gateway's."""

    spec: ModelSpec
    inputs: Mapping[str, Array]
    method: str | None = None
    level: float | None = None
    top_k: int | None = None
    sets: bool = False


@dataclass(frozen=True, slots=True)
class Recognized:
    """The answer for some rows, in `results` in their order, each a class or unknown.

    `level` is the share of known rows that may be rejected; `threshold` is the score above which a row is unknown, None
    if each row has its own.
    """

    model: str
    version: str
    method: str
    level: float
    threshold: float | None
    results: list[RecognizedRow]


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """Instances for a model that writes sequences, by input name one array each; what is None is the model's."""

    spec: ModelSpec
    inputs: Mapping[str, Sequence[Array]]
    max_steps: int | None = None
    beam: Beam | None = None
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """A sequence that was generated: its text, and its tokens where they have no texts or another's text is the same.

    `score` is its log probability, of beams with their length penalty; `finished` is "end", or "length" where the limit
    of steps cut it.
    """

    text: str
    tokens: tuple[int, ...]
    score: float
    steps: int
    finished: str


Results = list[list[Generated]]  # each instance's sequences, the best first


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the instance `index` is certain; `step` counts from 0, `text` is empty where tokens have no texts."""

    index: int
    step: int
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The instance `index` is done: its sequences, the best first, or the error for which there are none."""

    index: int
    sequences: list[Generated]
    error: SluiceError | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs without a batch axis, and the number of time steps done with them."""

    outputs: dict[str, Array]
    step: int
    replayed: bool = False


def arrays_of(values: Values) -> dict[str, Array]:
    """Own arrays of what a caller gave, so that a repeat sends the same even if the caller changes his.

    Raises:
        ShapeMismatch: lists of different lengths.
    """
    return {name: array_of(value, input_word(name)) for name, value in by_name(values).items()}


def by_name(values: Values) -> Mapping[str, Any]:
    """What a caller gave, by input name.

    Raises:
        BadRequest: it is rows as REST has them, each with its inputs by name.
    """
    if isinstance(values, Mapping):
        return values
    if isinstance(values, list | tuple) and values and isinstance(values[0], dict):
        columns = ", ".join(f"{name!r}: [rows…]" for name in values[0])
        raise BadRequest(f"Give one dict of arrays, {{{columns:.200}}}, not a list of dicts.")
    return {BARE: values}


def input_word(name: str) -> str:
    """An input at the beginning of a sentence; the only one may have come without its name."""
    return "The input" if name == BARE else f"Input {name!r}"


def array_of(value: ArrayLike, what: str = "A value") -> Array:
    """A new array of what a caller gave, in this machine's byte order; text and whole numbers of 64 bits are kept.

    Raises:
        ShapeMismatch: lists of different lengths; it begins with `what`.
        BadRequest: something that numpy makes no array of, such as a generator or a set.
    """
    try:
        array = np.array(value)
        if array.dtype.hasobject and not array.ndim and not isinstance(value, int | bytes | np.ndarray | None):
            raise BadRequest(f"{what} takes an array, or lists; got {value!r:.80}. Give list(…) of it.")
    except UnicodeDecodeError:  # text beside bytes
        return np.array(value, object)
    except ValueError:
        differing = unevenness(value, "part") or "its parts differ in shape"
        raise ShapeMismatch(f"{what} takes lists of one length; {differing}.") from None
    if isinstance(value, np.ndarray) or array.dtype.kind not in "SUf":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":  # which numpy takes for whole numbers on both sides of 2**63
        return _whole(value, array) if (array >= _BEYOND_INT64).any() else array
    texts = np.array(value, object)  # numpy's own arrays of text lose zeros at the end
    return texts if is_text(texts) else array


def is_text(objects: Array) -> bool:
    return all(isinstance(each, str | bytes) for each in objects.ravel())


def _whole(value: ArrayLike, array: Array) -> Array:
    exact = np.array(value, object)
    whole = all(isinstance(each, int) and 0 <= each <= _UINT64_MAX for each in exact.ravel())
    return exact.astype(np.uint64) if whole else array


_BEYOND_INT64, _UINT64_MAX = 1 << 63, (1 << 64) - 1
