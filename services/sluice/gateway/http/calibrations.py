"""The calibrations over HTTP: what is in use for a model, and looking at the folder now.

It knows fields; what a calibration decides is not its business.
"""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sluice.gateway.core.calibrations import CalibrationFile
from sluice.gateway.http.rest import Asked, Here, ModelName, Version, spec_of
from sluice.policy.errors import BadRequest, NotCalibrated
from sluice.policy.recognition import Calibrated, Calibration, threshold_of

router = APIRouter()


class FileInfo(BaseModel):
    """A file of the folder: in use, waiting until its version is served, or refused; and why."""

    file: str
    status: Literal["in use", "waiting", "refused"]
    reason: str | None
    model: str | None
    version: str | None


class MethodInfo(BaseModel):
    rows: int = Field(description="Held-out known rows that it was calibrated with.")
    threshold: float | None = Field(description="At the calibration's level; null where each class has its own.")
    least_level: float = Field(description="The least level that so many rows allow.")


class CalibrationInfo(BaseModel):
    file: str
    made_at: str
    level: float = Field(description="The share of known rows that may be rejected where a request does not say.")
    rows: int
    sha256: str = Field(description="Of the data.")
    default_method: str
    temperature: float
    sets: bool = Field(description="Whether it allows prediction sets.")
    methods: dict[str, MethodInfo]


class ModelCalibration(BaseModel):
    model: str
    version: str
    calibration: CalibrationInfo | None = Field(description="What `:recognize` decides by; null: there is none.")
    reason: str | None = Field(description="Why there is none.")
    files: list[FileInfo] = Field(description="The files for this model, whatever the version.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "digits",
                    "version": "1",
                    "calibration": {
                        "file": "digits-1.json",
                        "made_at": "2026-11-26T05:00:00Z",
                        "level": 0.05,
                        "rows": 300,
                        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                        "default_method": "knn",
                        "temperature": 1.3,
                        "sets": True,
                        "methods": {"knn": {"rows": 300, "threshold": 0.31, "least_level": 0.0033}},
                    },
                    "reason": None,
                    "files": [
                        {
                            "file": "digits-1.json",
                            "status": "in use",
                            "reason": None,
                            "model": "digits",
                            "version": "1",
                        }
                    ],
                }
            ]
        }
    )


class Reloaded(BaseModel):
    folder: str | None = Field(description="The setting `calibrations`.")
    reason: str | None = Field(description="Why the folder cannot be looked at.")
    files: list[FileInfo]


@router.post("/v1/calibrations:reload", summary="Look for new calibrations now", tags=["recognition"])
async def reload_calibrations(gateway: Here) -> Reloaded:
    """Look at the folder of calibrations now. A file that cannot be used changes nothing; it says why."""
    calibrations = gateway.calibrations
    await calibrations.reload()
    return Reloaded(
        folder=None if calibrations.folder is None else str(calibrations.folder),
        reason=calibrations.trouble or None,
        files=list(map(_file, calibrations.files())),
    )


@router.get(
    "/v1/models/{model:model_name}/calibration", summary="Show by what a model recognizes", tags=["recognition"]
)
async def get_calibration(gateway: Here, terms: Asked, model: ModelName, version: Version = None) -> ModelCalibration:
    """What a model version's rows are recognized by, and what came of the files that are for the model."""
    served = await gateway.resolver.find(spec_of(model, version), terms.deadline)
    served.recognition()
    reason = found = None
    try:
        found = _calibration(gateway.calibrations.of(served))
    except NotCalibrated as error:
        reason = error.message
    return ModelCalibration(
        model=served.model,
        version=str(served.version),
        calibration=found,
        reason=reason,
        files=list(map(_file, gateway.calibrations.files(model))),
    )


def _file(file: CalibrationFile) -> FileInfo:
    version = None if file.version is None else str(file.version)
    return FileInfo(file=file.file, status=file.status, reason=file.reason or None, model=file.model, version=version)


def _calibration(calibration: Calibration) -> CalibrationInfo:
    return CalibrationInfo(
        file=f"{calibration.model}-{calibration.version}.json",
        made_at=calibration.made_at,
        level=calibration.level,
        rows=calibration.rows,
        sha256=calibration.checksum,
        default_method=calibration.default_method,
        temperature=calibration.temperature,
        sets=calibration.set_scores is not None,
        methods={name: _method(calibration, name, each) for name, each in calibration.methods.items()},
    )


def _method(calibration: Calibration, name: str, calibrated: Calibrated) -> MethodInfo:
    fewest = min(map(len, (calibrated.by_class or {"": calibrated.scores}).values()))
    try:
        threshold = threshold_of(calibration, name, calibration.level)
    except BadRequest:  # too few rows for the level
        threshold = None
    return MethodInfo(rows=len(calibrated.scores), threshold=threshold, least_level=1 / (fewest + 1))
