"""Device nodes of a GPU: card, render, their by-path names, the management engine's, and what vfio makes instead of them."""

from __future__ import annotations

import re

import msgspec

from dra.devices import DeviceNode
from dra.kernel_tree import KernelTree
from dra.names import Bdf
from dra.sysfs import Directory

_CARD, _RENDER, _MEI = re.compile(r"card([0-9]{1,5})"), re.compile(r"renderD([0-9]{1,5})"), re.compile(r"mei[0-9]{1,4}")
_VFIO = re.compile(r"vfio[0-9]{1,5}")
_NODE_MODE = 0o660
"""What devtmpfs and udev give DRM nodes; used where the node itself cannot be looked at."""


class Nodes(msgspec.Struct, frozen=True):
    card: int | None = None
    render: int | None = None
    card_node: DeviceNode | None = None
    render_node: DeviceNode | None = None
    by_path: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.card is not None or self.render is not None


def find(tree: KernelTree, device: Directory, bdf: Bdf) -> Nodes:
    """The DRM nodes of one function. Only its own `drm` directory tells: numbers of card and render node are unrelated."""
    names = device.below("drm").names()
    card = next((name for name in names if _CARD.fullmatch(name)), None)
    render = next((name for name in names if _RENDER.fullmatch(name)), None)
    by_path = [
        (f"/dev/dri/by-path/pci-{bdf}-{suffix}", f"/dev/dri/{name}")
        for suffix, name in (("card", card), ("render", render))
        if name is not None and tree.exists(f"dev/dri/by-path/pci-{bdf}-{suffix}")
    ]
    return Nodes(
        card=_index(_CARD, card),
        render=_index(_RENDER, render),
        card_node=_node(tree, f"dri/{card}", device.below(f"drm/{card}")) if card else None,
        render_node=_node(tree, f"dri/{render}", device.below(f"drm/{render}")) if render else None,
        by_path=tuple(by_path),
    )


def management_engine(tree: KernelTree, device: Directory) -> tuple[DeviceNode, ...]:
    """`/dev/meiN` of the auxiliary devices below a discrete GPU (`i915.mei-gscfi.256/mei/mei0`)."""
    found = []
    for child in device.names():
        if "mei" in child:
            for name in device.below(child).below("mei").names():
                if _MEI.fullmatch(name) and (node := _node(tree, name, device.below(child).below(f"mei/{name}"), mode=0o600)) is not None:
                    found.append(node)
    return tuple(sorted(found, key=lambda node: node.path))


def passthrough(tree: KernelTree, device: Directory) -> tuple[DeviceNode, ...]:
    """What a virtual machine monitor opens of a function bound to a vfio driver: container and group, iommufd and device, as far as the
    kernel has either way (CONFIG_VFIO_GROUP, CONFIG_IOMMUFD). Empty until a node of the function itself is made.
    """
    group = device.link_name("iommu_group")
    cdev = next((name for name in device.below("vfio-dev").names() if _VFIO.fullmatch(name)), None)
    own = [f"vfio/{group}"] if group is not None and group.isdigit() else []
    own += [f"vfio/devices/{cdev}"] if cdev is not None else []
    found = [node for name in own if (node := _made(tree, name)) is not None]
    shared = [node for name in ("vfio/vfio", "iommu") if (node := _made(tree, name)) is not None] if found else []
    return (*shared, *found)


def _made(tree: KernelTree, name: str) -> DeviceNode | None:
    """The node if it is in /dev: numbers of sysfs would promise what may not be there yet."""
    try:
        stat = tree.node(f"dev/{name}")
    except OSError:
        return None
    return DeviceNode(f"/dev/{name}", stat.major, stat.minor, stat.mode, stat.gid)


def _node(tree: KernelTree, name: str, sysfs: Directory, mode: int = _NODE_MODE) -> DeviceNode | None:
    """The node as it is in /dev, or as sysfs says it must be where /dev cannot be looked at; None if neither tells."""
    if (made := _made(tree, name)) is not None:
        return made
    major, _, minor = (sysfs.text("dev") or "").partition(":")
    return DeviceNode(f"/dev/{name}", int(major), int(minor), mode, 0) if major.isdigit() and minor.isdigit() else None


def _index(pattern: re.Pattern[str], name: str | None) -> int | None:
    match = pattern.fullmatch(name or "")
    return int(match[1]) if match else None
