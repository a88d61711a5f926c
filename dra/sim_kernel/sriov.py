"""SR-IOV of a physical function: what a write to `sriov_numvfs` answers (sriov_numvfs_store, drivers/pci/pci-sysfs.c)."""

from __future__ import annotations

import errno
import re

from dra.sim_kernel import pci, tree
from dra.sim_kernel.drivers import Function

DISABLE_SECONDS = 1.0
"""sriov_disable sleeps this long after VF Enable was cleared (drivers/pci/iov.c)."""


def write_numvfs(bus: pci.Bus, function: Function, text: str) -> float:
    """Act on a write; how long the write goes on after what it did, in seconds.

    Raises:
        OSError: EINVAL, ERANGE, ENOENT (no driver, or one that cannot), EBUSY (VFs there already), or what the driver answers.
    """
    place = f"{function.path}/sriov_numvfs"
    asked = unsigned(text)
    if asked is None:
        raise tree.error(errno.EINVAL, place)
    if asked > int(function.directory.text("sriov_totalvfs") or 0):
        raise tree.error(errno.ERANGE, place)
    now = int(function.directory.text("sriov_numvfs") or 0)
    if asked == now:
        return 0.0
    if not configurable(function):
        raise tree.error(errno.ENOENT, place)
    if asked and now:
        raise tree.error(errno.EBUSY, place)
    return configure(bus, function, asked)


def configure(bus: pci.Bus, function: Function, asked: int) -> float:
    """The driver's sriov_configure: take all VFs away, or make `asked` of them."""
    if asked == 0:
        bus.remove_vfs(function)
        return DISABLE_SECONDS
    if function.wedged:
        raise tree.error(errno.ECANCELED if function.driver == "xe" else errno.EIO, function.path)
    # Making VFs is not simulated yet: the one errno no real driver gives here.
    raise tree.error(errno.ENOSYS, f"{function.path}/sriov_numvfs")


def configurable(function: Function) -> bool:
    """Whether the bound driver has an sriov_configure: xe, and i915 only where it brings its own VF provisioning files."""
    if function.driver == "i915":
        minors = function.directory.directory("drm")
        cards = [minors.directory(name) for name in minors.entries if name.startswith("card")] if minors else []
        return any(card is not None and ("prelim_iov" in card.entries or "iov" in card.entries) for card in cards)
    return function.driver == "xe"


def write_autoprobe(function: Function, text: str) -> None:
    """Set whether new VFs get a driver (kstrtobool)."""
    value = boolean(text)
    if value is None:
        raise tree.error(errno.EINVAL, f"{function.path}/sriov_drivers_autoprobe")
    entry = function.directory.entries["sriov_drivers_autoprobe"]
    assert isinstance(entry, tree.File)
    entry.text = f"{int(value)}\n"


def unsigned(text: str) -> int | None:
    """A number as kstrtouint reads it in base 0: decimal, 0x.. or 0.., one newline after it."""
    body = text.removesuffix("\n").removeprefix("+")
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", body):
        return int(body, 16)
    if re.fullmatch(r"0[0-7]*", body):
        return int(body, 8)
    return int(body) if re.fullmatch(r"[1-9][0-9]*", body) else None


def boolean(text: str) -> bool | None:
    """A truth value as kstrtobool reads it: by its first letters."""
    if text[:1] in ("y", "Y", "t", "T", "1") or text[:2].lower() == "on":
        return True
    if text[:1] in ("n", "N", "f", "F", "0") or text[:2].lower() == "of":
        return False
    return None
