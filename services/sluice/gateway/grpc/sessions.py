"""gRPC's `sluice.v1.Sessions`: messages to calls of the core's sessions, and back.

It does not know connections, or how calls are carried out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sluice.gateway.core.pending import Pending, Terms
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.core.sessions import IfExists, SessionView
from sluice.gateway.grpc.call import Call, Handler, Methods
from sluice.gateway.grpc.door import Begin, Door, Method, arrays_of, in_a_task, message_of
from sluice.gateway.grpc.failures import error_message, failure
from sluice.gateway.grpc.stream import Stream
from sluice.policy.errors import BadRequest, SluiceError
from sluice.policy.session import Answers
from sluice.wire.arrays import write_array
from sluice.wire.messages.v1 import sessions_pb2 as messages
from sluice.wire.rest_paths import read_version

SERVICE = "sluice.v1.Sessions"
_LIST_LIMIT = 1000
# Calls are counted by the names that they have over HTTP.
_COUNTED = {name: f"{name}_session" for name in ("open", "get", "fork", "renew", "close")} | {"list": "list_sessions"}
_read_step_many = message_of(messages.StepManyRequest)
_IF_EXISTS: Mapping[int, IfExists] = {
    messages.IF_EXISTS_ERROR: "error",
    messages.IF_EXISTS_RETURN: "return",
    messages.IF_EXISTS_RESTART: "restart",
}


class Sessions:
    """The service's methods. Each gets a message and its terms; its outcome is a message, or a `SluiceError`."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._gateway = door.gateway
        self._sessions = door.gateway.sessions

    def methods(self) -> Methods:
        """The service's methods, by their paths on the wire."""
        service = messages.DESCRIPTOR.services_by_name["Sessions"]
        kinds = {_snake(each.name): getattr(messages, each.input_type.name) for each in service.methods}
        begun: dict[str, Begin] = {"step": self._step, "scan": self._scan, "step_many": self._step_many}
        begun |= {name: in_a_task(getattr(self, f"_{name}")) for name in kinds if name not in {*begun, "stream"}}
        found: dict[str, Callable[[Call], Handler]] = {
            name: self._door.unary(Method(message_of(kinds[name]), _COUNTED.get(name, name), begin))
            for name, begin in begun.items()
        }
        found["stream"] = partial(Stream, self._begin_one)
        return {f"/{SERVICE}/{each.name}".encode(): found[_snake(each.name)] for each in service.methods}

    async def _open(self, request: messages.OpenRequest, terms: Terms) -> messages.OpenResponse:
        view, created = await self._sessions.open(
            ModelSpec(request.model, read_version(request.version), request.label or None),
            terms.deadline,
            id=request.session or None,
            state=arrays_of(request.state),
            ttl_s=request.ttl_s if request.HasField("ttl_s") else None,
            if_exists=_IF_EXISTS.get(request.if_exists, "error"),
        )
        return messages.OpenResponse(session=_session(view), created=created)

    async def _get(self, request: messages.GetRequest, _: Terms) -> messages.Session:
        return _session(self._sessions.view(self._sessions.get(request.session)))

    async def _list(self, request: messages.ListRequest, terms: Terms) -> messages.ListResponse:
        limit = request.limit or 100
        if not 0 < limit <= _LIST_LIMIT:
            raise BadRequest(f"limit is a number from 1 to {_LIST_LIMIT}; got {limit}.")
        await self._gateway.resolver.find(ModelSpec(request.model), terms.deadline)
        views, following = self._sessions.list(request.model, request.after, limit)
        return messages.ListResponse(sessions=map(_session, views), next=following or "")

    def _step(self, request: messages.StepRequest, terms: Terms, pending: Pending) -> None:
        self._run(self._sessions.step, request, terms, pending)

    def _scan(self, request: messages.StepRequest, terms: Terms, pending: Pending) -> None:
        self._run(self._sessions.scan, request, terms, pending)

    def _run(self, act: Callable[..., None], request: messages.StepRequest, terms: Terms, pending: Pending) -> None:
        number = request.step if request.HasField("step") else None
        if number is not None and number < 0:
            raise BadRequest(f"step is the number of time steps done so far, from 0; got {number}.")
        wanted = list(request.outputs) or None
        pending.make = partial(_stepped, wanted)
        act(request.session, _values(request.inputs), number, wanted, terms, pending)

    def _step_many(self, request: messages.StepManyRequest, terms: Terms, pending: Pending) -> None:
        ids, numbers, wanted = list(request.sessions), list(request.steps) or None, list(request.outputs) or None
        pending.make = partial(_stepped_many, wanted, request.tag)
        inputs = _values(request.inputs)
        self._sessions.step_many(request.model, ids, inputs, numbers, wanted, terms, pending)

    async def _fork(self, request: messages.ForkRequest, _: Terms) -> messages.Session:
        return _session(self._sessions.fork(request.session, request.fork or None))

    async def _renew(self, request: messages.RenewRequest, _: Terms) -> messages.Session:
        return _session(self._sessions.renew(request.session, request.ttl_s if request.HasField("ttl_s") else None))

    async def _get_state(self, request: messages.GetStateRequest, _: Terms) -> messages.State:
        return messages.State(envelope=self._sessions.save(request.session))

    async def _put_state(self, request: messages.PutStateRequest, terms: Terms) -> messages.OpenResponse:
        view, created = await self._sessions.restore(request.session, request.envelope, terms.deadline)
        return messages.OpenResponse(session=_session(view), created=created)

    async def _close(self, request: messages.CloseRequest, _: Terms) -> messages.CloseResponse:
        self._sessions.close(request.session)
        return messages.CloseResponse()

    def _begin_one(self, data: bytes, call: Call, pending: Pending) -> None:
        """Begin one request of a stream; errors become answers, too.

        Raises:
            CallFailed: the bytes are no request, so there is no tag to answer it by.
        """
        try:
            request = _read_step_many(data)
        except BadRequest as error:
            self._door.count("stream", None, error)
            raise failure(error) from None
        answer = Pending(partial(self._told, request, pending))
        pending.runs(Pending.cancel, answer)
        answer.begin(self._step_many_of, request, call)

    def _step_many_of(self, request: messages.StepManyRequest, call: Call, pending: Pending) -> None:
        timeout_s = request.timeout_ms / 1000 if request.timeout_ms else self._gateway.timeout_s
        self._step_many(request, self._door.terms(call, timeout_s), pending)

    def _told(
        self, request: messages.StepManyRequest, pending: Pending, outcome: messages.StepManyResponse | SluiceError
    ) -> None:
        self._door.count("stream", request, outcome)
        if isinstance(outcome, SluiceError):
            outcome = messages.StepManyResponse(tag=request.tag, error=error_message(outcome))
        pending.settle(outcome)


