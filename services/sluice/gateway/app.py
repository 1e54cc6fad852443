"""Puts the gateway together: what is opened at the start, and closed in reverse at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match

from sluice.gateway.core.engine import Engine
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.grpc.server import GrpcServer
from sluice.gateway.http import calibrations, evaluations, events, generate, home, oip, operation, rest
from sluice.gateway.http.answers import is_tf_serving, plain_body
from sluice.gateway.http.body import IN_WORDS
from sluice.gateway.http.cors import Cors
from sluice.gateway.http.front import Front
from sluice.gateway.http.headers import RequestIds
from sluice.gateway.http.hot import Calls
from sluice.gateway.http.meant import ON_MODELS, meant, wrong_id
from sluice.gateway.http.openapi import TAGS, describe
from sluice.gateway.http.websocket import refuse_socket
from sluice.gateway.metrics.metrics import Metrics
from sluice.gateway.settings import Settings
from sluice.gateway.upstream.catalog import Catalog
from sluice.gateway.upstream.child import Child, model_server_arguments
from sluice.gateway.upstream.client import Backend
from sluice.gateway.upstream.evaluator import Evaluator, evaluator_arguments, evaluator_environment
from sluice.gateway.upstream.served import ServedVersion
from sluice.model_folder import look
from sluice.policy.errors import BadRequest, SluiceError
from sluice.policy.scheduler import Scheduler
from sluice.wire.answers import error_headers, what_is_wrong
from sluice.wire.rest_paths import METHODS, NoCall, WrongMethod, rest_call, version_by_name

_NOT_ALLOWED = 405
_DESCRIPTION = """
Sessions for stateful recurrent networks, sequences of any length, decoders that write token by token, classifiers that
can say *unknown*, and rows batched across clients, in front of TensorFlow Serving.

A **session** is one client's recurrent state on one model version. Open one, send it one time step after another, and
get what the model would have answered you alone, although your steps run in batches with everybody else's.

Begin with `POST /v1/models/{model}/sessions` and `POST /v1/sessions/{session}:step`, or with `:predict` for rows
without a session. gRPC has a port of its own, 8081 by default. `/openapi.json` is this page for programs.

