"""A KernelTree whose looks have a deadline: a read of sysfs may hang in the kernel for ever, which must not hold up a command."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from dra.kernel_tree import KernelTree, MemoryRegion, NodeStat

T = TypeVar("T")

CALL_SECONDS: Final = 2.0
"""For one look; those that answer take microseconds, one that wakes a card some tenths."""
STUCK_MOST: Final = 16
"""Looks that may hang at once, each in a thread that is left behind; then everything else is refused."""


class PatientTree:
    """Keeps the promises of `dra.kernel_tree.KernelTree` but for writing, which it refuses (EROFS). What hangs answers ETIMEDOUT.

    For one thread at a time.
    """

    def __init__(self, tree: KernelTree, *, seconds: float = CALL_SECONDS) -> None:
        self._tree, self._seconds = tree, seconds
        self._stuck = 0
        self._worker: _Worker | None = None

    def read(self, path: str) -> str:
        return self._ask(path, lambda: self._tree.read(path))

    def write(self, path: str, text: str) -> None:  # noqa: ARG002
        raise OSError(errno.EROFS, "nothing is written here", path)

    def list(self, path: str) -> list[str]:
        return self._ask(path, lambda: self._tree.list(path))

    def link(self, path: str) -> str:
        return self._ask(path, lambda: self._tree.link(path))

    def resolve(self, path: str) -> str:
        return self._ask(path, lambda: self._tree.resolve(path))

    def exists(self, path: str) -> bool:
        return self._ask(path, lambda: self._tree.exists(path))

    def mode(self, path: str) -> int:
        return self._ask(path, lambda: self._tree.mode(path))

    def node(self, path: str) -> NodeStat:
        return self._ask(path, lambda: self._tree.node(path))

    def memory_regions(self, path: str, driver: Literal["i915", "xe"]) -> Sequence[MemoryRegion]:
        return self._ask(path, lambda: self._tree.memory_regions(path, driver))

    def _ask(self, path: str, work: Callable[[], T]) -> T:
        if self._stuck >= STUCK_MOST:
            raise OSError(errno.ETIMEDOUT, f"the kernel holds {STUCK_MOST} looks already", path)
        worker = self._worker = self._worker or _Worker()
        worker.asked.put(work)
        try:
            answer, failure = worker.answered.get(timeout=self._seconds)
        except queue.Empty:
            self._worker, self._stuck = None, self._stuck + 1
            raise OSError(errno.ETIMEDOUT, f"no answer from the kernel for {self._seconds:g} s", path) from None
        if failure is not None:
            raise failure
        found: T = answer
        return found


class _Worker:
    """A thread that does one look after the other; the program's end does not wait for it."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.answered: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="looks", daemon=True).start()

    def _run(self) -> None:
        while True:
            work = self.asked.get()
            try:
                self.answered.put((work(), None))
            except Exception as failure:  # noqa: BLE001  raised again where it was asked
                self.answered.put((None, failure))
