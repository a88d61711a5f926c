"""One small service over HTTP/1.1: bounded in everything a client chooses, and safe against whatever connects.

A connection serves one request, so that nobody who keeps one open holds up the next caller. With TLS, if a certificate is given.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import h11
import msgspec
import trio

log = logging.getLogger(__name__)

HEADER_BYTES: Final = 8 * 1024
"""A probe's request has 200, Alertmanager's 400, the API server's to a webhook 600; what is longer is none of them."""
LAST_WORD_SECONDS: Final = 1.0
"""For an answer to who was too slow, and for hearing out who was refused before all was read: closing at once would reset the connection,
and the answer could be lost."""
UNHEARD_BYTES: Final = 16 << 20
"""What is read and forgotten of such a request."""
EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
"""What accept(2) answers when descriptors or memory have run out, which passes; `trio.serve_listeners` waits for the same ones."""
EXHAUSTED_SECONDS: Final = 0.1
"""Between two tries then: the socket stays readable, so there is no event to wait for."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class Service(Protocol):
    """What is served."""

    def refusal(self, request: Request) -> Answer | None:
        """The answer to a request that is wrong whatever its body, which is not read then; None to go on."""

    async def respond(self, request: Request) -> Answer:
        """The answer to a whole request."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    body_bytes: int
    request_seconds: float
    """From a connection's opening until its answer has left, TLS included and the answering itself left out."""
    answer_seconds: float
    """For answering; 503 after it."""
    connections: int
    """At once; more wait in the backlog."""


