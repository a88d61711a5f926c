"""Identifiers, each its own type, and the rules that make one from another."""

from __future__ import annotations

import re
from typing import Final, NewType

DRIVER_NAME: Final = "gpu.intel.com"
"""The structured-DRA driver name; also the domain of our attributes, taints and opaque configuration."""

CDI_VENDOR: Final = "intel.com"
CDI_CLASS: Final = "gpu"
CDI_KIND: Final = f"{CDI_VENDOR}/{CDI_CLASS}"

API_VERSION: Final = "gpu.intel.com/v1alpha1"
"""apiVersion of everything users write for us: settings files and opaque claim configuration."""

Bdf = NewType("Bdf", str)
"""PCI address as the kernel writes it, `dddd:bb:dd.f` in lower-case hex: the identity of a GPU (minors and indexes move)."""

ClaimUid = NewType("ClaimUid", str)
NodeName = NewType("NodeName", str)
PoolName = NewType("PoolName", str)
DeviceName = NewType("DeviceName", str)
"""Name of a device in a ResourceSlice: DNS label of at most 63 characters, unique in its pool."""

BootId = NewType("BootId", str)
"""Content of /proc/sys/kernel/random/boot_id: changes with every boot, so volatile state of another boot is known to be gone."""

_BDF = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
# The uid ends up in file names and CDI device names, so its alphabet is checked; any UUID passes, as do the plain words of tests.
_CLAIM_UID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


def is_bdf(text: str) -> bool:
    """Whether `text` is a PCI address as sysfs spells it (domains above ffff have more than four digits)."""
    return _BDF.fullmatch(text) is not None


def claim_uid(text: str) -> ClaimUid:
    """Check a claim UID that came from outside.

    Raises:
        ValueError: it could not be part of a file name or a CDI device name.
    """
    if not _CLAIM_UID.fullmatch(text):
        raise ValueError(f"not a claim UID: {text[:80]!r}")
    return ClaimUid(text)


def device_name(bdf: Bdf, device_id: str) -> DeviceName:
    """`0000:03:00.0`, `0x56c0` -> `0000-03-00-0-0x56c0`: the name users of Intel's driver already have in their tools."""
    return DeviceName(f"{bdf.replace(':', '-').replace('.', '-')}-{device_id}")


def bdf_of_device_name(name: str) -> Bdf | None:
    """The PCI address inside a device name, or None if the name was not made by `device_name`."""
    parts = name.split("-")
    if len(parts) != 5:
        return None
    bdf = f"{parts[0]}:{parts[1]}:{parts[2]}.{parts[3]}"
    return Bdf(bdf) if is_bdf(bdf) else None
