"""Speaks to the model server over gRPC: predictions, metadata, status. Every failure becomes one of our errors."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
import structlog
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from sluice.gateway.trace import TRACE
from sluice.policy.errors import (
    BackendError,
    BackendUnavailable,
    BatchCollision,
    BatchRefused,
    DeadlineExceeded,
    InputRejected,
    SluiceError,
    VersionNotFound,
)
from sluice.wire.messages.tf.v1 import tensorflow_pb2 as tf
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.predict_frames import PredictRequest, read_outputs, write_request

Array = NDArray[Any]
log = structlog.get_logger()
Reply = TypeVar("Reply", bound=Message)
Call = tuple[str, int, str, tuple[str, ...]]  # model, version, signature, outputs

_UNLIMITED = -1
_LAST_CALLS_S = 60.0  # for calls on a connection that has been replaced
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.max_send_message_length", _UNLIMITED),
    # A model server that comes back is noticed within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.default_authority", "localhost"),
    # Of a name with several addresses, as of a headless service, each is a model server, and they take turns.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]

# What the model server says when the values of a batch, not the server, are at fault.
_REJECTIONS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}
# What TensorFlow says of a number that it was to look up in a table, such as an embedding's, and that is no row there.
_NOT_IN_TABLE = re.compile(r"\] = (-?\d+) is not in \[0, (\d+)\)")


_CONNECTED, _REFUSED = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE

# What a call says that did not come to the model server, or back from it.
_TRANSPORT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


# What a model server says that batches itself: the first where batches of different shape have met.
_COLLISION = "from different tasks"
_BATCHING = (_COLLISION, "maximum input batch size", "batch scheduling queue")
_LARGEST = re.compile(r"maximum input batch size (\d+)")


class NotServed(Exception):
    """The model server does not know this model or version."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of a model as the model server reports it, such as `AVAILABLE` or `LOADING`."""

    version: int
    state: str
    error: str = ""


