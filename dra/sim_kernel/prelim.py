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
_BITS: Final = {"ggtt_quota": 64, "contexts_quota": 16, "doorbells_quota": 16, "lmem_quota": 64}
"""Width of the variable that a quota is kept in; everything else is kept in 32."""
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


def write_attribute(pf: Function, path: str, value: int) -> str:
    """Set a quota, a time or a threshold of a VF; the text that is read back. VFs in use are not spared: the card is told at once.

    Raises:
        OSError: ERANGE, it does not fit the variable, EOVERFLOW, only rounded up it does not; E2BIG above all GGTT there is; EDQUOT above
            what is left; ENOSPC above the largest piece that is left.
    """
    iov = directory(pf)
    match = re.search(r"/(vf\d+/(gt\d*)/(?:threshold/)?(\w+))$", path)
    assert iov is not None and match is not None, path
    inside, gt, name = match.groups()
    bits = _BITS.get(name, 32)
    if value >> bits:
        raise tree.error(errno.ERANGE, path)
    if name in STEPS:
        value = -(-value // STEPS[name]) * STEPS[name]
        if value >> bits:
            raise tree.error(errno.EOVERFLOW, path)
        more = value - int(_file(iov, inside).text)
        free, largest = _available(iov, gt, name)
        if name == "ggtt_quota" and value > free + sum(_value(iov, vf, gt, name) for vf in _vfs(iov)):
            raise tree.error(errno.E2BIG, path)
        if more > free:
            raise tree.error(errno.EDQUOT, path)
        if more > largest:
            raise tree.error(errno.ENOSPC, path)
        _set(iov, int(inside.partition("/")[0][2:]), gt, name, value)
    else:
        _file(iov, inside).text = f"{value}\n"
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
    if value and any(file.text.strip() != "0" for vf in _vfs(iov) for gt in _gts(iov) for file in _attributes(iov, vf, gt)):
        raise tree.error(errno.ESTALE, path)
    return f"{int(value)}\n"


def enable(pf: Function, count: int) -> None:
    """Check what VFs 1 to `count` have, on every GT by itself, or split evenly where they have nothing and the driver may.

    Raises:
        OSError: EIO, the card is wedged; ENOKEY, a VF has only a part; ENOSPC, there is no fair share; EUCLEAN, a VF beyond them has one.
    """
    iov = directory(pf)
    place = f"{pf.path}/sriov_numvfs"
    assert iov is not None, place
    if pf.wedged:
        raise tree.error(errno.EIO, place)
    shares: list[tuple[str, str, int]] = []
    for gt in _gts(iov):
        some = [vf for vf in range(1, count + 1) if any(_value(iov, vf, gt, name) for name in STEPS)]
        if not all(_is_complete(iov, vf, gt) for vf in some):
            raise tree.error(errno.ENOKEY, place)
        if some or not _is_automatic(iov):
            continue
        if any(_value(iov, vf, gt, name) for vf in _vfs(iov) for name in STEPS):
            raise tree.error(errno.EUCLEAN, place)
        shares += [(gt, name, _share(iov, gt, name, count)) for name in STEPS if _has(iov, gt, name)]
    if any(name in NEEDED and not share for _, name, share in shares):
        raise tree.error(errno.ENOSPC, place)
    for gt, name, share in shares:
        for vf in range(1, count + 1):
            _set(iov, vf, gt, name, share)


def disable(pf: Function) -> None:
    """What was split automatically is taken back; what was written stays."""
    iov = directory(pf)
    if iov is not None and _is_automatic(iov):
        _clear(iov)


def reset(pf: Function) -> None:
    """The driver goes: all that it kept goes with it."""
    iov = directory(pf)
    if iov is not None:
        _clear(iov)
        _file(iov, "pf/auto_provisioning").text = "1\n"


def memory_of(pf: Function, vf: int) -> int | None:
    """Local memory of a VF over all GTs in bytes, 0 on a card without any; None if it is complete on no GT: no driver can start on it."""
    iov = directory(pf)
    gts = [gt for gt in _gts(iov) if _is_complete(iov, vf, gt)] if iov is not None else []
    return sum(_value(iov, vf, gt, "lmem_quota") for gt in gts) if iov is not None and gts else None


def _share(iov: tree.Directory, gt: str, name: str, count: int) -> int:
    free, largest = _available(iov, gt, name)
    spare = int(_file(iov, f"pf/{gt}/{name.removesuffix('_quota')}_spare").text)
    return max(0, min(free - spare, largest)) // count // STEPS[name] * STEPS[name]


def _clear(iov: tree.Directory) -> None:
    for vf in _vfs(iov):
        for gt in _gts(iov):
            for name in STEPS:
                _set(iov, vf, gt, name, 0)
            for file in _attributes(iov, vf, gt):
                file.text = "0\n"


def _set(iov: tree.Directory, vf: int, gt: str, name: str, value: int) -> None:
    """Write a quota and what is left after it."""
    if not _has(iov, gt, name):
        return
    used = value - _value(iov, vf, gt, name)
    _file(iov, f"vf{vf}/{gt}/{name}").text = f"{value}\n"
    for kind in ("free", "max_quota"):
        left = _file(iov, f"pf/{gt}/available/{name.removesuffix('_quota')}_{kind}")
        left.text = f"{max(0, int(left.text) - used)}\n"


def _available(iov: tree.Directory, gt: str, name: str) -> tuple[int, int]:
    """How much is left, and how much of it in one piece."""
    of = f"pf/{gt}/available/{name.removesuffix('_quota')}"
    return int(_file(iov, f"{of}_free").text), int(_file(iov, f"{of}_max_quota").text)


def _is_automatic(iov: tree.Directory) -> bool:
    return _file(iov, "pf/auto_provisioning").text.strip() == "1"


def _is_complete(iov: tree.Directory, vf: int, gt: str) -> bool:
    return all(_value(iov, vf, gt, name) for name in NEEDED if _has(iov, gt, name))


def _value(iov: tree.Directory, vf: int, gt: str, name: str) -> int:
    return int(_file(iov, f"vf{vf}/{gt}/{name}").text) if _has(iov, gt, name) else 0


def _has(iov: tree.Directory, gt: str, name: str) -> bool:
    part = iov.directory("vf1")
    below = part.directory(gt) if part is not None else None
    return below is not None and name in below.entries


def _vfs(iov: tree.Directory) -> Iterator[int]:
    return (int(name[2:]) for name in iov.entries if re.fullmatch(r"vf\d+", name))


def _gts(iov: tree.Directory) -> list[str]:
    part = iov.directory("vf1")
    return [name for name in part.entries if re.fullmatch(r"gt\d*", name)] if part is not None else []


def _attributes(iov: tree.Directory, vf: int, gt: str) -> list[tree.File]:
    """The files of a VF that a person may write on one GT."""
    part = iov.directory(f"vf{vf}")
    here = part.directory(gt) if part is not None else None
    assert here is not None, f"vf{vf}/{gt}"
    thresholds = here.directory("threshold")
    return [
        entry
        for entries in (here.entries, thresholds.entries if thresholds is not None else {})
        for name, entry in entries.items()
        if isinstance(entry, tree.File) and name != "state"  # which is the GuC's, in its own format
    ]


def _file(iov: tree.Directory, path: str) -> tree.File:
    here: tree.Entry = iov
    for name in path.split("/"):
        assert isinstance(here, tree.Directory), path
        here = here.entries[name]
    assert isinstance(here, tree.File), path
    return here
