"""The paths of evaluations: ask for one, see how it goes, read what came of it, end it."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import StreamingResponse
from starlette.convertors import Convertor, register_url_convertor

from sluice.evaluator.http.events import events
from sluice.evaluator.http.fields import NEXT
from sluice.evaluator.http.front import HEAD
from sluice.evaluator.http.views import Asked, EvaluationInfo, EvaluationList, shown
from sluice.evaluator.jobs.life_cycle import Status
from sluice.evaluator.jobs.tables import Evaluation
from sluice.evaluator.service import Service
from sluice.evaluator.spec import Spec


class _IdConvertor(Convertor[str]):
    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("evaluation_id", _IdConvertor())


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]
Id = Annotated[str, Path(description="The evaluation's id.", examples=["4f7a1c09d2b3e856"])]
router = APIRouter(tags=["evaluations"])
_ALL = "/v1/evaluations"
_ONE = _ALL + "/{id:evaluation_id}"
_HTML_HEADERS = {  # a label of the data is nobody's script, even if it gets past the escaping
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {"md": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8"}
_REPORTS: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "The report.",
        "content": {"application/json": {"schema": {"type": "object"}}}
        | {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in _MEDIA_TYPES.values()},
    }
}
_EVENTS: Mapping[int | str, dict[str, Any]] = {
    200: {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


_EXAMPLES: dict[str, Example] = {
    "classification": {
        "summary": "A classifier, on rows below a data root",
        "value": {
            "model": "digits",
            "data": {"path": "digits.labelled.npz"},
            "task": "classification",
            "fail_if": ["accuracy < 0.97"],
        },
    },
    "batch sizes": {
        "summary": "A forecast, on an upload, at several batch sizes, compared with an earlier version",
        "value": {
            "model": "temperature",
            "data": {"upload": "9b0d6a1e7c5f4320"},
            "columns": {"group": "station"},
            "task": "forecasting",
            "batch_sizes": [1, 7, 32, 100],
            "compare_to": 1,
        },
    },
}


@router.post(_ALL, status_code=202, summary="Evaluate a model on a data set")
async def ask(service: Here, spec: Annotated[Spec, Body(openapi_examples=_EXAMPLES)]) -> Asked:
    """Queue an evaluation: a data set is sent through the gateway, and metrics are made of what it answers."""
    found = await service.ask(spec)
    return Asked(evaluation=found.id, status=Status(found.status))


@router.get(_ALL, summary="List evaluations", response_model_exclude_unset=True)
async def newest(
    service: Here,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 50,
    after: Annotated[str | None, Query(pattern=NEXT, description="`next` of the list before.")] = None,
    model: Annotated[str | None, Query(description="Those of this model only.")] = None,
) -> EvaluationList:
    """The newest first."""
    found = await service.newest(limit + 1, None if after is None else int(after), model)
    more = {"next": str(found[limit - 1].number)} if len(found) > limit else {}
    return EvaluationList(
        evaluations=[shown(each, service.runner.progress.get(each.id)) for each in found[:limit]], **more
    )


@router.get(_ONE, summary="Show how an evaluation goes", response_model_exclude_unset=True)
async def get(service: Here, id: Id) -> EvaluationInfo:
    """How far it is, and what came of it."""
    return await _view(service, id)


@router.get(_ONE + "/events", summary="Watch an evaluation", response_class=Response, responses={**_EVENTS})
async def watch(service: Here, request: Request, id: Id) -> StreamingResponse:
    """Server-sent events: `progress` whenever it changes, as `GET` shows it; `done` at the end."""
    await service.get(id)
    told = () if HEAD in request.scope else events(id, partial(_view, service), service.runner.changes)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get(_ONE + "/report", summary="Read the report", response_class=Response, responses={**_REPORTS})
async def report(
    service: Here,
    id: Id,
    format: Annotated[Literal["json", "md", "html"], Query(description="JSON, Markdown, or a page.")] = "json",
) -> Response:
    """What was measured, on what, and how; once it is done."""
    if format == "json":
        return Response(orjson.dumps(await service.document(id)), media_type="application/json")
    headers = _HTML_HEADERS if format == "html" else {}
    return Response(await service.report(id, format), media_type=_MEDIA_TYPES[format], headers=headers)


@router.post(_ONE + ":cancel", summary="Cancel an evaluation", response_model_exclude_unset=True)
async def cancel(service: Here, id: Id) -> EvaluationInfo:
    """End one that is queued, runs, or is paused; its values are deleted."""
    return _shown(service, await service.runner.cancel(id))


@router.post(_ONE + ":resume", summary="Resume an evaluation", response_model_exclude_unset=True)
async def resume(service: Here, id: Id) -> EvaluationInfo:
    """Queue one again that is paused; it goes on where it was."""
    return _shown(service, await service.runner.resume(id))


@router.delete(_ONE, status_code=204, summary="Delete an evaluation")
async def remove(service: Here, id: Id) -> None:
    """Forget it, its report, and its upload, if no other evaluation is of that. One that runs is cancelled first."""
    await service.remove(id)


async def _view(service: Service, id: str) -> EvaluationInfo:
    found = await service.get(id)
    document = await service.document(id) if found.status == Status.DONE else None
    return shown(found, service.runner.progress.get(id), document)


def _shown(service: Service, found: Evaluation) -> EvaluationInfo:
    return shown(found, service.runner.progress.get(found.id))
