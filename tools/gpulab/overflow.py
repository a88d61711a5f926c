"""Makes listeners to uevents lose some: for a moment their sockets' buffers are so small that the next event but one finds no room.

Filling the buffers as they are does not do it: libudev skips what it does not look for as fast as the kernel tells it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

_BURST: Final = 100
"""Events told between two looks, which give a reader time to catch up."""
_BURSTS: Final = 1000
"""One does, mostly."""
_KERNEL_GROUP: Final = 1
_NETLINK_KOBJECT_UEVENT: Final = 15
_SYS_PIDFD_GETFD: Final = 438
"""The same number on every architecture (include/uapi/asm-generic/unistd.h); Python has no function for it."""
_SO_RCVBUFFORCE: Final = 33
"""include/uapi/asm-generic/socket.h"""


def provoke(tell: Callable[[], None]) -> None:
    """Tell an event until each process of this namespace that listens to the kernel has lost one of them.

    Raises:
        OSError: ETIMEDOUT, one of them reads faster than it is told.
    """
    with contextlib.ExitStack() as squeezed:
        before = {
            inode: lost
            for inode, lost in lost_by_listener(_table()).items()
            if (holder := _holder(inode)) is not None and squeezed.enter_context(_squeezed(*holder))
        }
        for _ in range(_BURSTS):
            now = lost_by_listener(_table())
            if all(now[inode] > lost for inode, lost in before.items() if inode in now):
                return
            for _ in range(_BURST):
                tell()
    raise OSError(errno.ETIMEDOUT, "a listener reads uevents faster than they are told")


def lost_by_listener(table: str) -> dict[str, int]:
    """/proc/net/netlink -> messages that each listener to the kernel's uevents has lost, by its socket's inode."""
    rows = [line.split() for line in table.splitlines()[1:]]
    # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    return {row[9]: int(row[8]) for row in rows if int(row[1]) == _NETLINK_KOBJECT_UEVENT and int(row[3], 16) & _KERNEL_GROUP}


def _table() -> str:
    return pathlib.Path("/proc/net/netlink").read_text()


def _holder(inode: str) -> tuple[int, int] | None:
    """A process that has the socket, and its descriptor there; None if that one is in another process namespace."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # processes end, descriptors are closed
            if os.readlink(entry) == f"socket:[{inode}]":
                return int(entry.parts[2]), int(entry.name)
    return None


@contextlib.contextmanager
def _squeezed(pid: int, descriptor: int) -> Iterator[bool]:
    """The socket has the smallest receive buffer that there is. False: its owner has gone."""
    try:
        listener = _borrowed(pid, descriptor)
    except OSError:
        yield False
        return
    with listener:
        size = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        try:
            yield True
        finally:
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size // 2)  # the kernel doubles what it is given


def _borrowed(pid: int, descriptor: int) -> socket.socket:
    process = os.pidfd_open(pid)
    try:
        got = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return socket.socket(fileno=got)
