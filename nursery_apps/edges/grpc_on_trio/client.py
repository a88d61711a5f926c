"""A gRPC client for calls that are answered with a stream: one call a connection, no task of its own.

Whoever receives does all the work in `receive`: it reads no more than one message needs, so a peer that sends faster than we take is held
back by HTTP/2's windows and the socket's buffer. grpclib's client is not used: it has tasks on asyncio, and a stream cut short by GOAWAY
loses what was received before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import h2.config
import h2.events
import trio
from grpclib.metadata import decode_grpc_message
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame

from nursery_apps import rpc

_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest message taken: gRPC's customary limit, and what a Go peer takes too."""
_REQUEST_BYTES: Final = 16 * 1024 - 5
"""What one frame holds (RFC 9113 section 4.2) beside the prefix: it fits every peer's first window, so a request never waits for one."""
_RECEIVE_BYTES: Final = 64 * 1024
"""A whole first window."""
_PREFIX_BYTES: Final = 5
"""Before each message: one byte "compressed", four bytes length."""
_LONGEST_TEXT: Final = 1024
"""Characters of a status text that are kept: it is a foreigner's, and ends up in a log."""

_H2: Final = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")  # any byte decodes

_BY_HTTP_STATUS: Final = {
    "401": rpc.Status.UNAUTHENTICATED,
    "403": rpc.Status.PERMISSION_DENIED,
    "404": rpc.Status.UNIMPLEMENTED,
    "429": rpc.Status.UNAVAILABLE,
    "502": rpc.Status.UNAVAILABLE,
    "503": rpc.Status.UNAVAILABLE,
    "504": rpc.Status.UNAVAILABLE,
}
"""What an answer in plain HTTP means (gRPC's http-grpc-status-mapping); all others: UNKNOWN."""


class RpcClient:
    """Keeps the promises of `nursery_apps.rpc.RpcCaller`."""

    def __init__(self, *, max_message_bytes: int = _MESSAGE_BYTES) -> None:
        self._most_bytes = max_message_bytes

    @contextlib.asynccontextmanager
    async def stream_unix(self, path: str, method: str, message: bytes) -> AsyncIterator[rpc.Answers]:
        if len(message) > _REQUEST_BYTES:
            raise ValueError(f"a request of {len(message)} bytes, at most {_REQUEST_BYTES} are sent")
        async with await trio.open_unix_socket(path) as wire:
            call = _Call(wire, self._most_bytes)
            await call.ask(method, message)
            yield call


class _State(H2Connection):
    """h2's, which forbids everything after GOAWAY: frames that follow it in one read would be errors, and what came before it lost."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.additional_data = frame.error_code, frame.additional_data or None
        return [], [event]


class _Call:
    def __init__(self, wire: trio.SocketStream, most_bytes: int) -> None:
        self._wire, self._most_bytes = wire, most_bytes
        self._state = _State(config=_H2)
        self._received = bytearray()
        """Of messages that nobody took yet."""
        self._over = False
        """Nothing is added to that any more."""
        self._verdict: rpc.RpcError | None = rpc.RpcError(rpc.Status.INTERNAL, "the answer ended without a status")
        """How the call has ended, once it is over; None: well."""

    async def ask(self, method: str, message: bytes) -> None:
        self._state.initiate_connection()
        stream = self._state.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),  # what gRPC's own clients say on a Unix socket; some servers refuse an empty one
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
        ]
        self._state.send_headers(stream, headers)
        self._state.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        await self._send()

    async def receive(self) -> bytes | None:
        await trio.lowlevel.checkpoint()
        while True:
            message = self._next()
            if message is not None:
                return message
            if not self._over:
                await self._read()
            elif self._verdict is not None:
                raise self._verdict
            elif self._received:
                raise rpc.RpcError(rpc.Status.INTERNAL, "the answer ended within a message")
            else:
                return None

    def _next(self) -> bytes | None:
        """A message that is here as a whole."""
        if len(self._received) < _PREFIX_BYTES:
            return None
        if self._received[0]:
            raise rpc.RpcError(rpc.Status.INTERNAL, "a compressed message, which was not asked for")
        length = int.from_bytes(self._received[1:_PREFIX_BYTES], "big")
        if length > self._most_bytes:
            raise rpc.RpcError(rpc.Status.RESOURCE_EXHAUSTED, f"message of {length} bytes, at most {self._most_bytes} are taken")
        end = _PREFIX_BYTES + length
        if len(self._received) < end:
            return None
        message = bytes(self._received[_PREFIX_BYTES:end])
        del self._received[:end]
        return message

    async def _read(self) -> None:
        try:
            data = await self._wire.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self._end(rpc.RpcError(rpc.Status.UNAVAILABLE, "the connection was closed"))
            return
        try:
            events = self._state.receive_data(data)
        except Exception as error:  # ProtocolError, or a bug of the HTTP/2 libraries that a peer can set off
            raise rpc.RpcError(rpc.Status.INTERNAL, f"what came is no HTTP/2: {error}"[:_LONGEST_TEXT]) from error
        for event in events:
            self._take(event)
        leaving = next((event for event in events if isinstance(event, h2.events.ConnectionTerminated)), None)
        if leaving is not None:
            # A stream may have no end, so its peer is not kept waiting for one; a status that came along is better than none.
            reason = (leaving.additional_data or b"").decode(errors="replace")
            self._end(rpc.RpcError(rpc.Status.UNAVAILABLE, f"the peer asks to go elsewhere: {_code(leaving.error_code)} {reason}".strip()))
        await self._send()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._hear({str(name): str(value) for name, value in event.headers or ()})
            case h2.events.DataReceived():
                self._received += event.data or b""
                self._state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case h2.events.StreamEnded():
                self._end(self._verdict)
            case h2.events.StreamReset():
                self._end(rpc.RpcError(rpc.Status.UNAVAILABLE, f"the peer gave the call up: {_code(event.error_code)}"))
            case _:
                pass  # h2 itself answers pings and settings; the rest is for calls that ask with more than one frame

    def _hear(self, headers: Mapping[str, str]) -> None:
        if "grpc-status" in headers:
            self._verdict = _verdict(headers["grpc-status"], decode_grpc_message(headers.get("grpc-message", ""))[:_LONGEST_TEXT])
        elif headers.get(":status", "200") != "200":
            status = headers[":status"][:_LONGEST_TEXT]
            self._verdict = rpc.RpcError(_BY_HTTP_STATUS.get(status, rpc.Status.UNKNOWN), f"HTTP status {status}")

    def _end(self, verdict: rpc.RpcError | None) -> None:
        """The first end is the one that counts."""
        if not self._over:
            self._over, self._verdict = True, verdict

    async def _send(self) -> None:
        # A peer that closed reads nothing more, but what it said before is still to be read, and then the end.
        with contextlib.suppress(trio.BrokenResourceError):
            await self._wire.send_all(self._state.data_to_send())


def _verdict(code: str, text: str) -> rpc.RpcError | None:
    try:
        status = rpc.Status(int(code))
    except ValueError:
        return rpc.RpcError(rpc.Status.UNKNOWN, f"status {code[:20]!r}: {text}")
    return None if status is rpc.Status.OK else rpc.RpcError(status, text)


def _code(code: int | None) -> str:
    known = {each.value: each.name for each in ErrorCodes}
    return known.get(code or 0, f"error {code}")
