"""An evaluation's result: metrics with intervals, and sections of tables and plots, which any report shows.

It does not know how they were found, nor how they are shown. All numbers are finite; what is undefined is None.
Everything but `run` is the same whenever the same is evaluated with batches of one shape.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Cell = str | int | float | bool | None
Better = Literal["higher", "lower", "neither"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Part):
    """One number, with the bounds of its confidence interval; `note` says why there is none, or what it is about."""

    value: float | None
    low: float | None = None
    high: float | None = None
    better: Better
    share: bool = False  # it is shown in percent
    unit: str = ""
    note: str = ""


class Table(_Part):
    kind: Literal["table"] = "table"
    title: str
    text: str = ""  # what it shows, in a sentence or two
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Lines(_Part):
    """Curves over a shared axis; with `diagonal`, where y = x is what is wanted, that is drawn, too."""

    kind: Literal["lines"] = "lines"
    title: str
    text: str = ""
    x: str
    y: str
    series: Mapping[str, tuple[tuple[float, float], ...]]
    diagonal: bool = False
    log_x: bool = False


class Bars(_Part):
    """Numbers by name, in order; of several series side by side; a histogram has the bins' middles as names."""

    kind: Literal["bars"] = "bars"
    title: str
    text: str = ""
    x: str
    y: str
    names: tuple[str, ...]
    series: Mapping[str, tuple[float | None, ...]]


class Matrix(_Part):
    """Counts of what is right (rows) and what was answered (columns)."""

    kind: Literal["matrix"] = "matrix"
    title: str
    text: str = ""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]


Section = Annotated[Table | Lines | Bars | Matrix, Field(discriminator="kind")]


class DataFacts(_Part):
    """What was measured on, exactly: `sha256` is that of the files' bytes, in order."""

    source: str
    sha256: str
    rows: int
    bytes: int


class Gate(_Part):
    """A condition under which the evaluation fails, what was found, and whether it holds, so that it failed."""

    text: str
    found: str
    failed: bool


class Comparison(_Part):
    """Paired, on the same rows: of each metric this version's value less the other's, with its interval."""

    version: int
    differences: Mapping[str, Metric]
    test: str  # the test's name and what it says, in a sentence
    p_value: float | None
    sections: tuple[Section, ...] = ()


class BatchSize(_Part):
    """Everything at one batch size. `differences` are over all rows: of any output, relative to max(1, |y|)."""

    batch_size: int
    metrics: Mapping[str, float | None]
    largest_difference: float
    changed_rows: tuple[int, ...] = ()  # whose answer flips, the first hundred of them


class Run(_Part):
    """What is different each time: when, how long, how fast, how much memory."""

    evaluation: str
    began_at: str
    seconds: float
    rows_per_s: float
    batch_sizes: tuple[Mapping[str, float | int | None], ...] = ()  # batch_size, rows_per_s, memory_bytes


class Document(_Part):
    model: str
    version: int
    summary: str
    task: str
    data: DataFacts
    spec: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    sections: tuple[Section, ...] = ()
    batch_sizes: tuple[BatchSize, ...] = ()
    comparison: Comparison | None = None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    run: Run

    @property
    def failed(self) -> bool:
        return any(gate.failed for gate in self.gates)
