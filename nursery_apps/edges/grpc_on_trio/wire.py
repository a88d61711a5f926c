"""Bytes to and from one peer: what grpclib expects of an asyncio transport, over a Trio socket."""

from __future__ import annotations

from typing import Any, Final, Protocol

import trio

_HIGH_BYTES: Final = 256 * 1024
"""Callers are paused when more is queued: a few frames of the largest usual size, so a slow reader costs little memory."""
_LOW_BYTES: Final = 64 * 1024
"""and go on when less is left than a default socket buffer takes at once."""
_FLUSH_SECONDS: Final = 2.0
"""A closed connection may still send what is queued; a peer that reads nothing for so long will not."""


class Flag:
    """asyncio.Event's four methods on Trio: unlike `trio.Event` it can be cleared."""

    __slots__ = ("_lot", "_set")

    def __init__(self, value: bool = False) -> None:
        self._set = value
        self._lot = trio.lowlevel.ParkingLot()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._lot.unpark_all()

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        """Returns at once if set, but never past a cancellation: a stream that always may write must still be cancellable.

        It does not let others run then, so the parts of one reply reach the queue together and leave in one send.
        """
        if not self._set:
            await self._lot.park()
        # Also after the park: a stream may be reset between the waking of its call and its turn, and h2 forbids writing to it then.
        await trio.lowlevel.checkpoint_if_cancelled()


class Throttled(Protocol):
    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Wire:
    """Queue for `write`, one task that sends, and the end of both directions together."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._more = Flag()
        self._closing = False
        self._throttled: Throttled | None = None
        self._sending = trio.CancelScope()
        self.receiving = trio.CancelScope()
        """Cancelled when nothing more can be sent; whoever receives does it in here."""

    # --- the face towards grpclib -----------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  (asyncio's signature; we know nothing extra)
        return default

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._more.set()
        if self._queued_bytes > _HIGH_BYTES and self._throttled is not None:
            self._throttled.pause_writing()

    def close(self) -> None:
        """Take no more, send what is queued, then end the connection."""
        if not self._closing:
            self._closing = True
            self._sending.deadline = trio.current_time() + _FLUSH_SECONDS
            self._more.set()

    # --- the face towards the server --------------------------------------------------------------------------------------------

    def throttle(self, throttled: Throttled) -> None:
        """Who is told to pause and to resume."""
        self._throttled = throttled

    async def send_queued(self) -> None:
        """Send until closed or the peer is gone, then stop the receiver too."""
        try:
            with self._sending:
                await self._send_until_closed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._closing = True
        self.receiving.cancel()

    async def receive(self, most_bytes: int) -> bytes:
        """Up to `most_bytes`; empty when the peer has ended or is gone."""
        try:
            return await self._stream.receive_some(most_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _send_until_closed(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
                await self._stream.send_all(data)
                if self._queued_bytes < _LOW_BYTES and self._throttled is not None:
                    self._throttled.resume_writing()
            if self._closing:
                return
