"""The Open Inference Protocol's requests on this gateway: rows go through the batcher, sequences are sessions.

It does not know HTTP, gRPC or JSON; the doors of the protocol do.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from importlib.metadata import version as installed
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from sluice.gateway.core.gateway import Gateway
from sluice.gateway.core.pending import Pending, Terms, awaited, in_task
from sluice.gateway.core.predict import Predict, Prediction
from sluice.gateway.core.resolve import ModelSpec
from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.batch import PRIORITIES
from sluice.policy.contract import Signature, Tensor
from sluice.policy.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    DtypeMismatch,
    SessionEnded,
    SessionNotFound,
    ShapeMismatch,
    UnsupportedByModel,
)
from sluice.policy.session import Answers
from sluice.wire.binary_tensors import DATATYPES
from sluice.wire.oip import InferRequest, SequencePart
from sluice.wire.rest import DEFAULT_SIGNATURE, check_names
from sluice.wire.tensors import dtype_name

Array = NDArray[Any]

_NAME = "sluice"
_PLATFORM = "tensorflow_savedmodel"
_ID_LIMIT = 128  # characters of a session's id
_EXTENSIONS = ["binary_tensor_data", "parameters", "sequence", "model_repository"]


class ServerMetadata(NamedTuple):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(NamedTuple):
    """One input or output; -1 in its shape: any size, also where no rank is known."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(NamedTuple):
    """`versions` are those that can be called."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelState(NamedTuple):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Inference:
    """Carries out infer requests of one model or another."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def begin(self, model: str, version: int | None, asked: InferRequest, terms: Terms, pending: Pending) -> None:
        """Begin a request; its outcome is a `Prediction`.

        Its own timeout can shorten the deadline, and its own priority goes first.

        Raises:
            SluiceError: it is refused.
        """
        if asked.timeout_s is not None:
            terms = terms._replace(deadline=min(terms.deadline, self._gateway.now() + asked.timeout_s))
        if asked.priority:
            terms = terms._replace(priority_s=_priority_s(asked.priority))
        spec = ModelSpec(model, version)
        if asked.sequence is not None:
            in_task(self._part, spec, asked, asked.sequence, terms, pending=pending)
            return

        def begin(served: ServedVersion, pending: Pending) -> None:
            signature = served.predicted(asked.signature or DEFAULT_SIGNATURE)
            _check(asked.inputs, signature)
            self._gateway.predictions.submit(served, Predict(signature, asked.inputs, asked.outputs), terms, pending)

        self._gateway.resolver.resolve(spec, terms.deadline, begin, pending)

    async def _part(self, spec: ModelSpec, asked: InferRequest, part: SequencePart, terms: Terms) -> Prediction:
        """One request of a sequence: steps of the session that is named after it."""
        # A sequence's requests run one after another, as they came; the lock goes with the last who has or awaits it.
        turn = self._turns.setdefault((spec.name, part.id), asyncio.Lock())
        try:
            async with asyncio.timeout_at(terms.deadline):
                await turn.acquire()
        except TimeoutError:
            raise DeadlineExceeded("The sequence's earlier requests were not answered in time.") from None
        try:
            await self._gateway.resolver.find(spec, terms.deadline)
            return await self._played(spec, asked, part, terms)
        except SessionNotFound:
            raise SessionNotFound(
                f"There is no sequence {part.id!r} on model {spec.name!r}. Begin it with sequence_start."
            ) from None
        except SessionEnded as error:
            raise type(error)(
                f"Sequence {part.id!r} has ended; begin it again with sequence_start. {error.message}"
            ) from None
        finally:
            turn.release()

    async def _played(self, spec: ModelSpec, asked: InferRequest, part: SequencePart, terms: Terms) -> Prediction:
        id, opened = self._session_of(spec.name, part.id), False
        try:
            if part.start:
                await self._gateway.sessions.open(spec, terms.deadline, id=id, if_exists="restart")
                opened = True
            outcome = await self._stepped(id, asked, terms)
        except BaseException:
            if opened:  # nobody was told that there is such a session
                self._close(id)
            raise
        if part.end:
            self._close(id)
        return outcome

    async def _stepped(self, id: str, asked: InferRequest, terms: Terms) -> Prediction:
        sessions = self._gateway.sessions
        session = sessions.get(id)
        served = self._gateway.catalog.get(session.model, session.slab.version)
        value, scans = _row(asked.inputs, served.stepping("step"))
        act = sessions.scan if scans else sessions.step
        answers: Answers = await awaited(partial(act, id, value, None, asked.outputs, terms))
        names = asked.outputs or answers.outputs
        return Prediction(served.version, {name: answers.outputs[name] for name in names})

    def _session_of(self, model: str, sequence: str) -> str:
        """What it is called by itself, unless that is a session of another model."""
        find = self._gateway.engine.scheduler.sessions.find
        own, longer = session_id(sequence), session_id(sequence, model)
        taken = find(own)
        return longer if find(longer) or (taken is not None and taken.model != model) else own

    def _close(self, id: str) -> None:
        if self._gateway.engine.scheduler.sessions.find(id) is not None:
            self._gateway.sessions.close(id)

    async def metadata(self, spec: ModelSpec, deadline: float) -> ModelMetadata:
        """What a model takes and gives: a step of its sequences if it has them, else its default signature.

        Raises:
            ModelNotFound, VersionNotFound, BackendUnavailable, DeadlineExceeded.
        """
        served = await self._gateway.resolver.find(spec, deadline)
        stepping = served.contract is not None and served.contract.step is not None
        signature = served.stepping("step") if stepping else served.predicts(DEFAULT_SIGNATURE)
        versions = [str(version) for version in sorted(self._gateway.catalog.models[spec.name].served)]
        inputs, outputs = (signature.inputs, signature.outputs) if signature else ({}, {})
        return ModelMetadata(spec.name, versions, _PLATFORM, _described(inputs), _described(outputs))

    async def is_ready(self, spec: ModelSpec, deadline: float) -> bool:
        """Whether a model can be called.

        Raises:
            ModelNotFound, VersionNotFound: there is none.
        """
        try:
            await self._gateway.resolver.find(spec, deadline)
        except BackendUnavailable:
            return False
        return not self._gateway.catalog.gone

    def index(self, *, ready: bool) -> list[ModelState]:
        """The versions of all models that are known, by name; with `ready` only those that can be called."""
        found = []
        for model in self._gateway.catalog.listed():
            for status in model.statuses:
                if status.version in model.served:
                    found.append(ModelState(model.name, str(status.version), "READY", ""))
                elif not ready:
                    reason = f"{status.state} {status.error}".strip()
                    found.append(ModelState(model.name, str(status.version), "UNAVAILABLE", reason))
        return found

    @property
    def ready(self) -> bool:
        return self._gateway.ready


