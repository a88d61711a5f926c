"""Who may bind to what, and what binding and unbinding do to a function's directory (drivers/pci/pci-driver.c, drivers/base/dd.c)."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from dra.sim_kernel import devices, drm, faults, tree, uevents, vfio

_PCI_OWN: Final = re.compile(
    r"vendor|device|subsystem_(vendor|device)|revision|class|irq|numa_node|local_cpu(s|list)|power_state|power|modalias|uevent"
    r"|driver_override|enable|broken_parity_status|d3cold_allowed|msi_bus|msi_irqs|ari_enabled|(consistent_)?dma_mask_bits|remove|rescan"
    r"|resource\d*|config|rom|(current|max)_link_(speed|width)|link|reset(_method)?|boot_vga|aer_.*|subsystem|driver|iommu(_group)?"
    r"|firmware_node|sriov_(totalvfs|numvfs|drivers_autoprobe|offset|stride|vf_device|vf_total_msix|vf_msix_count)|physfn|virtfn\d+"
    r"|pci_bus|pci[0-9a-f]{4,8}:[0-9a-f]{2}|[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
)
"""What is in a function's directory whatever the driver (drivers/pci/pci-sysfs.c); everything else is the driver's."""

_XE: Final = re.compile(r"0x(64[2ab]0|e2[0-2].|b0[89ab].|fd8.|d7[45].|67[45].)")
"""Lunar Lake, Battlemage, Panther Lake, Wildcat Lake, Nova Lake and Crescent Island: the platforms xe takes without force_probe."""


class Function:
    """One PCI function: where it is, and what outlives its directory."""

    def __init__(self, bdf: str, path: str, directory: tree.Directory) -> None:
        self.bdf, self.path, self.directory = bdf, path, directory
        self.present = True
        """In its slot; a removed function that is present comes back at a rescan."""
        self.driver: str | None = None
        self.wedged = False
        self.survivability: str | None = None
        """`Boot`: the driver will make no DRM nodes; `Runtime`: it gave up later."""
        self.virtual = "physfn" in directory.entries
        self.share: Callable[[], int | None] | None = None
        """Of a VF that was made here: local memory in bytes that its PF has for it now; None while it owns nothing, and cannot start."""
        self.memory_bytes: int | None = None
        """What the driver of such a VF learned from it when it started, and tells who asks."""
        self.held: Callable[[], None] | None = None
        """A virtual machine has it open through vfio: who unbinds it waits in this."""
        self.vfs_at_most: int | None = None
        """Of a PF: its driver makes no more, however many it is asked for."""
        self.made: dict[str, dict[str, tree.Entry]] = {}
        """By driver: what it makes, kept from the last unbind. Keys are names in the directory, or paths elsewhere (`sys/...`)."""

    @property
    def identity(self) -> tuple[str, str]:
        return self.directory.text("vendor") or "", self.directory.text("device") or ""

    @property
    def override(self) -> str | None:
        text = self.directory.text("driver_override") or ""
        return None if text in ("", "(null)") else text


class Drivers:
    """The PCI drivers that are loaded, which are those with a directory in /sys/bus/pci/drivers."""

    def __init__(
        self,
        files: tree.Tree,
        core: devices.DriverCore,
        events: uevents.Uevents,
        *,
        minors: drm.Minors,
        release: str,
        troubles: faults.Faults,
    ) -> None:
        self._tree, self._core, self._uevents, self._minors, self.troubles = files, core, events, minors, troubles
        self._release = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
        self._seen: dict[tuple[str, str], str] = {}
        self.dynamic: dict[str, set[tuple[str, str]]] = {}
        """Ids given through `new_id`, by driver."""

    def learn(self, functions: Iterable[Function]) -> None:
        """What a driver holds when the machine starts it holds by its id table (which is how force_probe shows)."""
        for function in functions:
            if function.driver and function.driver not in vfio.DRIVERS and not function.override:
                self._seen[function.identity] = function.driver

    def loaded(self) -> list[str]:
        directory = self._tree.directory("sys/bus/pci/drivers")
        return list(directory.entries) if directory else []

    def matches(self, function: Function, driver: str) -> bool:
        """pci_match_device: an override names the only driver that may bind, and lets it bind to anything."""
        if function.override is not None:
            return function.override == driver
        return function.identity in self.dynamic.get(driver, ()) or self._natural(function) == driver

    def load(self, driver: str) -> None:
        """modprobe: the driver's directory and module appear."""
        here, module = f"sys/bus/pci/drivers/{driver}", driver.replace("-", "_")
        if self._tree.find(here) is not None:
            return
        for name in ("bind", "unbind", "new_id", "remove_id", "uevent"):
            self._tree.put(f"{here}/{name}", tree.File("", 0o200))
        self._tree.put(f"{here}/module", tree.Link(f"../../../../module/{module}"))
        self._tree.put(f"sys/module/{module}/refcnt", tree.File("0\n"))
        self._tree.put(f"sys/module/{module}/drivers/pci:{driver}", tree.Link(f"../../../bus/pci/drivers/{driver}"))
        if driver in vfio.DRIVERS and self._tree.find("dev/vfio/vfio") is None:
            self._tree.put("dev/vfio/vfio", tree.Node(10, 196, 0o666, 0))  # VFIO_MINOR, include/linux/miscdevice.h

    def bind(self, function: Function, driver: str, others: Iterable[Function]) -> None:
        """What `echo BDF > drivers/<driver>/bind` does (bind_store, device_driver_attach).

        Raises:
            OSError: ENODEV, it does not match or is a VF that may not be probed; EBUSY (ENODEV before 5.14), it has a driver.
        """
        place = f"sys/bus/pci/drivers/{driver}/bind"
        if not self.matches(function, driver):
            raise tree.error(errno.ENODEV, place)
        if function.driver is not None:
            raise tree.error(errno.EBUSY if self._release >= (5, 14) else errno.ENODEV, place)
        if not self._probable(function):
            raise tree.error(errno.ENODEV, place)
        self._attach(function, driver, others)

    def probe(self, function: Function, others: Iterable[Function]) -> None:
        """Let the driver bind that wants to (device_attach); a failed probe leaves the function without one."""
        if function.driver is not None or not self._probable(function):
            return
        for driver in self.loaded():
            if self.matches(function, driver):
                with contextlib.suppress(OSError):  # logged by the kernel, told to nobody
                    self._attach(function, driver, others)
                return

    def unbind(self, function: Function) -> None:
        """Detach the driver: what it made vanishes, in the order of `pf_driver_unbind`, then the `unbind` event."""
        driver, directory = function.driver, function.directory
        if driver is None:
            return
        names = [name for name in directory.entries if not pci_own(name)]
        elsewhere = [path for path in _elsewhere(function, driver) if self._tree.find(path) is not None]
        group = vfio.last_of_group(self._tree, function.path) if driver in vfio.DRIVERS else None
        self._core.remove([*(f"{function.path}/{name}" for name in names), *elsewhere, *([group] if group else [])])
        kept: dict[str, tree.Entry] = {name: directory.entries.pop(name) for name in names}
        for path in elsewhere:
            if (entry := self._tree.take(path)) is not None:
                kept[path] = entry
        if group:
            self._tree.take(group)
        if driver not in vfio.DRIVERS and function.survivability != "Boot":
            function.made[driver] = {name: entry for name, entry in kept.items() if not name.startswith("survivability")}
        directory.entries.pop("driver", None)
        self._tree.take(f"sys/bus/pci/drivers/{driver}/{function.bdf}")
        function.driver, function.wedged, function.held = None, False, None
        values = uevents.properties(directory)
        values.pop("DRIVER", None)
        uevents.set_properties(directory, values)
        self._uevents.emit("unbind", "pci", function.path, uevents.pci_properties(directory, "unbind"))

    def _attach(self, function: Function, driver: str, others: Iterable[Function]) -> None:
        if trouble := self.troubles.meet("probe", function.path, function.bdf).errno:
            raise tree.error(trouble, function.path)
        if driver not in vfio.DRIVERS and function.share is not None:
            function.memory_bytes = function.share()
            if function.memory_bytes is None:
                raise tree.error(errno.EIO, function.path)
        if driver in vfio.DRIVERS:
            if driver == "xe-vfio-pci" and self._physical_driver(function) != "xe":
                raise tree.error(errno.ENODEV, function.path)
            made = vfio.make(self._tree, function.path)
        else:
            made = self._make(function, driver, others)
        link = f"{function.path}/driver"
        self._tree.put(link, tree.Link(tree.relative(link, f"sys/bus/pci/drivers/{driver}")))
        back = f"sys/bus/pci/drivers/{driver}/{function.bdf}"
        self._tree.put(back, tree.Link(tree.relative(back, function.path)))
        function.driver = driver
        uevents.set_properties(function.directory, {"DRIVER": driver} | uevents.properties(function.directory))
        self._core.add(made)
        self._uevents.emit("bind", "pci", function.path, uevents.pci_properties(function.directory, "bind"))

    def _make(self, function: Function, driver: str, others: Iterable[Function]) -> list[str]:
        """Put what the driver makes into the tree, numbered anew; the paths of it."""
        if function.survivability == "Boot":
            put_survivability(function)
            return []
        entries = function.made.pop(driver, None) or self._like(function, driver, others)
        made = []
        for name, entry in entries.items():
            path = name if name.startswith("sys/") else f"{function.path}/{name}"
            self._tree.put(path, entry)
            made.append(path)
        for path in made:
            name, directory = path.rpartition("/")[2], self._tree.directory(path)
            if directory is None or not path.startswith(f"{function.path}/"):
                continue
            if name == "drm":
                drm.number_minors(self._tree, self._minors, path)
                if function.memory_bytes is not None:
                    drm.tell_memory(directory, function.memory_bytes)
            elif name == "hwmon":
                drm.number_class(self._tree, directory, "hwmon")
            elif (mei := directory.directory("mei")) is not None:
                drm.number_class(self._tree, mei, "mei")
        return made

    def _like(self, function: Function, driver: str, others: Iterable[Function]) -> Mapping[str, tree.Entry]:
        """What the driver makes on a function it never held: as on one of the same model, else two plain DRM minors."""
        for other in others:
            same = other is not function and other.identity == function.identity and other.virtual == function.virtual
            if same and other.driver == driver and other.survivability is None:
                return copies(self._tree, other, function, driver)
        return {"drm": drm.fresh(function.path)} if driver in ("xe", "i915") else {}

    def _natural(self, function: Function) -> str | None:
        if (driver := self._seen.get(function.identity)) is not None:
            return driver
        vendor, device = function.identity
        if vendor != "0x8086" or not (function.directory.text("class") or "").startswith("0x03"):
            return None
        return "xe" if _XE.fullmatch(device) else "i915"

    def _probable(self, function: Function) -> bool:
        """pci_device_can_probe: a VF of a PF without autoprobe binds only by an override."""
        if not function.virtual or function.override is not None:
            return True
        physical = self._tree.directory(f"{function.path}/physfn")
        return physical is None or physical.text("sriov_drivers_autoprobe") != "0"

    def _physical_driver(self, function: Function) -> str | None:
        try:
            return self._tree.lookup(f"{function.path}/physfn/driver")[0].rpartition("/")[2]
        except FileNotFoundError:
            return None