The guide is in the folder `docs` of Sluice's source: `docs/tour.md` shows every call once with curl, `docs/clients.md`
the Python client, `docs/errors.md` what each error means.
"""


def create_app(settings: Settings) -> FastAPI:
    """The gateway as an ASGI application; what it needs is opened when it starts."""
    metrics = Metrics()
    app = FastAPIOffline(  # /docs without scripts from elsewhere, which a cluster may not reach
        title="Sluice",
        summary="A gateway in front of TensorFlow Serving.",
        description=_DESCRIPTION,
        version=version("sluice-serving"),
        lifespan=lambda app: _lifespan(app, settings, metrics),
        openapi_tags=TAGS,
        swagger_ui_parameters={"docExpansion": "none", "defaultModelsExpandDepth": -1},
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    for part in (rest, operation, events, generate, calibrations, oip):
        app.include_router(part.router)
    app.router.routes.extend([*evaluations.routes(), *home.routes()])
    app.add_api_websocket_route("/{path:path}", refuse_socket)
    app.add_exception_handler(SluiceError, _refuse)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _refuse_fields)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _refuse_path)  # type: ignore[arg-type]
    app.state.ids = RequestIds()
    app.state.calls = Calls(metrics, app.state.ids)
    app.state.cors = Cors(settings.cors_origins) if settings.cors_origins else None
    front = {"gateway": lambda: app.state.gateway, "metrics": metrics, "ids": app.state.ids, "cors": app.state.cors}
    app.add_middleware(Front, **front)
    describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        address, expected = settings.backend, ""
        if address is None and settings.models is not None:
            child = Child(
                "embedded model server",
                partial(
                    model_server_arguments,
                    settings.models,
                    settings.intra_op_threads,
                    settings.inter_op_threads,
                    settings.log_format,
                ),
                reached=lambda: catalog.reached,
                died=lambda reason: catalog.lose(reason),  # noqa: PLW0108 - it is made below
                hopeless=app.state.give_up,
            )
            child.start()  # in a task, which begins when all is made
            stack.push_async_callback(child.stop)
            address, expected = child.address, "the embedded model server is starting"
        evaluator = app.state.evaluator = Evaluator(
            settings.evaluator,
            lambda socket: evaluator_arguments(
                app.state.url, settings.evaluations_data_roots, settings.log_format, socket
            ),
            evaluator_environment(settings.evaluations_database),
        )
        stack.push_async_callback(evaluator.close)
        backend = Backend(address or "")
        stack.push_async_callback(backend.close)
        scheduler = Scheduler(settings.batching, settings.sessions)
        metrics.watch(scheduler)

        def welcome(served: ServedVersion) -> None:
            gateway.buckets.check(served)

        def retire(model: str, version: int) -> None:
            scheduler.retire(model, version, engine.now())
            gateway.forget(model, version)
            metrics.forget(model, version)
            engine.changed()

        found = partial(look, settings.models) if settings.models else None
        catalog = Catalog(backend, found, settings.required_models, welcome, retire, expected)
        engine = Engine(scheduler, catalog, metrics)
        stack.push_async_callback(engine.close)
        app.state.gateway = gateway = Gateway(settings, catalog, engine, metrics)
        metrics.watch_readiness(gateway, catalog)
        await gateway.calibrations.reload()
        for watching in (catalog.watch(settings.poll_s), gateway.calibrations.watch(settings.poll_s)):
            stack.push_async_callback(_cancelled, asyncio.create_task(watching))
        inference = app.state.calls.open(gateway)
        app.state.grpc = rpc = GrpcServer(gateway, metrics, inference, settings.grpc)
        stack.push_async_callback(rpc.stop)
        await rpc.start()
        yield


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _answer(request: Request, error: SluiceError, status: int | None = None) -> JSONResponse:
    session = request.path_params.get("session")
    about = {"Sluice-Session": session} if session else {}
    body = plain_body(error, request.url.path)
    return JSONResponse(body, status or error.http_status, {**error_headers(error), **about})


async def _refuse(request: Request, error: SluiceError) -> JSONResponse:
    return _answer(request, error)


async def _refuse_fields(request: Request, error: RequestValidationError) -> JSONResponse:
    wrong = "; ".join(what_is_wrong(each, IN_WORDS) for each in error.errors())
    return _answer(request, BadRequest(f"The request cannot be read: {wrong}."))


async def _refuse_path(request: Request, error: HTTPException) -> JSONResponse:
    method, path, status = request.method, request.url.path, error.status_code
    allow = ""
    if status == BadRequest.http_status:  # FastAPI knows no other reason
        deep = isinstance(error.__cause__, RecursionError)
        wrong = "its JSON is nested too deeply" if deep else "it takes JSON in UTF-8"
        refused = BadRequest(f"The body cannot be read: {wrong}.")
    elif status == _NOT_ALLOWED:
        allow = _methods(request)
        refused = BadRequest(f"This path takes {allow}; got {method}.")
    else:
        refused = _no_path(request)
        allow = refused.takes if isinstance(refused, WrongMethod) else ""
        if is_tf_serving(path) or not isinstance(refused, NoCall):
            status = BadRequest.http_status
    if is_tf_serving(path) and method not in METHODS:
        status = 501
    answer = _answer(request, refused, status)
    answer.headers.update({**(error.headers or {}), **({"allow": allow} if allow else {})})
    return answer


def _methods(request: Request) -> str:
    """All methods that a path takes, of which the first route that is like it knows its own."""
    routes = request.app.routes
    taken = {
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return ", ".join(sorted(taken | ({"HEAD"} if "GET" in taken else set())))


def _no_path(request: Request) -> BadRequest:
    """What to say where there is nothing: what is wrong with the path, or which one was meant."""
    method, path = request.method, request.url.path
    raw, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    if (by_name := version_by_name(raw)) is not None:
        return by_name
    if wrong := wrong_id(path):
        return NoCall(wrong)
    told = meant(path)
    if told is None and is_tf_serving(path):
        refused = _no_call(method, raw)
        if refused is not None and not isinstance(refused, NoCall):
            return refused
        told = ON_MODELS if refused else f"it takes no query, and ?{query} came."
    return NoCall(f"There is nothing at {method} {path:.200}; {told or '/docs shows all paths.':.300}")


def _no_call(method: str, target: str) -> BadRequest | None:
    """Why a request on TensorFlow Serving's paths is none of its calls."""
    try:
        rest_call(method, target)
    except BadRequest as refused:
        return refused
    return None
