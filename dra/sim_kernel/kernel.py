"""`SimKernel`: a fake machine behind the seam `dra.kernel_tree.KernelTree`."""

from __future__ import annotations

import contextlib
import errno as errnos
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from dra.kernel_tree import MemoryRegion, NodeStat
from dra.sim_kernel import machine, tree

DRM_MAJOR = 226
"""include/uapi/linux/major.h"""

FIRST_BOOT = "00000000-0000-4000-8000-000000000001"
"""boot_id of a machine nobody gave another."""


class SimKernel:
    """One fake machine in memory that acts as the kernel would."""

    def __init__(
        self,
        described: machine.Machine,
        *,
        sleep: Callable[[float], None] = lambda _seconds: None,
        lock: AbstractContextManager[object] | None = None,
        boot_id: str = FIRST_BOOT,
    ) -> None:
        """`sleep` is called for what takes time in hardware; `lock`, a reusable context manager, keeps threads apart."""
        self.machine = described
        self.boot_id = boot_id
        self._sleep = sleep
        self._lock = contextlib.nullcontext() if lock is None else lock
        self._start()

    @classmethod
    def load(
        cls,
        document: object,
        name: str | None = None,
        *,
        sleep: Callable[[float], None] = lambda _seconds: None,
        lock: AbstractContextManager[object] | None = None,
        boot_id: str = FIRST_BOOT,
    ) -> SimKernel:
        """Start a machine of a document (None: its only one).

        Raises:
            ValueError: the document is malformed; the message names the place in it.
        """
        return cls(machine.read(document, name), sleep=sleep, lock=lock, boot_id=boot_id)

    def _start(self) -> None:
        self._tree = tree.Tree(tree.Directory(self.machine.tree, self.machine.shared))
        self._tree.put("proc/sys/kernel/random/boot_id", tree.File(f"{self.boot_id}\n"))

    def read(self, path: str) -> str:
        with self._lock:
            entry = self._tree.lookup(path)[1]
            if isinstance(entry, tree.Directory):
                raise tree.error(errnos.EISDIR, path)
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            if not entry.mode & 0o444:
                raise tree.error(errnos.EACCES, path)
            return entry.text

    def write(self, path: str, text: str) -> None:
        with self._lock:
            entry = self._tree.lookup(path)[1]
            if isinstance(entry, tree.Directory):
                raise tree.error(errnos.EISDIR, path)
            if not isinstance(entry, tree.File):
                raise tree.error(errnos.EINVAL, path)
            if not entry.mode & 0o222:
                raise tree.error(errnos.EACCES, path)
            entry.text = text if text.endswith("\n") else f"{text}\n"

    def list(self, path: str) -> list[str]:
        with self._lock:
            entry = self._tree.lookup(path)[1]
            if not isinstance(entry, tree.Directory):
                raise tree.error(errnos.ENOTDIR, path)
            return sorted(entry.entries)

    def link(self, path: str) -> str:
        with self._lock:
            entry = self._tree.lookup(path, follow=False)[1]
            if not isinstance(entry, tree.Link):
                raise tree.error(errnos.EINVAL, path)
            return entry.target

    def resolve(self, path: str) -> str:
        with self._lock:
            return self._tree.lookup(path)[0]

    def exists(self, path: str) -> bool:
        with self._lock:
            return self._tree.find(path) is not None

    def node(self, path: str) -> NodeStat:
        with self._lock:
            entry = self._tree.lookup(path)[1]
            if not isinstance(entry, tree.Node):
                raise tree.error(errnos.ENODEV, path)
            return NodeStat(entry.major, entry.minor, entry.mode, 0, entry.gid)

    def memory_regions(self, path: str, driver: Literal["i915", "xe"]) -> Sequence[MemoryRegion]:
        with self._lock:
            node = self._tree.lookup(path)[1]
            if not isinstance(node, tree.Node) or node.major != DRM_MAJOR:
                raise tree.error(errnos.ENOTTY, path)
            try:
                device = self._tree.lookup(f"sys/dev/char/{node.major}:{node.minor}/device")[0]
                bound = self._tree.lookup(f"{device}/driver")[0].rpartition("/")[2]
            except FileNotFoundError:
                raise tree.error(errnos.ENODEV, path) from None
            if bound != driver:
                raise tree.error(errnos.ENOTTY, path)
            answer = self.machine.answers.get(device.rpartition("/")[2])
            if answer is None or answer.driver != driver:
                raise tree.error(errnos.EINVAL, path)
            return answer.regions
