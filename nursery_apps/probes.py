"""/healthz, /readyz and /metrics over HTTP: small, bounded, and safe against whatever connects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import h11
import trio

log = logging.getLogger(__name__)

HEADER_BYTES: Final = 8 * 1024
"""A probe's request has 200; what is longer is not one."""
REQUEST_SECONDS: Final = 10.0
"""Longest time between a connection's opening and its request, and for the answer to leave; the kubelet's probes give up after 1 s."""
IDLE_SECONDS: Final = 90.0
"""A scraper keeps its connection; a minute is the usual interval."""
CONNECTIONS: Final = 16
"""A kubelet, two scrapers and a person; more wait in the backlog."""

Check = Callable[[], str | None]
"""None if all is well, else a sentence that says what is not."""
Content = tuple[int, str, bytes]
"""Status, content type, body."""


class Probes:
    """Serves what three functions say."""

    def __init__(self, *, live: Mapping[str, Check], ready: Mapping[str, Check], metrics: Callable[[], bytes]) -> None:
        self._pages: Mapping[str, Callable[[], Content]] = {
            "/healthz": lambda: _checked(live),
            "/readyz": lambda: _checked(ready),
            "/metrics": lambda: (200, "text/plain; version=0.0.4; charset=utf-8", metrics()),
        }

    async def serve(self, address: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` with the port. Port 0 of the settings means off and never gets here; here it means any.

        Raises:
            OSError: the port cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(port, host=address)
        async with trio.open_nursery() as nursery:
            limit = trio.CapacityLimiter(CONNECTIONS)
            for listener in listeners:
                nursery.start_soon(self._accept, listener, limit, nursery)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def _accept(self, listener: trio.SocketListener, limit: trio.CapacityLimiter, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                token = object()
                await limit.acquire_on_behalf_of(token)
                try:
                    stream = await listener.accept()
                except BaseException:
                    limit.release_on_behalf_of(token)
                    raise
                nursery.start_soon(self._connection, stream, limit, token)

    async def _connection(self, stream: trio.SocketStream, limit: trio.CapacityLimiter, token: object) -> None:
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
            log.debug("a connection ended: %r", error)
        finally:
            limit.release_on_behalf_of(token)

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        patience = REQUEST_SECONDS
        while True:
            request: h11.Request | None = None
            with trio.move_on_after(patience) as waiting:
                request = await _next_request(connection, stream)
            if request is None or waiting.cancelled_caught:
                return
            with trio.move_on_after(REQUEST_SECONDS) as answering:
                await stream.send_all(self._answer(connection, request))
            if answering.cancelled_caught or connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            patience = IDLE_SECONDS

    def _answer(self, connection: h11.Connection, request: h11.Request) -> bytes:
        page = self._pages.get(request.target.decode("ascii", "replace").partition("?")[0])
        if request.method not in (b"GET", b"HEAD"):
            status, kind, body = 405, "text/plain", b"only GET and HEAD\n"
        elif page is None:
            status, kind, body = 404, "text/plain", b"/healthz, /readyz and /metrics are served\n"
        else:
            status, kind, body = page()
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        data = connection.send(h11.Response(status_code=status, headers=headers))
        if request.method != b"HEAD":
            data += connection.send(h11.Data(data=body))
        return data + connection.send(h11.EndOfMessage())


async def _next_request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """A whole request, its body read and forgotten; None when the peer is done."""
    request: h11.Request | None = None
    body = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(4096))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += len(event.data)
            if body > HEADER_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None


def _checked(checks: Mapping[str, Check]) -> Content:
    lines = {name: check() for name, check in checks.items()}
    text = "".join(f"[{'ok' if why is None else 'no'}] {name}{'' if why is None else ': ' + why}\n" for name, why in lines.items())
    return (200 if all(why is None for why in lines.values()) else 503), "text/plain; charset=utf-8", text.encode()
