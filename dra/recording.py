"""A real machine written down as a machine document (`dra.sim_kernel.machine`): what this driver looks at of its GPUs, and no secrets.

What is not harmless to read is left out: in debugfs, and among a device's files, there are some whose reading resets a GPU, dumps its
firmware's log, or tells a serial number. Nothing is ever written to. What cannot be read becomes a file that cannot be read.
"""

from __future__ import annotations

import errno
import posixpath
import re
from typing import Any, Final, Literal

import msgspec

from dra import blanking, discovery
from dra.discovery import DRM_DRIVERS, PCI_DEVICES, VFIO_DRIVERS
from dra.kernel_tree import KernelTree
from dra.names import is_bdf
from dra.sim_kernel.machine import FILE_MODES

NAME: Final = "recorded"
"""Of the machine: its own is nobody's business."""
FILE_CHARACTERS: Final = 64 * 1024
"""Of one file; what the driver reads is a page at most."""
ENTRIES: Final = 200_000
"""Of the whole machine: sixty-four cards have a third of it."""

_DEEP: Final = 8
"""Directories below a GPU's own: `drm/card0/gt/gt0/engine/rcs0/.defaults` is the deepest that is looked at."""
_NEVER: Final = re.compile(
    r"rom|vpd|config|resource\d+(_wc)?|edid|error|devcoredump|i2c(-\d+)?|drm_dp_aux\d*|msi_irqs|nvmem|mtd\d*|wakeup\d*|firmware_node"
    r"|physical_node\d*|sections|notes|holders|link"
)
"""Below a device: memory and registers, flash, monitors' identities, dumps, and what nobody here looks at."""
_DEBUG: Final = re.compile(
    r"(tile|gt|vf)\d+|pf|sriov|vram\d?_mm|[a-z_]*_(quota|spare)|exec_quantum_ms|preempt_timeout_us|sched_(if_idle|priority)|control"
)
"""Of debugfs these alone: others reset a GT when they are read."""
_MINIMAL: Final = (
    "vendor", "device", "class", "subsystem_vendor", "subsystem_device", "revision", "numa_node", "uevent", "driver", "driver_override",
    "iommu_group", "subsystem", "enable", "boot_vga",
)  # fmt: skip
"""Of functions that are no GPUs: enough to see what they are and which IOMMU group they share."""
_MODULES: Final = (
    "i915", "xe", "drm", "mei", "mei_gsc", "mei_gsc_proxy", "mei_me", "vfio", "vfio_pci", "vfio_pci_core", "xe_vfio_pci",
    "vfio_iommu_type1", "iommufd",
)  # fmt: skip
_CLASSES: Final = ("drm", "hwmon", "mei", "vfio", "vfio-dev")
_GROUPS: Final = {0: "root", 44: "video", 105: "render"}

Json = dict[str, Any]


class Recorded(msgspec.Struct, frozen=True):
    """What came of it."""

    document: Json
    gpus: int
    blanked: tuple[str, ...]
    """Paths of files of which something was replaced."""
    unread: tuple[str, ...]
    """Paths with the name of the errno, of files that could not be read although their mode allows it."""


def record(tree: KernelTree) -> Recorded:
    """Read the machine. May block for as long as the kernel does; no OSError leaves it."""
    return _Recorder(tree).record()


