"""SR-IOV of a physical function: what a write to `sriov_numvfs` answers and does (sriov_numvfs_store, drivers/pci/pci-sysfs.c, iov.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from dra.sim_kernel import faults, pci, provisioning, tree, uevents, virtual_function
from dra.sim_kernel.drivers import Function

ENABLE_SECONDS = 0.1
"""sriov_enable sleeps this long after VF Enable was set (drivers/pci/iov.c)."""


def write_numvfs(bus: pci.Bus, function: Function, text: str) -> Iterator[faults.Trouble]:
    """Act on a write; yields what the caller goes through between two steps, with the machine as it is then.

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
        return
    if not provisioning.possible(function):
        raise tree.error(errno.ENOENT, place)
    if asked and now:
        raise tree.error(errno.EBUSY, place)
    yield from _enable(bus, function, asked) if asked else bus.removing_vfs(function)


def _enable(bus: pci.Bus, pf: Function, count: int) -> Iterator[faults.Trouble]:
    """The driver's sriov_configure, then sriov_enable: VFs one after another, each with its driver before the next."""
    driver, made = pf.driver, min(count, count if pf.vfs_at_most is None else pf.vfs_at_most)
    assert driver is not None
    shares = provisioning.enable(bus.tree, pf, made, bus.memory.get(pf.bdf, 0)) if made else []
    yield faults.Trouble(seconds=ENABLE_SECONDS)
    for index, share in enumerate(shares, start=1):
        vf = virtual_function.make(bus.tree, pf, index)
        vf.share, vf.made[driver] = share, virtual_function.driver_part(pf, vf)
        bus.functions[vf.bdf] = vf
        bus.announce(vf)
        pf.directory.entries[f"virtfn{index - 1}"] = tree.Link(f"../{vf.bdf}")
        vf.directory.entries["physfn"] = tree.Link(f"../{pf.bdf}")
        bus.uevents.emit("change", "pci", vf.path, uevents.pci_properties(vf.directory, "change"))
        yield bus.drivers.troubles.meet("vf", vf.path, vf.bdf)
        if bus.function(vf.bdf) is vf:
            bus.autoprobe(vf)
    if made:
        bus.uevents.emit("change", "pci", pf.path, uevents.pci_properties(pf.directory, "change"))
        pci.set_count(pf, made)
        provisioning.link(pf, bus.virtual_functions(pf))


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
