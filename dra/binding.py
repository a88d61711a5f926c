"""Moving one PCI function between its DRM driver and vfio, and back: each step is computed from what is true right now.

A crash between two steps is repaired by computing the next one again; nothing is remembered. Rules of the kernel: drivers/pci/pci-driver.c
(`driver_override` names the only driver that may bind, pci_device_can_probe), drivers/base/bus.c (`unbind`, `drivers_probe`),
drivers/vfio/vfio_main.c (a group can be opened only if nobody else drives a function of it).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

import msgspec

from dra import drm_nodes, sriov
from dra.devices import DeviceNode
from dra.discovery import DRM_DRIVERS, PCI_DEVICES, VFIO_DRIVERS
from dra.errors import ClaimRefused, DriverError, HardwareFault, NotYet
from dra.kernel_tree import KernelTree
from dra.names import Bdf, is_bdf
from dra.sysfs import Directory

PCI_DRIVERS: Final = "sys/bus/pci/drivers"
DRIVERS_PROBE: Final = "sys/bus/pci/drivers_probe"
HARMLESS: Final = (*VFIO_DRIVERS, "pcieport", "pci-stub")
"""Drivers beside which vfio lets a group be used: their own, and those that leave DMA to others (`driver_managed_dma`)."""


class Neighbour(msgspec.Struct, frozen=True):
    """Another function of the same IOMMU group: the hardware cannot keep the two apart."""

    bdf: str
    driver: str | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of one function, as far as changing its driver matters."""

    bdf: Bdf
    present: bool = True
    """False: it is not on the bus, and nothing else is known."""
    driver: str | None = None
    override: str | None = None
    """`driver_override`; None when it is not set."""
    boot_vga: bool = False
    """The firmware showed the console on it."""
    vfs: int = 0
    parent: Bdf | None = None
    """The PF, of a VF."""
    parent_driver: str | None = None
    autoprobe: bool = True
    """False for a VF whose PF has `sriov_drivers_autoprobe` 0: it binds by an override only."""
    iommu_group: str | None = None
    neighbours: tuple[Neighbour, ...] = ()
    vfio_nodes: tuple[DeviceNode, ...] = ()
    """Empty as long as the function's own node is not made."""
    loaded: frozenset[str] = frozenset()
    """Which of the vfio drivers the kernel has."""


class Override(msgspec.Struct, frozen=True):
    """Say which driver alone may bind, or with None that any may."""

    driver: str | None


class Unbind(msgspec.Struct, frozen=True):
    """Take it away from its driver. Hangs for as long as a virtual machine holds it through vfio."""

    driver: str


class Probe(msgspec.Struct, frozen=True):
    """Let the driver bind that may and wants to."""


class Await(msgspec.Struct, frozen=True):
    """Nothing to write: something follows by itself."""

    what: str
    """For people: `its node below /dev/vfio`."""


Act = Override | Unbind | Probe
Step = Act | Await


def facts(tree: KernelTree, bdf: Bdf) -> Facts:
    """Read one function; what cannot be read counts as not there. May block for as long as the kernel does."""
    device = Directory(tree, f"{PCI_DEVICES}/{bdf}")
    if device.text("vendor") is None:
        return Facts(bdf=bdf, present=False)
    parent = device.link_name("physfn")
    physical = Directory(tree, f"{PCI_DEVICES}/{parent}") if parent is not None and is_bdf(parent) else None
    group, override = device.link_name("iommu_group"), device.text("driver_override")
    driver = device.link_name("driver")
    return Facts(
        bdf=bdf,
        driver=driver,
        override=None if override == "(null)" else override,
        boot_vga=device.text("boot_vga") == "1",
        vfs=len(sriov.virtual_functions(device)),
        parent=Bdf(parent) if physical is not None and parent is not None else None,
        parent_driver=physical.link_name("driver") if physical is not None else None,
        autoprobe=physical is None or physical.text("sriov_drivers_autoprobe") != "0",
        iommu_group=group,
        neighbours=_neighbours(tree, bdf, group) if group is not None else (),
        vfio_nodes=drm_nodes.passthrough(tree, device) if driver in VFIO_DRIVERS else (),
        loaded=frozenset(name for name in VFIO_DRIVERS if tree.exists(f"{PCI_DRIVERS}/{name}")),
    )


def next_step(facts: Facts, wanted: str | None) -> Step | None:
    """The next step towards `wanted`, a vfio driver, or None for the DRM driver; None when nothing is left to do.

    The override goes first: whatever happens after it, no other driver can take the function. Ask `refusal` before.
    """
    if not facts.present:
        return None  # gone with its driver; `refusal` tells those who want it
    override = _override(facts, wanted)
    if facts.override != override:
        return Override(override)
    if not (facts.driver == wanted if wanted is not None else facts.driver in DRM_DRIVERS):
        return Probe() if facts.driver is None else Unbind(facts.driver)
    if wanted is not None and not facts.vfio_nodes:
        return Await("its node below /dev/vfio")
    return None