def _stepped(wanted: Sequence[str] | None, answers: Answers) -> messages.StepResponse:
    reply = messages.StepResponse(step=answers.steps[0], replayed=answers.replayed)
    for name in dict.fromkeys(wanted or answers.outputs):
        write_array(reply.outputs[name], answers.outputs[name][0, ...])
    return reply


def _stepped_many(wanted: Sequence[str] | None, tag: int, answers: Answers) -> messages.StepManyResponse:
    reply = messages.StepManyResponse(steps=answers.steps, tag=tag)
    for name in dict.fromkeys(wanted or answers.outputs):
        if name in answers.outputs:
            write_array(reply.outputs[name], answers.outputs[name])
    for row, error in sorted(answers.errors.items()):
        reply.errors.append(messages.StepError(index=row, error=error_message(error)))
    return reply


def _values(tensors: Any) -> Any:
    """The arrays by name, or the bare array of the only input, which may have no name."""
    arrays = arrays_of(tensors)
    return arrays[""] if arrays.keys() == {""} else arrays


def _session(view: SessionView) -> messages.Session:
    found = messages.Session(
        session=view.session, model=view.model, version=view.version, step=view.step, waiting=view.waiting,
        state_bytes=view.state_bytes,
    )  # fmt: skip
    found.opened_at.FromJsonString(view.opened_at)
    found.last_used_at.FromJsonString(view.last_used_at)
    found.expires_at.FromJsonString(view.expires_at)
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
