"""Writes a machine of a document below a directory, as real files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from dra.sim_kernel import machine, tree


def materialise(document: Any, base: Path, *, make_nodes: bool) -> None:
    """`base`/sys, `base`/dev, `base`/proc. Without `make_nodes` device nodes become empty files."""
    described = machine.read(document)
    _directory(tree.Directory(described.tree, described.shared), base, make_nodes)


def can_make_nodes(base: Path) -> bool:
    """Whether this process may mknod there (root, and not in a container without CAP_MKNOD)."""
    try:
        os.mknod(base / "probe", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        return False
    os.unlink(base / "probe")
    return True


def _directory(directory: tree.Directory, here: Path, make_nodes: bool) -> None:
    here.mkdir(exist_ok=True)
    for name, entry in directory.entries.items():
        path = here / name
        match entry:
            case tree.Directory():
                _directory(entry, path, make_nodes)
            case tree.Link():
                path.symlink_to(entry.target)
            case tree.File():
                path.write_text(entry.text)
                path.chmod(entry.mode)
            case tree.Node() if make_nodes:
                os.mknod(path, entry.mode | stat.S_IFCHR, os.makedev(entry.major, entry.minor))
                os.chmod(path, entry.mode)
                os.chown(path, 0, entry.gid)
            case tree.Node():
                path.touch()
