"""A VF as it appears below its PF: what the PCI core gives it (pci_iov_add_virtfn, drivers/pci/iov.c), and what its driver makes of it."""

from __future__ import annotations

import re
from typing import Final

from dra.devices import VfPlaces
from dra.names import Bdf
from dra.sim_kernel import tree, uevents
from dra.sim_kernel.drivers import Function

_OF_THE_CORE: Final = (
    "boot_vga", "broken_parity_status", "class", "consistent_dma_mask_bits", "d3cold_allowed", "dma_mask_bits", "enable", "local_cpulist",
    "local_cpus", "modalias", "msi_bus", "numa_node", "power", "power_state", "remove", "rescan", "reset", "subsystem", "subsystem_device",
    "subsystem_vendor", "uevent", "vendor",
)  # fmt: skip
"""What a VF has like its PF."""
_ONLY_OF_A_CARD: Final = re.compile(
    r"gt_.*|error|iaf_.*|sys_pwr_balance|clients|(prelim_)?iov|prelim_(csc|reset|enable|lmem_alloc|sharedmem)_.*|card\d+-.*"
)
"""What i915 makes in a card's directory on a PF only; `card1-DP-1` are connectors, which no VF has."""
_ONLY_OF_A_GT: Final = ("freq0", "gtidle")
"""xe gives a VF no frequency controls (xe_gt_freq.c)."""


def places(pf: Function) -> VfPlaces:
    """How the PF numbers its VFs."""
    text = pf.directory.text
    device = (text("sriov_vf_device") or "").removeprefix("0x").zfill(4)
    return VfPlaces(int(text("sriov_offset") or 1), int(text("sriov_stride") or 1), f"0x{device}")


def make(files: tree.Tree, pf: Function, index: int) -> Function:
    """VF `index` (from 1), not yet on the bus and without its link to the PF."""
    where = places(pf)
    bdf = where.bdf(Bdf(pf.bdf), index)
    path = f"{pf.path.rpartition('/')[0]}/{bdf}"
    directory = tree.Directory()
    for name in _OF_THE_CORE:
        if (entry := pf.directory.entries.get(name)) is not None:
            directory.entries[name] = _copy(entry)
    nowhere = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    directory.entries.update(
        ari_enabled=tree.File("1\n"),
        device=tree.File(f"{where.device}\n"),
        revision=tree.File("0x00\n"),  # of the config space that the core invents for a VF
        irq=tree.File("0\n"),
        driver_override=tree.File("(null)\n", 0o644),
        current_link_speed=tree.File("Unknown\n"),
        current_link_width=tree.File("0\n"),
        max_link_speed=tree.File("2.5 GT/s PCIe\n"),
        max_link_width=tree.File("1\n"),
        resource=tree.File(nowhere * 13),
        reset_method=tree.File("flr\n", 0o644),
    )
    values = uevents.properties(directory) | {"PCI_SLOT_NAME": bdf, "PCI_ID": f"8086:{where.device[2:].upper()}"}
    values.pop("DRIVER", None)
    uevents.set_properties(directory, values)
    if isinstance(group := pf.directory.entries.get("iommu_group"), tree.Link):
        groups = tree.absolute(f"{pf.path}/iommu_group", group.target).rpartition("/")[0]
        taken = files.directory(groups)
        free = next(number for number in range(1 << 20) if taken is None or str(number) not in taken.entries)
        directory.entries["iommu_group"] = tree.Link(tree.relative(f"{path}/iommu_group", f"{groups}/{free}"))
    function = Function(bdf, path, directory)
    function.virtual = True
    return function


def driver_part(pf: Function, vf: Function) -> dict[str, tree.Entry]:
    """What the PF's driver makes on a VF when it binds, minors to be numbered."""
    made: dict[str, tree.Entry] = {}
    for name, entry in pf.directory.entries.items():
        if isinstance(entry, tree.Directory) and (name == "drm" or re.fullmatch(r"tile\d+", name)):
            place = tree.Directory()
            place.entries[name] = _of_a_vf(entry)
            tree.move(place, pf.path, vf.path)
            made[name] = place.entries[name]
    if isinstance(minors := made.get("drm"), tree.Directory):
        for card in minors.entries.values():
            gts = card.directory("gt") if isinstance(card, tree.Directory) else None
            for gt in gts.entries.values() if gts is not None else ():
                if isinstance(gt, tree.Directory):  # i915: a VF knows its GTs and steers nothing in them
                    for name in [name for name in gt.entries if name != "id"]:
                        del gt.entries[name]
    return made


def _of_a_vf(directory: tree.Directory) -> tree.Directory:
    """A copy without what only a PF has."""
    made = tree.Directory()
    for name, entry in directory.entries.items():
        if not _ONLY_OF_A_CARD.fullmatch(name) and name not in _ONLY_OF_A_GT and name != "memory":
            made.entries[name] = _of_a_vf(entry) if isinstance(entry, tree.Directory) else _copy(entry)
    return made


def _copy(entry: tree.Entry) -> tree.Entry:
    place = tree.Directory()
    place.entries["it"] = entry
    return tree.copy(place).entries["it"]
