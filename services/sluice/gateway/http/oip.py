"""The Open Inference Protocol's paths that FastAPI answers: health, what the server and its models are."""

from importlib.metadata import version as installed
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sluice.gateway.core.oip import EXTENSIONS, PLATFORM, Inference, described, signature_of
from sluice.gateway.http.rest import ModelName
from sluice.wire.rest_paths import read_version

NAME = "sluice"


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any size.")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="Those that can be called.")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerHealth(BaseModel):
    live: bool | None = None
    ready: bool | None = None


class ModelHealth(BaseModel):
    name: str
    ready: bool


class ModelState(BaseModel):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class IndexOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    ready: bool = Field(False, description="Only models that can be called.")


def inference_of(request: Request) -> Inference:
    inference: Inference = request.app.state.calls.inference
    return inference


Here = Annotated[Inference, Depends(inference_of)]
ModelVersion = Annotated[str, Path(description="The model's version.", examples=["1"], pattern="^[0-9]{1,19}$")]
router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_MODEL = "/models/{model:model_name}"
_VERSION = _MODEL + "/versions/{version}"


@router.get("/health/live")
async def oip_live() -> ServerHealth:
    """The process lives."""
    return ServerHealth(live=True)


@router.get("/health/ready", responses={503: {"model": ServerHealth}})
async def oip_ready(here: Here, response: Response) -> ServerHealth:
    """Whether requests can be answered: the model server is there with its models."""
    response.status_code = 200 if here.ready else 503
    return ServerHealth(ready=here.ready)


@router.get("")
async def oip_server() -> ServerMetadata:
    """What this server is."""
    return server_metadata()


@router.get(_MODEL)
async def oip_model(here: Here, model: ModelName) -> ModelMetadata:
    """What a model takes and gives: a step of its sequences if it has them, else its default signature."""
    return await model_metadata(here, model, "")


@router.get(_VERSION)
async def oip_model_version(here: Here, model: ModelName, version: ModelVersion) -> ModelMetadata:
    """What a version of a model takes and gives."""
    return await model_metadata(here, model, version)


@router.get(_MODEL + "/ready", responses={503: {"model": ModelHealth}})
async def oip_model_ready(here: Here, response: Response, model: ModelName) -> ModelHealth:
    """Whether a model can be called."""
    return await model_health(here, response, model, "")


@router.get(_VERSION + "/ready", responses={503: {"model": ModelHealth}})
async def oip_model_version_ready(
    here: Here, response: Response, model: ModelName, version: ModelVersion
) -> ModelHealth:
    """Whether a version of a model can be called."""
    return await model_health(here, response, model, version)


@router.post("/repository/index")
async def oip_index(here: Here, options: IndexOptions | None = None) -> list[ModelState]:
    """The versions of all models that are known."""
    return repository_index(here, ready=options is not None and options.ready)


def server_metadata() -> ServerMetadata:
    return ServerMetadata(name=NAME, version=installed("sluice-serving"), extensions=list(EXTENSIONS))


async def model_health(here: Inference, response: Response, model: str, version: str) -> ModelHealth:
    """Raises: ModelNotFound, VersionNotFound."""
    ready = await here.is_ready(model, read_version(version))
    response.status_code = 200 if ready else 503
    return ModelHealth(name=model, ready=ready)


async def model_metadata(here: Inference, model: str, version: str) -> ModelMetadata:
    """Raises: ModelNotFound, VersionNotFound, BackendUnavailable."""
    served = await here.served(model, read_version(version))
    signature = signature_of(served)
    inputs, outputs = (signature.inputs, signature.outputs) if signature else ({}, {})
    return ModelMetadata(
        name=model, versions=here.versions(model), platform=PLATFORM,
        inputs=_tensors(inputs), outputs=_tensors(outputs),
    )  # fmt: skip


def repository_index(here: Inference, *, ready: bool) -> list[ModelState]:
    found = []
    for model in here.models():
        for status in model.statuses:
            usable = status.version in model.served
            if usable or not ready:
                state: Any = "READY" if usable else "UNAVAILABLE"
                reason = "" if usable else f"{status.state} {status.error}".strip()
                found.append(ModelState(name=model.name, version=str(status.version), state=state, reason=reason))
    return found


def _tensors(tensors: Any) -> list[TensorMetadata]:
    return [TensorMetadata(name=name, datatype=kind, shape=shape) for name, kind, shape in described(tensors)]
