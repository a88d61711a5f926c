"""What the driver of a PF keeps for its VFs, whichever driver it is: quotas of prelim i915, profiles of xe."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

from dra.sim_kernel import prelim, tree, xe_admin
from dra.sim_kernel.drivers import Function


def possible(pf: Function) -> bool:
    """Whether the bound driver has an sriov_configure: xe, and i915 only where it brings its own files for provisioning."""
    return pf.driver == "xe" or (pf.driver == "i915" and prelim.directory(pf) is not None)


def enable(files: tree.Tree, pf: Function, count: int, memory_bytes: int) -> list[Callable[[], int | None]]:
    """Check or make what VFs 1 to `count` are to have; by VF what tells its memory (`Function.share`).

    Args:
        memory_bytes: local memory of the PF, where only its driver says.

    Raises:
        OSError: the driver's refusal.
    """
    vfs = range(1, count + 1)
    if pf.driver == "i915":
        prelim.enable(pf, count)
        return [functools.partial(prelim.memory_of, pf, vf) for vf in vfs]
    share = xe_admin.enable(files, pf, count, memory_bytes)
    return [functools.partial(xe_admin.memory_of, pf, vf, share) for vf in vfs]


def disable(pf: Function) -> None:
    """The VFs are gone."""
    if pf.driver == "i915":
        prelim.disable(pf)
    elif pf.driver == "xe":
        xe_admin.disable(pf)


def reset(pf: Function) -> None:
    """The driver goes."""
    if pf.driver == "i915":
        prelim.reset(pf)
    elif pf.driver == "xe":
        xe_admin.reset(pf)


def link(pf: Function, vfs: Mapping[int, Function]) -> None:
    """Let the directories of VFs lead to those that are there, and to no others."""
    admin = xe_admin.directory(pf) if pf.driver == "xe" else prelim.directory(pf)
    up = "../" * (3 if pf.driver == "xe" else 5)  # from sriov_admin/vfN, and from drm/cardN/prelim_iov/vfN
    for name, entry in admin.entries.items() if admin is not None else ():
        if (match := re.fullmatch(r"vf(\d+)", name)) and isinstance(entry, tree.Directory):
            entry.entries.pop("device", None)
            if (vf := vfs.get(int(match[1]))) is not None:
                entry.entries["device"] = tree.Link(up + vf.bdf)
