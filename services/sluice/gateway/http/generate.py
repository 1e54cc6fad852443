"""`:generate` over HTTP: a JSON body in, a JSON answer or server-sent events out.

It knows fields and forms; how a model generates is not its business.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.generation import Begun, Ended, Event, Generate, Token, failure_of
from sluice.gateway.core.pending import Terms
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.http.answers import ended_with
from sluice.gateway.http.body import Body, OrNull
from sluice.gateway.http.rest import Asked, Here, ModelName
from sluice.policy.contract import Generation
from sluice.policy.errors import SluiceError
from sluice.policy.generation import Beam, Options, Result, Sampling, said
from sluice.wire.answers import error_body, sse
from sluice.wire.rest import PredictBody

router = APIRouter()
_CLIENT_GONE = 499  # nobody reads it; requests are counted by it


class BeamFields(Body):
    width: int = Field(description="How many sequences go on side by side.")
    n_best: OrNull[int] = Field(
        1, description="How many of the best are answered; more than one: a list for each instance."
    )
    length_penalty: OrNull[float] = Field(
        0.0, description="The greater, the longer the sequences that win; 0: no penalty."
    )


class SamplingFields(Body):
    temperature: OrNull[float] = Field(1.0, description="The smaller, the likelier the likely tokens.")
    top_k: OrNull[int] = Field(0, description="Draw from the k likeliest tokens; 0: from all.")
    top_p: OrNull[float] = Field(1.0, description="And of these from the fewest that have this probability together.")
    seed: int = Field(description="The same seed gives the same answer, whoever shares the batch.")


class GenerateFields(Body):
    instances: list[Any] = Field(description="What to encode: a row of the encoder's input each, or its text.")
    max_steps: int | None = Field(None, description="The most tokens of an instance; without it the model's limit.")
    beam: BeamFields | None = None
    sampling: SamplingFields | None = None
    stream: OrNull[bool] = Field(
        False, description="Answer with server-sent events, each token as soon as it is certain."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": ["3 March 2021"]}]})

    def options(self, generation: Generation) -> Options:
        return Options(
            generation.max_steps if self.max_steps is None else self.max_steps,
            Beam(**self.beam.model_dump()) if self.beam else None,
            Sampling(**self.sampling.model_dump()) if self.sampling else None,
        )


_MODEL = "/v1/models/{model:model_name}"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sequences; with `stream`, the events `token`, `result`, `error` and at last `done`.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}


@router.post(
    _MODEL + ":generate", summary="Generate sequences", tags=["generation"], response_class=Response, responses=_EVENTS
)
async def generate(gateway: Here, terms: Asked, model: ModelName, fields: GenerateFields, request: Request) -> Response:
    """Generate a sequence for each instance: encode it, and decode token by token until its end."""
    return await _generate(gateway, request, terms, fields, ModelSpec(model))


@router.post(
    _MODEL + "/versions/{version}:generate",
    summary="Generate sequences",
    tags=["generation"],
    response_class=Response,
    responses=_EVENTS,
)
async def generate_version(
    gateway: Here,
    terms: Asked,
    model: ModelName,
    version: Annotated[int, Path(ge=0)],
    fields: GenerateFields,
    request: Request,
) -> Response:
    """As `generate`, with a version of the model."""
    return await _generate(gateway, request, terms, fields, ModelSpec(model, version))


@router.post(
    _MODEL + "/labels/{label}:generate",
    summary="Generate sequences",
    tags=["generation"],
    response_class=Response,
    responses=_EVENTS,
)
async def generate_label(
    gateway: Here, terms: Asked, model: ModelName, label: str, fields: GenerateFields, request: Request
) -> Response:
    """As `generate`, with the version that has a label."""
    return await _generate(gateway, request, terms, fields, ModelSpec(model, None, label))


async def _generate(
    gateway: Gateway, request: Request, terms: Terms, fields: GenerateFields, spec: ModelSpec
) -> Response:
    body = PredictBody("encode", True, fields.instances)
    asked = Generate(spec, lambda encode, limit: body.rows(encode.inputs, limit), fields.options)
    begun = await gateway.generations.begin(asked, terms)
    write = partial(_results, begun.generation, several=fields.beam is not None and fields.beam.n_best > 1)
    if fields.stream:
        written = _written(begun, write, partial(ended_with, request))
        return StreamingResponse(written, media_type="text/event-stream")
    found = await unless_left(request, _collected(begun))
    if found is None:
        return client_gone()
    results = [write(each) for each in found]
    return Response(
        orjson.dumps({"model": begun.served.model, "version": str(begun.served.version), "results": results}),
        media_type="application/json",
    )


async def _collected(begun: Begun) -> list[list[Result]]:
    """The sequences of all instances; the first one that fails fails them all."""
    found: list[list[Result]] = [[] for _ in range(begun.instances)]
    async with aclosing(begun.events) as events:
        async for event in events:
            if isinstance(event, Ended):
                if isinstance(event.outcome, SluiceError):
                    raise event.outcome
                found[event.index] = event.outcome
    return found


def client_gone() -> Response:
    """What is answered to nobody."""
    return Response(status_code=_CLIENT_GONE, headers={"Sluice-Code": "client_gone"})


async def unless_left(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """What comes of work; None: the client has left, and it is given up."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _written(begun: Begun, write: Any, failed: Callable[[SluiceError], None]) -> AsyncIterator[bytes]:
    async with aclosing(begun.events) as events:
        async for event in events:
            if error := failure_of(event):
                failed(error)
            name, data = _event(begun.generation, event, write)
            yield sse(name, orjson.dumps(data))
    yield sse("done", b"{}")


def _event(generation: Generation, event: Event, write: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(event, Token):
        data = {"index": event.index, "step": event.step, "token": event.token}
        return "token", data | ({"text": generation.tokens[event.token]} if any(generation.tokens) else {})
    if isinstance(event.outcome, SluiceError):
        return "error", {"index": event.index, **error_body(event.outcome)}
    found = write(event.outcome)
    return "result", {"index": event.index, **(found if isinstance(found, dict) else {"results": found})}


def _results(generation: Generation, found: list[Result], *, several: bool) -> Any:
    written = [
        {**says, "score": each.score, "steps": each.steps, "finished": each.finished}
        for says, each in zip(said(generation, found), found, strict=True)
    ]
    return written if several else written[0]
