"""What is asked for: the body of `POST /v1/evaluations`, which `sluice evaluate` fills in from its flags.

It does not know what data or models there are.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from sluice.wire.shown import as_json

WHOLE = "whole"  # batches of all rows
TaskName = Literal["classification", "regression", "forecasting", "sequences", "open_set"]
Version = Annotated[int, Field(ge=0, lt=2**63)]
SHA256 = "^[0-9a-fA-F]{64}$"
Name = Annotated[str, Field(min_length=1, max_length=255)]


def _batch_size(given: Any) -> Any:
    if given != WHOLE and (type(given) is not int or given < 1):
        raise ValueError(f'expected a whole number from 1, or "{WHOLE}"; got {as_json(given)}')
    return given


BatchSize = Annotated[PositiveInt | Literal["whole"], BeforeValidator(_batch_size)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(_Fields):
    """Where rows come from: a file or a folder of files under a data root, or an upload."""

    path: Name | None = Field(None, description="Name under a data root, or URL of an allowed protocol.")
    upload: Name | None = Field(None, description="Id that `POST /v1/evaluations/uploads` gave.")
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        None, description="SHA-256 that the files' bytes must have, in order; hexadecimal. Any other fails it."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.path is None) == (self.upload is None):
            raise ValueError("expected `path` or `upload`, one of them")
        return self


class Columns(_Fields):
    """Which columns of the data mean what, where they are not named as the inputs, `label`, `weight` and so on are."""

    inputs: Mapping[Name, Name] = Field({}, description="By input of the signature, its column.")
    label: Name = Field("label", description="What is right for the row.")
    weight: Name = Field("weight", description="How much the row counts, 0 or more; without the column: 1.")
    group: Name = Field("group", description="Slices: each of its values gets metrics of its own.")
    session: Name = Field("session", description="Rows of one value are, in their order, pieces of one sequence.")


class Options(_Fields):
    """What a task can be told beyond its data; a task refuses none that it does not use."""

    signature: Name = Field("serving_default", description="The signature whose outputs are judged.")
    output: Name | None = Field(None, description="The output that is judged, where the signature has several.")
    classes: tuple[str, ...] | None = Field(None, description="Names of the classes, in the order of the output.")
    top_k: PositiveInt = Field(3, description="Among how many likeliest classes the right one may be for top_k.")
    bins: Annotated[int, Field(ge=2, le=1000)] = Field(15, description="Bins of confidence, of equal width, for ECE.")
    period: PositiveInt | None = Field(None, description="Season of a series in time steps, for the seasonal naive.")
    horizon: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Time steps that are forecast free-running."
    )
    score: Name = Field("score", description="The signature that gives targets' log-probabilities, for perplexity.")
    method: Name | None = Field(None, description="Method of recognition; without it the calibration's.")
    recognition_level: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of known rows that may be rejected; without it the calibration's."
    )
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(1000, description="Resamples of the bootstrap.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Seed of the bootstrap.")


class Spec(_Fields):
    """One evaluation."""

    model: Name
    version: Version | None = Field(None, description="Without it and `label`: the newest one.")
    label: Name | None = None
    data: DataSource
    columns: Columns = Columns()
    task: TaskName
    metrics: tuple[Name, ...] | None = Field(None, description="Those to report; without it all of the task.")
    batch_size: PositiveInt | None = Field(None, description="Rows of a request; without it the evaluator chooses.")
    batch_sizes: tuple[BatchSize, ...] = Field(
        (), description="Everything is measured again at each of these batch sizes, exactly, and compared."
    )
    exact: bool = Field(False, description="Batches of one shape throughout, so that results are bit-identical.")
    compare_to: Version | None = Field(None, description="Version to compare with, on the same rows.")
    fail_if: tuple[Name, ...] = Field((), description="`accuracy < 0.97`, `accuracy drops > 0.5pt vs 3`.")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Of the confidence intervals.")
    options: Options = Options()

    @model_validator(mode="after")
    def _version_or_label(self) -> Self:
        if self.version is not None and self.label is not None:
            raise ValueError("expected `version` or `label`, got both")
        return self
