"""The tree of a fake machine as FUSE serves it: `sys`, `dev` and `proc` below one mount, with sysfs' manners."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import pyfuse3
import trio

from dra.kernel_tree import NodeStat
from dra.sim_kernel import machine, tree
from tools.gpulab.entries import EntryKernel

T = TypeVar("T")

MOST_CALLS: Final = 500
"""At once, hanging ones included: each has a thread, and makes the caller wait as the kernel would."""
_SYSFS_SIZE: Final = 4096
"""PAGE_SIZE, whatever is in the file (fs/sysfs/file.c)."""


class _Handle:
    """One open file or directory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.content = b""
        self.names: list[str] = []


class Files(pyfuse3.Operations):
    """Every answer is the fake kernel's of this moment: nothing is cached, here or in the real kernel.

    Paths come with their links followed, so that a fault's glob has to be of `sys/devices/...`. What takes time, or hangs, does so in a
    thread of its own.
    """

    def __init__(self, kernel: EntryKernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._paths = [""]
        self._inodes: dict[str, int] = {"": pyfuse3.ROOT_INODE}  # never forgotten: a machine has some ten thousand
        self._seen: dict[int, pyfuse3.EntryAttributes] = {}
        self._handles: dict[int, _Handle] = {}
        self._opened = 0
        self._limit = trio.CapacityLimiter(MOST_CALLS)
        self._began_ns = time.time_ns()

    # --- what is there ---------------------------------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: int, name: bytes, _ctx: Any = None) -> pyfuse3.EntryAttributes:
        return await self._stat(self._below(self._path(parent_inode), os.fsdecode(name)))

    async def getattr(self, inode: int, _ctx: Any = None) -> pyfuse3.EntryAttributes:
        """Of what went while somebody has it open, still the last that was seen."""
        try:
            return await self._stat(self._path(inode))
        except pyfuse3.FUSEError as error:
            if error.errno != errno.ENOENT:
                raise
            return self._seen[inode]

    async def setattr(self, inode: int, _attr: Any, fields: Any, _fh: int | None, _ctx: Any) -> pyfuse3.EntryAttributes:
        """A shell truncates what it writes to, and sysfs lets it; owners and modes stay as they are."""
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise pyfuse3.FUSEError(errno.EPERM)
        return await self._stat(self._path(inode))

    async def readlink(self, inode: int, _ctx: Any) -> bytes:
        return os.fsencode(await self._call(self._kernel.link, self._path(inode)))

    async def opendir(self, inode: int, _ctx: Any) -> int:
        handle = _Handle(self._path(inode))
        handle.names = list(machine.ROOTS) if not handle.path else await self._call(self._kernel.list, handle.path)
        return self._keep(handle)

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        handle = self._handles[fh]
        for position, name in enumerate(handle.names[start_id:], start_id + 1):
            path = self._below(handle.path, name)
            try:
                shown = self._shown(path, self._entry(path))
            except pyfuse3.FUSEError:
                continue  # gone since the directory was opened
            if not pyfuse3.readdir_reply(token, os.fsencode(name), shown, position):
                return

    async def releasedir(self, fh: int) -> None:
        del self._handles[fh]

    # --- files -----------------------------------------------------------------------------------------------------------------------

    async def open(self, inode: int, flags: int, _ctx: Any) -> pyfuse3.FileInfo:
        path = self._path(inode)
        entry = self._entry(path)
        access = flags & os.O_ACCMODE
        if isinstance(entry, tree.File):  # the mode binds root too: KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK, fs/kernfs/file.c
            unreadable = access in (os.O_RDONLY, os.O_RDWR) and not entry.mode & 0o444
            unwritable = access in (os.O_WRONLY, os.O_RDWR) and not entry.mode & 0o222
            if unreadable or unwritable:
                raise pyfuse3.FUSEError(errno.EACCES)
        return pyfuse3.FileInfo(fh=self._keep(_Handle(path)), direct_io=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """The text of the moment it is first read at, as seq_file has it."""
        handle = self._handles[fh]
        if off == 0:
            handle.content = (await self._use(handle, self._kernel.read)).encode()
        return handle.content[off : off + size]

    async def write(self, fh: int, _off: int, buf: bytes) -> int:
        """Each write(2) is one store, wherever the file offset is."""
        text = buf.decode(errors="replace")
        await self._use(self._handles[fh], lambda path: self._kernel.write(path, text))
        return len(buf)

    async def release(self, fh: int) -> None:
        del self._handles[fh]

    # --- what the kernel alone does here ---------------------------------------------------------------------------------------------

    async def create(self, *_arguments: Any) -> NoReturn:
        raise pyfuse3.FUSEError(errno.EACCES)

    async def _refuse(self, *_arguments: Any) -> NoReturn:
        raise pyfuse3.FUSEError(errno.EPERM)

    mknod = create
    mkdir = rmdir = unlink = symlink = link = rename = _refuse

    # --- inside ----------------------------------------------------------------------------------------------------------------------

    async def _stat(self, path: str) -> pyfuse3.EntryAttributes:
        entry = self._entry(path)
        node = await self._call(self._kernel.node, path) if isinstance(entry, tree.Node) else None
        return self._shown(path, entry, node)

    def _shown(self, path: str, entry: tree.Entry, node: NodeStat | None = None) -> pyfuse3.EntryAttributes:
        made = pyfuse3.EntryAttributes()
        made.st_ino = self._inode(path)
        made.attr_timeout = made.entry_timeout = 0
        made.st_atime_ns = made.st_mtime_ns = made.st_ctime_ns = self._began_ns
        made.st_nlink = 1
        match entry:
            case tree.Directory():
                made.st_mode, made.st_nlink = stat.S_IFDIR | 0o755, 2
            case tree.Link():
                made.st_mode = stat.S_IFLNK | 0o777
            case tree.File():
                made.st_mode, made.st_size = stat.S_IFREG | entry.mode, _SYSFS_SIZE if path.startswith("sys/") else 0
            case tree.Node():
                number = (entry.major, entry.minor) if node is None else (node.major, node.minor)
                made.st_mode, made.st_gid, made.st_rdev = stat.S_IFCHR | entry.mode, entry.gid, os.makedev(*number)
        self._seen[made.st_ino] = made
        return made

    def _entry(self, path: str) -> tree.Entry:
        if not path:
            return tree.Directory()  # of the mount itself only the kind is asked
        try:
            return self._kernel.entry(path)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    async def _call(self, ask: Callable[[str], T], path: str) -> T:
        try:
            return await trio.to_thread.run_sync(ask, path, abandon_on_cancel=True, limiter=self._limit)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    async def _use(self, handle: _Handle, ask: Callable[[str], T]) -> T:
        """ENODEV for what went while it was open (kernfs_get_active), not the ENOENT that its path would give."""
        try:
            return await self._call(ask, handle.path)
        except pyfuse3.FUSEError as error:
            gone = error.errno == errno.ENOENT and not self._kernel.exists(handle.path)
            raise pyfuse3.FUSEError(errno.ENODEV if gone else error.errno) from None

    def _keep(self, handle: _Handle) -> int:
        self._opened += 1
        self._handles[self._opened] = handle
        return self._opened

    def _inode(self, path: str) -> int:
        if path not in self._inodes:
            self._paths.append(path)
            self._inodes[path] = len(self._paths)
        return self._inodes[path]

    def _path(self, inode: int) -> str:
        return self._paths[inode - pyfuse3.ROOT_INODE]

    @staticmethod
    def _below(directory: str, name: str) -> str:
        return f"{directory}/{name}" if directory else name
