"""How much local memory a GPU has, from whoever knows, and whether the driver still answers at all."""

from __future__ import annotations

import errno
from typing import Final, Literal

import msgspec

from dra.kernel_tree import KernelTree
from dra.names import Bdf
from dra.sysfs import Directory

WEDGED: Final = frozenset({errno.ECANCELED, errno.EIO})
"""What a wedged driver answers: xe ECANCELED, i915 EIO."""


class Memory(msgspec.Struct, frozen=True):
    size_bytes: int | None
    wedged: str | None = None
    """Why the driver is thought to have given up."""


def ask(tree: KernelTree, nodes: list[str], driver: Literal["i915", "xe"]) -> Memory:
    """The DRM memory query; None bytes if no node answers it. System memory does not count, tiles are added up."""
    for node in nodes:
        try:
            regions = tree.memory_regions(node.removeprefix("/"), driver)
        except OSError as error:
            if error.errno in WEDGED:
                return Memory(None, f"its driver answers {errno.errorcode[error.errno or 0]} to a query")
            continue
        total = sum(region.size_bytes for region in regions if region.kind == "device")
        return Memory(total or None)
    return Memory(None)


def read(tree: KernelTree, card: Directory | None, bdf: Bdf) -> int | None:
    """What files say, where the query does not answer: prelim i915's total over all tiles, xe's debugfs."""
    if card is not None and (total := card.number("lmem_total_bytes")):
        return total if total > 0 else None
    debug = Directory(tree, f"sys/kernel/debug/dri/{bdf}")
    total = 0
    for name in debug.names():
        if name.startswith("tile"):
            for file in ("vram_mm", "vram0_mm"):
                total += _size_of(debug.below(name).text(file)) or 0
    return total or None


def _size_of(text: str | None) -> int | None:
    """`size: 25669140480` among the lines of a TTM resource manager's debugfs file."""
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "size" and value.strip().isdigit():
            return int(value)
    return None


def of(tree: KernelTree, card: Directory | None, bdf: Bdf, nodes: list[str], driver: Literal["i915", "xe"]) -> Memory:
    """The best answer there is."""
    asked = ask(tree, nodes, driver)
    if asked.size_bytes is not None:
        return asked
    return Memory(read(tree, card, bdf), asked.wedged)
