"""How xe provisions VFs: an even split, and from 6.19 on files below `sriov_admin` (xe_sriov_pf_sysfs.c, xe_sriov_pf_provision.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Final

from dra.sim_kernel import tree
from dra.sim_kernel.drivers import Function

MEMORY_STEP: Final = 2 << 20
SPARE_BYTES: Final = 128 << 20
"""What the PF keeps for itself."""


def write_profile(pf: Function, path: str, value: int, memory_bytes: int) -> str:
    """Set an attribute of one VF's profile, or of all (`.bulk_profile`); the text that is read back.

    Raises:
        OSError: ECANCELED, the card is wedged; ENOSPC, there is not so much memory.
    """
    if pf.wedged:
        raise tree.error(errno.ECANCELED, path)
    name, profiles = path.rpartition("/")[2], dict(_profiles(pf))
    one = re.search(r"/vf(\d+)/profile/", path)
    meant = [int(one[1])] if one else list(profiles)
    if name == "vram_quota":
        value = -(-value // MEMORY_STEP) * MEMORY_STEP
        others = sum(_number(profile, name) for vf, profile in profiles.items() if vf not in meant)
        if others + value * len(meant) > max(0, memory_bytes - SPARE_BYTES):
            raise tree.error(errno.ENOSPC, path)
    for vf in meant:
        if isinstance(entry := profiles[vf].entries.get(name), tree.File):
            entry.text = f"{value}\n"
    return f"{value}\n"


def enable(pf: Function, count: int, memory_bytes: int) -> dict[int, int | None]:
    """Check or make what VFs 1 to `count` are to have: VF -> its local memory, 0 without any.

    Raises:
        OSError: ECANCELED, the card is wedged; ENOSPC, there is no fair share.
    """
    if pf.wedged:
        raise tree.error(errno.ECANCELED, f"{pf.path}/sriov_numvfs")
    profiles = dict(_profiles(pf))
    if any(_number(profile, "vram_quota") for profile in profiles.values()):
        return {vf: _number(profiles[vf], "vram_quota") or None for vf in range(1, count + 1)}
    share = (memory_bytes - SPARE_BYTES) // count // MEMORY_STEP * MEMORY_STEP if memory_bytes else 0
    if memory_bytes and share <= 0:
        raise tree.error(errno.ENOSPC, f"{pf.path}/sriov_numvfs")
    for vf in range(1, count + 1):
        if vf in profiles and isinstance(quota := profiles[vf].entries.get("vram_quota"), tree.File):
            quota.text = f"{share}\n"
    return dict.fromkeys(range(1, count + 1), share)


def disable(pf: Function) -> None:
    """All memory is taken back, however it was given; times stay."""
    for _, profile in _profiles(pf):
        if isinstance(quota := profile.entries.get("vram_quota"), tree.File):
            quota.text = "0\n"


def reset(pf: Function) -> None:
    """The driver goes: all that it kept goes with it."""
    for _, profile in _profiles(pf):
        for name in ("vram_quota", "exec_quantum_ms", "preempt_timeout_us"):
            if isinstance(entry := profile.entries.get(name), tree.File):
                entry.text = "0\n"


def directory(pf: Function) -> tree.Directory | None:
    return pf.directory.directory("sriov_admin")


def _profiles(pf: Function) -> Iterator[tuple[int, tree.Directory]]:
    admin = directory(pf)
    for name, entry in admin.entries.items() if admin is not None else ():
        if re.fullmatch(r"vf\d+", name) and isinstance(entry, tree.Directory) and (profile := entry.directory("profile")) is not None:
            yield int(name[2:]), profile


def _number(profile: tree.Directory, name: str) -> int:
    return int(profile.text(name) or 0)
