"""gRPC's `sluice.v1.Generation`: one request in, a stream of events out.

It does not know connections, or how a model generates.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial

from sluice.gateway.core.generation import Begun, Event, Generate, Token, failure_of
from sluice.gateway.core.pending import Terms
from sluice.gateway.grpc.call import Methods
from sluice.gateway.grpc.door import Door, arrays_of, message_of, named, spec_of
from sluice.gateway.grpc.failures import error_message
from sluice.policy.contract import Generation as Contract
from sluice.policy.contract import Signature
from sluice.policy.errors import BadRequest, SluiceError
from sluice.policy.generation import Beam, Options, Sampling, said
from sluice.policy.sequences import Columns, rows_of
from sluice.policy.tensors import read_tensor
from sluice.wire.arrays import Array
from sluice.wire.messages.v1 import generation_pb2 as messages
from sluice.wire.rest import PredictBody, check_names

SERVICE = "sluice.v1.Generation"


class Generation:
    """The service's method."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        generate = self._door.streamed(message_of(messages.GenerateRequest), "generate", self._generate)
        return {f"/{SERVICE}/Generate".encode(): generate}

    async def _generate(
        self, request: messages.GenerateRequest, terms: Terms
    ) -> AsyncGenerator[tuple[messages.GenerateEvent, SluiceError | None]]:
        begun = await self._door.gateway.generations.begin(_asked(request), terms)
        async with aclosing(begun.events) as events:
            async for event in events:
                if request.stream_tokens or not isinstance(event, Token):
                    yield _event(begun, event), failure_of(event)


def _asked(request: messages.GenerateRequest) -> Generate:
    """What a request asks for; the instances are read when the model is known."""
    if bool(request.texts) == bool(request.inputs):
        came = "both" if request.texts else "neither"
        raise BadRequest(f"A request has its instances either in texts or in inputs; it has {came}.")
    read = partial(_texts, list(request.texts)) if request.texts else partial(_rows, arrays_of(request.inputs))
    return Generate(spec_of(request), read, partial(_options, request))


def _texts(texts: list[str], encode: Signature, limit: int) -> Columns:
    return PredictBody(encode.name, row_format=True, value=texts, has_words=False).rows(encode.inputs, limit)


def _rows(arrays: Mapping[str, Array], encode: Signature, limit: int) -> Columns:
    """The instances of arrays `[instances, ...]`, without what the client has padded."""
    given = named(arrays, encode.inputs)
    measures = {name: array for name, array in given.items() if name in encode.measures}
    inputs = {name: array for name, array in given.items() if name not in measures}
    check_names(inputs, encode.inputs)
    read = {name: read_tensor(array, encode.inputs[name], finite=False) for name, array in inputs.items()}
    return rows_of(encode, {**read, **measures}, limit)


def _options(request: messages.GenerateRequest, generation: Contract) -> Options:
    return Options(
        request.max_steps if request.HasField("max_steps") else generation.max_steps,
        _beam(request.beam) if request.HasField("beam") else None,
        _sampling(request.sampling) if request.HasField("sampling") else None,
    )


def _beam(beam: messages.Beam) -> Beam:
    return Beam(beam.width, beam.n_best if beam.HasField("n_best") else 1, beam.length_penalty)


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
    sequences = [
        messages.Sequence(**says, score=each.score, steps=each.steps, finished=each.finished)
        for says, each in zip(said(begun.generation, event.outcome), event.outcome, strict=True)
    ]
    return messages.GenerateEvent(result=messages.Result(index=event.index, sequences=sequences))
