"""The ioctl half of the real kernel tree, against a driver that follows the pointers it is given."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any, Literal

import pytest

from dra.kernel_tree import MemoryRegion
from nursery_apps.edges.kernel_tree import RealKernelTree


class Driver:
    """Answers the way the kernel does: sizes first, then data through the pointer; -1 as i915's refusal of one query."""

    def __init__(self, name: str, *, wedged: bool = False, refuse: int = 0) -> None:
        self.name, self.wedged, self.refuse = name, wedged, refuse
        self.fds: set[int] = set()

    def __call__(self, fd: int, number: int, argument: Any) -> int:
        self.fds.add(fd)
        match number:
            case 0xC0406400:
                if self.wedged and self.name == "xe":
                    raise OSError(errno.ECANCELED, "Operation canceled")
                fields = list(struct.unpack("<iii4x6Q", argument))
                ctypes.memmove(fields[4], self.name.encode(), len(self.name))
                fields[3] = len(self.name)
                argument[:] = struct.pack("<iii4x6Q", *fields)
            case 0x6458:
                if self.wedged:
                    raise OSError(errno.EIO, "Input/output error")
            case 0xC0286440:
                data = struct.pack("<IIHHI10Q", 1, 0, 1, 1, 65536, 4096, *[0] * 9)
                _, query, size, address = struct.unpack_from("<QIIQ", argument)
                assert (query, size) in ((1, 0), (1, len(data)))
                if size:
                    ctypes.memmove(address, data, len(data))
                argument[:] = struct.pack("<QIIQ16x", 0, query, len(data), address)
            case 0xC0106479:
                data = struct.pack("<4IHHI10Q", 1, 0, 0, 0, 1, 0, 0, 8192, 8192, *[0] * 8)
                items, _, item = struct.unpack("<IIQ", argument)
                query, length, flags, address = struct.unpack("<QiIQ", ctypes.string_at(item, 24))
                assert (items, query, flags) == (1, 4, 0)
                if length:
                    ctypes.memmove(address, data, len(data))
                ctypes.memmove(item, struct.pack("<QiIQ", query, -self.refuse if self.refuse else len(data), 0, address), 24)
            case _:
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        return 0


def ask(tmp_path: Path, driver: Driver, name: Literal["i915", "xe"]) -> Any:
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri/renderD128").touch()
    return RealKernelTree(dev_root=str(tmp_path), ioctl=driver).memory_regions("dev/dri/renderD128", name)


def closed(driver: Driver) -> bool:
    for fd in driver.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    return bool(driver.fds)


def test_xe_is_asked_twice(tmp_path: Path) -> None:
    driver = Driver("xe")
    assert ask(tmp_path, driver, "xe") == (MemoryRegion("device", 1, 4096, 0),)
    assert closed(driver)


def test_i915_is_asked_twice(tmp_path: Path) -> None:
    assert ask(tmp_path, Driver("i915"), "i915") == (MemoryRegion("device", 0, 8192),)


@pytest.mark.parametrize(
    ("driver", "name", "number"),
    [
        (Driver("amdgpu"), "xe", errno.ENOTTY),
        (Driver("i915"), "xe", errno.ENOTTY),
        (Driver("xe", wedged=True), "xe", errno.ECANCELED),
        (Driver("i915", wedged=True), "i915", errno.EIO),
        (Driver("i915", refuse=errno.EINVAL), "i915", errno.EINVAL),
    ],
)
def test_refusals_keep_their_errno_and_close_the_node(tmp_path: Path, driver: Driver, name: Literal["i915", "xe"], number: int) -> None:
    with pytest.raises(OSError) as caught:
        ask(tmp_path, driver, name)
    assert (caught.value.errno, caught.value.filename) == (number, "dev/dri/renderD128")
    assert closed(driver)


def test_a_file_that_is_no_device_is_enotty(tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    with pytest.raises(OSError) as caught:
        RealKernelTree(dev_root=str(tmp_path)).memory_regions("dev/null", "xe")
    assert caught.value.errno == errno.ENOTTY
