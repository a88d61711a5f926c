"""Connections to one API server: httpcore's pools on Trio, with one set of certificates each.

Calls share eight connections; each watch has one of its own, so watches never starve calls.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpcore
import trio

from nursery_apps import tls
from nursery_apps.credentials import Transport

CONNECTIONS: Final = 8
"""As many calls at once; more wait their turn inside their deadline."""
KEEP_IDLE_SECONDS: Final = 60.0
"""Shorter than the API server's 90 s, so that we are the one who closes."""
KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    # Unacknowledged data counts as well: without it a watch on a vanished server is believed for a quarter of an hour.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)

LOST: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError, ssl.SSLError, OSError)
"""What a call or a watch may end with when the server, or the way to it, is gone."""


class Link:
    """Connections to one server with one set of certificates."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        at = urlsplit(transport.server)
        self.prefix = at.path.rstrip("/")
        self.host = at.netloc.rpartition("@")[2]
        context = tls.context_of(transport) if at.scheme == "https" else None
        self.calls, self.watches = self._pool(context, CONNECTIONS), self._pool(context, None)
        self.origin = f"{at.scheme}://{self.host}"
        self.users = 0
        self.retired = False

    def _pool(self, context: ssl.SSLContext | None, most: int | None) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            proxy=httpcore.Proxy(self.transport.proxy) if self.transport.proxy else None,
            max_connections=most,
            keepalive_expiry=KEEP_IDLE_SECONDS,
            network_backend=_Network(),
            socket_options=KEEPALIVE,
        )

    def request(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str], content: bytes | None) -> httpcore.Request:
        if given := {key: value for key, value in query.items() if value}:
            path = f"{path}?{urlencode(given)}"
        if content is not None:
            headers = {**headers, "Content-Length": str(len(content))}
        extensions = {"sni_hostname": self.transport.server_name} if self.transport.server_name else {}
        url = f"{self.origin}{self.prefix}{path}"
        return httpcore.Request(method, url, headers=list(headers.items()), content=content, extensions=extensions)

    async def aclose(self) -> None:
        await self.calls.aclose()
        await self.watches.aclose()


def describe(error: BaseException) -> str:
    """The innermost text: trio and httpcore wrap what really happened, and only the core says `Connection refused`."""
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    text: str = type(error).__name__
    inner: BaseException | None = error
    while inner is not None:
        text = str(inner) or text
        inner = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner.__cause__
    return text


class _Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore wants it. Time-outs are cancel scopes of ours around whole calls, so those it offers stay unused."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        with _translated(httpcore.ReadError):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        with _translated(httpcore.WriteError):
            await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        # httpcore closes shielded from cancellation, and a TLS goodbye to a server that no longer reads would wait for ever.
        await trio.aclose_forcefully(self._stream)

    async def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:  # noqa: ARG002
        assert isinstance(self._stream, trio.SocketStream)
        secured = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with _translated(httpcore.ConnectError):
                await secured.do_handshake()
        except BaseException:
            await self.aclose()
            raise
        return _Stream(secured)

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        # An idle connection with something to read has been closed by the server.
        plain = self._stream if isinstance(self._stream, trio.SocketStream) else self._stream.transport_stream
        return plain.socket.is_readable()


class _Network(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        with _translated(httpcore.ConnectError):
            stream = await trio.open_tcp_stream(host, port, local_address=local_address)
            for option in socket_options or ():
                stream.setsockopt(*option)
            return _Stream(stream)


@contextlib.contextmanager
def _translated(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise kind(describe(error)) from error