def copies(files: tree.Tree, donor: Function, function: Function, driver: str) -> dict[str, tree.Entry]:
    """What `driver` made on `donor`, as it would stand at `function`."""
    made: dict[str, tree.Entry] = {}
    for name, entry in donor.directory.entries.items():
        if not pci_own(name):
            place = tree.Directory()
            place.entries[name] = entry
            copied = tree.copy(place)
            tree.move(copied, donor.path, function.path)
            made[name] = copied.entries[name]
    for old, new in zip(_elsewhere(donor, driver), _elsewhere(function, driver), strict=True):
        directory = files.directory(old)
        if directory is not None:
            copied = tree.copy(directory)
            tree.move(copied, old, new)
            made[new] = copied
    return made


def pci_own(name: str) -> bool:
    """Whether an entry of a function's directory is there whatever the driver."""
    return _PCI_OWN.fullmatch(name) is not None


def put_survivability(function: Function) -> None:
    """The files of a card in survivability mode (Documentation/ABI/testing/sysfs-driver-intel-xe-survivability)."""
    entries = function.directory.entries
    entries["survivability_mode"] = tree.File(f"{function.survivability}\n", 0o400)
    information = tree.Directory()
    information.entries.update({name: tree.File("0x0\n", 0o400) for name in ("capability_info", "postcode_trace", "aux_info0")})
    entries["survivability_info"] = information


def _elsewhere(function: Function, driver: str) -> list[str]:
    """What a GPU driver keeps outside the function's directory: its performance counters and its debugfs directory."""
    return [f"sys/devices/{driver}_{function.bdf.replace(':', '_')}", f"sys/kernel/debug/dri/{function.bdf}"]
