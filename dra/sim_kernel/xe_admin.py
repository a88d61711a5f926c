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
NUMBERS: Final = ("exec_quantum_ms", "preempt_timeout_us", "vram_quota")
_NO_SRIOV: Final = re.compile(r"0x(56(?!c).[0-9a-f]|0b..|64[2ab]0|7d..|b640)")
"""DG2, Ponte Vecchio, Lunar Lake, Meteor Lake and Arrow Lake, where xe makes no VFs whatever the hardware shows (has_sriov, xe_pci.c)."""


def write_number(pf: Function, path: str, value: int, memory_bytes: int) -> None:
    """Set an attribute of one VF's profile, of the PF's, or of all (`.bulk_profile`).

    Raises:
        OSError: ECANCELED, the card is wedged; ERANGE, it does not fit the variable; ENOSPC, there is not so much memory.
    """
    _not_wedged(pf, path)
    name = path.rpartition("/")[2]
    if value >> (64 if name == "vram_quota" else 32):
        raise tree.error(errno.ERANGE, path)
    vfs, meant = dict(_vfs(pf)), _meant(pf, path)
    if name == "vram_quota":
        value = -(-value // MEMORY_STEP) * MEMORY_STEP
        others = sum(_number(profile, name) for profile in vfs.values() if profile not in meant)
        if value and others + value * len(meant) > max(0, memory_bytes - SPARE_BYTES):
            raise tree.error(errno.ENOSPC, path)
    for profile in meant:
        if isinstance(entry := profile.entries.get(name), tree.File):
            entry.text = f"{value}\n"


def write_priority(pf: Function, path: str, word: str) -> None:
    """Set the scheduling priority of the PF, or of all functions at once.

    Raises:
        OSError: ECANCELED, the card is wedged; EINVAL, there is no such priority; EOPNOTSUPP, VFs cannot have it.
    """
    _not_wedged(pf, path)
    own = _profile(pf, "pf")
    words = (own.text("sched_priority") or "").replace("[", "").replace("]", "").split() if own is not None else []
    if word not in words:
        raise tree.error(errno.EINVAL, path)
    entries = [entry for profile in _meant(pf, path) if isinstance(entry := profile.entries.get("sched_priority"), tree.File)]
    if any(word not in re.findall(r"\w+", entry.text) for entry in entries):
        raise tree.error(errno.EOPNOTSUPP, path)
    for entry in entries:
        choices = re.findall(r"\w+", entry.text)
        entry.text = " ".join(f"[{choice}]" if choice == word else choice for choice in choices) + "\n"


def enable(files: tree.Tree, pf: Function, count: int, memory_bytes: int) -> int:
    """Check or make what VFs 1 to `count` are to have; the share of memory that each gets for whom no quota was written, in bytes.

    Raises:
        OSError: ENODEV, the driver is no PF here; ECANCELED, the card is wedged; EPERM, debugfs forbids it; EUCLEAN, without
            `sriov_admin`: somebody gave VFs quotas through debugfs; ENOSPC, there is no fair share.
    """
    place, debug = f"{pf.path}/sriov_numvfs", f"sys/kernel/debug/dri/{pf.bdf}"
    if pf.survivability == "Boot" or _NO_SRIOV.fullmatch(pf.identity[1]):
        raise tree.error(errno.ENODEV, place)
    _not_wedged(pf, place)
    lock = files.find(f"{debug}/sriov/lockdown_vfs_enabling")
    if isinstance(lock, tree.File) and lock.text[:1] in ("1", "y", "Y"):
        raise tree.error(errno.EPERM, place)
    profiles = dict(_vfs(pf))
    if not profiles and _has_leftovers(files.directory(debug), count):
        raise tree.error(errno.EUCLEAN, place)
    if not memory_bytes or any(_number(profile, "vram_quota") for profile in profiles.values()):
        return 0
    share = max(0, memory_bytes - SPARE_BYTES) // count // MEMORY_STEP * MEMORY_STEP
    if not share:
        raise tree.error(errno.ENOSPC, place)
    for vf in range(1, count + 1):
        if vf in profiles and isinstance(quota := profiles[vf].entries.get("vram_quota"), tree.File):
            quota.text = f"{share}\n"
    return share


def disable(pf: Function) -> None:
    """All memory is taken back, however it was given; times stay."""
    for _, profile in _vfs(pf):
        if isinstance(quota := profile.entries.get("vram_quota"), tree.File):
            quota.text = "0\n"


def reset(pf: Function) -> None:
    """The driver goes: all that it kept goes with it."""
    for _, profile in _vfs(pf):
        for name in NUMBERS:
            if isinstance(entry := profile.entries.get(name), tree.File):
                entry.text = "0\n"


def memory_of(pf: Function, vf: int, share: int) -> int | None:
    """Local memory of a VF in bytes: its quota, or `share` where no file says; None if it was left out when others got quotas."""
    profile = _profile(pf, f"vf{vf}")
    if profile is None or "vram_quota" not in profile.entries:
        return share
    return _number(profile, "vram_quota") or None


def directory(pf: Function) -> tree.Directory | None:
    return pf.directory.directory("sriov_admin")


def _meant(pf: Function, path: str) -> list[tree.Directory]:
    """The profiles that a file's write goes to; through `.bulk_profile` the PF's too, as far as it has the attribute."""
    who = path.split("/")[-2 if "/.bulk_profile/" in path else -3]
    names = ["pf", *(f"vf{vf}" for vf, _ in _vfs(pf))] if who == ".bulk_profile" else [who]
    found = [profile for name in names if (profile := _profile(pf, name)) is not None]
    return [profile for profile in found if path.rpartition("/")[2] in profile.entries]


def _vfs(pf: Function) -> Iterator[tuple[int, tree.Directory]]:
    admin = directory(pf)
    for name in admin.entries if admin is not None else ():
        if re.fullmatch(r"vf\d+", name) and (profile := _profile(pf, name)) is not None:
            yield int(name[2:]), profile


def _profile(pf: Function, name: str) -> tree.Directory | None:
    admin = directory(pf)
    one = admin.directory(name) if admin is not None else None
    return one.directory("profile") if one is not None else None


def _number(profile: tree.Directory, name: str) -> int:
    return int(profile.text(name) or 0)


def _not_wedged(pf: Function, path: str) -> None:
    if pf.wedged:
        raise tree.error(errno.ECANCELED, path)


def _has_leftovers(debug: tree.Directory | None, count: int) -> bool:
    """Whether debugfs (`gt0/vf1/lmem_quota`) shows a quota of one of the first VFs: then it is not for the driver to split."""
    for path, entry in tree.walk(debug, "") if debug is not None else ():
        match = re.fullmatch(r"/gt\d+/vf(\d+)/\w+_quota", path)
        if match and int(match[1]) <= count and isinstance(entry, tree.File) and entry.text.strip() not in ("", "0"):
            return True
    return False
