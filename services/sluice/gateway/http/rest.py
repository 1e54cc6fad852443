"""The HTTP paths that FastAPI answers about sessions, other than their steps, and about models."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor

from sluice.gateway.core.buckets import Buckets
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.pending import Terms
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.core.sessions import SESSION_ID, IfExists, SessionView
from sluice.gateway.http.body import ID, LABEL, VERSION, Body, OrNull
from sluice.gateway.http.headers import check_session_header, read_headers
from sluice.gateway.http.websocket import serve_socket
from sluice.policy.batch import PRIORITIES
from sluice.wire.rest_paths import read_version


class _SessionIdConvertor(Convertor[str]):
    regex = SESSION_ID

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _ModelConvertor(_SessionIdConvertor):
    regex = "[^/:]+"


register_url_convertor("session_id", _SessionIdConvertor())
register_url_convertor("model_name", _ModelConvertor())


class OpenSession(Body):
    session: str | None = Field(None, pattern=ID, description="Your own id; without it one is made.")
    version: str | None = Field(None, pattern=VERSION, description="Model version to stay on; without it the newest.")
    label: str | None = Field(
        None, pattern=LABEL, description="Label of the version to stay on, where the model server has labels."
    )
    state: dict[str, Any] | None = Field(
        None, description="Initial state, name → row; states left out begin as the contract says."
    )
    ttl_s: float | None = Field(None, description="How long the session may be idle, in seconds.")
    if_exists: OrNull[IfExists] = Field(
        "error",
        description="If a session of this id is open: refuse, give it as it is (200), or close it and begin again.",
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"session": "station-7", "ttl_s": 600.0}, {}]})


class ForkSession(Body):
    session: str | None = Field(None, pattern=ID, description="The new session's id, or one is made.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"session": "station-7-what-if"}, {}]})


class RenewSession(Body):
    ttl_s: float | None = Field(None, description="How long the session may be idle from now on, in seconds.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"ttl_s": 3600.0}]})


class OpenedSession(BaseModel):
    session: str
    model: str
    version: str
    step: int
    expires_at: str


class SessionList(BaseModel):
    sessions: list[SessionView]
    next: str | None = None


class VersionInfo(BaseModel):
    version: str
    state: str
    labels: list[str]


class ModelInfo(BaseModel):
    name: str
    versions: list[VersionInfo]
    kinds: list[str]
    summary: str


class ModelList(BaseModel):
    models: list[ModelInfo]


class ContractInfo(BaseModel):
    contract: dict[str, Any] | None = Field(description="As the model wrote it; null for a plain SavedModel.")
    shapes: dict[str, str] = Field(description="What each signature takes and gives, in words.")


class AxisBuckets(BaseModel):
    bounds: list[int] = Field(description="Increasing and inclusive; the last is the longest sequence accepted.")
    learned: bool = Field(description="Whether they follow the lengths that come; else they are given, and stay.")
    lengths: dict[str, float] = Field(
        description="How often each length came: those of late count 1, older ones less; many are rounded up."
    )


class BucketsInfo(BaseModel):
    model: str
    version: str
    signatures: dict[str, dict[str, AxisBuckets]] = Field(
        description="By signature and ragged axis; without those that pad nothing."
    )
    chunks: dict[str, int] = Field(
        description="By signature: time steps of the chunks in which its sequences run now; 0: whole, in buckets."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "temperature",
                    "version": "1",
                    "signatures": {
                        "serving_default": {
                            "time": {"bounds": [16, 64, 2048], "learned": True, "lengths": {"12": 34.0, "60": 2.5}}
                        }
                    },
                    "chunks": {"serving_default": 0},
                }
            ]
        }
    )


class ErrorInfo(BaseModel):
    """What every error looks like."""

    error: str = Field(description="What was expected, what came, and what to do.")
    code: str
    details: dict[str, Any] | None = None


def gateway_of(request: Request) -> Gateway:
    if session := request.path_params.get("session"):
        check_session_header(request.headers.get("sluice-session"), session)
    gateway: Gateway = request.app.state.gateway
    return gateway


# As the OpenAPI page shows them; they are read from the request's own header fields.
TIMEOUT = Header(
    alias="Sluice-Timeout-Ms",
    description="Whole milliseconds from arrival; the answer is 504 after it.",
    json_schema_extra={"type": "integer", "minimum": 1, "maximum": 999_999_999},
)
PRIORITY = Header(
    alias="Sluice-Priority",
    description="Which request goes first where requests wait for one model.",
    json_schema_extra={"type": "string", "enum": list(PRIORITIES), "default": "normal"},
)
# Where a call's rows run in one batch.
BATCH = Header(
    alias="Sluice-Batch",
    description="exact: the rows run as a batch of their own, of exactly their size; else they share batches.",
    json_schema_extra={"type": "string", "enum": ["exact"]},
)


def terms_of(
    request: Request, _timeout: Annotated[Any, TIMEOUT] = None, _priority: Annotated[Any, PRIORITY] = None
) -> Terms:
    """Until when the client wants its answer, and how urgently."""
    said, gateway = read_headers(request.headers.raw), gateway_of(request)
    return gateway.terms(said.timeout_s, said.priority_s, said.exact)


Here = Annotated[Gateway, Depends(gateway_of)]
Asked = Annotated[Terms, Depends(terms_of)]
SessionId = Annotated[str, Path(pattern=ID, description="The session's id.", examples=["station-7"])]
ModelName = Annotated[str, Path(description="The model's name.", examples=["temperature"])]
Version = Annotated[str | None, Query(pattern=VERSION, description="Model version; without it the newest.")]
router = APIRouter()
_SESSION = "/v1/sessions/{session:session_id}"
_MODEL = "/v1/models/{model:model_name}"
_BYTES = "application/octet-stream"


def spec_of(model: str, version: str | None, label: str | None = None) -> ModelSpec:
    return ModelSpec(model, read_version(version or ""), label)


def _about(session: SessionView) -> dict[str, str]:
    return {"Sluice-Session": session.session}


def _opened(view: SessionView, *, opened: bool) -> JSONResponse:
    content = OpenedSession.model_validate(view, from_attributes=True)
    return JSONResponse(content.model_dump(), 201 if opened else 200, _about(view))


@router.post(
    _MODEL + "/sessions", summary="Open a session", tags=["sessions"], status_code=201, response_model=OpenedSession,
    responses={200: {"model": OpenedSession, "description": "It was open, and `if_exists` is `return`."}},
)  # fmt: skip
async def open_session(gateway: Here, terms: Asked, model: ModelName, body: OpenSession | None = None) -> JSONResponse:
    """Open a session: one client's recurrent state on one model version, at time step 0."""
    body = body or OpenSession()
    view, opened = await gateway.sessions.open(
        spec_of(model, body.version, body.label),
        terms.deadline,
        id=body.session,
        state=body.state,
        ttl_s=body.ttl_s,
        if_exists=body.if_exists,
    )
    return _opened(view, opened=opened)


