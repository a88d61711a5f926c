"""What is true of one physical function and its VFs right now, read for whoever is about to change it.

Reads as discovery does: what cannot be read is unknown. `sriov_numvfs` is never read, that waits for the card's lock (drivers/pci/iov.c);
the virtfn links say the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from dra import drm_nodes, sriov
from dra.devices import Gpu
from dra.discovery import DRM_DRIVERS, PCI_DEVICES, VFIO_DRIVERS
from dra.kernel_tree import KernelTree
from dra.names import Bdf
from dra.sysfs import Directory
from dra.vf_cards import Card, Interface

_GT: Final = re.compile(r"gt[0-9]*")
_XE_FILES: Final = ("exec_quantum_ms", "preempt_timeout_us", "vram_quota")


class Vf(msgspec.Struct, frozen=True):
    """One VF that is there."""

    bdf: Bdf
    driver: str | None
    has_nodes: bool
    """Whether its DRM driver has made the render node."""

    @property
    def is_up(self) -> bool:
        """Whether its driver is done with it: a DRM driver with nodes, or vfio."""
        return self.driver in VFIO_DRIVERS or (self.driver in DRM_DRIVERS and self.has_nodes)


class CardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One physical function."""

    card: Card
    driver: str | None
    vfs: Mapping[int, Vf]
    """By index, from 1."""
    autoprobe: bool
    """Whether the kernel gives new VFs a driver."""
    quotas: Mapping[str, str] | None
    """Path below `provisioning` -> text, of every file that `dra.vf_quotas` may write; empty where the driver has none, None if they were
    not read."""
    provisioning: str | None
    """Path of the directory with the quotas."""

    @property
    def bdf(self) -> Bdf:
        return self.card.bdf


def read(tree: KernelTree, gpu: Gpu, *, with_quotas: bool = False) -> CardFacts:
    """Read a card. May block for as long as the kernel does.

    Args:
        gpu: the PF as the last scan found it, for its memory and how many VFs it can have.
        with_quotas: read every quota too: up to 800 files on a large card.
    """
    device = Directory(tree, f"{PCI_DEVICES}/{gpu.bdf}")
    driver = device.link_name("driver")
    minors = drm_nodes.find(tree, device, gpu.bdf)
    directory, interface = _provisioning(device, driver, minors.card)
    quotas = {} if directory is None else dict(_quotas(directory, interface)) if with_quotas else None
    return CardFacts(
        card=_card(device, directory, interface, gpu),
        driver=driver,
        vfs=vfs(tree, gpu.bdf),
        autoprobe=device.text("sriov_drivers_autoprobe") != "0",
        quotas=quotas,
        provisioning=directory.path if directory is not None else None,
    )


def vfs(tree: KernelTree, bdf: Bdf) -> dict[int, Vf]:
    """The VFs of a PF that are there, by index."""
    found = sriov.virtual_functions(Directory(tree, f"{PCI_DEVICES}/{bdf}"))
    return {index: _vf(tree, vf) for vf, index in sorted(found.items(), key=lambda item: item[1])}


def _provisioning(device: Directory, driver: str | None, card: int | None) -> tuple[Directory | None, Interface]:
    if driver == "i915" and card is not None:
        directory = sriov.provisioning(device.below(f"drm/card{card}"))
        if directory is not None and directory.has("pf"):
            return directory, Interface.PRELIM
    if driver == "xe" and device.has("sriov_admin"):
        return device.below("sriov_admin"), Interface.ADMIN
    return None, Interface.NONE


def _card(device: Directory, directory: Directory | None, interface: Interface, gpu: Gpu) -> Card:
    profile, bulk = frozenset[str](), frozenset[str]()
    gts: tuple[str, ...] = ("gt",)
    if directory is not None and interface is Interface.ADMIN:
        profile = frozenset(name for name in directory.below("vf1/profile").names() if name in _XE_FILES)
        bulk = frozenset(name for name in directory.below(".bulk_profile").names() if name in _XE_FILES)
    elif directory is not None:
        gts = tuple(name for name in directory.below("vf1").names() if _GT.fullmatch(name)) or ("gt",)
    return Card(
        bdf=gpu.bdf,
        device=gpu.device,
        interface=interface,
        max_vfs=gpu.max_vfs_usable,
        total_vfs=device.number("sriov_totalvfs") or 0,
        memory_bytes=gpu.memory_bytes,
        tiles=gpu.tiles,
        gts=gts,
        attributes=profile,
        bulk_attributes=bulk,
    )


def _quotas(directory: Directory, interface: Interface) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for vf in (name for name in directory.names() if re.fullmatch(r"vf[0-9]+", name)):
        if interface is Interface.PRELIM:
            parts = [f"{vf}/{gt}" for gt in directory.below(vf).names() if _GT.fullmatch(gt)]
        else:
            parts = [f"{vf}/profile"]
        for part in parts:
            here = directory.below(part)
            found += [(f"{part}/{name}", text) for name in here.names() if (text := here.text(name)) is not None and _is_quota(name)]
    if (auto := directory.below("pf").text("auto_provisioning")) is not None:
        found.append(("pf/auto_provisioning", auto))
    return found


def _is_quota(name: str) -> bool:
    return name.endswith("_quota") or name in ("exec_quantum_ms", "preempt_timeout_us")


def _vf(tree: KernelTree, bdf: Bdf) -> Vf:
    device = Directory(tree, f"{PCI_DEVICES}/{bdf}")
    return Vf(bdf, device.link_name("driver"), drm_nodes.find(tree, device, bdf).render is not None)
