"""The slot a GPU sits in: the ports between it and the machine, and the link over them.

Discrete cards carry a switch of their own, whose inner link says 2.5 GT/s x1 at the GPU: the card's upstream port, the topmost of its
ports, tells what the slot gives.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

import msgspec

from dra import models
from dra.kernel_tree import KernelTree
from dra.names import is_bdf
from dra.sysfs import Directory

INTEL: Final = "0x8086"
WIDTHS: Final = frozenset((1, 2, 4, 8, 12, 16, 32))
"""Lanes that a link can have (PCIe spec, Link Status). A function that is gone reads 63, an integrated GPU 0 or 255."""
_SPEED: Final = re.compile(r"[0-9]{1,3}(\.[0-9])? GT/s")


class Link(msgspec.Struct, frozen=True, gc=False):
    width: int
    """Lanes in use."""
    width_possible: int | None
    """Lanes that both sides can do; None where one of them does not say."""
    speed: str
    """In use, `16.0 GT/s`; lower while the card idles."""
    speed_possible: str | None
    """What the card's side can do."""


def ports(tree: KernelTree, device: Directory) -> list[Directory]:
    """The function and the ports of its card's own switch, outwards: the last of them is what the slot's link ends at."""
    path = device.resolved()
    if path is None:
        return [device]
    found = [Directory(tree, path)]
    while (above := _above(tree, found[-1])) is not None:
        if above.text("vendor") != INTEL or above.text("device") not in models.table().card_ports:
            break
        found.append(above)
    return found


def partner(tree: KernelTree, port: Directory) -> Directory | None:
    """The machine's side of the slot's link; None for what is integrated into the root complex."""
    return _above(tree, port)


def link(tree: KernelTree, port: Directory) -> Link | None:
    """The link that ends at this port; None where there is none (integrated GPUs, VFs) or it cannot be read."""
    speed, width = _speed(port, "current_link_speed"), _width(port, "current_link_width")
    if speed is None or width is None:
        return None
    sides = [port] if (other := partner(tree, port)) is None else [port, other]
    widths = [_width(side, "max_link_width") for side in sides]
    known = [possible for possible in widths if possible is not None]
    return Link(width, min(known) if len(known) == len(sides) else None, speed, _speed(port, "max_link_speed"))


def _above(tree: KernelTree, port: Directory) -> Directory | None:
    path = posixpath.dirname(port.path)
    return Directory(tree, path) if is_bdf(posixpath.basename(path)) else None


def _width(port: Directory, name: str) -> int | None:
    width = port.number(name)
    return width if width in WIDTHS else None


def _speed(port: Directory, name: str) -> str | None:
    speed = _SPEED.match(port.text(name) or "")
    return speed[0] if speed else None