def session_id(*names: str) -> str:
    """The id of a session that is called by a sequence's id, or by that and its model's name; no two are alike.

    Characters that session ids may have stand for themselves, except `~`, which begins a byte in hexadecimal. What is
    too long then has its SHA-256 instead.
    """
    id = "~~".join(map(_escaped, names))
    return id if len(id) <= _ID_LIMIT else f"~.{sha256(id.encode()).hexdigest()}"


def _escaped(name: str) -> str:
    if name.isascii() and name.isalnum():  # as most are; the rest takes ten times as long
        return name
    return quote(name, safe="").replace("~", "%7E").replace("%", "~")


def server_metadata() -> ServerMetadata:
    """What this server is."""
    return ServerMetadata(_NAME, installed("sluice-serving"), _EXTENSIONS)


def _described(tensors: Mapping[str, Tensor]) -> list[TensorMetadata]:
    """Those tensors that the protocol has a datatype for."""
    known = (
        (name, DATATYPES.get(each.dtype), each.shape if each.ranked else (None,))
        for name, each in sorted(tensors.items())
    )
    return [
        TensorMetadata(name, datatype, [-1 if size is None else size for size in shape])
        for name, datatype, shape in known
        if datatype
    ]


def _priority_s(priority: int) -> float:
    """The protocol counts from 1, the highest priority."""
    return PRIORITIES["high" if priority == 1 else "low"]


def _check(inputs: Mapping[str, Array], signature: Signature) -> None:
    given = {name: array for name, array in inputs.items() if name not in signature.measures}
    check_names(given, signature.inputs)
    _check_dtypes(given, signature.inputs)


def _check_dtypes(inputs: Mapping[str, Array], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        wanted, came = DATATYPES.get(tensor.dtype), DATATYPES[dtype_name(inputs[name].dtype)]
        if wanted is None:
            raise UnsupportedByModel(f"Input {name!r} takes {tensor}, which this protocol has no datatype for.")
        if came != wanted:
            raise DtypeMismatch(f"Input {name!r} takes the datatype {wanted}: {tensor}; {came} came.")


def _row(inputs: Mapping[str, Array], step: Signature) -> tuple[dict[str, Array], bool]:
    """The row of each input of a sequence's request, and whether it is a chunk of time steps."""
    check_names(inputs, step.inputs)
    _check_dtypes(inputs, step.inputs)
    for name, array in inputs.items():
        tensor = step.inputs[name]
        if array.shape[:1] != (1,) or array.ndim not in (len(tensor.axes), len(tensor.axes) + 1):
            row = ", ".join(["1", *map(str, tensor.axes[1:])])
            raise ShapeMismatch(
                f"Input {name!r} of a sequence is [{row}], or [{', '.join(['1', 'time', *map(str, tensor.axes[1:])])}] "
                f"for several time steps at once; a value of shape {list(array.shape)} came.",
                got=list(array.shape),
            )
    scans = {array.ndim > len(step.inputs[name].axes) for name, array in inputs.items()}
    if len(scans) > 1:
        raise ShapeMismatch("All inputs of a sequence's request have a time axis, or none has.")
    return {name: np.asarray(array[0, ...]) for name, array in inputs.items()}, scans.pop()
