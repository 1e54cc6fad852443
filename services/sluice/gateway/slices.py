"""Takes what a connection brings a little at a time, so that one client's flood does not keep the loop from the others.

The event loop hands over up to several megabytes of a busy connection in one turn, which may be a hundred thousand tiny
frames or requests.
"""

import asyncio
import time

PART_BYTES = 8 * 1024
_TURN_S = 0.005  # what a connection with much to take may use of a turn of the loop
_LOOK_S = 0.002  # how often a protocol that is held is asked whether it goes on


class Sliced:
    """For an `asyncio.Protocol`, in front of it: calls `take` with parts of what comes, in order, over several turns.

    While parts wait nothing is read. A protocol that wants no more for a while overrides `held`.
    """

    transport: asyncio.Transport
    _waiting: bytearray | None = None
    _turn = 0.0  # the loop's time, which stands still within a turn
    _taken = 0  # bytes in this turn

    @property
    def held(self) -> bool:
        """Whether nothing is to be taken now; asked again a little later."""
        return False

    @property
    def waits(self) -> bool:
        """Whether parts wait to be taken."""
        return self._waiting is not None

    def take(self, data: bytes) -> None:
        """A part has come."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now != self._turn:
            self._turn, self._taken = now, 0
        self._taken += len(data)
        if self._waiting is not None:
            self._waiting += data
            self._pause()
        elif self._taken <= PART_BYTES:
            self.take(data)
        else:
            self._waiting = bytearray(data)
            self._pause()
            asyncio.get_running_loop().call_soon(self._go_on)

    def forget(self) -> None:
        """The connection is lost: what waits is not taken any more."""
        self._waiting = None

    def _go_on(self) -> None:
        """Take what waits as long as the turn allows."""
        waiting, until = self._waiting, time.monotonic() + _TURN_S
        while waiting and not self.held:
            with memoryview(waiting) as view:
                part = bytes(view[:PART_BYTES])
            del waiting[:PART_BYTES]
            self.take(part)
            if time.monotonic() >= until:
                break
        if self._waiting is None or self.transport.is_closing():
            self._waiting = None
        elif waiting:
            self._pause()
            loop = asyncio.get_running_loop()
            if self.held:
                loop.call_later(_LOOK_S, self._go_on)
            else:
                loop.call_soon(self._go_on)
        else:
            self._waiting = None
            if not self.held:
                self.transport.resume_reading()

    def _pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()
