"""One scan of the machine: every Intel GPU function on the PCI bus, what it is and what shape it is in.

Nothing here fails: a file that is missing, unreadable or nonsense makes a field unknown, a device that vanishes while it is read is left
out with a reason, and no device hides another.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Final, Literal

from dra import drm_nodes, gpu_memory, models, pcie_slot, sriov
from dra.devices import Gpu, Ignored, Inventory, Kind, State
from dra.kernel_tree import KernelTree
from dra.models import Model
from dra.names import Bdf, is_bdf
from dra.sysfs import Directory

PCI_DEVICES: Final = "sys/bus/pci/devices"
DRM_DRIVERS: Final = ("i915", "xe")
VFIO_DRIVERS: Final = ("vfio-pci", "xe-vfio-pci")

_DISPLAY, _BRIDGE = "0x03", "0x0604"
_PCIE_ROOT = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")


def gone(tree: KernelTree, bdf: Bdf) -> bool:
    """Whether there is nothing on the bus at the address; False where the bus itself cannot be seen."""
    return tree.exists(PCI_DEVICES) and not tree.exists(f"{PCI_DEVICES}/{bdf}")


def scan(tree: KernelTree, *, wedged: Mapping[Bdf, str] | None = None) -> Inventory:
    """Read the whole machine. May block for as long as the kernel does.

    Args:
        wedged: devices whose driver said by uevent that it gave up, and how it put it; sysfs does not show it.
    """
    gpus: list[Gpu] = []
    ignored: list[Ignored] = []
    for name in Directory(tree, PCI_DEVICES).names():
        if not is_bdf(name):
            continue
        bdf, device = Bdf(name), Directory(tree, f"{PCI_DEVICES}/{name}")
        why_not = _why_not_ours(device)
        if why_not is None:
            gpu = _gpu(tree, bdf, device, wedged or {})
            if device.text("vendor") is not None:
                gpus.append(gpu)
            else:
                ignored.append(Ignored(bdf, "went away while it was read"))
        elif not (device.text("class") or "").startswith(_BRIDGE):
            ignored.append(Ignored(bdf, why_not))
    ignored += _nodes_without_pci(tree)
    gpus.sort(key=lambda gpu: (len(gpu.bdf), gpu.bdf))
    return Inventory(tuple(gpus), tuple(ignored))


def _why_not_ours(device: Directory) -> str | None:
    """None for an Intel GPU. Bound to one of our drivers an unknown id is one too; otherwise the table must know it."""
    vendor, code = device.text("vendor"), device.text("class") or ""
    if vendor is None:
        return "its vendor cannot be read"
    display = code.startswith(_DISPLAY)
    if vendor != pcie_slot.INTEL:
        return f"{'display controller' if display else 'device'} of another vendor ({vendor})"
    driver, model = device.link_name("driver"), models.find(device.hexadecimal("device") or "")
    # Crescent Island has no display class; xe matches it by id alone (drivers/gpu/drm/xe/xe_pci.c).
    if not display and not (model is not None and (driver in (*DRM_DRIVERS, *VFIO_DRIVERS, None))):
        return f"Intel device of class {code or 'unknown'}, not a GPU"
    if driver in DRM_DRIVERS or model is not None:
        return None
    return f"Intel display controller that is not known and bound to {driver or 'no driver'}"


def _gpu(tree: KernelTree, bdf: Bdf, device: Directory, wedged: Mapping[Bdf, str]) -> Gpu:
    device_id = device.hexadecimal("device") or "0x0000"
    model, driver = models.find(device_id), device.link_name("driver")
    nodes = drm_nodes.find(tree, device, bdf)
    card = device.below(f"drm/card{nodes.card}") if nodes.card is not None else None
    vfs = sriov.virtual_functions(device)
    parent, index, kind = _family_ties(tree, bdf, device, driver, card, nodes)
    memory = gpu_memory.Memory(None)
    if drm := _drm_driver(driver):
        paths = [node.path for node in (nodes.render_node, nodes.card_node) if node is not None]
        memory = gpu_memory.of(tree, card, bdf, paths, drm)
    integrated = model.integrated if model is not None else memory.size_bytes is None and bdf.endswith("00:02.0")
    state, why = _state(device, driver, nodes, wedged.get(bdf) or memory.wedged, dirty=sriov.is_dirty(card, len(vfs)))
    if kind is Kind.PF and vfs and why is None:
        why = f"{len(vfs)} VFs are enabled: the VFs are offered, not the PF"
    link_speed, link_width = _link(tree, device)
    return Gpu(
        bdf=bdf,
        device=device_id,
        driver=driver,
        model=model.model if model is not None else None,
        family=model.family if model is not None else None,
        kind=kind,
        integrated=integrated,
        memory_bytes=None if integrated else memory.size_bytes,
        tiles=sriov.tiles(device, card, driver, model),
        card=nodes.card,
        render=nodes.render,
        numa=_numa(device),
        pcie_root=_pcie_root(device),
        max_vfs_usable=sriov.max_vfs_usable(device, driver, card, model) if kind is Kind.PF else 0,
        vf_places=sriov.vf_places(device) if kind is Kind.PF else None,
        vfs_now=len(vfs),
        state=state,
        publishable=state in (State.HEALTHY, State.DIRTY) and not vfs,
        why=why or _driver_note(driver, model) or _sriov_note(device, driver, card, model),
        recovery=_recovery(wedged.get(bdf, "")) if state is State.WEDGED else (),
        parent=parent,
        vf_index=index,
        serial=card.text("prelim_csc_unique_id") if card is not None else None,
        driver_version=_driver_version(tree, driver),
        link_speed=link_speed,
        link_width=link_width,
        boot_vga=device.text("boot_vga") == "1",
        iommu_group=device.link_name("iommu_group"),
        vfio_device=next((name for name in device.below("vfio-dev").names() if name.startswith("vfio")), None),
        vfio_nodes=drm_nodes.passthrough(tree, device) if driver in VFIO_DRIVERS else (),
        card_node=nodes.card_node,
        render_node=nodes.render_node,
        by_path=nodes.by_path,
        mei_nodes=drm_nodes.management_engine(tree, device),
    )


def _family_ties(
    tree: KernelTree, bdf: Bdf, device: Directory, driver: str | None, card: Directory | None, nodes: drm_nodes.Nodes
) -> tuple[Bdf | None, int | None, Kind]:
    """(PF, VF index, kind). A function with a physfn link is a VF even if nothing else of its PF can be read."""
    if not device.has("physfn") and device.link_name("physfn") is None:
        return None, None, sriov.kind_without_physfn(device, driver, card, nodes.render is not None)
    target = device.link_name("physfn")
    if target is None or not is_bdf(target):
        return None, None, Kind.VF
    siblings = sriov.virtual_functions(Directory(tree, f"{PCI_DEVICES}/{target}"))
    return Bdf(target), siblings.get(bdf), Kind.VF


def _state(device: Directory, driver: str | None, nodes: drm_nodes.Nodes, gave_up: str | None, *, dirty: bool) -> tuple[State, str | None]:
    if driver in VFIO_DRIVERS:
        return State.PASSTHROUGH, f"bound to {driver}: belongs to a virtual machine"
    if driver is None:
        return State.NO_DRIVER, "no driver is bound"
    if driver not in DRM_DRIVERS:
        return State.NO_DRIVER, f"bound to {driver}, which is no DRM driver"
    if (mode := device.text("survivability_mode")) is not None:
        return State.SURVIVABILITY, f"survivability mode ({mode}): its firmware must be flashed"
    if gave_up is not None:
        return State.WEDGED, f"wedged: {gave_up}"
    if not nodes:
        return State.NO_NODES, f"{driver} is bound but has made no device nodes"
    if dirty:
        return State.DIRTY, "quotas of earlier VFs are left over: they are cleared before new VFs are made"
    return State.HEALTHY, None


def _recovery(how: str) -> tuple[str, ...]:
    """`rebind,bus-reset` -> both; words that are not of the kernel's list (drm_get_wedge_recovery) say nothing."""
    return tuple(word for word in how.split(",") if word in ("rebind", "bus-reset", "vendor-specific"))


