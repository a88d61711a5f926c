"""Names of classic DRA. They are the original driver's, so that its classes, parameters and pods go on working."""

from __future__ import annotations

from typing import Final, NewType

from dra.names import Bdf, DeviceName, device_name, is_bdf

CLASSIC_DRIVER_NAME: Final = "gpu.resource.intel.com"
"""22 characters: up to 1.30 the kubelet writes an annotation whose name part is this, `_` and a UID, in 63 characters at most."""
GROUP: Final = "gpu.resource.intel.com"
GROUP_VERSION: Final = f"{GROUP}/v1alpha2"
FINALIZER: Final = f"{CLASSIC_DRIVER_NAME}/deletion-protection"
HEARTBEAT_LABEL: Final = f"{GROUP}/heartbeat"
"""On the Leases by which node plugins say that they live."""

DeviceUid = NewType("DeviceUid", str)
"""`0000:03:00.0-0x56c0`: PCI address and PCI id."""


def heartbeat_name(node: str) -> str:
    """Name of a node plugin's Lease."""
    return f"gpu-plugin-{node}"


def device_uid(bdf: Bdf, pci_id: str) -> DeviceUid:
    return DeviceUid(f"{bdf}-{pci_id}")


def parse_uid(uid: str) -> tuple[Bdf, str]:
    """(address, PCI id).

    Raises:
        ValueError: it was not made by `device_uid`.
    """
    bdf, dash, pci_id = uid.partition("-")
    if not dash or not is_bdf(bdf) or not pci_id.startswith("0x"):
        raise ValueError(f"not a device uid: {uid[:80]!r}")
    return Bdf(bdf), pci_id


def device_of(uid: str) -> DeviceName:
    """The name that the same device has with structured DRA, and in the journal.

    Raises:
        ValueError: as `parse_uid`.
    """
    return device_name(*parse_uid(uid))
