"""Puts the evaluator's HTTP door together: paths, errors, the page of them all, and what runs meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from sluice.evaluator.http import evaluations, operation, uploads
from sluice.evaluator.http.fields import what_is_wrong_with
from sluice.evaluator.http.front import Front
from sluice.evaluator.http.views import ErrorInfo
from sluice.evaluator.jobs.database import UNREACHABLE, reason_of
from sluice.evaluator.service import Service
from sluice.policy.errors import BackendUnavailable, BadRequest, SluiceError
from sluice.wire.answers import error_body, error_headers

_DESCRIPTION = """
Measure a model the way it is served: a data set is sent through the gateway, row by row and in its order, and metrics
with confidence intervals are made of what comes back.

Send a file to `POST /v1/evaluations/uploads`, or name data below a data root; ask with `POST /v1/evaluations`; watch
`GET /v1/evaluations/{id}/events`; read `GET /v1/evaluations/{id}/report?format=html`. An evaluation that is interrupted
goes on where it was. The gateway answers these paths, too, and passes them on.

The guide is `docs/evaluation.md` in Sluice's source.
"""
_TAGS = [
    {"name": "evaluations", "description": "Ask for one, watch it, read what came of it."},
    {"name": "operation", "description": "Health, readiness, metrics."},
]


def create_app(service: Service, gateway: str, reach: Callable[[], Awaitable[object]]) -> FastAPI:
    """The evaluator as an ASGI application; `reach` asks the gateway whether it is there."""
    app = FastAPIOffline(  # /docs without scripts from elsewhere
        title="Sluice evaluator",
        summary="Measure models the way they are served.",
        description=_DESCRIPTION,
        version=version("sluice-serving"),
        lifespan=_lifespan,
        openapi_tags=_TAGS,
        swagger_ui_parameters={"docExpansion": "none", "defaultModelsExpandDepth": -1},
        separate_input_output_schemas=False,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorInfo}, "5XX": {"model": ErrorInfo}},
    )
    app.state.service, app.state.gateway, app.state.reach = service, gateway, reach
    for part in (uploads, evaluations, operation):
        app.include_router(part.router)
    for kind, refuse in _REFUSALS.items():
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Front)
    _leave_out_422(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    tasks = [asyncio.create_task(service.runner.run()), asyncio.create_task(service.keep_expiring())]
    try:
        yield
    finally:
        service.runner.changes.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _leave_out_422(app: FastAPI) -> None:
    """Of the page: FastAPI's own form of a bad request; ours is 400."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for operations in schema["paths"].values():
            for each in operations.values():
                each["responses"].pop("422", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(error: SluiceError, status: int | None = None) -> JSONResponse:
    return JSONResponse(error_body(error), status or error.http_status, dict(error_headers(error)))


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SluiceError)
    return _answer(error)


async def _refuse_fields(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(map(what_is_wrong_with, error.errors()))
    return _answer(BadRequest(f"The request cannot be read: {wrong}."))


async def _refuse_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refused = BadRequest(f"There is nothing at {request.method} {request.url.path:.200}; /docs shows all paths.")
    if error.status_code == BadRequest.http_status:  # FastAPI knows no other reason
        refused = BadRequest("The body cannot be read: it takes JSON in UTF-8.")
    answer = _answer(refused, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _refuse_without_database(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UNREACHABLE)
    return _answer(BackendUnavailable(f"The evaluator's database cannot be used: {reason_of(error)}. Try again."))


async def _refuse_text(_: Request, error: Exception) -> JSONResponse:
    return _answer(BadRequest(f"The request holds what the database cannot: {error.__cause__}"))


_REFUSALS: dict[int | type[Exception], Any] = {
    SluiceError: _refuse,
    RequestValidationError: _refuse_fields,
    HTTPException: _refuse_path,
    DataError: _refuse_text,
    **dict.fromkeys(UNREACHABLE, _refuse_without_database),
}