def _driver_note(driver: str | None, model: Model | None) -> str | None:
    if model is not None and driver in DRM_DRIVERS and driver != model.kmd:
        return f"bound to {driver} by force_probe; {model.kmd} is its usual driver"
    return None


def _sriov_note(device: Directory, driver: str | None, card: Directory | None, model: Model | None) -> str | None:
    total = device.number("sriov_totalvfs")
    if total and driver in DRM_DRIVERS and not sriov.max_vfs_usable(device, driver, card, model):
        return f"the hardware shows {total} VFs, which its driver cannot make"
    if total == 0 and driver == "i915":
        return "sriov_totalvfs is 0: i915 makes no VFs while the Xe Link fabric is on, or max_vfs is not set"
    return None


def _drm_driver(driver: str | None) -> Literal["i915", "xe"] | None:
    match driver:
        case "i915":
            return "i915"
        case "xe":
            return "xe"
        case _:
            return None


def _numa(device: Directory) -> int:
    node = device.number("numa_node")
    return node if node is not None and node >= 0 else -1


def _pcie_root(device: Directory) -> str | None:
    """`pci0000:15`, as k8s.io/dynamic-resource-allocation deviceattribute derives it: the first component below /sys/devices."""
    path = (device.resolved() or "").split("/")
    return path[2] if len(path) > 3 and path[:2] == ["sys", "devices"] and _PCIE_ROOT.fullmatch(path[2]) else None


def _link(tree: KernelTree, device: Directory) -> tuple[str | None, int | None]:
    """Speed and width of the slot's link; integrated GPUs and VFs have none."""
    link = pcie_slot.link(tree, pcie_slot.ports(tree, device)[-1])
    return (link.speed, link.width) if link is not None else (None, None)


def _driver_version(tree: KernelTree, driver: str | None) -> str | None:
    """Version of the driver where it has one of its own (out-of-tree builds), else the kernel's release."""
    if driver is None:
        return None
    module = Directory(tree, f"sys/module/{driver.replace('-', '_')}")
    return module.text("agama_version") or module.text("version") or Directory(tree, "proc/sys/kernel").text("osrelease")


def _nodes_without_pci(tree: KernelTree) -> list[Ignored]:
    """DRM nodes whose device is not on the PCI bus (simpledrm, vkms, partitions of other vendors' GPUs)."""
    found: dict[str, Ignored] = {}
    drm = Directory(tree, "sys/class/drm")
    for name in drm.names():
        if re.fullmatch(r"card[0-9]+|renderD[0-9]+", name):
            path = drm.below(name).below("device").resolved()
            if path is not None and not is_bdf(posixpath.basename(path)):
                found.setdefault(path, Ignored(None, "DRM device that is not on the PCI bus", f"/{path}"))
    return list(found.values())
