"""KernelTree on the real /sys, /dev and /proc, wherever they are mounted."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from dra import drm_query
from dra.kernel_tree import MemoryRegion, NodeStat

Ioctl = Callable[[int, int, Any], int]

_MAX_LINKS: Final = 40
"""MAXSYMLINKS of include/linux/namei.h."""
MAX_READ_BYTES: Final = 16 * 1024 * 1024
"""Files of sysfs have a page, those of debugfs rarely more than some hundred KiB."""
_NAME_BYTES: Final = 32
"""More than any DRM driver's name; a longer one is not ours."""


class RealKernelTree:
    """Keeps the promises of `dra.kernel_tree.KernelTree`.

    In a pod the host's /sys is mounted elsewhere (container runtimes protect a mount at /sys against writes), hence the roots.
    """

    def __init__(self, sysfs_root: str = "/sys", dev_root: str = "/dev", proc_root: str = "/proc", *, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._roots = {"sys": sysfs_root.rstrip("/"), "dev": dev_root.rstrip("/"), "proc": proc_root.rstrip("/")}
        self._ioctl = ioctl

    def read(self, path: str) -> str:
        fd = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise _error(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, path)
            pieces, size = [], 0
            while piece := os.read(fd, 65536):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_READ_BYTES:  # a stream, or a memory: not what anybody here means to read
                    raise _error(errno.EFBIG, path)
        except OSError as error:
            raise _named(error, path) from None
        finally:
            os.close(fd)
        return b"".join(pieces).decode(errors="replace")

    def write(self, path: str, text: str) -> None:
        # Neither created nor truncated: what is written to is the kernel's, and one write(2) is one store.
        fd = os.open(self._real(path), os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _error(errno.EINVAL, path)
            data = text.encode()
            written = os.write(fd, data)
            if written != len(data):
                raise OSError(errno.EIO, f"the kernel took {written} of {len(data)} bytes", path)
        except OSError as error:
            raise _named(error, path) from None
        finally:
            os.close(fd)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self._real(path)))

    def link(self, path: str) -> str:
        return os.readlink(self._real(path))

    def resolve(self, path: str) -> str:
        """Walks by hand: a root may itself be below links, and the result must be below the roots, not below what they lead to."""
        pending = path.split("/")[::-1]
        found: list[str] = []
        links = 0
        self._real(path)
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del found[-1:]
                continue
            here = "/".join([*found, name])
            real = self._real(here)
            if not found:
                os.stat(real)
            elif stat.S_ISLNK(mode := os.lstat(real).st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise _error(errno.ELOOP, path)
                target = os.readlink(real)
                if target.startswith("/"):
                    found = []
                pending += target.split("/")[::-1]
                continue
            elif any(pending) and not stat.S_ISDIR(mode):
                raise _error(errno.ENOTDIR, path)
            found.append(name)
        return "/".join(found)

    def exists(self, path: str) -> bool:
        try:
            return os.path.exists(self._real(path))
        except FileNotFoundError:
            return False

    def mode(self, path: str) -> int:
        found = os.stat(self._real(path))
        if not stat.S_ISREG(found.st_mode):
            raise _error(errno.EINVAL, path)
        return stat.S_IMODE(found.st_mode)

    def node(self, path: str) -> NodeStat:
        found = os.stat(self._real(path))
        if not stat.S_ISCHR(found.st_mode):
            raise _error(errno.ENODEV, path)
        return NodeStat(os.major(found.st_rdev), os.minor(found.st_rdev), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def memory_regions(self, path: str, driver: Literal["i915", "xe"]) -> Sequence[MemoryRegion]:
        fd = os.open(self._real(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            if self._driver(fd) != driver:  # another driver would take our numbers for commands of its own
                raise _error(errno.ENOTTY, path)
            return self._xe_regions(fd) if driver == "xe" else self._i915_regions(fd)
        except ValueError as error:
            raise OSError(errno.EPROTO, str(error), path) from None
        except OSError as error:
            raise _named(error, path) from None
        finally:
            os.close(fd)

    def _driver(self, fd: int) -> str:
        name = ctypes.create_string_buffer(_NAME_BYTES)
        answer = bytearray(drm_query.version_request(ctypes.addressof(name), _NAME_BYTES))
        self._ioctl(fd, drm_query.VERSION, answer)
        return name.raw[: drm_query.name_length(bytes(answer))].decode(errors="replace")

    def _i915_regions(self, fd: int) -> Sequence[MemoryRegion]:
        self._ioctl(fd, drm_query.I915_GEM_THROTTLE, 0)  # EIO if the device is wedged
        size = self._i915_query(fd, 0, 0)
        data = ctypes.create_string_buffer(size)
        self._i915_query(fd, ctypes.addressof(data), size)
        return drm_query.i915_regions(data.raw)

    def _i915_query(self, fd: int, address: int, size: int) -> int:
        raw = drm_query.i915_item(address, size)
        item = ctypes.create_string_buffer(raw, len(raw))
        self._ioctl(fd, drm_query.I915_QUERY, bytearray(drm_query.i915_request(ctypes.addressof(item))))
        length = drm_query.i915_length(item.raw)
        if length < 0:
            raise OSError(-length, os.strerror(-length))
        return length

    def _xe_regions(self, fd: int) -> Sequence[MemoryRegion]:
        sized = bytearray(drm_query.xe_request(0, 0))
        self._ioctl(fd, drm_query.XE_DEVICE_QUERY, sized)
        size = drm_query.xe_size(bytes(sized))
        data = ctypes.create_string_buffer(size)
        self._ioctl(fd, drm_query.XE_DEVICE_QUERY, bytearray(drm_query.xe_request(ctypes.addressof(data), size)))
        return drm_query.xe_regions(data.raw)

    def _real(self, path: str) -> str:
        root, _, rest = path.partition("/")
        if root not in self._roots:
            raise _error(errno.ENOENT, path)
        base = self._roots[root] or "/"
        return f"{base}/{rest}" if rest else base


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _named(error: OSError, path: str) -> OSError:
    """The same error, with the path: read(2), write(2) and ioctl(2) only know a descriptor."""
    return error if error.filename is not None else OSError(error.errno, error.strerror or "unknown error", path)
