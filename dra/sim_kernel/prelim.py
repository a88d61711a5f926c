"""How prelim i915 provisions VFs: quotas in files below `prelim_iov` (i915_sriov_sysfs.c, gt/iov/intel_iov_provisioning.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Final

from dra.sim_kernel import tree
from dra.sim_kernel.drivers import Function

STEPS: Final = {"ggtt_quota": 64 << 10, "contexts_quota": 128, "doorbells_quota": 1, "lmem_quota": 2 << 20}
"""Attribute -> what a value is rounded up to."""
OTHERS: Final = ("exec_quantum_ms", "preempt_timeout_us")
NEEDED: Final = ("ggtt_quota", "contexts_quota", "lmem_quota")
"""A VF with some of them and not all is ENOKEY when it is to be made; doorbells it may do without."""


def directory(pf: Function) -> tree.Directory | None:
    """`prelim_iov` of the PF's card, `iov` in old builds; None where the driver has none."""
    drm = pf.directory.directory("drm")
    for name, card in drm.entries.items() if drm is not None else ():
        if name.startswith("card") and isinstance(card, tree.Directory):
            for own in ("prelim_iov", "iov"):
                if (found := card.directory(own)) is not None and found.directory("pf") is not None:
                    return found
    return None


def write_quota(pf: Function, path: str, value: int) -> str:
    """Set an attribute of a VF; the text that is read back. VFs in use are not spared: the card is told at once.

    Raises:
        OSError: EDQUOT above what is left, E2BIG above all there is.
    """
    iov = directory(pf)
    match = re.search(r"/vf(\d+)/(gt\d*)/(\w+)$", path)
    assert iov is not None and match is not None, path
    vf, gt, name = match.groups()
    if name in STEPS:
        value = -(-value // STEPS[name]) * STEPS[name]
        free, total = _free(iov, gt, name), _free(iov, gt, name) + sum(_value(iov, each, gt, name) for each in _vfs(iov))
        if value > total:
            raise tree.error(errno.E2BIG, path)
        if value - _value(iov, int(vf), gt, name) > free:
            raise tree.error(errno.EDQUOT, path)
        _set(iov, int(vf), gt, name, value)
    else:
        _file(iov, f"vf{vf}/{gt}/{name}").text = f"{value}\n"
    if value:
        _file(iov, "pf/auto_provisioning").text = "0\n"
    return f"{value}\n"


def write_auto(pf: Function, path: str, value: bool) -> str:
    """Switch automatic provisioning.

    Raises:
        OSError: ESTALE, some VF still has a configuration.
    """
    iov = directory(pf)
    assert iov is not None, path
    if value and any(_value(iov, vf, gt, name) for vf in _vfs(iov) for gt in _gts(iov) for name in (*STEPS, *OTHERS)):
        raise tree.error(errno.ESTALE, path)
    return f"{int(value)}\n"


def enable(pf: Function, count: int) -> dict[int, int | None]:
    """Check or make what VFs 1 to `count` are to have: VF -> its local memory, None for one that owns nothing and cannot start.

    Raises:
        OSError: ENOKEY, a VF has only a part; ENOSPC, there is no fair share; EIO, the card is wedged.
    """
    iov = directory(pf)
    assert iov is not None, pf.bdf
    if pf.wedged:
        raise tree.error(errno.EIO, f"{pf.path}/sriov_numvfs")
    found: dict[int, int | None] = {}
    for vf in range(1, count + 1):
        has = [[_value(iov, vf, gt, name) > 0 for name in NEEDED if _has(iov, gt, name)] for gt in _gts(iov)]
        if any(any(one) and not all(one) for one in has) or (not any(map(all, has)) and _value_of_any(iov, vf, "doorbells_quota")):
            raise tree.error(errno.ENOKEY, f"{pf.path}/sriov_numvfs")
        found[vf] = _memory(iov, vf) if any(map(all, has)) else None
    if all(memory is None for memory in found.values()) and _file(iov, "pf/auto_provisioning").text.strip() == "1":
        _split(iov, pf, count)
        pf.split = True
        found = {vf: _memory(iov, vf) for vf in found}
    return found


def disable(pf: Function) -> None:
    """What was split automatically is taken back; what was written stays."""
    iov = directory(pf)
    if iov is not None and pf.split:
        for vf in _vfs(iov):
            for gt in _gts(iov):
                for name in STEPS:
                    _set(iov, vf, gt, name, 0)
    pf.split = False


def reset(pf: Function) -> None:
    """The driver goes: all that it kept goes with it."""
    iov = directory(pf)
    if iov is None:
        return
    pf.split = True
    disable(pf)
    for vf in _vfs(iov):
        for gt in _gts(iov):
            for name in OTHERS:
                _file(iov, f"vf{vf}/{gt}/{name}").text = "0\n"
    _file(iov, "pf/auto_provisioning").text = "1\n"


def _split(iov: tree.Directory, pf: Function, count: int) -> None:
    for gt in _gts(iov):
        for name, step in STEPS.items():
            if not _has(iov, gt, name):
                continue
            share = (_free(iov, gt, name) - _spare(iov, gt, name)) // count // step * step
            if name == "contexts_quota":
                share = min(share, 1024)
            if share <= 0 and name in NEEDED:
                raise tree.error(errno.ENOSPC, f"{pf.path}/sriov_numvfs")
            for vf in range(1, count + 1):
                _set(iov, vf, gt, name, max(0, share))


def _set(iov: tree.Directory, vf: int, gt: str, name: str, value: int) -> None:
    """Write a quota and what is left after it."""
    if not _has(iov, gt, name):
        return
    used = value - _value(iov, vf, gt, name)
    _file(iov, f"vf{vf}/{gt}/{name}").text = f"{value}\n"
    resource = name.removesuffix("_quota")
    for kind in ("free", "max_quota"):
        left = _file(iov, f"pf/{gt}/available/{resource}_{kind}")
        left.text = f"{max(0, int(left.text) - used)}\n"


def _free(iov: tree.Directory, gt: str, name: str) -> int:
    return int(_file(iov, f"pf/{gt}/available/{name.removesuffix('_quota')}_free").text)


def _spare(iov: tree.Directory, gt: str, name: str) -> int:
    return int(_file(iov, f"pf/{gt}/{name.removesuffix('_quota')}_spare").text)


def _value(iov: tree.Directory, vf: int, gt: str, name: str) -> int:
    return int(_file(iov, f"vf{vf}/{gt}/{name}").text) if _has(iov, gt, name) else 0


def _value_of_any(iov: tree.Directory, vf: int, name: str) -> int:
    return sum(_value(iov, vf, gt, name) for gt in _gts(iov))


def _memory(iov: tree.Directory, vf: int) -> int:
    return sum(_value(iov, vf, gt, "lmem_quota") for gt in _gts(iov))


def _has(iov: tree.Directory, gt: str, name: str) -> bool:
    part = iov.directory("vf1")
    below = part.directory(gt) if part is not None else None
    return below is not None and name in below.entries


def _vfs(iov: tree.Directory) -> Iterator[int]:
    return (int(name[2:]) for name in iov.entries if re.fullmatch(r"vf\d+", name))


def _gts(iov: tree.Directory) -> list[str]:
    part = iov.directory("vf1")
    return [name for name in part.entries if re.fullmatch(r"gt\d*", name)] if part is not None else []


def _file(iov: tree.Directory, path: str) -> tree.File:
    here: tree.Entry = iov
    for name in path.split("/"):
        assert isinstance(here, tree.Directory), path
        here = here.entries[name]
    assert isinstance(here, tree.File), path
    return here
