"""Where every gRPC call comes in: its message, deadline and priority are read, its outcome is counted and told.

It does not know what a call means.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import structlog
from google.protobuf.message import DecodeError, Message

from sluice.gateway.core.backlog import check_unread
from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.pending import BUG, Pending, Terms, in_task, read_batch, read_priority
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.grpc.call import Call, Handler
from sluice.gateway.grpc.failures import failure
from sluice.gateway.grpc.handlers import Answered, Unary, streamed
from sluice.gateway.metrics.metrics import Metrics
from sluice.policy.contract import Tensor
from sluice.policy.errors import BadRequest, Internal, SluiceError
from sluice.wire.arrays import Array, read_arrays
from sluice.wire.grpc_frames import CallFailed
from sluice.wire.official import official_name
from sluice.wire.rest_paths import read_version

log = structlog.get_logger()

Begin = Callable[[Any, Terms, Pending], None]
Act = Callable[[Any, Terms], AsyncGenerator[tuple[Message, SluiceError | None]]]  # answers, and what failed with each


class Method(NamedTuple):
    """One method of a service.

    `read` makes a request of the bytes of a message, or raises `BadRequest`; `call` is the name that it is counted by.
    The outcome of what `begin` begins is a message, or bytes. `fail` turns an error into the end of the call.
    """

    read: Callable[[bytes], Any]
    call: str
    begin: Begin
    fail: Callable[[SluiceError], CallFailed] = failure


def in_a_task(act: Callable[[Any, Terms], Coroutine[Any, Any, Message]]) -> Begin:
    """What begins a call that is carried out in a task."""

    def begin(request: Any, terms: Terms, pending: Pending) -> None:
        in_task(act, request, terms, pending=pending)

    return begin


class Door:
    """The door of all services of one gateway."""

    def __init__(self, gateway: Gateway, metrics: Metrics) -> None:
        self.gateway = gateway
        self._metrics = metrics

    def unary(self, method: Method) -> Callable[[Call], Handler]:
        """A method with one request and one answer."""
        return partial(Unary, partial(self._begin, method))

    def streamed(self, read: Callable[[bytes], Any], call: str, act: Act) -> Callable[[Call], Handler]:
        """A method with one request and any number of answers, those that `act` gives; counted as `call`.

        It is counted by the first error that comes with an answer.
        """
        return partial(Unary, streamed(partial(self._stream, read, call, act)))

    def terms(self, call: Call, timeout_s: float | None = None) -> Terms:
        """Those of a call, or of one request of a stream, that has come now.

        Raises:
            BadRequest: its priority is none, or its batch neither shared nor its own.
        """
        left_s = call.time_left() if timeout_s is None else timeout_s
        priority = call.metadata.get(b"sluice-priority", b"normal").decode("latin-1")
        batch = call.metadata.get(b"sluice-batch")
        exact = batch is not None and read_batch(batch.decode("latin-1"))
        return self.gateway.terms(left_s, read_priority(priority), exact)

    def count(self, call: str, request: Any, outcome: Any) -> None:
        """Count a call by what its request is about, and by its outcome."""
        self._count_as(call, request, outcome.code if isinstance(outcome, SluiceError) else "ok")

    def _begin(self, method: Method, data: bytes, call: Call, done: Answered) -> Callable[[], object]:
        request = refused = None
        try:
            request = method.read(data)
        except BadRequest as error:
            refused = error
        pending = Pending(partial(self._answer, method, request, call, done))
        pending.begin(self._run, method, request, refused, call)
        return pending.cancel

    def _run(self, method: Method, request: Any, refused: BadRequest | None, call: Call, pending: Pending) -> None:
        if refused is not None:
            raise refused
        method.begin(request, self.terms(call), pending)

    def _answer(
        self, method: Method, request: Any, call: Call, done: Answered, outcome: Message | bytes | SluiceError
    ) -> None:
        answer: bytes | CallFailed
        if isinstance(outcome, SluiceError):
            if isinstance(outcome, Internal):
                log.error("answered that there is a bug", call=method.call, **call.names)
            answer = method.fail(outcome)
        else:
            answer = outcome if isinstance(outcome, bytes) else outcome.SerializeToString()
        self.count(method.call, request, outcome)
        done(answer)

    async def _stream(
        self, read: Callable[[bytes], Any], name: str, act: Act, data: bytes, call: Call
    ) -> AsyncGenerator[bytes]:
        request = failed = None
        try:
            request = read(data)
            async with aclosing(act(request, self.terms(call))) as answers:
                async for answer, error in answers:
                    check_unread(call.unsent, self.gateway.settings.queue_rows)
                    failed = failed or error
                    yield answer.SerializeToString()
        except asyncio.CancelledError:
            self._count_as(name, request, "client_gone")
            raise
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed", call=name, **call.names)
            refused = Internal(BUG)
        else:
            self.count(name, request, failed)
            return
        self.count(name, request, refused)
        raise failure(refused)

    def _count_as(self, call: str, request: Any, outcome: str) -> None:
        self._metrics.request(call, self._model(request), outcome)

    def _model(self, request: Any) -> str:
        """The model that a request is about, for metrics."""
        for field in ("model", "model_name"):
            if hasattr(request, field):
                return self.gateway.known(getattr(request, field))
        return self.gateway.sessions.model_of(getattr(request, "session", ""))


def message_of(kind: type[Message]) -> Callable[[bytes], Any]:
    """What reads a message, or raises `BadRequest`."""

    def read(data: bytes) -> Message:
        try:
            return kind.FromString(data)
        except DecodeError:
            raise BadRequest(f"The message cannot be read as a {official_name(kind.DESCRIPTOR.full_name)}.") from None

    return read


def arrays_of(tensors: Any) -> dict[str, Array]:
    """The arrays of a request's tensors, by name.

    Raises:
        BadRequest: one cannot be read.
    """
    try:
        return read_arrays(tensors)
    except ValueError as error:
        raise BadRequest(f"A tensor cannot be read: {error}.") from None


def named(arrays: Mapping[str, Array], inputs: Mapping[str, Tensor]) -> Mapping[str, Array]:
    """Arrays by the names of inputs; "" names the only input."""
    only = next(iter(inputs)) if len(inputs) == 1 else ""
    return arrays if only in arrays else {name or only: array for name, array in arrays.items()}


def spec_of(request: Any) -> ModelSpec:
    """The model version that a request's `model`, `version` and `label` name.

    Raises:
        BadRequest: they contradict each other, or the version is none.
    """
    if request.version and request.label:
        raise BadRequest("A request is for a version or for a label; both came.")
    return ModelSpec(request.model, read_version(request.version), request.label or None)
