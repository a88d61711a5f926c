"""Intel's XPU Manager daemon as far as its health stream goes, written from the table of its field numbers and not from our .proto: on our
own gRPC server for virtual time, and on grpcio's C core as a foreigner."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import trio

from nursery_apps import rpc
from nursery_apps.edges.grpc_on_trio.server import RpcServer

METHOD = "/deviceinfo.DeviceInfo/WatchDeviceHealth"
UNKNOWN, OK, WARNING, CRITICAL, FAILED = range(5)
SAMPLE_SECONDS = 5.0
"""As the daemon does unless it is configured otherwise."""

Health = Mapping[str, int | tuple[int, str, str]]
"""Name -> severity, or (severity, reason, message)."""


def device(bdf: str, health: Health, *, vendor: str = "0x8086", device_id: str = "0xe211", size: int = 24 << 30) -> bytes:
    """A DeviceHealth with all that the daemon puts into one."""
    pci = _text(1, bdf) + _text(2, device_id) + _text(3, vendor)
    firmware = _text(1, "GSC") + _text(2, "1.2.3") + _text(3, "0")
    memory = _text(1, "gddr6") + _text(2, "0") + _number(3, size)
    info = _text(1, f"uuid-of-{bdf}") + _text(2, "Intel Arc Pro") + _bytes(3, pci) + _bytes(4, firmware) + _bytes(5, memory)
    return _bytes(1, info) + b"".join(_bytes(2, _status(name, said)) for name, said in health.items())


def response(*devices: bytes) -> bytes:
    return b"".join(_bytes(1, each) for each in devices)


def _status(name: str, said: int | tuple[int, str, str]) -> bytes:
    severity, reason, message = said if isinstance(said, tuple) else (said, "", "")
    return _text(1, name) + _number(2, severity) + _text(3, reason) + _text(4, message)


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode()) if value else b""


class Xpumd:
    """On our own server: all in one scheduler, so virtual time does not run ahead of it."""

    def __init__(self, path: str, said: bytes = b"") -> None:
        self.path, self.said = path, said
        self.watched = 0
        """How often somebody began to watch."""
        self.watching = 0
        self.mute = False
        """Alive, and says nothing."""
        self.refusal: rpc.RpcError | None = None
        self.once = False
        """Ends each stream after the first message."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Xpumd]:
        """From its start to its end; again for a restart."""
        route = rpc.ServerStream(METHOD, bytes, bytes, self._watch)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(RpcServer(grace_seconds=0).serve_unix, [route], self.path))
            yield self
            nursery.cancel_scope.cancel()

    async def _watch(self, asked: bytes, call: rpc.Call, send: Callable[[bytes], Awaitable[None]]) -> None:
        assert asked == b""
        self.watched += 1
        self.watching += 1
        try:
            if self.refusal is not None:
                raise self.refusal
            while True:
                if not self.mute:
                    await send(self.said)
                if self.once:
                    return
                await trio.sleep(SAMPLE_SECONDS)
        finally:
            self.watching -= 1


class CoreXpumd:
    """On the C core. A context manager: it lives from entering to leaving."""

    def __init__(self, path: str, said: bytes = b"") -> None:
        self.path, self._said = path, said
        self._version = 0
        self._changed = threading.Condition()

    def __enter__(self) -> CoreXpumd:
        self._server = grpc.server(ThreadPoolExecutor(4))
        methods = {"WatchDeviceHealth": grpc.unary_stream_rpc_method_handler(self._watch)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("deviceinfo.DeviceInfo", methods),))
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._version = -1
            self._changed.notify_all()
        self._server.stop(0).wait(5)

    def say(self, said: bytes) -> None:
        """To all who watch, at once; the daemon would with its next sample."""
        with self._changed:
            self._said = said
            self._version += 1
            self._changed.notify_all()

    def _watch(self, asked: bytes, context: Any) -> Iterator[bytes]:
        assert asked == b""
        told = None
        while True:
            with self._changed:
                while self._version == told and context.is_active():
                    self._changed.wait(0.5)  # nobody wakes us when the watcher leaves
                if self._version < 0 or not context.is_active():
                    return
                told, said = self._version, self._said
            yield said
