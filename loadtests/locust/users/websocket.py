"""Clients of sessions over WebSockets: a session each, stepped over a socket that stays open."""

from contextlib import suppress

import orjson
from locust import tag, task
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from loadtests.locust import outcomes
from loadtests.locust.outcomes import Failure, SessionLost, WrongAnswer
from loadtests.locust.scenarios import CLOSE, CONNECT_WEBSOCKET, OPEN, STEP_WEBSOCKET
from loadtests.locust.users.asking import CONNECT_S, TIMEOUT_S, HttpUser
from loadtests.locust.users.walk import Walk, own_id
from loadtests.traffic.models import TEMPERATURE
from loadtests.traffic.steps import check_step, closing, opening, step_body

_KIND = "WebSocket"


class SessionWebSocketUser(HttpUser):
    """Opens a session by an id of its own, steps it over a socket, closes both, and begins again.

    When the socket breaks it connects again, and repeats the step that was not answered.
    """

    models = (TEMPERATURE,)
    weight = 3
    _walk: Walk | None = None
    _socket: ClientConnection | None = None

    @tag("sessions", "websocket")
    @task
    def go_on(self) -> None:
        try:
            if self._walk is None:
                walk = Walk(own_id(), self.following(self.traffic.series))
                self.ask(opening(walk.series, walk.session), OPEN)
                self._walk = walk
            elif self._walk.over:
                session, self._walk = self._walk.session, None
                self._disconnect()
                self.ask(closing(session), CLOSE)
            elif self._socket is None:
                self._socket = self._connected(self._walk)
            else:
                self._advance(self._walk, self._socket)
        except (SessionLost, WrongAnswer):
            self._walk = None
            self._disconnect()
        except outcomes.Unreachable:
            self._disconnect()
        except Failure:
            pass

    def on_stop(self) -> None:
        self._disconnect()

    def _connected(self, walk: Walk) -> ClientConnection:
        path = f"/v1/sessions/{walk.session}/stream"
        with self.told(_KIND, CONNECT_WEBSOCKET, path):
            return socket_to(f"{self.host}{path}")

    def _advance(self, walk: Walk, socket: ClientConnection) -> None:
        body = step_body(walk.series, walk.step)
        request = f"{walk.session} {body.decode()}"
        with self.told(_KIND, STEP_WEBSOCKET, request) as call:
            try:
                socket.send(body.decode())
                reply = socket.recv(TIMEOUT_S, decode=False)
            except (WebSocketException, OSError) as error:
                raise outcomes.unreachable(error) from None
            call.answered(len(reply))
            if reply.startswith(b'{"error"'):
                told = orjson.loads(reply)
                raise outcomes.refused(told["code"], request, told["error"])
            check_step(walk.series, walk.step, reply)
        walk.step += 1

    def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            with suppress(WebSocketException, OSError):
                socket.close()


def socket_to(url: str) -> ClientConnection:
    """A WebSocket to a path of the gateway, whose URL begins with http.

    Raises:
        Failure: it was refused, or could not be reached.
    """
    try:
        return connect(
            f"ws{url.removeprefix('http')}",
            open_timeout=CONNECT_S,
            close_timeout=CONNECT_S,
            ping_interval=None,
            compression=None,
            proxy=None,
        )
    except InvalidStatus as refused:
        code = refused.response.headers.get("sluice-code", f"status {refused.response.status_code}")
        raise outcomes.refused(code, url) from None
    except (WebSocketException, OSError) as error:
        raise outcomes.unreachable(error) from None
