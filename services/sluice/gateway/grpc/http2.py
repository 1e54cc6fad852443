"""Our side of HTTP/2: h2, where what one call sends ends that call only, and a goodbye lets calls go on.

It knows frames and the states of streams; not what a call is. It overrides private methods, so pyproject.toml holds h2
below its next minor version.
"""

import h2.events
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.exceptions import InvalidBodyLengthError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamState
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PriorityFrame, RstStreamFrame

Heard = tuple[list[Frame], list[h2.events.Event]]  # what a frame leads to: what is sent, and what we are told

STREAM_WINDOW = 1024 * 1024  # bytes of one call that may come before we have read what came before
HEADER_BYTES = 16 * 1024  # of one call's metadata
_CONCURRENT_CALLS = 1000
_FRAME_BYTES = 64 * 1024
_HEADER_BYTES_READ = 4 * HEADER_BYTES  # what is read of it to refuse the call alone; beyond, the connection ends


class ServerSide(H2Connection):
    """h2 with our settings. A malformed request is an error of its stream, as RFC 9113, 8.1.1 says.

    Header fields are not checked here.
    """

    # Of so many calls that have ended h2 remembers how, which matters only while frames of the client are on their way.
    # By itself it remembers 65,536 on each connection, 7 MB.
    MAX_CLOSED_STREAMS = _CONCURRENT_CALLS

    def __init__(self) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._last_stream = self.HIGHEST_ALLOWED_STREAM_ID  # later ones are refused
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _CONCURRENT_CALLS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
            },
        )
        self.max_inbound_frame_size = _FRAME_BYTES
        self.decoder.max_header_list_size = _HEADER_BYTES_READ

    def say_goodbye(self, *, refuse: bool) -> None:
        """Ask the client to open no more calls here; with `refuse`, later ones are. Those that are open go on.

        h2's own `close_connection` ends all of them.
        """
        if refuse:
            self._last_stream = min(self._last_stream, self.highest_inbound_stream_id)
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=self._last_stream)])

    # For its log, h2 calls `repr` on every frame, whether or not there is a log; only this method can avoid that. What
    # h2 does here besides is to catch errors about closed streams; those of DATA frames do not come this far.
    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        if type(frame) is not DataFrame:
            return super()._receive_frame(frame)
        frames, events = self._receive_data_frame(frame)
        self._prepare_for_sending(frames)
        return events

    def _receive_data_frame(self, frame: DataFrame) -> Heard:
        try:
            return super()._receive_data_frame(frame)
        except InvalidBodyLengthError:
            _, events = self._stream_error(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)
            error = StreamClosedError(frame.stream_id)
            error.error_code = ErrorCodes.PROTOCOL_ERROR
            frames, _ = self._handle_data_on_closed_stream([], error, frame)  # it gives the connection's window back
            return frames, events

    def _receive_headers_frame(self, frame: HeadersFrame) -> Heard:
        fields = _decode_headers(self.decoder, frame.data)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        id = frame.stream_id
        if self._stream_closed_by(id) is not None:
            return [RstStreamFrame(id, error_code=ErrorCodes.STREAM_CLOSED)], []
        new = id not in self.streams
        stream = self._get_or_create_stream(id, AllowedStreamIDs.ODD)
        if new and (id > self._last_stream or self.open_inbound_streams >= _CONCURRENT_CALLS):
            return self._stream_error(id, ErrorCodes.REFUSED_STREAM)
        try:
            return stream.receive_headers(fields, "END_STREAM" in frame.flags, None)
        except StreamClosedError:
            raise
        except ProtocolError:
            return self._stream_error(id, ErrorCodes.PROTOCOL_ERROR)

    def _receive_priority_frame(self, _: HeadersFrame | PriorityFrame) -> Heard:
        """RFC 9113 has no use for priorities."""
        return [], [h2.events.PriorityUpdated()]

    def _receive_goaway_frame(self, _: GoAwayFrame) -> Heard:
        """The calls that are open go on; h2 would end them, and take back what is not sent yet."""
        return [], [h2.events.ConnectionTerminated()]

    def _stream_error(self, id: int, code: ErrorCodes) -> Heard:
        stream = self.streams[id].state_machine
        stream.state, stream.stream_closed_by = StreamState.CLOSED, StreamClosedBy.SEND_RST_STREAM
        frames: list[Frame] = [RstStreamFrame(id, error_code=code)]
        return frames, [h2.events.StreamReset(stream_id=id, error_code=code, remote_reset=False)]
