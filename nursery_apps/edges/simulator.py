"""A fake machine in place of the real one: its events, and a socket to act on it. `machine_log` lets it outlive the process."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from dra.sim_kernel import control, requests
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges import unix_socket
from nursery_apps.event_outlet import EventOutlet
from nursery_apps.seams import DeviceEvent, Resync

SUBSYSTEMS: Final = ("pci", "drm")
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""A plugged card's description is some 100 KiB; more is no request."""


class SimDeviceEvents:
    """Keeps the promises of `nursery_apps.seams.DeviceEvents` for a fake kernel that threads act on."""

    def __init__(self, kernel: SimKernel) -> None:
        self._kernel = kernel

    async def listen(
        self, send: trio.MemorySendChannel[DeviceEvent | Resync], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See the seam."""
        outlet, token = EventOutlet(send), trio.lowlevel.current_trio_token()

        def on_event(action: str, subsystem: str, path: str, properties: dict[str, str]) -> None:
            if subsystem in SUBSYSTEMS:
                token.run_sync_soon(outlet.offer, DeviceEvent(action, subsystem, path, properties))

        def on_overflow(why: str) -> None:
            token.run_sync_soon(outlet.lost, why)

        async with send:
            leave = self._kernel.subscribe(on_event, on_overflow)
            try:
                task_status.started()
                await outlet.deliver()
                await trio.sleep_forever()  # the receiving side is closed; whoever closed it ends us
            finally:
                leave()


class _Gates:
    """What hanging operations block on, by path and operation."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], threading.Event] = {}

    def make(self, path: str, operation: str) -> Callable[[], None]:
        event = self._events.setdefault((path, operation), threading.Event())

        def block() -> None:
            event.wait()

        return block

    def open(self, path: str, operation: str) -> None:
        event = self._events.pop((path, operation), None)
        if event is not None:
            event.set()

    def open_all(self) -> None:
        for key in tuple(self._events):
            self.open(*key)


async def serve_control(kernel: SimKernel, socket_path: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve the control socket until cancelled: one JSON request a line, one JSON answer a line, `{"ok": ...}` or `{"error": ...}`.

    Whoever may open the socket (0600) may do to the machine what root may do to a real one. A socket that is there is taken over, as
    during a rolling update, and a successor's is left alone.

    Raises:
        OSError: the socket cannot be made.
        ValueError: its path is too long.
    """
    gates = _Gates()
    bound = unix_socket.bind(socket_path, mode=0o600, take_over=True)
    listening = trio.socket.from_stdlib_socket(bound.socket)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection, _ = await listening.accept()
                nursery.start_soon(_serve, kernel, trio.SocketStream(connection), gates)
    finally:
        gates.open_all()  # threads that still hang could not be joined
        bound.close()


async def _serve(kernel: SimKernel, stream: trio.SocketStream, gates: _Gates) -> None:
    pending = bytearray()
    async with stream:
        try:
            async for piece in stream:
                pending += piece
                while (end := pending.find(b"\n")) >= 0:
                    line, pending = bytes(pending[:end]), pending[end + 1 :]
                    if line.strip():
                        await stream.send_all(msgspec.json.encode(await _answer(kernel, line, gates)) + b"\n")
                if len(pending) > MAX_LINE_BYTES:
                    await stream.send_all(b'{"error":"the request is longer than 4 MiB"}\n')
                    return
        except trio.BrokenResourceError:
            return  # the client went away; what it asked for is done


async def _answer(kernel: SimKernel, line: bytes, gates: _Gates) -> dict[str, object]:
    try:
        request = requests.parse(msgspec.json.decode(line))
        if isinstance(request, requests.Release):
            gates.open(request.path, request.operation)
        elif isinstance(request, requests.ReleaseVfio):
            gates.open(request.bdf, "vfio")
        result = await trio.to_thread.run_sync(lambda: control.perform(kernel, request, gate=gates.make), abandon_on_cancel=True)
    except OSError as error:
        return {"error": f"{error.strerror}: {error.filename}", "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    except ValueError as error:
        return {"error": str(error)}
    return {"ok": result}
