"""What a task is: rows and a way to ask in, values for each row out; and metrics of the values of all rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from sluice.client import AsyncSession
from sluice.data import Column, Rows
from sluice.evaluator.document import Better, Metric, Section
from sluice.policy.contract import Contract, Signature

Array = NDArray[Any]
Values = Mapping[str, Array]  # name → `[rows, ...]`, of one dtype each, in the order of the rows


class Subject(NamedTuple):
    """The model version that is evaluated, as its contract and its metadata describe it."""

    model: str
    version: int
    contract: Contract | None
    signatures: Mapping[str, Signature]


class Asked(Protocol):
    """The way to the model: rows in requests of the batch size, answers in the order of the rows."""

    async def predict(
        self, inputs: Mapping[str, Column], outputs: Sequence[str], signature: str
    ) -> Mapping[str, Column]:
        """Output name → `[rows, ...]`, or each row's array where these differ in length."""

    async def recognize(self, inputs: Mapping[str, Column], method: str | None, level: float | None) -> Sequence[Any]:
        """A `sluice.client.RecognizedRow` for each row."""

    async def session(self) -> AsyncSession:
        """A new session at time step 0; whoever asks for it closes it."""


MetricOf = Callable[[Values], float]


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric as a function of the values of any rows, with `weight` among them: so it can be resampled.

    It gives NaN where it is undefined for these rows (`undefined`, or what it gives for their values, then says what is
    missing).
    """

    of: MetricOf
    better: Better
    share: bool = False
    unit: str = ""
    undefined: str | Callable[[Values], str] = ""

    def missing(self, values: Values) -> str:
        """Why it is undefined for these rows."""
        return self.undefined if isinstance(self.undefined, str) else self.undefined(values)


class Task(Protocol):
    """One task for one subject, made by `task_for`; pure but for what it asks."""

    measures: Mapping[str, Measure]  # by name, in the order in which they are reported
    whole_sessions: bool  # a part of the data set holds whole sessions, each row's `sessions` is given
    stateless: str  # prefix of what is of rows by themselves, beside what is of rows whose state is carried over
    judged: str  # which of the values, float32 `[rows, ...]`, is compared over batch sizes; "" if none
    answered: str  # which of the values, `[rows]`, says what was answered, so that flips are found; "" if none
    tested: str  # which of the values, `[rows]`, versions are compared in: bool, right or not, or float, an error

    async def prepare(self, rows: Rows, asked: Asked) -> None:
        """Find out by the first rows what only answers tell; once, ahead of all values.

        Raises:
            BadRequest: the answers are not as the task takes them.
        """

    async def values(self, rows: Rows, asked: Asked) -> Values:
        """The rows' values, `weight` not among them.

        Raises:
            BadRequest: labels are not as the task takes them; names the row's place.
        """

    def sections(self, values: Values, metrics: Mapping[str, Metric]) -> Sequence[Section]:
        """Tables and plots of the task's own, from the values of all rows, with `weight`, and `group` as text."""

    def notes(self, values: Values) -> Sequence[str]:
        """What a reader of the metrics must know besides, in sentences."""
