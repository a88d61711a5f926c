"""Unix sockets as files: who serves one, taking one's place, removing only one's own.

All of it is synchronous: these calls touch names and kernel tables, and a Unix connect never waits for the peer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Final

from nursery_apps import rpc

_BACKLOG: Final = 128
"""The kubelet opens a handful of connections; the oldest one a new connection for every call."""


class Bound:
    """A listening socket and the name it was given. Keeps the promises of `nursery_apps.rpc.Listening`."""

    def __init__(self, path: str, listening: socket.socket) -> None:
        self.path = path
        self.socket = listening
        self._identity = _identity(path)

    def reachable(self) -> bool:
        return self._identity is not None and _identity(self.path) == self._identity

    def close(self) -> None:
        """Remove the name, unless a successor has it by now, then stop listening. Again: nothing.

        In this order: as long as the socket is open the kernel keeps its inode, so no other file can have the same number.
        """
        if self.reachable():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self._identity = None
        self.socket.close()


def bind(path: str, *, mode: int, take_over: bool) -> Bound:
    """Listen at `path`; see `nursery_apps.rpc.RpcListener.serve_unix` for what happens to a file that is there."""
    length = len(os.fsencode(path))
    if length > rpc.LONGEST_SOCKET_PATH_BYTES:
        raise ValueError(
            f"socket path of {length} bytes, the kernel takes {rpc.LONGEST_SOCKET_PATH_BYTES}; use a shorter directory: {path}"
        )
    _make_way(path, take_over=take_over)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _with_path(listening.bind, path)
    except BaseException:
        listening.close()
        raise
    bound = Bound(path, listening)
    try:
        os.chmod(path, mode)  # nobody can connect before listen(), so at no time with other rights
        listening.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def remove_dead(directory: str, is_candidate: Callable[[str], bool]) -> list[str]:
    """See `nursery_apps.rpc.RpcListener.remove_dead`."""
    try:
        names = sorted(filter(is_candidate, os.listdir(directory)))
    except FileNotFoundError:
        return []
    removed = []
    for name in names:
        path = os.path.join(directory, name)
        if _is_socket(path) and not _is_served(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                removed.append(name)
    return removed


def _make_way(path: str, *, take_over: bool) -> None:
    if not os.path.lexists(path):
        return
    if not _is_socket(path):
        raise FileExistsError(errno.EEXIST, "in the way and no socket; remove it", path)
    if not take_over and _is_served(path):
        raise OSError(errno.EADDRINUSE, "another process serves this socket; is a second instance of the driver running?", path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is_served(path: str) -> bool:
    """False if nobody accepts there; True also when that cannot be told, so that what may be alive is left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _with_path(act: Callable[[str], object], path: str) -> None:
    """socket calls leave the file name out of their OSErrors."""
    try:
        act(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
