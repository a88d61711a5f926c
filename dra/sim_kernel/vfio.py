"""What vfio makes of a function: its own device, and the group of its IOMMU group (drivers/vfio/vfio_main.c, group.c)."""

from __future__ import annotations

import errno
from typing import Final

from dra.sim_kernel import tree, uevents

DRIVERS: Final = frozenset(("vfio-pci", "xe-vfio-pci"))

DEVICE_MAJOR: Final = 511
GROUP_MAJOR: Final = 510
"""Both are allocated dynamically, from the top; these are what a machine with nothing else up there has."""


def make(files: tree.Tree, path: str) -> list[str]:
    """Make `vfio-dev/vfioN` below the function at `path`, and its group if no other function has made it; paths of what was made.

    Raises:
        OSError: EINVAL, there is no IOMMU (vfio_device_set_group).
    """
    group = group_of(files, path)
    if group is None:
        raise tree.error(errno.EINVAL, path)
    number = _lowest(files, "sys/class/vfio-dev", "vfio")
    device = f"{path}/vfio-dev/vfio{number}"
    _device(files, device, "vfio-dev", (DEVICE_MAJOR, number), f"vfio/devices/vfio{number}")
    files.put(f"{device}/device", tree.Link(tree.relative(f"{device}/device", path)))
    made = [f"{path}/vfio-dev"]
    place = f"sys/devices/virtual/vfio/{group}"
    if files.find(place) is None:
        chars = files.directory("sys/dev/char")
        taken = set(chars.entries) if chars else set()
        minor = next(minor for minor in range(1 << 20) if f"{GROUP_MAJOR}:{minor}" not in taken)
        _device(files, place, "vfio", (GROUP_MAJOR, minor), f"vfio/{group}")
        made.append(place)
    return made


def last_of_group(files: tree.Tree, path: str) -> str | None:
    """Path of the group's device if the function at `path` is the only one of its IOMMU group that vfio holds."""
    group = group_of(files, path)
    members = files.directory(f"sys/kernel/iommu_groups/{group}/devices")
    if group is None or members is None:
        return None
    for bdf in members.entries:
        if bdf != path.rpartition("/")[2] and files.find(f"sys/bus/pci/devices/{bdf}/vfio-dev") is not None:
            return None
    return f"sys/devices/virtual/vfio/{group}"


def group_of(files: tree.Tree, path: str) -> str | None:
    """Number of the function's IOMMU group; None without an IOMMU."""
    directory = files.directory(path)
    link = directory.entries.get("iommu_group") if directory else None
    return link.target.rpartition("/")[2] if isinstance(link, tree.Link) else None


def _device(files: tree.Tree, path: str, subsystem: str, number: tuple[int, int], devname: str) -> None:
    major, minor = number
    made = tree.Directory()
    made.entries["dev"] = tree.File(f"{major}:{minor}\n")
    uevents.set_properties(made, {"MAJOR": str(major), "MINOR": str(minor), "DEVNAME": devname})
    made.entries["subsystem"] = tree.Link(tree.relative(f"{path}/subsystem", f"sys/class/{subsystem}"))
    files.put(path, made)


def _lowest(files: tree.Tree, where: str, prefix: str) -> int:
    others = files.directory(where)
    taken = set(others.entries) if others else set()
    return next(number for number in range(1 << 20) if f"{prefix}{number}" not in taken)
