"""The PCI bus: functions that are found, removed, rescanned, plugged in and pulled out (drivers/pci/{probe,remove,pci-sysfs}.c)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dra import names
from dra.sim_kernel import config_space, driver_counters, faults, provisioning, tree, uevents
from dra.sim_kernel.drivers import Drivers, Function, copies, pci_own

DEVICES = "sys/bus/pci/devices"

DISABLE_SECONDS = 1.0
"""sriov_disable sleeps this long after VF Enable was cleared (drivers/pci/iov.c)."""


class Bus:
    """All functions by address: those in the tree, and those that are gone but known."""

    def __init__(self, files: tree.Tree, events: uevents.Uevents, drivers: Drivers, memory: Mapping[str, int]) -> None:
        """`memory` is the local memory of functions whose driver tells it on being asked, in bytes."""
        self.tree, self.uevents, self.drivers, self.memory = files, events, drivers, memory
        self.functions: dict[str, Function] = {}
        listed = files.directory(DEVICES)
        for bdf in listed.entries if listed else ():
            try:
                path, directory = files.lookup(f"{DEVICES}/{bdf}")
            except OSError:
                continue  # its link leads nowhere: a function that went while the machine was recorded
            if isinstance(directory, tree.Directory):
                function = self.functions[bdf] = Function(bdf, path, directory)
                driver = directory.entries.get("driver")
                function.driver = driver.target.rpartition("/")[2] if isinstance(driver, tree.Link) else None
                mode = directory.text("survivability_mode")
                function.survivability = mode or None
                _give_config(function)
        drivers.learn(self.functions.values())

    def function(self, bdf: str) -> Function | None:
        """The function at an address if it is on the bus now."""
        function = self.functions.get(bdf)
        return function if function is not None and self.enumerated(function) else None

    def at(self, path: str) -> Function | None:
        """The function whose directory is at `path`."""
        return self.function(path.rpartition("/")[2])

    def enumerated(self, function: Function) -> bool:
        listed = self.tree.directory(DEVICES)
        return listed is not None and function.bdf in listed.entries

    def bind(self, function: Function, driver: str) -> None:
        self.drivers.bind(function, driver, self.functions.values())

    def probe(self, function: Function) -> None:
        self.drivers.probe(function, self.functions.values())

    def unbind(self, function: Function) -> None:
        """Detach the driver at once, whoever holds what; the GPU drivers take their VFs with them (xe_pci_remove, i915_pci_remove)."""
        for _ in self.removing_vfs(function):
            pass
        provisioning.reset(function)
        driver_counters.forget(function)
        self.drivers.unbind(function)

    def unbinding(self, function: Function) -> Iterator[faults.Trouble]:
        """Detach the driver; yields what the caller goes through between two steps."""
        yield from self.removing_vfs(function)
        if function.held is not None:
            yield faults.Trouble(gates=(function.held,))
        if self.function(function.bdf) is function:
            self.unbind(function)

    def virtual_functions(self, function: Function) -> dict[int, Function]:
        """VFs of a PF that are on the bus, by index from 1, in ascending order."""
        links = {name: entry for name, entry in function.directory.entries.items() if re.fullmatch(r"virtfn\d+", name)}
        targets = {int(name[6:]) + 1: link.target.rpartition("/")[2] for name, link in links.items() if isinstance(link, tree.Link)}
        return {index: vf for index, bdf in sorted(targets.items()) if (vf := self.function(bdf)) is not None}

    def removing_vfs(self, function: Function) -> Iterator[faults.Trouble]:
        """Take away all VFs in ascending order, as sriov_disable does; yields what the caller goes through between two steps."""
        if not any(name.startswith("virtfn") for name in function.directory.entries):
            return
        provisioning.link(function, {})
        for index, vf in self.virtual_functions(function).items():
            yield self.drivers.troubles.meet("vf", vf.path, vf.bdf)
            function.directory.entries.pop(f"virtfn{index - 1}", None)
            vf.directory.entries.pop("physfn", None)
            if vf.held is not None:
                yield faults.Trouble(gates=(vf.held,))
            if self.function(vf.bdf) is vf:
                self.detach(vf)
            self.functions.pop(vf.bdf, None)
        for name in [name for name in function.directory.entries if name.startswith("virtfn")]:
            del function.directory.entries[name]  # of VFs that were removed one by one
        yield faults.Trouble(seconds=DISABLE_SECONDS)
        set_count(function, 0)
        provisioning.disable(function)

    def detach(self, function: Function) -> None:
        """Take a function off the bus, what is behind it first: driver, `remove` event, directory."""
        for below in self._behind(function):
            self.detach(below)
        self.unbind(function)
        self.tree.take(f"{DEVICES}/{function.bdf}")
        if (group := self._group(function)) is not None:
            self.tree.take(f"{group}/devices/{function.bdf}")
            if not getattr(self.tree.directory(f"{group}/devices"), "entries", True):
                self.tree.take(group)
        self.tree.take(function.path)
        self.uevents.emit("remove", "pci", function.path, uevents.pci_properties(function.directory, "remove"))

    def detaching(self, function: Function) -> Iterator[faults.Trouble]:
        """Take a function off the bus; yields what the caller goes through between two steps."""
        if not self._behind(function):  # a bridge waits for nobody
            yield from self.unbinding(function)
        if self.function(function.bdf) is function:
            self.detach(function)

    def attach(self, function: Function) -> None:
        """Put a function on the bus, with a driver if drivers are probed for."""
        self.announce(function)
        self.autoprobe(function)

    def announce(self, function: Function) -> None:
        """Put a function on the bus: directory, links, `add` event."""
        entries = function.directory.entries
        for name, text in (("driver_override", "(null)\n"), ("sriov_numvfs", "0\n"), ("sriov_drivers_autoprobe", "1\n")):
            if isinstance(entry := entries.get(name), tree.File):
                entry.text = text  # a new device: nothing an administrator wrote into the old one is left
        _give_config(function)
        self.tree.put(function.path, function.directory)
        place = f"{DEVICES}/{function.bdf}"
        self.tree.put(place, tree.Link(tree.relative(place, function.path)))
        if (group := self._group(function)) is not None:
            member = f"{group}/devices/{function.bdf}"
            self.tree.put(member, tree.Link(tree.relative(member, function.path)))
            if self.tree.find(f"{group}/type") is None:
                self.tree.put(f"{group}/type", tree.File("DMA-FQ\n", 0o644))
                self.tree.put(f"{group}/reserved_regions", tree.File("0x00000000fee00000 0x00000000feefffff msi\n"))  # x86's MSI window
        self.uevents.emit("add", "pci", function.path, uevents.pci_properties(function.directory, "add"))

    def autoprobe(self, function: Function) -> None:
        """Give a new function its driver, if drivers are probed for."""
        bus = self.tree.directory("sys/bus/pci")
        if bus is None or bus.text("drivers_autoprobe") != "0":
            self.probe(function)

    def rescan(self) -> None:
        """Find what is in its slot but not on the bus, nearest the root first."""
        for function in sorted(self.functions.values(), key=lambda function: (function.path.count("/"), function.bdf)):
            found = function.present and not function.virtual and not self.enumerated(function)  # VFs answer no scan
            if found and self.tree.directory(function.path.rpartition("/")[0]) is not None:
                self.attach(function)

    def unplugging(self, bdf: str) -> Iterator[faults.Trouble]:
        """Pull a card: it goes, and a rescan does not find it; yields what the caller goes through between two steps."""
        function = self._known(bdf)
        if function.virtual:
            raise ValueError(f"{bdf} is a VF: it cannot be pulled out")
        for gone in self._with_behind(function):
            gone.present = False
        if self.enumerated(function):
            yield from self.detaching(function)

    def plug(self, bdf: str, like: str | None = None) -> None:
        """Put a card back that was there before, or a second one `like` another beside it."""
        if like is not None:
            self.functions[bdf] = self._second(bdf, self._known(like))
        function = self._known(bdf)
        if function.virtual:
            raise ValueError(f"{bdf} is a VF: it cannot be plugged in")
        if self.enumerated(function):
            raise ValueError(f"{bdf} is on the bus already")
        if self.tree.directory(function.path.rpartition("/")[0]) is None:
            raise ValueError(f"the bridge of {bdf} is not on the bus")
        for back in self._with_behind(function):
            back.present = True
            self.attach(back)

    def place(self, bdf: str, parent: str, directory: tree.Directory) -> None:
        """Put a new card below the bridge directory `parent`."""
        if not names.is_bdf(bdf):
            raise ValueError(f"{bdf!r} is not a PCI address")
        if self.function(bdf) is not None:
            raise ValueError(f"{bdf} is on the bus already")
        if self.tree.directory(parent) is None or not parent.startswith("sys/devices/"):
            raise ValueError(f"{parent!r} is no directory below sys/devices")
        self.functions[bdf] = Function(bdf, f"{parent}/{bdf}", directory)
        self.attach(self.functions[bdf])

    def _second(self, bdf: str, model: Function) -> Function:
        if not names.is_bdf(bdf):
            raise ValueError(f"{bdf!r} is not a PCI address")
        if bdf in self.functions:
            raise ValueError(f"{bdf} is known already: plug it without `like`")
        if not self.enumerated(model) or model.virtual:
            raise ValueError(f"{model.bdf} is not a physical function on the bus: there is nothing to copy")
        path = f"{model.path.rpartition('/')[0]}/{bdf}"
        directory = tree.copy(model.directory)
        tree.move(directory, model.path, path)
        second = Function(bdf, path, directory)
        driver = model.driver
        if driver in ("xe", "i915") and model.survivability is None:
            second.made[driver] = copies(self.tree, model, second, driver)
        for name in list(directory.entries):
            if not pci_own(name) or name == "driver" or name.startswith("virtfn") or names.is_bdf(name):
                del directory.entries[name]
        values = {key: value for key, value in uevents.properties(directory).items() if key != "DRIVER"}
        uevents.set_properties(directory, values | {"PCI_SLOT_NAME": bdf})
        if (group := self._group(second)) is not None:
            groups = self.tree.directory("sys/kernel/iommu_groups")
            taken = set(groups.entries) if groups else set()
            free = next(number for number in range(1 << 20) if str(number) not in taken)
            directory.entries["iommu_group"] = tree.Link(tree.relative(f"{path}/iommu_group", f"{group.rpartition('/')[0]}/{free}"))
        return second

    def _group(self, function: Function) -> str | None:
        link = function.directory.entries.get("iommu_group")
        return tree.absolute(f"{function.path}/iommu_group", link.target) if isinstance(link, tree.Link) else None

    def _behind(self, function: Function) -> list[Function]:
        """Functions behind a bridge, on its own bus only (they see to what is behind them), last first."""
        below = [self.function(name) for name in function.directory.entries if names.is_bdf(name)]
        return [found for found in reversed(below) if found is not None]

    def _with_behind(self, function: Function) -> list[Function]:
        """A function and everything known to belong behind it, nearest first."""
        behind = [other for other in self.functions.values() if other.path.startswith(f"{function.path}/")]
        return [function, *sorted(behind, key=lambda other: other.path.count("/"))]

    def _known(self, bdf: str) -> Function:
        function = self.functions.get(bdf)
        if function is None:
            raise ValueError(f"no PCI function {bdf} was ever on this machine")
        return function


def set_count(function: Function, count: int) -> None:
    """What `sriov_numvfs` of a PF reads."""
    entry = function.directory.entries["sriov_numvfs"]
    assert isinstance(entry, tree.File)
    entry.text = f"{count}\n"


def _give_config(function: Function) -> None:
    """Display controllers show their configuration space; nobody asks for that of others."""
    if (function.directory.text("class") or "").startswith("0x03"):
        config_space.put(function.directory, virtual=function.virtual)
