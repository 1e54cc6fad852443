"""Clients over gRPC, each on a connection of its own: rows in one call, and many sessions on one stream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
import grpc
import numpy as np
from gevent.queue import Queue
from google.protobuf.message import Message
from locust import tag, task

from loadtests.locust import outcomes
from loadtests.locust.outcomes import Failure, SessionLost, Unreachable, WrongAnswer
from loadtests.locust.scenarios import CLOSE_GRPC, OPEN_GRPC, ROWS_GRPC, STEP_STREAM
from loadtests.locust.users.asking import TIMEOUT_S, LoadUser
from loadtests.locust.users.walk import Walk, own_id
from loadtests.traffic.checks import Array, check_numbers
from loadtests.traffic.exchange import WrongAnswer as NotAsKeras
from loadtests.traffic.library import Rows
from loadtests.traffic.models import DIGITS, FORECAST, LOGITS, MONTH, PICTURE, TEMPERATURE
from loadtests.traffic.steps import IDLE_S
from sluice.wire.arrays import read_array, write_array
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.tensors import read_tensor, write_tensor

_KIND = "gRPC"
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_SESSIONS = "/sluice.v1.Sessions"
_CHANNEL = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1000))
_SESSIONS_OF_A_STREAM = 4
_DROPPED = 0.3  # the share of sessions that are left open when they are over


class GrpcUser(LoadUser):
    """A client over gRPC; its process has made gRPC cooperative (`init_gevent`)."""

    abstract = True

    def on_start(self) -> None:
        self.channel = grpc.insecure_channel(self.grpc, _CHANNEL)

    def on_stop(self) -> None:
        self.channel.close()

    def unary(self, path: str, answer: type[Message]) -> Callable[..., Any]:
        """A method of the gateway, called with a message."""
        return self.channel.unary_unary(path, lambda message: message.SerializeToString(), answer.FromString)


class RowsGrpcUser(GrpcUser):
    """Has pictures classified, one or a few at a time, by TensorFlow Serving's own call."""

    models = (DIGITS,)
    weight = 2

    def on_start(self) -> None:
        super().on_start()
        self._predict = self.unary(_PREDICT, tfs.PredictResponse)

    @tag("rows", "grpc")
    @task
    def classify(self) -> None:
        rows: Rows = self.following(self.traffic.blocks)
        request = tfs.PredictRequest()
        request.model_spec.name = DIGITS
        write_tensor(request.inputs[PICTURE], rows.pictures)
        told = f"{len(rows.pictures)} pictures, the first begins with {rows.pictures[0, 2, :, 0].tolist()}"
        with suppress(Failure), self.told(_KIND, ROWS_GRPC, told) as call, failing(told):
            answer = self._predict(request, timeout=TIMEOUT_S)
            call.answered(answer.ByteSize())
            check_numbers(LOGITS, rows.logits, _output(answer, LOGITS, read_tensor))


