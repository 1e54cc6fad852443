"""What answers look like: their fields, and how an evaluation is shown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sluice.evaluator.document import Metric
from sluice.evaluator.jobs.life_cycle import Status
from sluice.evaluator.jobs.tables import Evaluation
from sluice.evaluator.progress import Progress

_ID = "4f7a1c09d2b3e856"


class Asked(BaseModel):
    evaluation: str = Field(description="Its id.")
    status: Status

    model_config = ConfigDict(json_schema_extra={"examples": [{"evaluation": _ID, "status": "queued"}]})


class EvaluationInfo(BaseModel):
    evaluation: str = Field(description="Its id.")
    model: str
    version: int | None = Field(None, description="As it was asked for.")
    label: str | None = Field(None, description="As it was asked for.")
    task: str
    status: Status
    reason: str | None = Field(None, description="Why it is paused, or has failed.")
    rows_done: int = Field(description="Of all runs: those at other batch sizes and of another version, too.")
    rows: int | None = Field(description="null until the data has been looked at.")
    rows_per_s: float | None = Field(description="null until rows have been evaluated.")
    eta_s: float | None = Field(description="How long it will still take, in seconds, while it runs.")
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    failed: bool | None = Field(None, description="Whether a condition of `fail_if` was met; the report says which.")
    metrics: dict[str, Metric] | None = Field(None, description="When it is done, by name.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "evaluation": _ID, "model": "digits", "task": "classification", "status": "running",
                    "rows_done": 4096, "rows": 10000, "rows_per_s": 812.5, "eta_s": 7.3,
                    "created_at": "2026-03-01T12:00:00Z", "started_at": "2026-03-01T12:00:01Z",
                }
            ]
        }
    )  # fmt: skip


class EvaluationList(BaseModel):
    evaluations: list[EvaluationInfo]
    next: str | None = Field(None, description="Give it as `after` for the next ones; absent: these are the last.")


class UploadInfo(BaseModel):
    upload: str = Field(description="Its id, for `data`.")
    bytes: int
    sha256: str = Field(description="Of the file, hexadecimal.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"upload": "9b0d6a1e7c5f4320", "bytes": 31337, "sha256": "e3b0c442…"}]}
    )


class Readiness(BaseModel):
    status: str
    reason: str | None = None
    gateway: str
    evaluations: dict[str, int] = Field(description="How many there are, by status.")


class ErrorInfo(BaseModel):
    """What every error looks like."""

    error: str = Field(description="What was expected, what came, and what to do.")
    code: str
    details: dict[str, Any] | None = None


def shown(found: Evaluation, progress: Progress | None, document: Mapping[str, Any] | None = None) -> EvaluationInfo:
    """An evaluation, with how far it is if it runs, and what came of it if that is wanted."""
    spec, running = found.spec, progress if found.status == Status.RUNNING else None
    times = {"started_at": found.started_at, "finished_at": found.finished_at}
    optional = {name: spec[name] for name in ("version", "label")} | {"reason": found.reason}
    optional |= {name: written(time) for name, time in times.items() if time is not None}
    if document is not None:
        optional |= {
            "metrics": {name: Metric.model_validate(each) for name, each in document["metrics"].items()},
            "failed": any(gate["failed"] for gate in document["gates"]),
        }
    return EvaluationInfo(
        evaluation=found.id,
        model=found.model,
        task=spec["task"],
        status=Status(found.status),
        rows_done=running.rows_done if running else found.rows_done,
        rows=running.rows if running else found.rows,
        rows_per_s=running.rows_per_s if running else found.rows_per_s,
        eta_s=running.eta_s if running else None,
        created_at=written(found.created_at),
        **{name: value for name, value in optional.items() if value is not None},
    )


def written(time: float) -> str:
    """Seconds since 1970 as RFC 3339 has it."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
