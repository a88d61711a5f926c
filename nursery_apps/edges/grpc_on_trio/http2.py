"""HTTP/2 frames and streams: grpclib's state machines, waiting on Trio instead of asyncio."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import h2.config
import h2.exceptions
import trio
from grpclib import protocol
from grpclib.config import Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from nursery_apps.edges.grpc_on_trio.wire import Flag, Wire

log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]

MOST_STREAMS: Final = 100
"""What h2 announces to the peer and holds it to; RFC 9113 section 6.5.2 advises against less."""
_WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Unread bytes a peer may have under way, in all and for one stream: one message of the largest size accepted by default."""

_GRPCLIB: Final = Configuration(http2_connection_window_size=_WINDOW_BYTES, http2_stream_window_size=_WINDOW_BYTES).__for_server__()
_H2: Final = h2.config.H2Configuration(
    client_side=False,
    # Any byte decodes, so a strange header cannot raise.
    header_encoding="latin-1",
    # The kubelet's :authority is a percent-encoded path; it is none of our business.
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class Inbox:
    """The request's bytes: added by the frames, taken by the call. The peer may send as much again only when they are taken."""

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._taken = bytearray()
        self._ended = False
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, data: bytes, ack_size: int) -> None:
        self._chunks.append((data, ack_size))
        self._lot.unpark_all()

    def eof(self) -> None:
        self._ended = True
        self._lot.unpark_all()

    async def read(self, size: int) -> bytes:
        """`size` bytes; fewer only if the peer sends no more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._taken) < size:
            if self._chunks:
                data, ack_size = self._chunks.popleft()
                self._taken += data
                self._acknowledge(ack_size)
            elif self._ended:
                break
            else:
                await self._lot.park()
        piece = bytes(self._taken[:size])
        del self._taken[:size]
        return piece

    def unacked_size(self) -> int:
        """Flow-controlled bytes nobody took; forgets them."""
        size = sum(ack_size for _, ack_size in self._chunks)
        self._chunks.clear()
        return size


class Stream(protocol.Stream):
    def __init__(self, connection: Any, h2_connection: Any, transport: Any, *, stream_id: int | None = None, wrapper: Any = None) -> None:
        super().__init__(connection, h2_connection, transport, stream_id=stream_id, wrapper=wrapper)
        self.window_updated = Flag()  # type: ignore[assignment]

    def init_stream(self, stream_id: int, connection: Any) -> None:
        super().init_stream(stream_id, connection)
        self.buffer = Inbox(lambda size: connection.ack(stream_id, size))  # type: ignore[assignment]

    def recall(self) -> None:
        """Tell the peer to stop sending on this stream, if it still could."""
        if self.closable:
            self.reset_nowait()


class Connection(protocol.Connection):
    def __init__(self, connection: H2Connection, transport: Any) -> None:
        super().__init__(connection, transport, config=_GRPCLIB)
        self.write_ready = Flag(True)  # type: ignore[assignment]

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        return Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def ack(self, stream_id: int, size: int) -> None:
        if not self.is_closing():
            super().ack(stream_id, size)

    def flush(self) -> None:
        if not self.is_closing():
            super().flush()


class Events(protocol.EventsProcessor):
    def process(self, event: Any) -> None:
        # The table is deleted when the connection closes. Frames of unknown type are ignored: RFC 9113 section 4.1 and 5.5.
        act = getattr(self, "processors", {}).get(event.__class__)
        if act is not None:
            act(event)


class Peer:
    """One connection's protocol state. Synchronous: bytes go in by `feed`, come out by the wire, calls by `calls`."""

    def __init__(self, wire: Wire, calls: protocol.AbstractHandler) -> None:
        self._wire = wire
        state = H2Connection(config=_H2)
        state.initiate_connection()
        state.increment_flow_control_window(_WINDOW_BYTES - state.local_settings.initial_window_size)
        state.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._connection = Connection(state, wire)
        self._connection.flush()
        self._events = Events(calls, self._connection)
        wire.throttle(self._connection)

    def feed(self, data: bytes) -> None:
        """Take what the peer sent. What is no HTTP/2 closes the connection, politely where h2 knows how."""
        if self._wire.is_closing():
            return
        try:
            events = self._connection.feed(data)
        except h2.exceptions.ProtocolError as error:
            log.debug("closing a connection that breaks HTTP/2: %r", error)
            self._connection.flush()  # h2 has queued a GOAWAY with the reason
            self.close("Protocol error")
            return
        self._connection.flush()
        for event in events:
            self._events.process(event)
        self._connection.flush()

    def go_away(self) -> None:
        """Ask the peer to open no more calls here. Made by hand: h2 itself would forbid finishing those that are open."""
        self._wire.write(GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=0).serialize())

    def close(self, reason: str) -> None:
        """End every call, send what is queued, close."""
        self._events.close(reason)
