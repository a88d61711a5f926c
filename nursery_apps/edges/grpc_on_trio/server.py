"""The tasks of a gRPC server: one accepts, one per connection receives, one sends, one per call serves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from typing import Any, Final

import trio
from grpclib import protocol
from h2.errors import ErrorCodes

from nursery_apps import rpc
from nursery_apps.edges import unix_socket
from nursery_apps.edges.grpc_on_trio import call
from nursery_apps.edges.grpc_on_trio.http2 import MOST_STREAMS, Peer
from nursery_apps.edges.grpc_on_trio.wire import Wire

log = logging.getLogger(__name__)

_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest request taken: gRPC's customary limit, and what a Go peer takes too."""
_GRACE_SECONDS: Final = 5.0
_CONNECTIONS: Final = 256
"""At once on one socket. The kubelet needs a handful; the limit keeps a runaway client from taking every file descriptor."""
_CALLS_PER_CONNECTION: Final = 2 * MOST_STREAMS
"""Calls whose streams the peer has reset may still be cleaning up; more than as many again is an attack."""
_FIRST_BYTES_SECONDS: Final = 20.0
"""A connection that says nothing for so long is no client (grpc-go's limit for a handshake, too)."""
_RECEIVE_BYTES: Final = 64 * 1024
_LAST_WORDS_SECONDS: Final = 3.0
"""After the grace: for cancelled calls to clean up and tell their callers, and for queued bytes to leave."""


class RpcServer:
    """Keeps the promises of `nursery_apps.rpc.RpcListener`."""

    def __init__(self, *, max_message_bytes: int = _MESSAGE_BYTES, grace_seconds: float = _GRACE_SECONDS) -> None:
        self._most_bytes = max_message_bytes
        self._grace_seconds = grace_seconds

    async def serve_unix(
        self,
        routes: Collection[rpc.Route],
        path: str,
        *,
        mode: int = 0o600,
        take_over: bool = False,
        task_status: trio.TaskStatus[rpc.Listening] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        by_path = {route.path: route for route in routes}
        if len(by_path) != len(routes):
            raise ValueError("two routes have one path")
        site = _Site(by_path, self._most_bytes)
        bound = unix_socket.bind(path, mode=mode, take_over=take_over)
        try:
            async with trio.open_nursery() as outer:
                connections: trio.Nursery = await outer.start(_hold)
                try:
                    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(bound.socket.dup()))
                    task_status.started(bound)
                    await trio.serve_listeners(site.serve_connection, [accepting], handler_nursery=connections)
                finally:
                    bound.close()  # peers see us leave before the drain starts
                    with trio.CancelScope(deadline=trio.current_time() + self._grace_seconds + _LAST_WORDS_SECONDS, shield=True):
                        await site.drain(self._grace_seconds)
                    connections.cancel_scope.cancel()
        finally:
            bound.close()

    def remove_dead(self, directory: str, is_candidate: Callable[[str], bool]) -> list[str]:
        return unix_socket.remove_dead(directory, is_candidate)


async def _hold(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Own the connections' nursery. In a task of its own, because a shielded nursery also shields the body that opened it."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True  # until the drain is over, which has a deadline
        task_status.started(nursery)
        await trio.sleep_forever()


class _Site:
    """What the connections of one socket have in common."""

    def __init__(self, routes: dict[str, rpc.Route], most_bytes: int) -> None:
        self._routes = routes
        self._most_bytes = most_bytes
        self._connections: set[_Calls] = set()
        self._changed = trio.lowlevel.ParkingLot()

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            if len(self._connections) >= _CONNECTIONS:
                log.warning("refusing a connection: %d are open", len(self._connections))
                return
            await self._converse(Wire(stream))

    async def _converse(self, wire: Wire) -> None:
        async with trio.open_nursery() as nursery:
            calls = _Calls(nursery, self._routes, self._most_bytes, self._changed.unpark_all)
            peer = calls.peer = Peer(wire, calls)
            self._connections.add(calls)
            nursery.start_soon(wire.send_queued)
            try:
                with wire.receiving:
                    wire.receiving.deadline = trio.current_time() + _FIRST_BYTES_SECONDS
                    while data := await wire.receive(_RECEIVE_BYTES):
                        wire.receiving.deadline = math.inf
                        peer.feed(data)
            except Exception:
                # A bug of the HTTP/2 libraries that a peer can set off costs this connection, not the program.
                log.exception("closing a connection")
            finally:
                self._connections.discard(calls)
                peer.close("Connection lost")
                self._changed.unpark_all()

    async def drain(self, grace_seconds: float) -> None:
        """End the streams, let the other calls in flight finish, end the rest, close the connections."""
        verdict = rpc.RpcError(rpc.Status.UNAVAILABLE, "the driver is stopping")
        for calls in self._connections:
            calls.peer.go_away()
            calls.stop_streams(verdict)
        with trio.move_on_after(grace_seconds):
            await self._until(self._idle)
        for calls in self._connections:
            calls.end(verdict)
        await self._until(self._idle)
        for calls in list(self._connections):
            calls.peer.close("The driver is stopping")
        await self._until(lambda: not self._connections)

    def _idle(self) -> bool:
        return not any(calls.in_flight for calls in self._connections)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._changed.park()


class _Calls(protocol.AbstractHandler):
    """The calls of one connection, as grpclib's events start and end them."""

    peer: Peer

    def __init__(self, nursery: trio.Nursery, routes: dict[str, rpc.Route], most_bytes: int, changed: Callable[[], object]) -> None:
        self._nursery = nursery
        self._routes = routes
        self._most_bytes = most_bytes
        self._changed = changed
        self._calls: dict[Any, call.InFlight] = {}
        self._no_streams: rpc.RpcError | None = None
        """Why there are none any more."""

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], None]) -> None:
        if len(self._calls) >= _CALLS_PER_CONNECTION:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            release_stream()
            return
        in_flight = stream.wrapper = call.InFlight(self._routes, stream, headers, most_bytes=self._most_bytes)
        self._calls[stream] = in_flight
        if self._no_streams is not None and in_flight.streams:
            in_flight.end(self._no_streams)  # it was on its way when the peer was asked to go elsewhere
        self._nursery.start_soon(self._run, stream, release_stream, in_flight)

    def cancel(self, stream: Any) -> None:
        """Nothing: grpclib has told the call already, through the stream's wrapper."""

    def close(self) -> None:
        """Nothing, for the same reason."""

    def stop_streams(self, verdict: rpc.RpcError) -> None:
        """Those that are open, and those that still come."""
        self._no_streams = verdict
        for in_flight in self._calls.values():
            if in_flight.streams:
                in_flight.end(verdict)

    def end(self, verdict: rpc.RpcError) -> None:
        for in_flight in self._calls.values():
            in_flight.end(verdict)

    async def _run(self, stream: Any, release_stream: Callable[[], None], in_flight: call.InFlight) -> None:
        try:
            await in_flight.run()
        finally:
            del self._calls[stream]
            release_stream()
            self._changed()