@router.get(
    _MODEL + "/sessions", summary="List a model's sessions", tags=["sessions"], response_model_exclude_none=True
)
async def list_sessions(
    gateway: Here,
    terms: Asked,
    model: ModelName,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    after: Annotated[str, Query(max_length=128, description="Begin behind this id.")] = "",
) -> SessionList:
    """The open sessions of a model, in order of id."""
    await gateway.resolver.find(ModelSpec(model), terms.deadline)
    sessions, following = gateway.sessions.list(model, after, limit)
    return SessionList(sessions=list(sessions), next=following)


@router.get(_SESSION, summary="Look at a session", tags=["sessions"])
async def get_session(gateway: Here, session: SessionId, response: Response) -> SessionView:
    """One session: where it is, what waits, and when it expires."""
    view = gateway.sessions.view(gateway.sessions.get(session))
    response.headers.update(_about(view))
    return view


@router.post(_SESSION + ":renew", summary="Keep a session longer", tags=["sessions"])
async def renew_session(
    gateway: Here, session: SessionId, response: Response, body: RenewSession | None = None
) -> SessionView:
    """Count a session as used now, and change how long it may be idle."""
    view = gateway.sessions.renew(session, body.ttl_s if body else None)
    response.headers.update(_about(view))
    return view


@router.post(
    _SESSION + ":fork", summary="Copy a session", tags=["sessions"], status_code=201, response_model=OpenedSession
)
async def fork_session(gateway: Here, session: SessionId, body: ForkSession | None = None) -> JSONResponse:
    """Open a new session with a copy of this one's state and time step."""
    return _opened(gateway.sessions.fork(session, body.session if body else None), opened=True)


