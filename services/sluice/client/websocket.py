"""Steps over WebSockets, one for each session: a step's body out, its answer in, one after the other."""

import asyncio
from collections.abc import Mapping

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from sluice.client.contracts import OutputDtypes
from sluice.client.errors import NoAnswer, error_of
from sluice.client.refusals import read_json, refusal
from sluice.client.rows import read_answer, step_body
from sluice.client.values import Answer, Call
from sluice.policy.errors import SessionEnded

_GRACE_S = 1.0  # for the gateway's own word that the time was over


class SocketLane:
    """Sockets to the sessions of one gateway. Calls of one session must come one at a time."""

    def __init__(self, url: str, headers: Mapping[str, str], dtypes: OutputDtypes) -> None:
        self._url = "ws" + url.removeprefix("http")
        self._headers = headers
        self._dtypes = dtypes
        self._sockets: dict[str, ClientConnection] = {}

    async def step(self, call: Call, timeout_s: float) -> Answer:
        dtypes = await self._dtypes.of("step", call.model, call.version, timeout_s)
        body = read_json(self._url, await self._exchange(call.session, step_body(call).decode(), timeout_s))
        if "error" not in body:
            return read_answer(body, dtypes)
        error = error_of(body["code"], body["error"], details=body.get("details"))
        if isinstance(error, SessionEnded):
            await self._sockets.pop(call.session).close()
        raise error

    async def aclose(self) -> None:
        sockets = list(self._sockets.values())
        self._sockets.clear()
        await asyncio.gather(*(socket.close() for socket in sockets))

    async def _exchange(self, session: str, message: str, timeout_s: float) -> str | bytes:
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await self._ask(session, message)
        except InvalidStatus as error:
            response = error.response
            raise refusal(response.status_code, response.headers, bytes(response.body or b"")) from None
        except TimeoutError:
            raise NoAnswer(f"{self._url} did not answer within {timeout_s:g} s.") from None
        except (OSError, WebSocketException) as error:
            raise NoAnswer(f"The stream of session {session!r} was cut: {error}.") from error

    async def _ask(self, session: str, message: str) -> str | bytes:
        """A socket on which an answer is still to come is given up, so that none is taken for another's."""
        socket = self._sockets.pop(session, None) or await self._connect(session)
        try:
            await socket.send(message)
            answer = await socket.recv()
        except BaseException:
            socket.transport.abort()
            raise
        self._sockets[session] = socket
        return answer

    async def _connect(self, session: str) -> ClientConnection:
        headers = {**self._headers, "Sluice-Session": session}
        return await connect(f"{self._url}/v1/sessions/{session}/stream", additional_headers=headers, max_size=None)
