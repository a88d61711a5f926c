"""What is taken out of a recorded machine before anybody sees it: serial numbers, UUIDs, MAC addresses, and the kernel's command line but
for what is about GPUs and the IOMMU."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = re.compile(r".*(serial|unique_id|uuid|guid|wwid|wwn|mac_address|hostname|nodename|asset_tag).*")
_UUID: Final = re.compile(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_MAC: Final = re.compile(r"(?i)(?<![0-9a-f:])[0-9a-f]{2}(:[0-9a-f]{2}){5}(?![0-9a-f:])")
_WORDS: Final = re.compile(r"(intel_iommu|amd_iommu|iommu|pci|pcie_[a-z]+|nomodeset|(i915|xe|drm|vfio[a-z_]*)\.[A-Za-z0-9_.]+)(=.*)?")
"""Of the command line; all else may name disks, hosts and addresses."""
UUID: Final = "00000000-0000-4000-8000-000000000000"
MAC: Final = "02:00:00:00:00:00"


class Blanks:
    """Of one machine: each serial number is replaced by one of its own, so that two cards stay two."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def blank(self, name: str, text: str) -> str:
        """The text of a file of this name, with what is nobody's business replaced."""
        if _NAMES.fullmatch(name) and text.strip().strip("\0"):
            word = text.strip()
            made = self._made.setdefault(word, f"0x{len(self._made) + 1:016x}")
            return made + ("\n" if text.endswith("\n") else "")
        return _MAC.sub(MAC, _UUID.sub(UUID, text))


def command_line(text: str) -> str:
    """Words of the kernel's command line that say something of GPUs and the IOMMU."""
    return " ".join(word for word in text.split() if _WORDS.fullmatch(word)) + "\n"
