"""The file tree of a fake machine: directories, files, links and device nodes, with the kernel's errors.

Directories are built from the document level by level when they are first entered, so a large machine costs what is looked at, and
directories the document shares are separate once built.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dra.sim_kernel import machine

MAX_LINKS: Final = 40
"""Links followed in one lookup before ELOOP: MAXSYMLINKS of include/linux/namei.h."""

_STRERROR: Final = {
    errnos.ENOENT: "No such file or directory",
    errnos.EACCES: "Permission denied",
    errnos.ENOTDIR: "Not a directory",
    errnos.EISDIR: "Is a directory",
    errnos.EINVAL: "Invalid argument",
    errnos.ELOOP: "Too many levels of symbolic links",
    errnos.ENODEV: "No such device",
    errnos.EBUSY: "Device or resource busy",
    errnos.ERANGE: "Numerical result out of range",
    errnos.ENOSYS: "Function not implemented",
    errnos.ENOTTY: "Inappropriate ioctl for device",
    errnos.ECANCELED: "Operation canceled",
    errnos.EIO: "Input/output error",
    errnos.EEXIST: "File exists",
    errnos.EPERM: "Operation not permitted",
    errnos.ENOSPC: "No space left on device",
    errnos.E2BIG: "Argument list too long",
    errnos.EOVERFLOW: "Value too large for defined data type",
    errnos.EDQUOT: "Disk quota exceeded",
    errnos.ESTALE: "Stale file handle",
    errnos.ENOKEY: "Required key not available",
    errnos.EUCLEAN: "Structure needs cleaning",
    errnos.EOPNOTSUPP: "Operation not supported",
}


def error(number: int, path: str) -> OSError:
    """An OSError as the operating system makes it (Python picks the subclass), e.g. FileNotFoundError for ENOENT."""
    return OSError(number, _STRERROR.get(number, errnos.errorcode.get(number, f"error {number}")), path)


class File:
    """A regular file; in /sys the mode binds root too (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK of fs/kernfs/file.c)."""

    __slots__ = ("mode", "text")

    def __init__(self, text: str, mode: int = 0o444) -> None:
        self.text, self.mode = text, mode


class Link:
    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


class Node:
    """A character device."""

    __slots__ = ("gid", "major", "minor", "mode")

    def __init__(self, major: int, minor: int, mode: int, gid: int) -> None:
        self.major, self.minor, self.mode, self.gid = major, minor, mode, gid


class Directory:
    """A directory; `entries` may be changed freely."""

    __slots__ = ("_entries", "_raw", "_shared")

    def __init__(self, raw: Mapping[str, Any] | None = None, shared: Mapping[str, Any] | None = None) -> None:
        """Empty, or as a (checked) document describes it."""
        self._raw, self._shared = raw, shared or {}
        self._entries: dict[str, Entry] | None = None

    @property
    def entries(self) -> dict[str, Entry]:
        if self._entries is None:
            self._entries = {name: _build(below, self._shared) for name, below in (self._raw or {}).items()}
            self._raw = None
        return self._entries

    def text(self, name: str) -> str | None:
        """Content of a file in it, stripped; None if there is none."""
        entry = self.entries.get(name)
        return entry.text.strip() if isinstance(entry, File) else None

    def directory(self, name: str) -> Directory | None:
        entry = self.entries.get(name)
        return entry if isinstance(entry, Directory) else None


Entry = File | Link | Node | Directory


def _build(raw: str | Mapping[str, Any], shared: Mapping[str, Any]) -> Entry:
    if isinstance(raw, str):
        return File(raw)
    match raw.get("@"):
        case None:
            return Directory(raw, shared)
        case "shared":
            return Directory(shared[raw["id"]], shared)
        case "link":
            return Link(raw["to"])
        case "chr":
            return Node(raw["major"], raw["minor"], int(raw["mode"], 8), machine.GROUPS[raw["group"]])
        case kind:
            return File(raw.get("v", ""), machine.FILE_MODES[kind])


class Tree:
    """Lookup and change by path (`sys/bus/pci`), links followed as the kernel follows them."""

    def __init__(self, root: Directory) -> None:
        self.root = root

    def lookup(self, path: str, *, follow: bool = True) -> tuple[str, Entry]:
        """The entry at a path and its path with links resolved; without `follow` a link at the end is itself the entry.

        Raises:
            OSError: ENOENT, ENOTDIR or ELOOP.
        """
        pending = path.split("/")[::-1]
        if path.startswith("/") or pending[-1] not in machine.ROOTS:
            raise error(errnos.ENOENT, path)
        trail: list[tuple[str, Directory]] = []
        here: Entry = self.root
        names: list[str] = []
        links = 0
        while pending:
            name = pending.pop()
            if not isinstance(here, Directory):
                raise error(errnos.ENOTDIR, path)
            if name in ("", "."):
                continue
            if name == "..":
                if trail:
                    names.pop()
                    here = trail.pop()[1]
                continue
            below = here.entries.get(name)
            if below is None:
                raise error(errnos.ENOENT, path)
            if isinstance(below, Link) and (follow or any(pending)):
                links += 1
                if links > MAX_LINKS:
                    raise error(errnos.ELOOP, path)
                if below.target.startswith("/"):
                    here, trail, names = self.root, [], []
                pending += below.target.split("/")[::-1]
                continue
            trail.append((name, here))
            names.append(name)
            here = below
        return "/".join(names), here

    def find(self, path: str) -> Entry | None:
        """The entry at a path, links followed, or None."""
        try:
            return self.lookup(path)[1]
        except OSError:
            return None

    def directory(self, path: str) -> Directory | None:
        entry = self.find(path)
        return entry if isinstance(entry, Directory) else None

    def make_directory(self, path: str) -> Directory:
        """The directory at a path without links, made with its parents where missing."""
        here = self.root
        for name in path.split("/"):
            below = here.entries.setdefault(name, Directory())
            assert isinstance(below, Directory), path
            here = below
        return here

    def put(self, path: str, entry: Entry) -> None:
        """Place an entry, parents made where missing, replacing what is there."""
        parent, _, name = path.rpartition("/")
        self.make_directory(parent).entries[name] = entry

    def take(self, path: str) -> Entry | None:
        """Remove and return the entry at a path (a link itself); None if there is none."""
        parent, _, name = path.rpartition("/")
        directory = self.directory(parent)
        return None if directory is None else directory.entries.pop(name, None)


def walk(directory: Directory, path: str) -> Iterator[tuple[str, Entry]]:
    """Every entry below a directory with its path, a directory before what is in it."""
    for name, entry in list(directory.entries.items()):
        yield f"{path}/{name}", entry
        if isinstance(entry, Directory):
            yield from walk(entry, f"{path}/{name}")


def copy(directory: Directory) -> Directory:
    """A deep copy."""
    made = Directory()
    for name, entry in directory.entries.items():
        match entry:
            case Directory():
                made.entries[name] = copy(entry)
            case File():
                made.entries[name] = File(entry.text, entry.mode)
            case Link():
                made.entries[name] = Link(entry.target)
            case Node():
                made.entries[name] = Node(entry.major, entry.minor, entry.mode, entry.gid)
    return made


def relative(link_path: str, target_path: str) -> str:
    """Text of a link at `link_path` that leads to `target_path`, as the kernel makes it (kernfs_get_target_path, fs/kernfs/symlink.c).

    The target's own name is always in it: `../../../0000:03:00.0`, never `../..`.
    """
    here, there = link_path.split("/")[:-1], target_path.split("/")
    common = 0
    while common < min(len(here), len(there) - 1) and here[common] == there[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + there[common:])


def absolute(link_path: str, target: str) -> str:
    """The path a link's text means, no further link followed: the opposite of `relative`."""
    parts = [] if target.startswith("/") else link_path.split("/")[:-1]
    for name in target.split("/"):
        if name == "..":
            del parts[-1:]
        elif name not in ("", "."):
            parts.append(name)
    return "/".join(parts)


def move(directory: Directory, old: str, new: str) -> None:
    """Rewrite the links below a directory that stood at `old` and will stand at `new`; what pointed into it still does."""
    for path, entry in walk(directory, old):
        if isinstance(entry, Link):
            meant = absolute(path, entry.target)
            if meant == old or meant.startswith(f"{old}/"):
                meant = new + meant[len(old) :]
            entry.target = relative(new + path[len(old) :], meant)
