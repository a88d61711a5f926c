"""What a function's sysfs says about Virtual Functions: how many can be made, how many are there, and leftovers of earlier ones."""

from __future__ import annotations

import re

from dra.devices import Kind, VfPlaces
from dra.models import Model
from dra.names import Bdf, is_bdf
from dra.sysfs import Directory

_VIRTFN = re.compile(r"virtfn([0-9]{1,4})")
_VF = re.compile(r"vf[0-9]{1,4}")
_QUOTAS = ("lmem_quota", "ggtt_quota", "contexts_quota", "doorbells_quota")


def provisioning(card: Directory | None) -> Directory | None:
    """The directory with which prelim i915 provisions VFs; `iov` is what builds of 2022 called it."""
    if card is None:
        return None
    return next((card.below(name) for name in ("prelim_iov", "iov") if card.has(name)), None)


def max_vfs_usable(device: Directory, driver: str | None, card: Directory | None, model: Model | None) -> int:
    """How many VFs the bound driver can really make.

    sriov_totalvfs is the hardware's word: upstream i915 shows it on every integrated GPU and cannot make one VF (no sriov_configure,
    drivers/pci/pci-sysfs.c answers ENOENT). xe can, and i915 with a provisioning directory.
    """
    total = device.number("sriov_totalvfs") or 0
    if total <= 0 or not (driver == "xe" or (driver == "i915" and _is_pf(provisioning(card)))):
        return 0
    return min(total, model.max_vfs) if model is not None and model.max_vfs is not None else total


def vf_places(device: Directory) -> VfPlaces | None:
    """Where VFs are or would be; None for a function that can have none."""
    offset, stride, identity = device.number("sriov_offset"), device.number("sriov_stride"), device.text("sriov_vf_device")
    if not device.number("sriov_totalvfs") or offset is None or stride is None or identity is None:
        return None
    return VfPlaces(offset, stride, f"0x{identity.removeprefix('0x').zfill(4)}")


def virtual_functions(device: Directory) -> dict[Bdf, int]:
    """Address -> 1-based index of the VFs that are there, by their links: reading sriov_numvfs would wait for the PF's device lock."""
    found: dict[Bdf, int] = {}
    for name in device.names():
        if (match := _VIRTFN.fullmatch(name)) and (target := device.link_name(name)) is not None and is_bdf(target):
            found[Bdf(target)] = int(match[1]) + 1
    return found


def is_dirty(card: Directory | None, vfs_now: int) -> bool:
    """Whether quotas of VFs that are no more are left over: prelim i915 keeps manual ones, and the next VFs would get them."""
    directory = provisioning(card)
    if directory is None or vfs_now or not _is_pf(directory):
        return False
    if directory.below("pf").text("auto_provisioning") != "0":
        return False
    for name in directory.names():
        if _VF.fullmatch(name):
            vf = directory.below(name)
            for gt in vf.names():
                if gt.startswith("gt") and any(vf.below(gt).number(quota) for quota in _QUOTAS):
                    return True
    return False


def kind_without_physfn(device: Directory, driver: str | None, card: Directory | None, render: bool) -> Kind:
    """PF or VF where no physfn link tells: inside a virtual machine only what the driver leaves out does.

    i915 with SR-IOV says its mode; xe gives a VF no frequency controls (xe_gt_freq is not set up on VFs).
    """
    iov = provisioning(card)
    if iov is not None and "VF" in (iov.text("mode") or ""):
        return Kind.VF
    if driver == "xe" and render and not device.has("sriov_totalvfs"):
        gts = [
            device.below(tile).below(gt) for tile in _tiles(device) for gt in device.below(tile).names() if re.fullmatch(r"gt[0-9]+", gt)
        ]
        if gts and not any(gt.has("freq0") for gt in gts):
            return Kind.VF
    return Kind.PF


def tiles(device: Directory, card: Directory | None, driver: str | None, model: Model | None) -> int:
    """Tiles the bound driver shows: xe has a directory for each, prelim i915 a GT for each; upstream i915's second GT is the media one."""
    if driver == "xe" and (count := len(_tiles(device))):
        return count
    if driver == "i915" and card is not None and card.has("prelim_uapi_version"):
        count = sum(1 for name in card.below("gt").names() if re.fullmatch(r"gt[0-9]+", name))
        if count:
            return count
    return model.tiles if model is not None else 1


def _tiles(device: Directory) -> list[str]:
    return [name for name in device.names() if re.fullmatch(r"tile[0-9]+", name)]


def _is_pf(directory: Directory | None) -> bool:
    return directory is not None and directory.has("pf")
