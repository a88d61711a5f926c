"""A fake machine in place of the real one: its events, a socket to act on it, and a log that lets it outlive the process.

A real kernel keeps its state when the daemon dies, so the fake one must too: whatever changes the machine is appended to
`simulated-machine.log` and done again at the next start, until the host reboots or a `reboot` is asked for.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import trio

from dra.sim_kernel import control, requests
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges import unix_socket
from nursery_apps.event_outlet import EventOutlet
from nursery_apps.seams import DeviceEvent, Resync

LOG_NAME: Final = "simulated-machine.log"
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


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """First line of the log."""

    host_boot_id: str
    boot_id: str
    machine: str


def load_machine(
    document: object,
    name: str | None,
    directory: str,
    *,
    host_boot_id: str,
    fresh_boot_id: Callable[[], str],
    sleep: Callable[[float], None],
) -> SimKernel:
    """Start the machine of a document, or go on with it if it was started since the host booted; changes are logged in `directory`.

    Blocking: for use before the event loop runs, or in a thread.

    Raises:
        ValueError: the document is malformed, or the log does not fit it any more (the message says what to do).
        OSError: the log cannot be read or written.
    """
    path = Path(directory) / LOG_NAME
    replaying = True

    def waking_sleep(seconds: float) -> None:
        if not replaying:
            sleep(seconds)

    kernel = SimKernel.load(document, name, sleep=waking_sleep, lock=threading.RLock(), make_lock=threading.RLock)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # what has no newline was cut off in the writing
    header = _header(lines, path)
    if header is not None and (header.host_boot_id, header.machine) == (host_boot_id, kernel.machine.name):
        kernel.reboot(header.boot_id)
        for number, line in enumerate(lines[1:], 2):
            try:
                control.perform(kernel, requests.parse(msgspec.json.decode(line)), gate=lambda _path, _operation: lambda: None)
            except (ValueError, OSError) as error:
                raise ValueError(
                    f"{path}:{number}: the machine cannot be brought back to where it was ({error}); remove the file"
                ) from error
        with path.open("rb+") as file:
            file.truncate(sum(len(line) + 1 for line in lines))
    else:
        kernel.reboot(fresh_boot_id())
        _begin(path, _Header(host_boot_id, kernel.boot_id, kernel.machine.name))

    def record(change: requests.Change) -> None:
        if isinstance(change, requests.Reboot):
            _begin(path, _Header(host_boot_id, change.boot_id, kernel.machine.name))
            return
        # Not synced: the log has to survive this process, and a power cut ends the simulated boot as well.
        with path.open("ab") as file:
            file.write(msgspec.json.encode(change) + b"\n")

    kernel.record(record)
    kernel.finish()
    replaying = False
    return kernel


def _header(lines: list[bytes], path: Path) -> _Header | None:
    if not lines:
        return None
    try:
        return msgspec.json.decode(lines[0], type=_Header)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}:1: not the log of a simulated machine ({error}); remove the file") from error


def _begin(path: Path, header: _Header) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.encode(header) + b"\n")
    temporary.replace(path)


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
