"""/healthz, /readyz and /metrics over HTTP: small, bounded, and safe against whatever connects."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from typing import Final

import h11
import trio

log = logging.getLogger(__name__)

HEADER_BYTES: Final = 8 * 1024
"""A probe's request has 200; what is longer is not one."""
REQUEST_SECONDS: Final = 10.0
"""From a connection's opening until its answer has left; the kubelet's probes give up after 1 s."""
CONNECTIONS: Final = 16
"""A kubelet, two scrapers and a person; more wait in the backlog. Each serves one request, so that nobody who keeps a connection can
hold up the kubelet's probe, whose failure restarts the driver."""
EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
"""What accept(2) answers when descriptors or memory have run out, which passes; `trio.serve_listeners` waits for the same ones."""
EXHAUSTED_SECONDS: Final = 0.1
"""Between two tries then: the socket stays readable, so there is no event to wait for."""

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
        """Serve until cancelled; `started` with the port.

        An empty address means all of both families. Port 0 of the settings means off and never gets here; here it means any.

        Raises:
            OSError: the port cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(port, host=address or None)
        async with trio.open_nursery() as nursery:
            free = trio.Semaphore(CONNECTIONS)
            for listener in listeners:
                nursery.start_soon(self._accept, listener, free, nursery)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def _accept(self, listener: trio.SocketListener, free: trio.Semaphore, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                await free.acquire()
                nursery.start_soon(self._connection, await _accepted(listener), free)

    async def _connection(self, stream: trio.SocketStream, free: trio.Semaphore) -> None:
        try:
            async with stream:
                with trio.move_on_after(REQUEST_SECONDS):
                    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
                    request = await _next_request(connection, stream)
                    if request is not None:
                        await stream.send_all(self._answer(connection, request))
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
            log.debug("a connection to the probes ended: %r", error)
        finally:
            free.release()

    def _answer(self, connection: h11.Connection, request: h11.Request) -> bytes:
        page = self._pages.get(request.target.decode("ascii", "replace").partition("?")[0])
        if request.method not in (b"GET", b"HEAD"):
            status, kind, body = 405, "text/plain", b"only GET and HEAD\n"
        elif page is None:
            status, kind, body = 404, "text/plain", b"/healthz, /readyz and /metrics are served\n"
        else:
            status, kind, body = page()
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
        data = connection.send(h11.Response(status_code=status, headers=headers))
        if request.method != b"HEAD":
            data += connection.send(h11.Data(data=body))
        return data + connection.send(h11.EndOfMessage())


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    """The next connection, however long descriptors are short."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("cannot take a connection to the probes: %s; trying again", error.strerror)
        await trio.sleep(EXHAUSTED_SECONDS)


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
