"""Reading sysfs as it is: files vanish, hold garbage or fail with EIO, and none of that may hide another device."""

from __future__ import annotations

import posixpath
import re

from dra.kernel_tree import KernelTree

_HEX = re.compile(r"0x[0-9a-f]{1,8}")
_DECIMAL = re.compile(r"-?[0-9]{1,19}")


class Directory:
    """One directory of the tree; every answer is None, or empty, when the kernel has none or the text is not what it should be."""

    def __init__(self, tree: KernelTree, path: str) -> None:
        self._tree = tree
        self.path = path

    def below(self, name: str) -> Directory:
        return Directory(self._tree, posixpath.join(self.path, name))

    def names(self) -> list[str]:
        try:
            return self._tree.list(self.path)
        except OSError:
            return []

    def has(self, name: str) -> bool:
        return self._tree.exists(posixpath.join(self.path, name))

    def text(self, name: str) -> str | None:
        """A file's content without surrounding space; None too when it is empty."""
        try:
            return self._tree.read(posixpath.join(self.path, name)).strip().strip("\0") or None
        except OSError:
            return None

    def hexadecimal(self, name: str) -> str | None:
        """`0x56a0`: lower case with its prefix, as the kernel writes ids."""
        text = self.text(name)
        return text if text is not None and _HEX.fullmatch(text) else None

    def number(self, name: str) -> int | None:
        text = self.text(name)
        return int(text) if text is not None and _DECIMAL.fullmatch(text) else None

    def link_name(self, name: str) -> str | None:
        """The last component of where a symbolic link points: a driver's name, a group's number, another device's address."""
        try:
            return posixpath.basename(self._tree.link(posixpath.join(self.path, name))) or None
        except OSError:
            return None

    def resolved(self) -> str | None:
        """The path with all links followed, `sys/devices/pci0000:00/…`."""
        try:
            return self._tree.resolve(self.path)
        except OSError:
            return None
