"""The configuration space of a function as its `config` file shows it to who is not root: the header, 64 bytes (pci_read_config).

Bytes are text here as everywhere behind the seam, where what is no UTF-8 is U+FFFD.
"""

from __future__ import annotations

import re
import struct

from dra.sim_kernel.tree import Directory, File

_HEADER_BYTES = 64
_HEX = re.compile(r"(0x)?[0-9a-fA-F]{1,8}")
GONE = "\ufffd" * _HEADER_BYTES
"""All ones: what every read gives when nobody answers (PCI spec, Master Abort)."""


def put(directory: Directory, *, virtual: bool) -> None:
    """Give a function's directory its `config`; a VF's vendor and device are ones by the standard (PCIe spec, 9.3.4.1)."""

    def number(name: str) -> int:
        text = directory.text(name) or ""
        return int(text, 16) & 0xFFFFFF if _HEX.fullmatch(text) else 0  # a recorded machine's may hold anything

    vendor, device = (0xFFFF, 0xFFFF) if virtual else (number("vendor"), number("device"))
    identity = struct.pack("<HHHHI", vendor & 0xFFFF, device & 0xFFFF, 0x0406, 0x0010, number("class") << 8 | number("revision") & 0xFF)
    subsystem = struct.pack("<HH", number("subsystem_vendor") & 0xFFFF, number("subsystem_device") & 0xFFFF)
    header = identity.ljust(0x2C, b"\0") + subsystem
    directory.entries["config"] = File(header.ljust(_HEADER_BYTES, b"\0").decode(errors="replace"), 0o644)
