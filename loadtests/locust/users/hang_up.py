"""Clients that leave in the middle: of a request, a step, a WebSocket, a stream; their own leaving is no failure."""

import socket
import struct
from contextlib import suppress
from urllib.parse import urlsplit

import gevent
import numpy as np
from locust import tag, task

from loadtests.locust import outcomes
from loadtests.locust.outcomes import Failure, SessionLost, WrongAnswer
from loadtests.locust.scenarios import LEAVE_REQUEST, LEAVE_STEP, LEAVE_STREAM, LEAVE_WEBSOCKET, OPEN, RETURN
from loadtests.locust.users.asking import CONNECT_S, HttpUser
from loadtests.locust.users.over_grpc import GrpcUser, Stream
from loadtests.locust.users.walk import Walk, own_id
from loadtests.locust.users.websocket import socket_to
from loadtests.traffic.models import MONTH, TEMPERATURE
from loadtests.traffic.steps import opening, step_body, stepping
from sluice.wire.arrays import write_array
from sluice.wire.messages.v1 import sessions_pb2 as pb

_KIND = "hang-up"
_STAYS_S = 0.02  # the longest time between asking and leaving
_RESET = struct.pack("ii", 1, 0)  # linger for no time: the connection is reset, not closed


class HangUpUser(HttpUser, GrpcUser):
    """Leaves without an answer, then comes back and sends the same step again: it must count once.

    Sessions are never closed, but dropped when their series is over.
    """

    models = (TEMPERATURE,)
    weight = 1
    _walk: Walk | None = None

    @tag("hang-up")
    @task(3)
    def leave_a_request(self) -> None:
        """Whole requests, and requests whose end never comes."""
        asked = self.following([*self.traffic.rows, *self.traffic.sequences, *self.traffic.generation])
        request = asked.whole()
        end = self.dice.choice((len(request), self.dice.randrange(1, len(request))))
        with suppress(Failure), self.told(_KIND, LEAVE_REQUEST, asked.path):
            self._send_and_leave(request[:end])

    @tag("hang-up", "sessions")
    @task
    def leave_a_step(self) -> None:
        with suppress(Failure):
            walk = self._opened()
            with self.told(_KIND, LEAVE_STEP, walk.session):
                self._send_and_leave(stepping(walk.series, walk.session, walk.step).whole())
            self._return(walk)

    @tag("hang-up", "sessions", "websocket")
    @task
    def leave_a_websocket(self) -> None:
        with suppress(Failure):
            walk = self._opened()
            with self.told(_KIND, LEAVE_WEBSOCKET, walk.session):
                connection = socket_to(f"{self.host}/v1/sessions/{walk.session}/stream")
                connection.send(step_body(walk.series, walk.step).decode())
                self._stay()
                connection.socket.shutdown(socket.SHUT_RDWR)  # without the closing handshake
            self._return(walk)

    @tag("hang-up", "sessions", "grpc")
    @task
    def leave_a_stream(self) -> None:
        with suppress(Failure):
            walk = self._opened()
            with self.told(_KIND, LEAVE_STREAM, walk.session):
                message = pb.StepManyRequest(model=TEMPERATURE, sessions=[walk.session], steps=[walk.step])
                write_array(message.inputs[MONTH], walk.series.inputs[np.newaxis, walk.step])
                stream = Stream(self.channel)
                stream.send(message)
                self._stay()
                stream.cut()
            self._return(walk)

    def _opened(self) -> Walk:
        """The session that is being walked, or a new one."""
        if self._walk is None or self._walk.over:
            walk = Walk(own_id(), self.following(self.traffic.series))
            self.ask(opening(walk.series, walk.session), OPEN)
            self._walk = walk
        return self._walk

    def _return(self, walk: Walk) -> None:
        """Send the step again; whether it ran or not, its answer must be the right one."""
        try:
            self.ask(stepping(walk.series, walk.session, walk.step), RETURN)
            walk.step += 1
        except (SessionLost, WrongAnswer):
            self._walk = None
            raise

    def _send_and_leave(self, request: bytes) -> None:
        address = urlsplit(self.host or "")
        try:
            with socket.create_connection((address.hostname or "", address.port or 80), CONNECT_S) as connection:
                connection.sendall(request)
                self._stay()
                if self.dice.random() < 0.5:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError as error:
            raise outcomes.unreachable(error) from None

    def _stay(self) -> None:
        gevent.sleep(self.dice.uniform(0, _STAYS_S))