class Backend:
    """One model server, or several that serve the same. `address` is HOST:PORT or unix:PATH."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.batching: set[str] = set()  # the models that it has said of that it batches them, too
        self.largest: dict[Call, int] = {}  # the rows that it has said it batches at once, where it has refused more
        self._closing: set[asyncio.Future[None]] = set()
        self._connect()

    def _connect(self) -> None:
        self._channel = grpc.aio.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
        self._predict = self._bytes_method("PredictionService/Predict")
        self._metadata = self._method("PredictionService/GetModelMetadata", tfs.GetModelMetadataResponse)
        self._forwarded: dict[str, Any] = {}
        self._status = self._method("ModelService/GetModelStatus", tfs.GetModelStatusResponse)

    async def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        timeout_s: float,
    ) -> dict[str, Array]:
        """Run one batch: input name → `[batch, ...]` in, output name → `[batch, ...]` out; no `outputs`: all of them.

        Where the model server batches, too, a batch larger than its own runs in parts.

        Raises:
            BackendUnavailable, BackendError, BatchRefused, InputRejected, DeadlineExceeded, VersionNotFound.
        """
        call = model, version, signature, tuple(outputs)
        if self.largest and (parts := self._parts(call, inputs)):
            return await self._run_in_parts(parts, call, timeout_s)
        request = write_request(PredictRequest(model, signature, inputs, version, outputs=call[3]))
        try:
            reply = await self._call(self._predict, request, model, version, timeout_s)
        except InputRejected as error:
            if (said := _LARGEST.search(error.message)) is None:
                raise _explained(error, inputs) from None
            self.largest[call] = int(said[1])
            if not (parts := self._parts(call, inputs)):
                raise
            return await self._run_in_parts(parts, call, timeout_s)
        try:
            return read_outputs(reply)
        except ValueError as error:
            raise BackendError(f"The model server's answer for model {model!r} cannot be read: {error}.") from None

    def _parts(self, call: Call, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
        """A batch in as many rows at a time as the model server is known to take; nothing where it takes all.

        What it has not refused it may not batch, and then rows need not be independent.
        """
        rows = max((len(array) for array in inputs.values() if array.ndim), default=0)
        largest = self.largest.get(call, rows)
        starts = range(0, rows, largest) if rows > largest else ()
        return [{name: array[start : start + largest] for name, array in inputs.items()} for start in starts]

    async def _run_in_parts(
        self, parts: Sequence[Mapping[str, Array]], call: Call, timeout_s: float
    ) -> dict[str, Array]:
        model, version, signature, outputs = call
        now = asyncio.get_running_loop().time
        ends_at = now() + timeout_s
        answers = [await self.predict(model, version, signature, part, outputs, ends_at - now()) for part in parts]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    async def forward(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Pass a call on as it is; `method` is such as `PredictionService/Classify`. Raises as `predict`."""
        call = self._forwarded.get(method)
        if call is None:
            call = self._forwarded[method] = self._bytes_method(method)
        reply: bytes = await self._call(call, request, "", 0, timeout_s)
        return reply

    async def _call(self, method: Any, request: Any, model: str, version: int, timeout_s: float) -> Any:
        try:
            trace = TRACE.get()
            return await method(request, timeout=timeout_s, metadata=trace and trace.metadata)
        except grpc.aio.AioRpcError as error:
            self._notice(error.details() or "", model)
            raise _translate(error, model, version) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The channel was closed under the call, which is no reason to end the one who made it.
            raise BackendUnavailable("The connection to the model server was given up; ask again.") from None

    def _notice(self, said: str, model: str) -> None:
        if model not in self.batching and any(words in said for words in _BATCHING):
            self.batching.add(model)
            log.warning("the model server batches, too: start it without --enable_batching", model=model, said=said)

    async def versions(self, model: str, timeout_s: float) -> list[VersionStatus]:
        """The versions of a model that the server knows of, the newest last.

        Raises:
            NotServed: it knows none.
            SluiceError: it did not say.
        """
        request = tfs.GetModelStatusRequest()
        request.model_spec.name = model
        reply = await self._ask(self._status, request, model, timeout_s)
        states = tfs.ModelVersionStatus.State
        found = [
            VersionStatus(each.version, states.Name(each.state), each.status.error_message)
            for each in reply.model_version_status
        ]
        return sorted(found, key=lambda each: each.version)

    async def signatures(self, model: str, version: int, timeout_s: float) -> dict[str, tf.SignatureDef]:
        """The signatures of a model version, as TensorFlow describes them; raises as `versions`."""
        request = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
        _specify(request.model_spec, model, version)
        reply = await self._ask(self._metadata, request, model, timeout_s)
        found = tfs.SignatureDefMap()
        try:
            found.ParseFromString(reply.metadata["signature_def"].value)
        except DecodeError:
            raise BackendError(f"The model server's description of model {model!r} cannot be read.") from None
        return dict(found.signature_def)

    async def labelled(self, model: str, label: str, timeout_s: float) -> int:
        """The version that the model server knows by a label; raises as `versions`.

        Raises:
            VersionNotFound: it knows none by this label.
        """
        request = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name, request.model_spec.version_label = model, label
        try:
            reply = await self._ask(self._metadata, request, model, timeout_s)
        except (InputRejected, NotServed) as error:
            unknown = VersionNotFound(f"The model server knows no version of model {model!r} labelled {label!r}.")
            unknown.origin = getattr(error, "origin", None)
            raise unknown from None
        version: int = reply.model_spec.version.value
        return version

    async def contract(self, model: str, version: int, timeout_s: float) -> bytes:
        """The contract's JSON of a model version that has a `contract` signature; raises as `predict`."""
        outputs = await self.predict(model, version, "contract", {"probe": np.zeros(1, np.int32)}, (), timeout_s)
        answer = outputs.get("contract")
        if answer is None or not answer.dtype.hasobject or answer.size == 0:
            raise BackendError(f"The signature `contract` of model {model!r} version {version} must answer with text.")
        return bytes(answer.flat[0])

    async def reach(self, timeout_s: float) -> None:
        """Wait until the model server is connected to.

        Raises:
            BackendUnavailable: it cannot be, or could not be in time.
        """
        try:
            async with asyncio.timeout(timeout_s):  # wait_for would swallow a cancellation at the wrong moment
                while (state := self._channel.get_state(try_to_connect=True)) is not _CONNECTED:
                    if state is _REFUSED:
                        break
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            pass
        if not self.connected:
            self.batching.clear()  # another may come
            self.largest.clear()
            raise BackendUnavailable(f"{self.lost}.")

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the model server now."""
        return self._channel.get_state() is _CONNECTED

    @property
    def lost(self) -> str:
        """What to say when there is none."""
        return f"The model server at {self.address} cannot be connected to"

    async def reconnect(self) -> None:
        """Make new calls on a new connection; those that wait on the old one have until their deadlines."""
        closing = asyncio.ensure_future(self._channel.close(_LAST_CALLS_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._connect()

    async def close(self) -> None:
        await self._channel.close(None)
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _ask(self, method: Any, request: Message, model: str, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotServed(model) from None
            raise _translate(error, model, 0) from None

    def _bytes_method(self, name: str) -> Any:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{name}", request_serializer=None, response_deserializer=None
        )

    def _method(self, name: str, reply: type[Reply]) -> Any:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )


def _specify(spec: tfs.ModelSpec, model: str, version: int) -> None:
    spec.name = model
    spec.version.value = version


def _translate(error: grpc.aio.AioRpcError, model: str, version: int) -> SluiceError:
    translated = _translated(error, model, version)
    if error.code() not in _TRANSPORT:
        translated.origin = error.code().name, error.details() or ""
    return translated


def _translated(error: grpc.aio.AioRpcError, model: str, version: int) -> SluiceError:
    code, text = error.code(), error.details() or "it gave no reason"
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # a server that stops cancels what it works at
        return BackendUnavailable(
            f"The model server cannot be reached or went away while it worked for model {model!r}. No state has moved; "
            "try again shortly."
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"The model server did not answer for model {model!r} in time.")
    if code is grpc.StatusCode.NOT_FOUND:
        return VersionNotFound(
            f"The model server found no version {version} of model {model!r}, or the model found nothing: {text}"
        )
    if code in _REJECTIONS:
        return InputRejected(f"Model {model!r} does not take these values. The model server says {code.name}: {text}")
    kind = BackendError
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        kind = BatchCollision if _COLLISION in text else BatchRefused
    return kind(f"The model server refused a batch of model {model!r} with {code.name}: {text}")


def _explained(error: InputRejected, inputs: Mapping[str, Array]) -> InputRejected:
    """With the inputs and the numbers that they may hold ahead, if the model was to look up one that is beyond them."""
    status, text = error.origin or ("", "")
    if (said := _NOT_IN_TABLE.search(text)) is None:
        return error
    number, rows = int(said[1]), int(said[2])
    numbers = {name: array for name, array in inputs.items() if array.dtype.kind in "iuf"}
    holding = " or ".join(repr(name) for name, array in numbers.items() if (array == number).any())
    if holding:
        told = f"Input {holding} takes whole numbers from 0 to {rows - 1}; {number} came."
    else:  # it was made of what came
        told = f"The model looks up whole numbers from 0 to {rows - 1}; what came leads to {number}."
    explained = InputRejected(f"{told} The model server says: {text}")
    explained.origin = status, explained.message
    return explained
