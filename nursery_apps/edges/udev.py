"""DeviceEvents from netlink, by pyudev."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final, Literal

import pyudev
import trio

from nursery_apps.event_outlet import EventOutlet
from nursery_apps.seams import DeviceEvent, Resync

SUBSYSTEMS: Final = ("pci", "drm")
RECEIVE_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""A message takes up to about 1 KiB with its bookkeeping; 64 GPUs with 62 VFs each are some 16000 of them in a burst. The kernel's usual
208 KiB hold some 200."""
_TURN: Final = 256
"""Messages read before other tasks get a turn."""


class UdevEvents:
    """Keeps the promises of `nursery_apps.seams.DeviceEvents`.

    `kernel` hears the kernel itself and works in a pod with its own network; `udev` hears udevd after its rules ran (nodes have their
    permissions, by-path links are there), but only on the host's network.
    """

    def __init__(
        self,
        source: Literal["kernel", "udev"] = "kernel",
        *,
        subsystems: Sequence[str] = SUBSYSTEMS,
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        self._source, self._subsystems, self._receive_buffer_bytes = source, tuple(subsystems), receive_buffer_bytes

    async def listen(
        self, send: trio.MemorySendChannel[DeviceEvent | Resync], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See the seam."""
        async with send, trio.open_nursery() as nursery:
            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=self._source)
            for subsystem in self._subsystems:
                monitor.filter_by(subsystem)
            # A second face of the same socket, for what pyudev does not offer.
            with socket.socket(fileno=os.dup(monitor.fileno())) as face:
                _enlarge(face, self._receive_buffer_bytes)
                monitor.start()
                outlet = EventOutlet(send)
                nursery.start_soon(outlet.deliver)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(face)
                    await _drain(monitor, face, outlet)


async def _drain(monitor: pyudev.Monitor, face: socket.socket, outlet: EventOutlet) -> None:
    """Take everything that is there."""
    taken = 0
    while True:
        try:
            device = monitor.poll(0)
        except OSError as error:
            # pyudev sees the socket's error in poll(2) and raises without a number; reading SO_ERROR tells it and clears it.
            number = error.errno or face.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == errno.ENOBUFS:
                outlet.lost("the kernel's buffer for device events was full")
                continue
            raise OSError(number or errno.EIO, f"the source of device events broke: {error}") from error
        if device is None:
            return
        event = DeviceEvent(device.action or "", device.subsystem or "", device.device_path, dict(device.properties))
        outlet.offer(event)
        taken += 1
        if taken % _TURN == 0:
            await trio.lowlevel.checkpoint()


def _enlarge(face: socket.socket, size_bytes: int) -> None:
    """Past the system's limit with CAP_NET_ADMIN, up to it without: a smaller buffer only means an earlier Resync."""
    so_rcvbufforce = 33  # include/uapi/asm-generic/socket.h; Python has no name for it
    try:
        face.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, size_bytes)
    except PermissionError:
        face.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)