def refusal(facts: Facts, wanted: str | None) -> str | None:
    """Why the function must not or cannot go to `wanted` (None: back to its DRM driver), a sentence for people; None if it can."""
    bdf = facts.bdf
    if not facts.present:
        return None if wanted is None else f"{bdf} is not on the bus"
    if facts.driver not in (None, *DRM_DRIVERS, *VFIO_DRIVERS):
        return f"{bdf} is bound to {facts.driver}, which this driver did not bind and does not take away"
    if wanted is None:
        if not facts.autoprobe and facts.driver not in DRM_DRIVERS and facts.parent_driver not in DRM_DRIVERS:
            return f"{bdf} is a VF without a driver of its own, and its PF {facts.parent} has none either (sriov_drivers_autoprobe is 0)"
        return None
    if facts.vfs:
        return f"{bdf} has {facts.vfs} VFs: a virtual machine can have them, not the whole card"
    if facts.boot_vga and facts.driver not in VFIO_DRIVERS:
        return f"{bdf} shows the console of the node (boot_vga is 1): without its driver the console is gone"
    if wanted not in facts.loaded:
        return f"the kernel has no driver {wanted}: run `modprobe {wanted}` on the node"
    if wanted == "xe-vfio-pci" and facts.parent is None:
        return f"xe-vfio-pci takes VFs only, and {bdf} is a whole card: ask for vfio-pci"
    if wanted == "xe-vfio-pci" and facts.parent_driver != "xe":
        return f"xe-vfio-pci takes a VF only while its PF is bound to xe; {facts.parent} is bound to {facts.parent_driver or 'no driver'}"
    if facts.iommu_group is None:
        return f"{bdf} is in no IOMMU group: turn the IOMMU on in the firmware and on the kernel's command line (intel_iommu=on)"
    for neighbour in facts.neighbours:
        if neighbour.driver is not None and neighbour.driver not in HARMLESS:
            return f"{bdf} shares IOMMU group {facts.iommu_group} with {neighbour.bdf}, which {neighbour.driver} drives: unbind that first"
    return None


def perform(tree: KernelTree, bdf: Bdf, step: Act) -> None:
    """Take one step. Returns when the kernel has acted; read the facts again then.

    Raises:
        NotYet: the function is gone, or something has it for the moment.
        ClaimRefused: the administrator's move: sysfs cannot be written.
        HardwareFault: the kernel refused, or no driver took the function.
    """
    match step:
        case Override(driver):
            _write(tree, f"{PCI_DEVICES}/{bdf}/driver_override", f"{driver or ''}\n", f"{bdf}: driver_override {driver or 'cleared'}")
        case Unbind(driver):
            try:
                _write(tree, f"{PCI_DRIVERS}/{driver}/unbind", bdf, f"{bdf}: unbind from {driver}")
            except NotYet:
                # ENODEV is also how the kernel says that somebody was quicker, and then all is well.
                if _driver(tree, bdf) == driver:
                    raise
        case Probe():
            _write(tree, DRIVERS_PROBE, bdf, f"{bdf}: drivers_probe")
            # A failed probe is told to nobody but the kernel log (device_attach).
            if _driver(tree, bdf) is None:
                raise HardwareFault(f"{bdf}: no driver took it; the kernel log says why", reason="BindFailed")


_GONE: Final = (NotYet, "DeviceAbsent", "the kernel does not know it there (unplugged, its VFs removed, or bound elsewhere)")
_READ_ONLY: Final = (ClaimRefused, "SysfsReadOnly", "sysfs cannot be written: the plugin needs uid 0 and a writable mount of /sys")
_BUSY: Final = (NotYet, "DeviceBusy", "something else has it for the moment")
_ERRNOS: Final[Mapping[int, tuple[type[DriverError], str, str]]] = {
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.ENOENT: _GONE,
    errno.EBUSY: _BUSY,
    errno.EAGAIN: _BUSY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.EINVAL: (HardwareFault, "BindFailed", "the kernel or the driver does not take it so; the kernel log says more"),
    errno.ENOMEM: (HardwareFault, "BindFailed", "the node is out of memory"),
}
"""errno of a write -> whose move it is, the stable word, and what to tell people."""


def _write(tree: KernelTree, path: str, text: str, what: str) -> None:
    try:
        tree.write(path, text)
    except OSError as error:
        code = error.errno or 0
        otherwise = (HardwareFault, "BindFailed", "the kernel log says more")
        kind, reason, sentence = _ERRNOS.get(code, otherwise)
        raise kind(f"{what}: {errno.errorcode.get(code, code)}: {sentence}", reason=reason) from error


def _override(facts: Facts, wanted: str | None) -> str | None:
    """What `driver_override` must say for the next step. On the way back only a VF that is never probed needs one, until it is bound."""
    if wanted is not None or facts.autoprobe or facts.driver in DRM_DRIVERS:
        return wanted
    return facts.parent_driver


def _driver(tree: KernelTree, bdf: Bdf) -> str | None:
    return Directory(tree, f"{PCI_DEVICES}/{bdf}").link_name("driver")


def _neighbours(tree: KernelTree, bdf: Bdf, group: str) -> tuple[Neighbour, ...]:
    members = Directory(tree, f"sys/kernel/iommu_groups/{group}/devices")
    return tuple(Neighbour(name, members.below(name).link_name("driver")) for name in members.names() if name != bdf)
