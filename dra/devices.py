"""What the driver knows of the GPUs of one machine: frozen snapshots, compared, never changed."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping

import msgspec

from dra.names import Bdf, DeviceName, device_name


class Kind(enum.StrEnum):
    """PCI function kind. A GPU without SR-IOV is a `pf` too: it is a function handed out whole."""

    PF = "pf"
    VF = "vf"


class State(enum.StrEnum):
    """What shape a GPU is in; all but `healthy` and `dirty` keep it from being handed out."""

    HEALTHY = "healthy"
    DIRTY = "dirty"
    """Leftover VF quotas without VFs: usable as a whole, to be cleaned before VFs are made."""
    WEDGED = "wedged"
    """The driver gave up on the card (uevent WEDGED=, or ECANCELED/EIO from a query): rebind or reset needed."""
    SURVIVABILITY = "survivability"
    """xe booted the card in survivability mode: firmware must be flashed, there are no DRM nodes."""
    PASSTHROUGH = "passthrough"
    """Bound to vfio-pci or xe-vfio-pci: belongs to a virtual machine."""
    NO_DRIVER = "no-driver"
    NO_NODES = "no-nodes"
    """A DRM driver is bound but has made no device nodes (yet)."""


class DeviceNode(msgspec.Struct, frozen=True):
    """A character device of the host that a container may be given."""

    path: str
    """Absolute path on the host and in the container, e.g. `/dev/dri/renderD128`."""
    major: int
    minor: int
    mode: int
    """Permission bits."""
    gid: int


class VfPlaces(msgspec.Struct, frozen=True):
    """How a PF numbers its VFs (PCIe spec, 9.3.3), which tells their addresses before they are made."""

    offset: int
    stride: int
    device: str
    """PCI device id of the VFs, `0x56c0`."""

    def bdf(self, parent: Bdf, index: int) -> Bdf:
        """Address of VF `index` (from 1) of a PF."""
        routing = _routing_id(parent) + self.offset + (index - 1) * self.stride
        domain = parent.rsplit(":", 2)[0]
        return Bdf(f"{domain}:{routing >> 8 & 0xFF:02x}:{routing >> 3 & 0x1F:02x}.{routing & 7}")

    def index(self, parent: Bdf, vf: Bdf) -> int:
        """The inverse of `bdf`, for a VF of this PF."""
        return (_routing_id(vf) - _routing_id(parent) - self.offset) // max(1, self.stride) + 1


def _routing_id(bdf: Bdf) -> int:
    """Bus, device and function as one number."""
    _, bus, slot = bdf.rsplit(":", 2)
    device, function = slot.split(".")
    return int(bus, 16) << 8 | int(device, 16) << 3 | int(function)


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One PCI function that is an Intel GPU, as found by one scan. None means unknown or not applicable."""

    bdf: Bdf
    device: str
    """PCI device id, `0x56c0`."""
    driver: str | None = None
    model: str | None = None
    family: str | None = None
    kind: Kind = Kind.PF
    integrated: bool = False
    memory_bytes: int | None = None
    """Local memory over all tiles; None for integrated GPUs and where the kernel does not say."""
    tiles: int = 1
    card: int | None = None
    render: int | None = None
    numa: int = -1
    """-1: the kernel knows no node."""
    pcie_root: str | None = None
    """`pci0000:15`: first component below /sys/devices."""
    max_vfs_usable: int = 0
    vf_places: VfPlaces | None = None
    """Where its VFs are, or would be; None where there can be none."""
    vfs_now: int = 0
    state: State = State.HEALTHY
    publishable: bool = True
    why: str | None = None
    """A sentence for people when there is something to explain."""
    recovery: tuple[str, ...] = ()
    """Ways back that the kernel named when it gave the card up, in its order: `rebind`, `bus-reset`, `vendor-specific`."""
    parent: Bdf | None = None
    vf_index: int | None = None
    """1-based, as the driver counts: virtfn0 is VF 1."""
    serial: str | None = None
    """Identity the kernel gives, stable across slots (prelim i915 `prelim_csc_unique_id`)."""
    driver_version: str | None = None
    """Version of the bound kernel driver where it has one of its own, else the kernel release; raw text."""
    link_speed: str | None = None
    """`16.0 GT/s`, read at the card's upstream port."""
    link_width: int | None = None
    boot_vga: bool = False
    iommu_group: str | None = None
    vfio_device: str | None = None
    """`vfio0` when bound to a vfio driver."""
    vfio_nodes: tuple[DeviceNode, ...] = ()
    """What a virtual machine monitor opens when it is bound to a vfio driver: container, group, device and iommufd, as far as there."""
    card_node: DeviceNode | None = None
    render_node: DeviceNode | None = None
    by_path: tuple[tuple[str, str], ...] = ()
    """(`/dev/dri/by-path/pci-<bdf>-render`, `/dev/dri/renderD128`) pairs that exist on the host."""
    mei_nodes: tuple[DeviceNode, ...] = ()
    """Management engine nodes: monitoring and firmware, granted only on request."""

    @property
    def name(self) -> DeviceName:
        """Its name in ResourceSlices and CDI."""
        return device_name(self.bdf, self.device)


class Ignored(msgspec.Struct, frozen=True):
    """Something on the bus that could be mistaken for one of our GPUs, and why it is not."""

    bdf: str | None
    why: str
    path: str | None = None


class Inventory(msgspec.Struct, frozen=True, dict=True):
    """One scan: every Intel GPU function, in order of address."""

    gpus: tuple[Gpu, ...] = ()
    ignored: tuple[Ignored, ...] = ()

    @functools.cached_property
    def by_name(self) -> Mapping[DeviceName, Gpu]:
        """Asked for several times by every claim, so made once for each scan."""
        return {gpu.name: gpu for gpu in self.gpus}

    def by_bdf(self) -> dict[Bdf, Gpu]:
        return {gpu.bdf: gpu for gpu in self.gpus}


class Changes(msgspec.Struct, frozen=True):
    """The difference between two scans, by address."""

    appeared: tuple[Gpu, ...]
    vanished: tuple[Gpu, ...]
    changed: tuple[tuple[Gpu, Gpu], ...]
    """(before, after)"""

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.changed)


def diff(before: Inventory, after: Inventory) -> Changes:
    """Compare two scans. A different card in the same slot is a vanished one and an appeared one."""
    old, new = {(g.bdf, g.device): g for g in before.gpus}, {(g.bdf, g.device): g for g in after.gpus}
    return Changes(
        appeared=tuple(new[key] for key in new if key not in old),
        vanished=tuple(old[key] for key in old if key not in new),
        changed=tuple((old[key], new[key]) for key in new if key in old and old[key] != new[key]),
    )