class _Refused(Exception):
    """Nothing more is to be read; `answer` is for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, f"{text}\n".encode())


class HttpService:
    """Serves one `Service` at one port."""

    def __init__(
        self, service: Service, *, name: str, limits: Limits, certificate: Callable[[], ssl.SSLContext | None] | None = None
    ) -> None:
        """
        Args:
            name: what it is, for log lines: `the probes`.
            certificate: asked at each connection, for TLS; None from it means that there is none yet, and the connection is closed.
        """
        self._service = service
        self._name = name
        self._limits = limits
        self._certificate = certificate

    async def serve(self, address: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` with the port.

        An empty address means all of both families, port 0 any that is free.

        Raises:
            OSError: the port cannot be bound; the text names it.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=address or None)
        except OSError as error:
            where = f"port {port} of {address or 'all addresses'}"
            raise OSError(error.errno, f"{self._name} cannot have {where}: {error.strerror}; free it, or set another") from None
        async with trio.open_nursery() as nursery:
            free = trio.Semaphore(self._limits.connections)
            for listener in listeners:
                nursery.start_soon(self._accept, listener, free, nursery)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def run(self, address: str, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve as settings say, in which port 0 means not at all.

        Raises:
            OSError: the port cannot be bound.
        """
        if port == 0:
            task_status.started()
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self.serve, address, port)
            log.info("%s at %s:%d", self._name, address, port)
            task_status.started()

    async def _accept(self, listener: trio.SocketListener, free: trio.Semaphore, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                await free.acquire()
                nursery.start_soon(self._connection, await self._accepted(listener), free)

    async def _accepted(self, listener: trio.SocketListener) -> trio.SocketStream:
        """The next connection, however long descriptors are short."""
        while True:
            try:
                return await listener.accept()
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                log.error("cannot take a connection to %s: %s; trying again", self._name, error.strerror)
            await trio.sleep(EXHAUSTED_SECONDS)

    async def _connection(self, plain: trio.SocketStream, free: trio.Semaphore) -> None:
        try:
            async with plain:
                if self._certificate is None:
                    await self._serve_one(plain)
                elif (context := self._certificate()) is not None:
                    await self._serve_one(trio.SSLStream(plain, context, server_side=True, https_compatible=True))
                else:
                    log.debug("%s: there is no certificate yet", self._name)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.debug("a connection to %s ended: %r", self._name, error.__cause__ or error)
        finally:
            free.release()

    async def _serve_one(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        exchange = _Exchange(connection, stream, self._limits.body_bytes)
        began = trio.current_time()
        answer: Answer | None = None
        try:
            with trio.move_on_after(self._limits.request_seconds):
                answer = await self._refusal_or_body(exchange)
            if answer is None and not exchange.complete:
                answer = Answer(408, f"the request was not there within {self._limits.request_seconds:g} s\n".encode())
        except _Refused as refused:
            answer = refused.answer
        except h11.RemoteProtocolError as error:
            log.debug("%s: not HTTP: %s", self._name, error)
            answer = Answer(error.error_status_hint, b"not understood\n")
        left = began + self._limits.request_seconds - trio.current_time()
        if answer is None:
            assert exchange.request is not None
            with trio.move_on_after(self._limits.answer_seconds):
                answer = await self._service.respond(exchange.request)
            answer = answer or Answer(503, f"no answer within {self._limits.answer_seconds:g} s\n".encode())
        if not exchange.wants_answer:
            return
        with trio.move_on_after(max(left, LAST_WORD_SECONDS)):
            await exchange.say(answer)
            if not exchange.complete:
                with trio.move_on_after(LAST_WORD_SECONDS):
                    await exchange.hear_out()
            if isinstance(stream, trio.SSLStream):
                await stream.aclose()

    async def _refusal_or_body(self, exchange: _Exchange) -> Answer | None:
        await exchange.read_head()
        assert exchange.request is not None
        answer = self._service.refusal(exchange.request)
        if answer is None:
            await exchange.read_body()
        else:
            exchange.skip_what_came()
        return answer


class _Exchange:
    """One request and its answer."""

    def __init__(self, connection: h11.Connection, stream: trio.abc.Stream, body_bytes: int) -> None:
        self._connection, self._stream, self._body_bytes = connection, stream, body_bytes
        self.request: Request | None = None
        self.complete = False
        """The whole request was read."""

    @property
    def wants_answer(self) -> bool:
        """False for who said nothing (a balancer that only tries the port), or has hung up before saying something."""
        said = self.request is not None or self._connection.their_state is h11.ERROR or bool(self._connection.trailing_data[0])
        return said and self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    async def read_head(self) -> None:
        event = await self._next()
        if not isinstance(event, h11.Request):
            raise _Refused(400, "no request")
        headers: dict[str, str] = {}
        for name, value in event.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        path = event.target.decode("ascii", "replace").partition("?")[0]
        self.request = Request(method=event.method.decode("ascii"), path=path, headers=headers)

    async def read_body(self) -> None:
        assert self.request is not None
        if int(self.request.headers.get("content-length", "0")) > self._body_bytes:  # h11 has checked that it is a number
            raise _Refused(413, f"at most {self._body_bytes} bytes are taken")
        if self._connection.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while True:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                break
            assert isinstance(event, h11.Data)
            body += event.data
            if len(body) > self._body_bytes:
                raise _Refused(413, f"at most {self._body_bytes} bytes are taken")
        self.request = msgspec.structs.replace(self.request, body=bytes(body))
        self.complete = True

    def skip_what_came(self) -> None:
        """Most requests that are refused are there already: nobody has to be heard out then."""
        while isinstance(event := self._connection.next_event(), h11.Data):
            pass
        self.complete = isinstance(event, h11.EndOfMessage)

    async def say(self, answer: Answer) -> None:
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body))), ("Connection", "close")]
        said = [h11.Response(status_code=answer.status, headers=headers)]
        is_head = self.request is not None and self.request.method == "HEAD"
        await self._send(*said, *([] if is_head else [h11.Data(data=answer.body)]), h11.EndOfMessage())

    async def hear_out(self) -> None:
        """Read what is still under way, and forget it."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        unheard = 0
        while unheard < UNHEARD_BYTES and (data := await self._stream.receive_some(65536)):
            unheard += len(data)

    async def _send(self, *events: h11.Event) -> None:
        await self._stream.send_all(b"".join(self._connection.send(event) or b"" for event in events))

    async def _next(self) -> h11.Event:
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Event):
                return event
            assert event is h11.NEED_DATA  # the other signal, PAUSED, comes only after a whole request
            data = bytes(await self._stream.receive_some(65536))
            if not data and self.request is not None:
                raise _Refused(408, "the request ended before its body did")
            self._connection.receive_data(data)
