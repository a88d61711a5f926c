"""StateDir on a real file system: atomic replace, durable append, an advisory lock.

The order of operations is the whole point: data is on disk before a name leads to it, and the directory is on disk before we say so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"
_MAX_READ_BYTES: Final = 64 * 1024 * 1024
"""No file of ours comes near it; a larger one is somebody's accident and must not fill memory."""

_TEMPORARY: Final = ".intel-gpu-tmp-"
"""Marks our temporary files: the CDI directory is shared with other vendors' drivers."""
_LEFTOVER_AFTER_SECONDS: Final = 60
"""No write of ours lasts as long, so an older temporary file has lost its writer."""


class RealStateDir:
    """Keeps the promises of `nursery_apps.seams.StateDir` below `path`."""

    def __init__(self, path: str, *, mode: int = 0o750) -> None:
        """Creates the directory if need be. Raises OSError naming it if that fails."""
        self._path = Path(path)
        self._path.mkdir(mode=mode, parents=True, exist_ok=True)
        self._directory_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._remove_leftovers()

    def close(self) -> None:
        os.close(self._directory_fd)

    def read(self, name: str) -> bytes | None:
        try:
            with open(self._file(name), "rb") as file:
                if os.fstat(file.fileno()).st_size > _MAX_READ_BYTES:
                    raise OSError(errno.EFBIG, f"larger than {_MAX_READ_BYTES} bytes", str(self._file(name)))
                return file.read()
        except FileNotFoundError:
            return None

    def stamp(self, name: str) -> tuple[int, int] | None:
        try:
            found = os.stat(self._file(name))
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size

    def replace(self, name: str, data: bytes, *, mode: int = 0o600, keep: str | None = None) -> None:
        target = self._file(name)
        temporary = self._file(_temporary(name))
        try:
            _write_new(temporary, data, mode)
            if keep is not None:
                self._keep(target, self._file(keep))
            os.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self._sync_directory()

    def append(self, name: str, data: bytes) -> None:
        fd = os.open(self._file(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            new = os.fstat(fd).st_size == 0
            _write_all(fd, data, self._file(name))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if new:
            self._sync_directory()

    def remove(self, name: str) -> None:
        try:
            os.unlink(self._file(name))
        except FileNotFoundError:
            return
        self._sync_directory()

    def list(self) -> list[str]:
        with os.scandir(self._path) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file(follow_symlinks=False))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        fd = os.open(self._file(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _file(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"not a plain file name: {name!r}")
        return self._path / name

    def _keep(self, target: Path, kept: Path) -> None:
        """Give the old content a second name; the order leaves one of the two readable at every instant."""
        temporary = self._file(_temporary(kept.name))
        try:
            os.link(target, temporary)
        except FileNotFoundError:
            return
        os.rename(temporary, kept)

    def _sync_directory(self) -> None:
        os.fsync(self._directory_fd)

    def _remove_leftovers(self) -> None:
        """Temporary files of a process that was killed; a young one may be another instance's write (rolling update)."""
        with os.scandir(self._path) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".") and _TEMPORARY in entry.name]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = self._path / name
                if time.time() - path.stat().st_mtime > _LEFTOVER_AFTER_SECONDS:
                    path.unlink()


def _temporary(name: str) -> str:
    # A pid would not do: two instances in containers of their own may both be process 1.
    return f".{name}{_TEMPORARY}{os.urandom(6).hex()}"


def _write_new(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(fd, stat.S_IMODE(mode))  # whatever the umask
        _write_all(fd, data, path)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