class _Recorder:
    def __init__(self, tree: KernelTree) -> None:
        self._tree = tree
        self._root: Json = {"sys": {}, "dev": {}, "proc": {}}
        self._blanked: list[str] = []
        self._unread: list[str] = []
        self._left = ENTRIES
        self._secrets = blanking.Blanks()

    def record(self) -> Recorded:
        inventory = discovery.scan(self._tree)
        gpus = {gpu.bdf for gpu in inventory.gpus}
        self._flat("sys/bus/pci")
        drivers = {*DRM_DRIVERS, *VFIO_DRIVERS}
        groups: set[str] = set()
        for bdf in filter(is_bdf, self._names(PCI_DEVICES)):
            driver, group = self._function(bdf, is_gpu=bdf in gpus)
            drivers |= {driver} if driver else set()
            groups |= {group} if group else set()
        for driver in sorted(drivers):
            self._flat(f"sys/bus/pci/drivers/{driver}")
        for module in sorted({*_MODULES, *(driver.replace("-", "_") for driver in drivers)}):
            self._flat(f"sys/module/{module}")
            self._flat(f"sys/module/{module}/parameters")
        for group in sorted(groups):
            self._flat(f"sys/kernel/iommu_groups/{group}")
            self._flat(f"sys/kernel/iommu_groups/{group}/devices")
        self._perf()
        self._indexes()
        for bdf in sorted(gpus):
            self._walk(f"sys/kernel/debug/dri/{bdf}", _DEEP, only=_DEBUG)
        self._rest()
        answers: Json = {gpu.bdf: answer for gpu in inventory.gpus if (answer := self._answer(gpu.bdf, gpu.driver)) is not None}
        return Recorded(self._document(answers), len(gpus), tuple(sorted(self._blanked)), tuple(sorted(self._unread)))

    # --- what there is ------------------------------------------------------------------------------------------------------------------

    def _function(self, bdf: str, *, is_gpu: bool) -> tuple[str, str]:
        """Its driver and IOMMU group, empty where it has none."""
        link = f"{PCI_DEVICES}/{bdf}"
        self._entry(link)
        where = self._resolved(link)
        if where is None:
            return "", ""
        above = where.split("/")[:-1]
        for depth in range(3, len(above) + 1):  # the bridges, from sys/devices/pci0000:00 on
            if "/".join(above[:depth]) != where:
                self._flat("/".join(above[:depth]))
        if is_gpu:
            self._walk(where, _DEEP)
        elif self._text(f"{link}/class").startswith("0x03"):
            self._flat(where)
            self._walk(f"{where}/drm", 2)
        else:
            self._put(where, {})
            for name in _MINIMAL:
                self._entry(f"{where}/{name}")
        return self._link_name(f"{link}/driver"), self._link_name(f"{link}/iommu_group")

    def _perf(self) -> None:
        for name in self._names("sys/bus/event_source/devices"):
            if re.fullmatch(r"(i915|xe)(_.*)?", name):
                self._entry(f"sys/bus/event_source/devices/{name}")
                if (where := self._resolved(f"sys/bus/event_source/devices/{name}")) is not None:
                    self._walk(where, 2)

    def _indexes(self) -> None:
        """Links from sys/class and the like to what is recorded; and DRM devices that are no PCI functions, whose numbers are taken."""
        for folder in (*(f"sys/class/{name}" for name in _CLASSES), "sys/dev/char", "sys/bus/auxiliary/devices"):
            for name in self._names(folder):
                where = self._resolved(f"{folder}/{name}")
                if where is None or where.startswith(folder):
                    if folder == "sys/class/drm":
                        self._entry(f"{folder}/{name}")  # `version`
                    continue
                if folder == "sys/class/drm" and self._found(where) is None:
                    self._flat(where)
                    if (device := self._resolved(f"{where}/device")) is not None:
                        self._put(device, {})
                if self._found(where) is not None:
                    self._entry(f"{folder}/{name}")
        for name in self._names("sys/kernel/debug/dri"):
            self._link(f"sys/kernel/debug/dri/{name}")

    def _rest(self) -> None:
        for name in self._names("sys/devices/system/node"):
            if name == "online":
                self._entry(f"sys/devices/system/node/{name}")
            elif re.fullmatch(r"node\d+", name):
                self._entry(f"sys/devices/system/node/{name}/cpulist")
        self._entry("proc/sys/kernel/osrelease")
        self._put("proc/cmdline", blanking.command_line(self._text("proc/cmdline")))
        self._walk("dev/dri", 2)
        self._walk("dev/vfio", 2)
        for name in self._names("dev"):
            if re.fullmatch(r"mei\d+", name):
                self._entry(f"dev/{name}")

    def _answer(self, bdf: str, driver: str | None) -> Json | None:
        """What its driver says of its memory, as the document's `ioctl` has it; None if it is not asked or does not know."""
        asked: Literal["i915", "xe"]
        match driver:
            case "i915":
                asked = "i915"
            case "xe":
                asked = "xe"
            case _:
                return None
        for name in sorted(self._names(f"{PCI_DEVICES}/{bdf}/drm"), reverse=True):  # the render node first: anybody may ask it
            if not re.fullmatch(r"(card|renderD)\d+", name):
                continue
            try:
                regions = self._tree.memory_regions(f"dev/dri/{name}", asked)
            except OSError as error:
                if error.errno in (errno.ECANCELED, errno.EIO):
                    return {"driver": driver, "errno": errno.errorcode[error.errno]}
                self._unread.append(f"dev/dri/{name}: memory query: {_named(error)}")
                continue
            device, key, size = ("vram", "mem_regions", "total_size") if driver == "xe" else ("device", "regions", "probed_size")
            made = []
            for region in regions:
                one = {"class": device if region.kind == "device" else "system", "instance": region.instance, size: region.size_bytes}
                made.append(one | ({"used": region.used_bytes} if region.used_bytes is not None else {}))
            return {"driver": driver, key: made}
        return None

    def _document(self, answers: Json) -> Json:
        release = self._text("proc/sys/kernel/osrelease").strip()
        notes = [f"blanked: {path}" for path in sorted(self._blanked)] + [f"not readable: {text}" for text in sorted(self._unread)]
        machine = {
            "name": NAME,
            "description": "Recorded by `gpu-node-plugin record`.",
            "kernel": release,
            "notes": notes,
            "ioctl": answers,
            "tree": self._root,
        }
        return {"machines": [NAME], "machine": {NAME: machine}}

    # --- entries ------------------------------------------------------------------------------------------------------------------------

    def _walk(self, path: str, depth: int, *, only: re.Pattern[str] | None = None) -> bool:
        """A directory and what is below it; other PCI functions are for themselves. Whether it is a directory."""
        names = self._listed(path)
        if names is None:
            return False
        self._put(path, {})
        for name in names:
            below = f"{path}/{name}"
            if _NEVER.fullmatch(name) or (only is not None and not only.fullmatch(name)) or self._link(below):
                continue
            if depth and not is_bdf(name):
                if not self._walk(below, depth - 1, only=only):
                    self._file(below)
            elif self._listed(below) is None:
                self._file(below)
        return True

    def _flat(self, path: str) -> None:
        """A directory with its files and links."""
        self._walk(path, 0)

    def _entry(self, path: str) -> None:
        if not self._link(path):
            self._file(path)

    def _link(self, path: str) -> bool:
        try:
            self._put(path, {"@": "link", "to": self._tree.link(path) or "."})
        except OSError:
            return False
        return True

    def _file(self, path: str) -> None:
        if path.startswith("dev/"):
            self._node(path)
            return
        try:
            mode = self._tree.mode(path)
        except OSError:
            return  # it has just gone, or is something else
        text = ""
        if mode & 0o444:
            try:
                text = self._tree.read(path)
                if len(text) > FILE_CHARACTERS:
                    raise OSError(errno.EFBIG, "too large")
            except OSError as error:
                self._unread.append(f"{path}: {_named(error)}")
                text, mode = "", mode & 0o222
        said = self._secrets.blank(posixpath.basename(path), text)
        if said != text:
            self._blanked.append(path)
        kind = _kind(mode)
        self._put(path, said if kind is None else {"@": kind, "v": said})

    def _node(self, path: str) -> None:
        try:
            found = self._tree.node(path)
        except OSError:
            return
        usual = "render" if "renderD" in path else "video" if "/dri/" in path else "root"
        group = _GROUPS.get(found.gid, usual)
        self._put(path, {"@": "chr", "major": found.major, "minor": found.minor, "mode": f"{found.mode:04o}", "group": group})

    def _put(self, path: str, value: object) -> None:
        """What was put before at a path stays; a directory becomes of it what is put below."""
        if self._left <= 0:
            return
        self._left -= 1
        here = self._root
        *folders, last = path.split("/")
        for name in folders:
            below = here.setdefault(name, {})
            if not isinstance(below, dict) or "@" in below:
                return  # below a link: it is recorded where the link leads
            here = below
        if _is_name(last):
            here.setdefault(last, value)

    def _found(self, path: str) -> object | None:
        here: object = self._root
        for name in path.split("/"):
            here = here.get(name) if isinstance(here, dict) else None
        return here

    # --- the kernel ---------------------------------------------------------------------------------------------------------------------

    def _names(self, path: str) -> list[str]:
        return self._listed(path) or []

    def _listed(self, path: str) -> list[str] | None:
        """None for what is no directory; one that cannot be looked into is an empty one."""
        try:
            return [name for name in self._tree.list(path) if _is_name(name)]
        except OSError as error:
            return None if error.errno in (errno.ENOTDIR, errno.ENOENT) else []

    def _resolved(self, path: str) -> str | None:
        try:
            return self._tree.resolve(path)
        except OSError:
            return None

    def _link_name(self, path: str) -> str:
        try:
            return posixpath.basename(self._tree.link(path))
        except OSError:
            return ""

    def _text(self, path: str) -> str:
        try:
            return self._tree.read(path)[:FILE_CHARACTERS]
        except OSError:
            return ""


def _kind(mode: int) -> str | None:
    """The document's word for a file of this mode; None for one that is only read."""
    exact = {bits: kind for kind, bits in FILE_MODES.items()}
    if mode in exact:
        return exact[mode]
    if not mode & 0o222:
        return None if mode & 0o444 else "wo"
    return "rw" if mode & 0o444 else "wo"


def _is_name(name: str) -> bool:
    """Whether a document can have it: real names that are not UTF-8 come as surrogates, which JSON has none for."""
    return bool(name) and name not in (".", "..", "@") and "/" not in name and "\0" not in name and name.isprintable()


def _named(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")
