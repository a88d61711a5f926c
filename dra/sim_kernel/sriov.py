"""SR-IOV of a physical function: what a write to `sriov_numvfs` answers (sriov_numvfs_store, drivers/pci/pci-sysfs.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from dra.sim_kernel import faults, pci, prelim, tree, uevents, virtual_function, xe_admin
from dra.sim_kernel.drivers import Function

ENABLE_SECONDS = 0.1
"""sriov_enable sleeps this long after VF Enable was set (drivers/pci/iov.c)."""
DISABLE_SECONDS = 1.0
"""sriov_disable sleeps this long after it was cleared."""


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
    if not configurable(function):
        raise tree.error(errno.ENOENT, place)
    if asked and now:
        raise tree.error(errno.EBUSY, place)
    yield from _enable(bus, function, asked) if asked else _disable(bus, function)


def _enable(bus: pci.Bus, pf: Function, count: int) -> Iterator[faults.Trouble]:
    """The driver's sriov_configure, then sriov_enable: VFs one after another, each with its driver before the next."""
    driver = pf.driver
    assert driver is not None
    shares = prelim.enable(pf, count) if driver == "i915" else xe_admin.enable(pf, count, bus.memory.get(pf.bdf, 0))
    yield faults.Trouble(seconds=ENABLE_SECONDS)
    for index, memory in shares.items():
        vf = virtual_function.make(bus.tree, pf, index)
        vf.memory_bytes, vf.can_start = memory, memory is not None
        vf.made[driver] = virtual_function.driver_part(pf, vf, driver, memory)
        bus.functions[vf.bdf] = vf
        bus.attach(vf, after_add=lambda vf=vf, index=index: _tie(bus, pf, vf, index))  # type: ignore[misc]
        yield bus.drivers.troubles.meet("vf", vf.path, vf.bdf)
    bus.uevents.emit("change", "pci", pf.path, uevents.pci_properties(pf.directory, "change"))
    pci.set_count(pf, count)
    _device_links(bus, pf)


def _tie(bus: pci.Bus, pf: Function, vf: Function, index: int) -> None:
    """The links between PF and VF come after the VF's `add` event."""
    pf.directory.entries[f"virtfn{index - 1}"] = tree.Link(f"../{vf.bdf}")
    vf.directory.entries["physfn"] = tree.Link(f"../{pf.bdf}")
    bus.uevents.emit("change", "pci", vf.path, uevents.pci_properties(vf.directory, "add"))


def _disable(bus: pci.Bus, pf: Function) -> Iterator[faults.Trouble]:
    for vf in bus.removing_vfs(pf):
        yield bus.drivers.troubles.meet("vf", vf.path, vf.bdf)
    yield faults.Trouble(seconds=DISABLE_SECONDS)
    prelim.disable(pf) if pf.driver == "i915" else xe_admin.disable(pf)
    _device_links(bus, pf)


def _device_links(bus: pci.Bus, pf: Function) -> None:
    """Provisioning directories lead to the VFs that are there."""
    own = prelim.directory(pf) if pf.driver == "i915" else xe_admin.directory(pf)
    if own is None:
        return
    virtual = dict(enumerate(bus.virtual_functions(pf), start=1))
    depth = 4 if pf.driver == "i915" else 2  # prelim_iov is below drm/cardN
    for name, entry in own.entries.items():
        if (match := re.fullmatch(r"vf(\d+)", name)) and isinstance(entry, tree.Directory):
            entry.entries.pop("device", None)
            if (vf := virtual.get(int(match[1]))) is not None:
                entry.entries["device"] = tree.Link("../" * (depth + 1) + vf.bdf)


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
