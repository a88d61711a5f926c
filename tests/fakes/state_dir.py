"""StateDir in memory, with a power switch: it can be cut before, in the middle of and after every durable step."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator


class PowerCut(BaseException):
    """The machine is gone. Not an Exception, so no code of ours may think it can go on."""


class Power:
    """Counts durable steps over all directories of one machine, and cuts at one of them.

    `cut_at` counts *points*: each step has three, before it, halfway, and after it (done, but nobody was told).
    """

    POINTS_A_STEP = 3

    def __init__(self, cut_at: int | None = None) -> None:
        self.points = 0
        self.cut_at = cut_at
        self.off = False

    def point(self) -> bool:
        """Whether the cut is here."""
        if self.off:
            raise PowerCut
        here = self.points == self.cut_at
        self.points += 1
        if here:
            self.off = True
        return here


class MemoryStateDir:
    """Keeps the promises of `nursery_apps.seams.StateDir`; `files` is what the disk holds."""

    def __init__(self, files: dict[str, bytes] | None = None, power: Power | None = None) -> None:
        self.files: dict[str, bytes] = {} if files is None else files
        for name in [name for name in self.files if name.startswith(".")]:
            del self.files[name]  # temporary files of a life that ended; the real one sweeps them too
        self.power = power or Power()
        self.fail: Callable[[str, str], int | None] = lambda operation, name: None
        """(operation, name) -> errno to fail with, or None."""
        self._inodes: dict[str, int] = {}
        self._next_inode = 1

    def read(self, name: str) -> bytes | None:
        self._maybe_fail("read", name)
        return self.files.get(name)

    def stamp(self, name: str) -> tuple[int, int] | None:
        data = self.files.get(name)
        return None if data is None else (self._inodes.setdefault(name, 0), len(data))

    def replace(self, name: str, data: bytes, *, mode: int = 0o600, keep: str | None = None) -> None:
        self._maybe_fail("replace", name)
        self._cut()
        if self.power.point():  # the new bytes are in a temporary file, the old name still leads to the old ones
            self.files[f".{name}.tmp"] = data[: len(data) // 2]
            raise PowerCut
        if keep is not None and name in self.files:
            self.files[keep] = self.files[name]
        self.files[name] = data
        self._inodes[name] = self._next_inode
        self._next_inode += 1
        self._cut()

    def append(self, name: str, data: bytes) -> None:
        self._maybe_fail("append", name)
        self._cut()
        if self.power.point():  # any prefix may have reached the disk
            self.files[name] = self.files.get(name, b"") + data[: len(data) // 2]
            raise PowerCut
        self.files[name] = self.files.get(name, b"") + data
        self._cut()

    def remove(self, name: str) -> None:
        self._maybe_fail("remove", name)
        self._cut()
        if self.power.point():  # unlinked, the directory not yet synced: it comes back
            raise PowerCut
        self.files.pop(name, None)
        self._cut()

    def list(self) -> list[str]:
        self._maybe_fail("list", "")
        return sorted(name for name in self.files if not name.startswith("."))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def _cut(self) -> None:
        if self.power.point():
            raise PowerCut

    def _maybe_fail(self, operation: str, name: str) -> None:
        if (code := self.fail(operation, name)) is not None:
            raise OSError(code, errno.errorcode[code], name)
