"""A GPU's health files at one moment.

Nothing here fails: what a driver does not have, what cannot be read and what is no sensible figure is None, or left out. What the figures
mean is for `dra.health.thresholds` to say.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from dra import pcie_slot
from dra.devices import Gpu, Kind
from dra.health import figures, gts, monitors
from dra.health.gts import Gt
from dra.health.monitors import Meter, Sensor
from dra.kernel_tree import KernelTree
from dra.pcie_slot import Link
from dra.sysfs import Directory

_PCI_DEVICES: Final = "sys/bus/pci/devices"
_ALL_ONES: Final = {"\ufffd"}
"""0xff is no UTF-8, nor is any run of it; a header of a device that is there has zeros."""
_AER: Final = {"fatal": "FATAL", "nonfatal": "NONFATAL", "correctable": "COR"}
"""`aer_dev_<name>` and how its last line begins, `TOTAL_ERR_<word>` (drivers/pci/pcie/aer.c)."""


ErrorKind = Literal["fatal", "nonfatal", "correctable"]


class Aer(msgspec.Struct, frozen=True, gc=False):
    """Errors that one function or port has detected since it was found."""

    fatal: int | None = None
    nonfatal: int | None = None
    """Not corrected either, but the link holds."""
    correctable: int | None = None

    def count(self, kind: ErrorKind) -> int | None:
        return {"fatal": self.fatal, "nonfatal": self.nonfatal, "correctable": self.correctable}[kind]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    """Seconds of whichever steady clock the caller has: only differences count."""
    off_bus: bool | None = None
    """Its configuration space reads all ones. Then nothing else is read: all of it would be ones too."""
    asleep: bool = False
    """It is runtime suspended, and stays so: what would wake it is not read."""
    aer: Mapping[str, Aer] = {}
    """By PCI address: of the function, of each port of its card, and of the machine's port that the card is in."""
    link: Link | None = None
    sensors: tuple[Sensor, ...] = ()
    meters: tuple[Meter, ...] = ()
    fans_rpm: Mapping[str, int] = {}
    gts: tuple[Gt, ...] = ()
    errors: Mapping[str, int] = {}
    """By name, `gt0/fatal_guc`: the counters of prelim i915, since its driver was bound."""
    memory_health: str | None = None
    """The word of prelim i915, `OK`."""
    gpu_health: str | None = None
    """The word of xe: ok, warning, critical."""
    memory_used_bytes: int | None = None
    """Of its own memory, over all tiles."""


def read(tree: KernelTree, gpu: Gpu, at: float) -> Reading:
    """Read all of one GPU. May block for as long as the kernel does.

    A VF has few files: temperatures, power and frequencies are its PF's, and so is the link.
    """
    device = Directory(tree, f"{_PCI_DEVICES}/{gpu.bdf}")
    ports = [] if gpu.kind is Kind.VF else pcie_slot.ports(tree, device)
    if device.below("power").text("runtime_status") == "suspended":
        # Most files below wake the card (xe_pm_runtime_get, pci_config_pm_runtime_get): who looks every few seconds would keep it awake.
        return Reading(at=at, asleep=True, aer=_aer(tree, ports))
    if (off_bus := _off_bus(device)) is True:
        return Reading(at=at, off_bus=True)
    card = device.below(f"drm/card{gpu.card}") if gpu.card is not None else None
    seen = monitors.read(device)
    return Reading(
        at=at,
        off_bus=off_bus,
        aer=_aer(tree, ports),
        link=pcie_slot.link(tree, ports[-1]) if ports else None,
        sensors=seen.sensors,
        meters=seen.meters,
        fans_rpm=seen.fans_rpm,
        gts=gts.read(device, card),
        errors=_errors(card),
        memory_health=_word(card, "device_memory_health"),
        gpu_health=_word(device, "gpu_health"),
        memory_used_bytes=_memory_used(tree, gpu, card),
    )


def _off_bus(device: Directory) -> bool | None:
    """`vendor` and the like are what the kernel remembers; only `config` asks the card. Who is not root gets its first 64 bytes, of which a
    VF's own first four are ones by the standard."""
    config = device.text("config")
    return None if config is None else set(config) == _ALL_ONES


def _aer(tree: KernelTree, ports: list[Directory]) -> dict[str, Aer]:
    """Whoever detects an error counts it, on either side of the slot."""
    other = pcie_slot.partner(tree, ports[-1]) if ports else None
    found = {}
    for side in [*ports, *([other] if other is not None else [])]:
        aer = Aer(**{name: _total(side.text(f"aer_dev_{name}"), word) for name, word in _AER.items()})
        if aer != Aer():
            found[posixpath.basename(side.path)] = aer
    return found


def _total(text: str | None, word: str) -> int | None:
    match = re.search(rf"^TOTAL_ERR_{word} ([0-9]{{1,19}})$", text or "", re.MULTILINE)
    return int(match[1]) if match else None


def _errors(card: Directory | None) -> dict[str, int]:
    found: dict[str, int] = {}
    if card is not None:
        tiles = [name for name in card.below("gt").names() if re.fullmatch(r"gt[0-9]{1,2}", name)]
        for prefix, counters in [("", card.below("error_counter")), *((f"{gt}/", card.below(f"gt/{gt}/error_counter")) for gt in tiles)]:
            for name in counters.names():
                if (value := figures.count(counters, name)) is not None:
                    found[f"{prefix}{name}"] = value
    return found


def _word(directory: Directory | None, name: str) -> str | None:
    text = directory.text(name) if directory is not None else None
    return text if text is not None and re.fullmatch(r"[A-Za-z_]{1,32}", text) else None


def _memory_used(tree: KernelTree, gpu: Gpu, card: Directory | None) -> int | None:
    """Prelim i915 has it in files, xe answers it to who asks its render node; upstream i915 tells nobody without rights."""
    if card is not None and (total := figures.count(card, "lmem_total_bytes")) is not None:
        free = figures.count(card, "lmem_avail_bytes")
        return total - free if free is not None and free <= total else None
    if gpu.driver != "xe" or gpu.integrated or gpu.render_node is None:
        return None
    try:
        regions = tree.memory_regions(gpu.render_node.path.removeprefix("/"), "xe")
    except OSError:
        return None
    used = [region.used_bytes for region in regions if region.kind == "device" and region.used_bytes is not None]
    return sum(used) if used else None
