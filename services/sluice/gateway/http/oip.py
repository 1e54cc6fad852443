"""The Open Inference Protocol's paths that FastAPI answers: health, what the server and its models are."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sluice.gateway.core.oip import Inference, server_metadata
from sluice.gateway.core.pending import Terms
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.http.body import VERSION
from sluice.gateway.http.rest import Asked, ModelName
from sluice.wire.rest_paths import read_version


class Attributes(BaseModel):
    """Made of a value of the core that has attributes of these names."""

    model_config = ConfigDict(from_attributes=True)


class ServerMetadata(Attributes):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Attributes):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any size.")


class ModelMetadata(Attributes):
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


class ModelState(Attributes):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class IndexOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    ready: bool | None = Field(None, description="Only models that can be called.")


def inference_of(request: Request) -> Inference:
    inference: Inference = request.app.state.calls.inference
    return inference


Here = Annotated[Inference, Depends(inference_of)]
ModelVersion = Annotated[str, Path(description="The model's version.", examples=["1"], pattern=VERSION)]
router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_MODEL = "/models/{model:model_name}"
_VERSION = _MODEL + "/versions/{version}"


@router.get("/health/live", summary="Whether the server lives")
async def oip_live() -> ServerHealth:
    """The process lives."""
    return ServerHealth(live=True)


@router.get("/health/ready", summary="Whether the server is ready", responses={503: {"model": ServerHealth}})
async def oip_ready(here: Here, response: Response) -> ServerHealth:
    """Whether requests can be answered: the model server is there with its models."""
    response.status_code = 200 if here.ready else 503
    return ServerHealth(ready=here.ready)


@router.get("", summary="What the server is")
async def oip_server() -> ServerMetadata:
    """What this server is."""
    return ServerMetadata.model_validate(server_metadata())


@router.get(_MODEL, summary="What a model takes and gives")
async def oip_model(here: Here, terms: Asked, model: ModelName) -> ModelMetadata:
    """What a model takes and gives: a step of its sequences if it has them, else its default signature."""
    return await _metadata(here, terms, model)


@router.get(_VERSION, summary="What a model takes and gives")
async def oip_model_version(here: Here, terms: Asked, model: ModelName, version: ModelVersion) -> ModelMetadata:
    """What a version of a model takes and gives."""
    return await _metadata(here, terms, model, version)


@router.get(_MODEL + "/ready", summary="Whether a model is ready", responses={503: {"model": ModelHealth}})
async def oip_model_ready(here: Here, terms: Asked, response: Response, model: ModelName) -> ModelHealth:
    """Whether a model can be called."""
    return await _model_health(here, terms, response, model)


@router.get(_VERSION + "/ready", summary="Whether a model is ready", responses={503: {"model": ModelHealth}})
async def oip_model_version_ready(
    here: Here, terms: Asked, response: Response, model: ModelName, version: ModelVersion
) -> ModelHealth:
    """Whether a version of a model can be called."""
    return await _model_health(here, terms, response, model, version)


@router.post("/repository/index", summary="List all versions of all models")
async def oip_index(here: Here, options: IndexOptions | None = None) -> list[ModelState]:
    """The versions of all models that are known."""
    ready = options is not None and bool(options.ready)
    return [ModelState.model_validate(each) for each in here.index(ready=ready)]


async def _model_health(
    here: Inference, terms: Terms, response: Response, model: str, version: str = ""
) -> ModelHealth:
    ready = await here.is_ready(ModelSpec(model, read_version(version)), terms.deadline)
    response.status_code = 200 if ready else 503
    return ModelHealth(name=model, ready=ready)


async def _metadata(here: Inference, terms: Terms, model: str, version: str = "") -> ModelMetadata:
    found = await here.metadata(ModelSpec(model, read_version(version)), terms.deadline)
    return ModelMetadata.model_validate(found)
