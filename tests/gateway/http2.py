"""An HTTP/2 client that does as a test tells it, also what no gRPC client would do."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from sluice.wire.grpc_frames import Inbox

PATIENCE_S = 20.0


@dataclass
class Received:
    """What the server has sent on one stream."""

    head: dict[str, str] = field(default_factory=dict)
    tail: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    frames: int = 0
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The call's, from its trailers or its only headers."""
        return int((self.tail or self.head)["grpc-status"])

    @property
    def sentence(self) -> str:
        return unquote((self.tail or self.head)["grpc-message"])

    @property
    def messages(self) -> list[bytes]:
        inbox = Inbox(2**30)
        inbox.encoding = self.head.get("grpc-encoding", "").encode()
        inbox.feed(self.data)
        found = []
        while (message := inbox.take()) is not None:
            found.append(message)
        return found


class _ClientSide(H2Connection):
    """h2, which would take no more once the server has said goodbye."""

    def __init__(self) -> None:
        super().__init__(H2Configuration(header_encoding="utf-8", validate_outbound_headers=False))
        self.config.normalize_outbound_headers = False

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


class RawClient:
    """One connection. With `reads=False` it gives no window back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reads: bool = True) -> None:
        self.h2 = _ClientSide()
        self.streams: defaultdict[int, Received] = defaultdict(Received)
        self.events: list[Any] = []
        self.closed = False
        self.reads = reads
        self._reader = reader
        self._writer = writer
        self.h2.initiate_connection()

    def call(self, path: str, *, end: bool = False, **fields: str) -> int:
        """Open a stream; its id."""
        head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "here", "te": "trailers"}
        head |= {"content-type": "application/grpc"}
        head |= {name.replace("_", "-"): value for name, value in fields.items()}
        if method := head.pop("method", ""):
            head[":method"] = method
        return self.open(list(head.items()), end=end)

    def open(self, head: list[tuple[Any, Any]], *, end: bool = False) -> int:
        """Open a stream with just these header fields; its id."""
        id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(id, head, end_stream=end)
        return id

    def send(self, id: int, data: bytes, *, end: bool = False) -> None:
        """As many frames as the data takes; the windows must be large enough."""
        size = self.h2.max_outbound_frame_size
        parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        for part in parts:
            self.h2.send_data(id, part, end_stream=end and part is parts[-1])

    async def goodbye(self) -> None:
        """Say that this connection is to end, and go on."""
        await self.flush()
        await self.write(GoAwayFrame(0).serialize())

    @property
    def goodbyes(self) -> list[int]:
        """The last stream that each goodbye of the server names."""
        return [each.last_stream_id for each in self.events if isinstance(each, h2.events.ConnectionTerminated)]

    async def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def write(self, data: bytes) -> None:
        """Bytes of any kind."""
        self._writer.write(data)
        await self._writer.drain()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Flush, then take what the server sends until the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            await self.flush()
            while not condition():
                assert not self.closed, "the server has closed the connection"
                await self.receive()

    async def receive(self) -> None:
        data = await self._reader.read(65_536)
        self.closed = not data
        for event in self.h2.receive_data(data):
            self.events.append(event)
            self._note(event)
        await self.flush()

    async def until_closed(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.closed:
                self.closed = not await self._reader.read(65_536)

    async def ended(self, id: int) -> Received:
        await self.until(lambda: self.streams[id].ended or self.streams[id].reset is not None)
        return self.streams[id]

    def abort(self) -> None:
        self._writer.transport.abort()

    def _note(self, event: Any) -> None:
        stream = self.streams[getattr(event, "stream_id", 0) or 0]
        if isinstance(event, h2.events.ResponseReceived):
            stream.head = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.tail = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            stream.frames += 1
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)


@asynccontextmanager
async def connected(port: int, *, reads: bool = True, window: int | None = None) -> AsyncIterator[RawClient]:
    """A client whose connection stands; `window` is how much a stream takes."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port), reads=reads)
    if window is not None:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    try:
        await client.until(lambda: any(isinstance(each, h2.events.SettingsAcknowledged) for each in client.events))
        yield client
    finally:
        client.abort()
