"""The seam to the kernel: /sys, /dev and /proc as one tree, and the DRM memory query.

Two implementations keep the promises below: `nursery_apps.edges.kernel_tree` on real files below configurable roots, and
`dra.sim_kernel`, one fake machine in memory. `tests/contracts/test_kernel_tree.py` runs over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec


class NodeStat(msgspec.Struct, frozen=True):
    """What stat(2) says of a character device node."""

    major: int
    minor: int
    mode: int
    """Permission bits only, e.g. 0o660."""
    uid: int
    gid: int


class MemoryRegion(msgspec.Struct, frozen=True):
    """One memory region of the DRM memory query, in the kernel's order."""

    kind: Literal["system", "device"]
    instance: int
    size_bytes: int
    """i915 `probed_size`, xe `total_size`."""
    used_bytes: int | None = None
    """xe `used`; i915 tells it only who may see performance counters."""


class KernelTree(Protocol):
    """Synchronous access to one machine's kernel interfaces.

    Paths are relative and start with `sys/`, `dev/` or `proc/`. Every call may block (sysfs takes locks): call it from a worker thread.
    Every failure is an OSError with the kernel's own errno: ENOENT for what is absent, EACCES for a mode that forbids it, and whatever
    the driver returns for a write. Nothing is cached.
    """

    def read(self, path: str) -> str:
        """The whole content of a regular file, newline included; undecodable bytes become U+FFFD."""

    def write(self, path: str, text: str) -> None:
        """One write(2) of `text`, as `echo` would do it. Returns after the kernel has acted; may take seconds or hang."""

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def link(self, path: str) -> str:
        """The text of a symbolic link, as readlink(2) gives it."""

    def resolve(self, path: str) -> str:
        """The path with every link followed, again relative (`sys/devices/pci0000:00/0000:00:02.0`)."""

    def exists(self, path: str) -> bool:
        """Whether the path leads to something, links followed. Never raises for absence."""

    def mode(self, path: str) -> int:
        """Permission bits of a regular file, links followed; EINVAL if it is something else."""

    def node(self, path: str) -> NodeStat:
        """stat(2) of a character device below dev/; ENODEV if it is something else."""

    def memory_regions(self, path: str, driver: Literal["i915", "xe"]) -> Sequence[MemoryRegion]:
        """Ask the driver behind a DRM node (`dev/dri/renderD128`) for its memory regions.

        i915: DRM_IOCTL_I915_QUERY, DRM_I915_QUERY_MEMORY_REGIONS. xe: DRM_IOCTL_XE_DEVICE_QUERY, MEM_REGIONS.
        ECANCELED from a wedged xe device, EIO from a wedged i915, ENODEV from an unplugged one, ENOTTY if the driver is another.
        """