class SessionStreamUser(GrpcUser):
    """Steps a few sessions with each message of one stream; as each is over it is closed or dropped, and one is opened.

    When the stream breaks it begins another, and repeats the steps that were not answered.
    """

    models = (TEMPERATURE,)
    weight = 2

    def on_start(self) -> None:
        super().on_start()
        self._open = self.unary(f"{_SESSIONS}/Open", pb.OpenResponse)
        self._close = self.unary(f"{_SESSIONS}/Close", pb.CloseResponse)
        self._walks: list[Walk] = []
        self._tag = 0
        self._stream: Stream | None = None

    def on_stop(self) -> None:
        self._cut()
        super().on_stop()

    @tag("sessions", "grpc")
    @task
    def go_on(self) -> None:
        with suppress(Failure):
            self._end([walk for walk in self._walks if walk.over])
            while len(self._walks) < _SESSIONS_OF_A_STREAM:
                self._walks.append(self._opened())
            try:
                self._advance(self._walks)
            except (Unreachable, WrongAnswer):
                self._cut()
                raise

    def _opened(self) -> Walk:
        walk = Walk(own_id(), self.following(self.traffic.series))
        with self.told(_KIND, OPEN_GRPC, walk.session), failing(walk.session):
            request = pb.OpenRequest(model=TEMPERATURE, session=walk.session, ttl_s=IDLE_S)
            self._open(request, timeout=TIMEOUT_S)
        return walk

    def _end(self, over: list[Walk]) -> None:
        self._walks = [walk for walk in self._walks if walk not in over]
        for walk in over:
            if self.dice.random() >= _DROPPED:
                with self.told(_KIND, CLOSE_GRPC, walk.session), failing(walk.session):
                    self._close(pb.CloseRequest(session=walk.session), timeout=TIMEOUT_S)

    def _advance(self, walks: list[Walk]) -> None:
        """Step all of them; what a session's own error says is told as the message's, the first of them."""
        steps = [walk.step for walk in walks]
        inputs = np.stack([walk.series.inputs[walk.step] for walk in walks])
        self._tag += 1
        message = pb.StepManyRequest(
            model=TEMPERATURE, sessions=[walk.session for walk in walks], steps=steps, tag=self._tag
        )
        write_array(message.inputs[MONTH], inputs)
        request = f"sessions {[*message.sessions]} at {steps}: {inputs.ravel().tolist()}"
        with self.told(_KIND, STEP_STREAM, request) as call, failing(request):
            if self._stream is None or not self._stream.call.is_active():
                self._cut()
                self._stream = Stream(self.channel)
            answer = self._stream.ask(message)
            call.answered(answer.ByteSize())
            if answer.HasField("error"):
                raise outcomes.refused(answer.error.code, request, answer.error.message)
            self._moved(walks, answer, request)

    def _moved(self, walks: list[Walk], answer: pb.StepManyResponse, request: str) -> None:
        """Count the steps that were answered rightly; what is lost, or wrong, is opened anew.

        Raises:
            Failure, WrongAnswer: of the first session that moved wrongly, else of the first that did not move.
        """
        if answer.tag != self._tag:
            raise NotAsKeras(f"expected the answer to message {self._tag}, got that to {answer.tag}")
        refused = {each.index: each.error for each in answer.errors}
        none_moved = len(refused) == len(walks)
        forecasts = np.zeros(len(walks)) if none_moved else _output(answer, FORECAST, read_array)
        if not len(answer.steps) == len(forecasts) == len(walks):
            raise NotAsKeras(f"expected {len(walks)} rows, got {len(answer.steps)} steps, {len(forecasts)} forecasts")
        failures: list[Exception] = []
        for i, walk in enumerate(walks):
            try:
                if i in refused:
                    raise outcomes.refused(refused[i].code, request, refused[i].message)
                if answer.steps[i] != walk.step + 1:
                    raise NotAsKeras(f"step of {walk.session}: expected {walk.step + 1}, got {answer.steps[i]}")
                check_numbers(f"forecast of {walk.session}", walk.series.answers[walk.step], forecasts[i])
                walk.step += 1
            except (SessionLost, WrongAnswer, NotAsKeras) as failure:
                failures.append(failure)
                self._walks = [each for each in self._walks if each is not walk]
            except Failure as failure:
                failures.append(failure)
        if failures:
            raise next((each for each in failures if isinstance(each, WrongAnswer | NotAsKeras)), failures[0])

    def _cut(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cut()


class Stream:
    """A call of `Sessions.Stream`, one message at a time."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._unsent: Queue[pb.StepManyRequest | None] = Queue()
        method = channel.stream_stream(
            f"{_SESSIONS}/Stream", pb.StepManyRequest.SerializeToString, pb.StepManyResponse.FromString
        )
        self.call: Any = method(iter(self._unsent.get, None))

    def send(self, message: pb.StepManyRequest) -> None:
        self._unsent.put(message)

    def ask(self, message: pb.StepManyRequest) -> pb.StepManyResponse:
        """Send a message and wait for the next answer.

        Raises:
            grpc.RpcError: the stream was refused, or broke.
            TimeoutError: there was no answer in time.
        """
        self.send(message)
        with gevent.Timeout(TIMEOUT_S, TimeoutError()):
            try:
                answer: pb.StepManyResponse = next(self.call)
            except StopIteration:
                raise ConnectionError from None
        return answer

    def cut(self) -> None:
        """End the call at once, whatever is on its way."""
        self._unsent.put(None)
        self.call.cancel()


def _output(answer: Any, name: str, read: Callable[[Any], Array]) -> Array:
    """An array of an answer.

    Raises:
        WrongAnswer: it is not there, or not whole.
    """
    try:
        return read(answer.outputs[name])
    except ValueError as error:
        raise NotAsKeras(f"{name}: {error}") from None


@contextmanager
def failing(request: str) -> Iterator[None]:
    """Tell gRPC's errors as outcomes.

    Raises:
        Failure: in place of an error of gRPC or of the connection.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise failed(error, request) from None
    except OSError as error:
        raise outcomes.unreachable(error) from None


def failed(error: Any, request: str) -> Failure:
    """The failure that an error of gRPC is; what the gateway has refused has a code in its metadata."""
    code = dict(error.trailing_metadata() or ()).get("sluice-code")
    if code is not None:
        return outcomes.refused(code, request, error.details())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable(outcomes.NO_ANSWER)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        never = "failed to connect" in (error.details() or "")
        return Unreachable(outcomes.NO_CONNECTION if never else outcomes.BROKEN)
    return outcomes.Refused(error.code().name)
