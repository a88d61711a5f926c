"""What a ResourceSlice says of a GPU: a superset of what Intel's own driver publishes, with the same names and types.

Users select devices by CEL over these. A missing key is an *error* there that aborts the scheduling of the pod, not a "no", so whatever
can be said of every device is said of every device, and an attribute has one type everywhere. What changes by itself (temperature, used
memory) is never published. A capacity that is not known is left out, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dra import quantities, semver
from dra.devices import Gpu, Kind, State
from dra.pool import AttributeValue, Version

UNKNOWN: Final = "Unknown"
STANDARD: Final = "resource.kubernetes.io"
"""Domain of the attributes that mean the same with every driver, so that a GPU can be matched with a network card."""


def of(gpu: Gpu, *, healthy: bool | None = None, profile: str | None = None) -> dict[str, AttributeValue]:
    """Attributes by name, sorted.

    Args:
        healthy: what monitoring says, None if there is none.
        profile: what a VF was or will be cut by, None for a whole GPU.
    """
    found: dict[str, AttributeValue] = {
        "model": gpu.model or UNKNOWN,
        "family": gpu.family or UNKNOWN,
        "driver": gpu.driver or "",
        "sriov": gpu.max_vfs_usable > 0,
        "type": "vf" if gpu.kind is Kind.VF else "gpu",
        "pciId": gpu.device,
        "pciAddress": gpu.bdf,
        "pciRoot": _root_bus(gpu.pcie_root),
        "health": _health(gpu, healthy),
        "integrated": gpu.integrated,
        "tiles": gpu.tiles,
        "maxVFs": gpu.max_vfs_usable,
        # The card a VF is cut from, for whole functions themselves: `matchAttribute` over it gives VFs of one card.
        "pfPciAddress": gpu.parent or gpu.bdf,
        # 1-based as the kernel counts; 0 is the function itself.
        "vfIndex": gpu.vf_index or 0,
        # Empty for whole functions.
        "profile": profile or "",
        f"{STANDARD}/pciBusID": gpu.bdf,
        f"{STANDARD}/pcieRoot": gpu.pcie_root or "",
    }
    if gpu.numa >= 0:
        found["numaNode"] = found[f"{STANDARD}/numaNode"] = gpu.numa
    if gpu.serial:
        found["serial"] = gpu.serial
    if gpu.driver_version and (version := semver.normalise(gpu.driver_version)) is not None:
        found["driverVersion"] = Version(version)
    if gpu.link_speed:
        found["linkSpeed"] = gpu.link_speed
    if gpu.link_width is not None:
        found["linkWidth"] = gpu.link_width
    return dict(sorted(found.items()))


def capacity_of(gpu: Gpu, *, memory_bytes: int | None = None, millicores: int | None = None) -> Mapping[str, str]:
    """Quantities by name. `millicores` only informs, as with Intel's driver.

    Args:
        memory_bytes: instead of what the function shows.
        millicores: thousandths of the card, None where nobody knows better than to call every function whole.
    """
    found = {"millicores": "1k" if millicores is None else str(millicores)}
    if memory := memory_bytes or gpu.memory_bytes:
        found["memory"] = quantities.mebibytes(memory)
    return dict(sorted(found.items()))


def _root_bus(pcie_root: str | None) -> str:
    """`pci0000:15` -> `15`, deprecated spelling of Intel's driver."""
    return pcie_root.partition(":")[2] if pcie_root else ""


def _health(gpu: Gpu, healthy: bool | None) -> str:
    if gpu.state in (State.WEDGED, State.SURVIVABILITY) or healthy is False:
        return "Unhealthy"
    return UNKNOWN if healthy is None else "Healthy"
