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
"""Between giving a file a second name and renaming that there is nothing to wait for, so what is older has lost its writer."""


class RealStateDir:
    """Keeps the promises of `nursery_apps.seams.StateDir` below `path`."""

    def __init__(self, path: str, *, mode: int = 0o750) -> None:
        """Creates the directory if need be. Raises OSError naming it if that fails."""
        self._path = Path(path)
        self._directory_fd = self._open(mode)
        self._remove_leftovers()

    def _open(self, mode: int) -> int:
        """With a share in the directory, by which `vanish` of another instance knows that it is not alone."""
        while True:
            self._path.mkdir(mode=mode, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)  # waits for a `vanish` at most
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                    return fd
            os.close(fd)  # it was taken away in between

    def close(self) -> None:
        os.close(self._directory_fd)

    def vanish(self) -> None:
        """Close it, and take the directory away if nothing but our lock is in it; one that is a mount stays, empty, and one that another
        instance has open (a rolling update) stays as it is."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not any(name != _LOCK for name in os.listdir(self._path)):
                self._file(_LOCK).unlink(missing_ok=True)
                self._path.rmdir()
        self.close()

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
        fd, temporary = self._new(name, mode)
        try:
            _write_all(fd, data, temporary)
            os.fsync(fd)
            if keep is not None:
                self._keep(target, self._file(keep))
            os.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
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

    def _new(self, name: str, mode: int) -> tuple[int, Path]:
        """An empty temporary file for `name`, locked for as long as it is open: that tells it from what a killed writer left."""
        while True:
            temporary = self._file(_temporary(name))
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                os.fchmod(fd, stat.S_IMODE(mode))  # whatever the umask
                return fd, temporary
            os.close(fd)  # another instance that is starting took it for a leftover before it was locked

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
        """Temporary files of a process that was killed; one that is locked is another instance's write (rolling update)."""
        with os.scandir(self._path) as entries:
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in files:
            if not name.startswith(".") or _TEMPORARY not in name:
                continue
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                _remove_if_left(self._path / name)


def _temporary(name: str) -> str:
    # A pid would not do: two instances in containers of their own may both be process 1.
    return f".{name}{_TEMPORARY}{os.urandom(6).hex()}"


def _remove_if_left(path: Path) -> None:
    """Raises BlockingIOError if somebody is writing it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        # A second name of a finished file, about to replace the kept one, has no writer; making the name set ctime.
        if found.st_nlink == 1 or time.time() - found.st_ctime > _LEFTOVER_AFTER_SECONDS:
            path.unlink()
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