@router.get(
    _SESSION + "/state", summary="Save a session's state", tags=["sessions"], response_class=Response,
    responses={200: {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def get_state(gateway: Here, session: SessionId) -> Response:
    """The session's state and time step as bytes, to be kept and put back later, here or on another gateway."""
    return Response(gateway.sessions.save(session), media_type=_BYTES, headers={"Sluice-Session": session})


@router.put(
    _SESSION + "/state", summary="Put a state back", tags=["sessions"], status_code=201, response_model=OpenedSession,
    responses={200: {"model": OpenedSession, "description": "It was open, and its state has been replaced."}},
    openapi_extra={
        "requestBody": {"required": True, "content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}
    },
)  # fmt: skip
async def put_state(gateway: Here, terms: Asked, session: SessionId, request: Request) -> JSONResponse:
    """Put a saved state back: into the session if it is open, else into a new one of this id."""
    view, opened = await gateway.sessions.restore(session, await request.body(), terms.deadline)
    return _opened(view, opened=opened)


@router.websocket(_SESSION + "/stream")
async def stream(socket: WebSocket, session: str) -> None:
    """Steps of one session over a WebSocket."""
    await serve_socket(socket, session)


@router.delete(_SESSION, summary="Close a session", tags=["sessions"], status_code=204)
async def close_session(gateway: Here, session: SessionId) -> Response:
    """Close a session. Steps that wait or run are told `session_closed`."""
    gateway.sessions.close(session)
    return Response(status_code=204, headers={"Sluice-Session": session})


@router.get("/v1/models", summary="List the models", tags=["models"])
async def list_models(gateway: Here) -> ModelList:
    """The models that are served, and what each can do."""
    return ModelList(
        models=[
            ModelInfo(
                name=model.name,
                versions=[
                    VersionInfo(version=str(each.version), state=each.state, labels=model.labels_of(each.version))
                    for each in model.statuses
                ],
                kinds=model.newest.kinds if model.newest else [],
                summary=model.newest.summary if model.newest else "",
            )
            for model in gateway.catalog.listed()
        ]
    )


@router.get(_MODEL + "/contract", summary="Show how a model wants to be called", tags=["models"])
async def get_contract(gateway: Here, terms: Asked, model: ModelName, version: Version = None) -> ContractInfo:
    """How a model wants to be called: its contract, and each signature in words."""
    served = await gateway.resolver.find(spec_of(model, version), terms.deadline)
    return ContractInfo(
        contract=dict(served.contract.document) if served.contract else None,
        shapes={name: str(signature) for name, signature in served.signatures.items()},
    )


@router.get(_MODEL + "/buckets", summary="Show how a model's sequences are padded", tags=["models"])
async def get_buckets(gateway: Here, terms: Asked, model: ModelName, version: Version = None) -> BucketsInfo:
    """To what lengths a model's sequences are padded, whether they run in chunks, and what lengths came."""
    served = await gateway.resolver.find(spec_of(model, version), terms.deadline)
    ragged = {name: signature for name, signature in served.signatures.items() if signature.ragged_axes}
    return BucketsInfo(
        model=served.model,
        version=str(served.version),
        signatures={name: _axes(gateway.buckets.of(served, signature)) for name, signature in ragged.items()},
        chunks={name: gateway.predictions.chunk(served, signature) for name, signature in ragged.items()},
    )


def _axes(buckets: Buckets) -> dict[str, AxisBuckets]:
    return {
        name: AxisBuckets(
            bounds=list(axis.bounds),
            learned=name not in buckets.given,
            lengths={str(length): count for length, count in sorted(axis.lengths.counts.items())},
        )
        for name, axis in buckets.axes.items()
    }
