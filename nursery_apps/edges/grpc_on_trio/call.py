"""One call: its request, its cancel scopes, its reply, its status."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import h2.exceptions
import trio
from grpclib.metadata import decode_metadata, decode_timeout, encode_grpc_message

from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.http2 import Headers, Stream

log = logging.getLogger(__name__)

_TRAILERS_SECONDS: Final = 5.0
"""For a peer that reads nothing: long enough for a busy one, short enough not to pin the call."""
_LONGEST_MESSAGE_BYTES: Final = 1024
"""Of a status text: trailers travel as one header block, and peers refuse large ones (grpc-go: 8 KiB)."""
_PREFIX_BYTES: Final = 5
"""Before each message: one byte "compressed", four bytes length."""


class InFlight:
    """A call from its headers to its trailers."""

    def __init__(self, routes: Mapping[str, rpc.Route], stream: Stream, headers: Headers, *, most_bytes: int) -> None:
        self._routes = routes
        self._stream = stream
        self._headers = headers
        self._by_name = dict(headers)
        self._path = self._by_name.get(":path", "")
        self._most_bytes = most_bytes
        self._lost = trio.CancelScope()
        """Around everything: cancelled when nobody is there to be answered."""
        self._serving = trio.CancelScope()
        """Around the route's own work: when it is cancelled, by the deadline too, the status can still be sent."""
        self._verdict = rpc.RpcError(rpc.Status.DEADLINE_EXCEEDED, "the call's deadline has passed")
        """What the caller is told if the work was cancelled."""

    @property
    def streams(self) -> bool:
        """Whether it is answered with many messages, perhaps without end."""
        return isinstance(self._routes.get(self._path), rpc.ServerStream)

    def cancel(self, error: Exception) -> None:  # noqa: ARG002  (grpclib's signature)
        """The peer has reset the stream or is gone; grpclib says so to what it calls the stream's wrapper."""
        self._lost.cancel()

    def end(self, verdict: rpc.RpcError) -> None:
        """Stop the work and tell the caller why."""
        self._verdict = verdict
        self._serving.cancel()

    async def run(self) -> None:
        try:
            with self._lost:
                # The peer may have gone before this task first ran: then nothing starts.
                await trio.lowlevel.checkpoint_if_cancelled()
                await self._answer()
        except h2.exceptions.ProtocolError as error:
            log.debug("call %s ended while it was answered: %r", self._path, error)  # the peer reset the stream while we wrote
        except Exception:
            # What goes wrong below the route costs this call, not the program.
            log.exception("call %s could not be answered", self._path)

    async def _answer(self) -> None:
        if refusal := self._refusal():
            await self._stream.send_headers(refusal, end_stream=True)
        else:
            reply = _Reply(self._stream)
            status, message = await self._outcome(reply)
            with trio.move_on_after(_TRAILERS_SECONDS):
                await reply.finish(status, message)
        self._stream.recall()  # the rest of a request that was refused, or a reply that could not be ended

    def _refusal(self) -> Headers | None:
        """For what is no gRPC at all: an answer in plain HTTP."""
        if self._by_name.get(":method") != "POST":
            return [(":status", "405")]
        if self._by_name.get("content-type", "").partition(";")[0].strip() not in ("application/grpc", "application/grpc+proto"):
            return [(":status", "415")]
        return None

    async def _outcome(self, reply: _Reply) -> tuple[rpc.Status, str]:
        try:
            with self._serving:
                await self._serve(reply)
                return rpc.Status.OK, ""
        except Exception as error:
            leaf: BaseException = error
            while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:  # raised inside a nursery of the route
                leaf = leaf.exceptions[0]
            if isinstance(leaf, rpc.RpcError):
                return leaf.status, leaf.message
            if isinstance(leaf, h2.exceptions.ProtocolError):
                raise
            log.exception("call %s failed", self._path)
            return rpc.Status.UNKNOWN, f"{type(leaf).__name__} in the driver; its log says more"
        return self._verdict.status, self._verdict.message

    async def _serve(self, reply: _Reply) -> None:
        route = self._routes.get(self._path)
        if route is None:
            raise rpc.RpcError(rpc.Status.UNIMPLEMENTED, f"no method {self._path[:200]}")
        call = _described(self._path, self._headers)
        self._serving.deadline = call.deadline
        asked = _decoded(route, await _received(self._stream, self._most_bytes))
        match route:
            case rpc.Unary():
                await reply.send(route.encode(await route.call(asked, call)))
            case rpc.ServerStream():

                async def send(told: Any) -> None:
                    await reply.send(route.encode(told))
                    # Sending alone lets nobody else run until much is queued.
                    await trio.lowlevel.checkpoint()

                await route.call(asked, call, send)


def _described(path: str, headers: Headers) -> rpc.Call:
    try:
        seconds = min((decode_timeout(value) for name, value in headers if name == "grpc-timeout"), default=math.inf)
        return rpc.Call(path, trio.current_time() + seconds, dict(decode_metadata(headers)))
    except (ValueError, OverflowError) as error:
        raise rpc.RpcError(rpc.Status.INTERNAL, f"unreadable headers: {error}") from error


async def _received(stream: Stream, most_bytes: int) -> bytes:
    prefix = await stream.recv_data(_PREFIX_BYTES)
    length = int.from_bytes(prefix[1:], "big")
    if len(prefix) == _PREFIX_BYTES:
        if prefix[0]:
            raise rpc.RpcError(rpc.Status.UNIMPLEMENTED, "compressed messages are not understood, send them as they are")
        if length > most_bytes:
            raise rpc.RpcError(rpc.Status.RESOURCE_EXHAUSTED, f"message of {length} bytes, at most {most_bytes} are taken")
        data = await stream.recv_data(length)
        if len(data) == length:
            return data
    raise rpc.RpcError(rpc.Status.INTERNAL, "the request ended before its message did")


def _decoded(route: rpc.Route, data: bytes) -> Any:
    try:
        return route.decode(data)
    except Exception as error:  # whatever the route's decoder raises: the peer sent something else than it should
        raise rpc.RpcError(rpc.Status.INTERNAL, f"the request is no message of {route.path}: {error}") from error


class _Reply:
    """Headers once, messages, trailers once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._begun = False

    async def send(self, data: bytes) -> None:
        if not self._begun:
            await self._stream.send_headers(self._opening())
            self._begun = True
        await self._stream.send_data(b"\0" + len(data).to_bytes(4, "big") + data)

    async def finish(self, status: rpc.Status, message: str) -> None:
        headers = [] if self._begun else self._opening()
        headers.append(("grpc-status", str(status.value)))
        if message:
            headers.append(("grpc-message", encode_grpc_message(message.encode()[:_LONGEST_MESSAGE_BYTES].decode(errors="ignore"))))
        await self._stream.send_headers(headers, end_stream=True)

    @staticmethod
    def _opening() -> Headers:
        return [(":status", "200"), ("content-type", "application/grpc+proto"), ("grpc-accept-encoding", "identity")]
