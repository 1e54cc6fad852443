"""gRPC's `sluice.v1.Generation`: one request in, a stream of events out.

It knows messages and status codes; how a model generates is not its business.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.generation import Begun, Event, Generate, Token
from sluice.gateway.grpc.call import Call, Methods
from sluice.gateway.grpc.failures import error_message, failure
from sluice.gateway.grpc.handlers import Unary, streamed
from sluice.gateway.http.hot import BUG
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.contract import Generation, Signature
from sluice.policy.errors import BadRequest, Internal, SluiceError
from sluice.policy.generation import Beam, Options, Result, Sampling
from sluice.policy.sequences import Columns, rows_of
from sluice.policy.tensors import read_tensor
from sluice.wire.arrays import Array, read_arrays
from sluice.wire.messages.v1 import generation_pb2 as messages
from sluice.wire.rest import PredictBody, check_names
from sluice.wire.rest_paths import read_version

log = structlog.get_logger()

SERVICE = "sluice.v1.Generation"


class GenerationDoor:
    """`Generation`."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        return {f"/{SERVICE}/Generate".encode(): partial(Unary, streamed(self._generate))}

    async def _generate(self, data: bytes, call: Call) -> AsyncGenerator[bytes]:
        request = messages.GenerateRequest()
        try:
            _parse(request, data)
            begun = await self._gateway.generations.begin(_asked(request), self._deadline(call))
            async with aclosing(begun.events) as events:
                async for event in events:
                    if request.stream_tokens or not isinstance(event, Token):
                        yield _event(begun, event).SerializeToString()
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call="generate")
            refused = Internal(BUG)
        else:
            self._count(request.model, "ok")
            return
        self._count(request.model, refused.code)
        raise failure(refused)

    def _deadline(self, call: Call) -> float:
        now, left = self._gateway.now(), call.time_left()
        return self._gateway.deadline(None, now) if left is None else now + left

    def _count(self, model: str, outcome: str) -> None:
        self._metrics.request("generate", self._gateway.model_of("generate", model), outcome)


def _parse(request: messages.GenerateRequest, data: bytes) -> None:
    try:
        request.ParseFromString(data)
    except DecodeError:
        raise BadRequest("The message cannot be read as a sluice.v1.GenerateRequest.") from None


def _asked(request: messages.GenerateRequest) -> Generate:
    """What a request asks for; the instances are read when the model is known."""
    if bool(request.texts) == bool(request.inputs):
        came = "both" if request.texts else "neither"
        raise BadRequest(f"A request has its instances either in texts or in inputs; it has {came}.")
    if request.version and request.label:
        raise BadRequest("A request is for a version or for a label; both came.")
    return Generate(
        request.model,
        partial(_texts, list(request.texts)) if request.texts else partial(_rows, _arrays(request)),
        partial(_options, request),
        read_version(request.version),
        request.label or None,
    )


def _texts(texts: list[str], encode: Signature, limit: int) -> Columns:
    return PredictBody(encode.name, row_format=True, value=texts, has_words=False).rows(encode.inputs, limit)


def _arrays(request: messages.GenerateRequest) -> dict[str, Array]:
    try:
        return read_arrays(request.inputs)
    except ValueError as error:
        raise BadRequest(f"A tensor cannot be read: {error}.") from None


def _rows(arrays: Mapping[str, Array], encode: Signature, limit: int) -> Columns:
    """The instances of arrays `[instances, ...]`, without what the client has padded; "" names the only input."""
    only = next(iter(encode.inputs)) if len(encode.inputs) == 1 else ""
    given = arrays if only in arrays else {name or only: array for name, array in arrays.items()}
    measures = {name: array for name, array in given.items() if name in encode.measures}
    inputs = {name: array for name, array in given.items() if name not in measures}
    check_names(inputs, encode.inputs)
    read = {name: read_tensor(array, encode.inputs[name], finite=False) for name, array in inputs.items()}
    return rows_of(encode, {**read, **measures}, limit)


def _options(request: messages.GenerateRequest, generation: Generation) -> Options:
    return Options(
        request.max_steps if request.HasField("max_steps") else generation.max_steps,
        _beam(request.beam) if request.HasField("beam") else None,
        _sampling(request.sampling) if request.HasField("sampling") else None,
    )


def _beam(beam: messages.Beam) -> Beam:
    return Beam(beam.width, beam.n_best or 1, beam.length_penalty)


def _sampling(sampling: messages.Sampling) -> Sampling:
    if not sampling.HasField("seed"):
        raise BadRequest("sampling needs a seed: the same one gives the same answer again.")
    return Sampling(
        sampling.temperature if sampling.HasField("temperature") else 1.0,
        sampling.top_k,
        sampling.top_p if sampling.HasField("top_p") else 1.0,
        sampling.seed,
    )


def _event(begun: Begun, event: Event) -> messages.GenerateEvent:
    if isinstance(event, Token):
        text = begun.generation.tokens[event.token]
        token = messages.Token(index=event.index, step=event.step, token=event.token, text=text)
        return messages.GenerateEvent(token=token)
    if isinstance(event.outcome, SluiceError):
        failed = messages.InstanceError(index=event.index, error=error_message(event.outcome))
        return messages.GenerateEvent(error=failed)
    sequences = [_sequence(begun.generation, each) for each in event.outcome]
    return messages.GenerateEvent(result=messages.Result(index=event.index, sequences=sequences))


def _sequence(generation: Generation, result: Result) -> messages.Sequence:
    said: dict[str, Any] = {"tokens": result.tokens}
    if any(generation.tokens):
        said = {"text": "".join(generation.tokens[token] for token in result.tokens)}
    return messages.Sequence(**said, score=result.score, steps=result.steps, finished=result.finished)
