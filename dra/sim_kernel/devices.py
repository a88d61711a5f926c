"""The driver core: what appears elsewhere when a device directory appears below /sys/devices, and vanishes with it.

A directory with a `subsystem` link is a device. It gets a link in its class or on its bus, and with a `dev` file a link in
/sys/dev/char and a node in /dev (drivers/base/core.c, devtmpfs); udev adds the /dev/dri/by-path links after the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dra import names
from dra.sim_kernel import machine, tree, uevents

TOLD = frozenset(("drm", "hwmon", "vfio", "vfio-dev"))
"""Subsystems besides pci whose events are sent; of drm only minors (connectors are told of by a change of their card)."""

_MODES = {"card": (0o660, machine.GROUPS["video"]), "renderD": (0o660, machine.GROUPS["render"])}
"""As systemd's udev rules set them; every other node is 0600 root, as devtmpfs makes it."""


class DriverCore:
    def __init__(self, files: tree.Tree, events: uevents.Uevents) -> None:
        self._tree, self._uevents = files, events
        self._udev = files.directory("dev/dri/by-path") is not None
        """Whether this machine has a udev daemon: only then are there by-path links."""
        self._modes = dict(_MODES)

    def add(self, paths: Iterable[str]) -> None:
        """The entries at these paths are new: announce the devices in them, render nodes before cards before all else."""
        for path, directory in sorted(self._devices(paths), key=lambda found: _rank(found[0])):
            self._link(path, directory)
            self._tell("add", path, directory)
            self._by_path(path, present=True)

    def remove(self, paths: Iterable[str]) -> None:
        """The entries at these paths are about to go: withdraw the devices in them, in the opposite order."""
        for path, directory in sorted(self._devices(paths), key=lambda found: _rank(found[0]), reverse=True):
            self._unlink(path, directory)
            self._tell("remove", path, directory)
            self._by_path(path, present=False)

    def _devices(self, paths: Iterable[str]) -> list[tuple[str, tree.Directory]]:
        found = []
        for top in paths:
            entry = self._tree.find(top)
            if isinstance(entry, tree.Directory):
                for path, below in [(top, entry), *tree.walk(entry, top)]:
                    if isinstance(below, tree.Directory) and isinstance(below.entries.get("subsystem"), tree.Link):
                        found.append((path, below))
        return found

    def _link(self, path: str, directory: tree.Directory) -> None:
        for place in _places(path, directory):
            self._tree.put(place, tree.Link(tree.relative(place, path)))
        number, name = directory.text("dev"), uevents.properties(directory).get("DEVNAME")
        if number and name:
            major, minor = (int(part) for part in number.split(":"))
            mode, gid = self._modes.get(_kind(name), (0o600, machine.GROUPS["root"]))
            self._tree.put(f"dev/{name}", tree.Node(major, minor, mode, gid))

    def _unlink(self, path: str, directory: tree.Directory) -> None:
        for place in _places(path, directory):
            self._tree.take(place)
        name = uevents.properties(directory).get("DEVNAME")
        node = self._tree.take(f"dev/{name}") if name else None
        if name and isinstance(node, tree.Node):
            self._modes[_kind(name)] = (node.mode, node.gid)  # an administrator's udev rules still hold when the card comes back

    def _tell(self, action: str, path: str, directory: tree.Directory) -> None:
        subsystem = _subsystem(path, directory).rpartition("/")[2]
        if subsystem in TOLD and not (subsystem == "drm" and directory.text("dev") is None):
            self._uevents.emit(action, subsystem, path, uevents.properties(directory))

    def _by_path(self, path: str, *, present: bool) -> None:
        parts = path.split("/")
        if not self._udev or len(parts) < 3 or parts[-2] != "drm" or not names.is_bdf(parts[-3]):
            return
        kind = {"card": "card", "renderD": "render"}.get(_kind(parts[-1]))
        if kind is None:
            return
        place = f"dev/dri/by-path/pci-{parts[-3]}-{kind}"
        if present:
            self._tree.put(place, tree.Link(f"../{parts[-1]}"))
        else:
            self._tree.take(place)


def _places(path: str, directory: tree.Directory) -> list[str]:
    """Where links to a device are."""
    subsystem, name = _subsystem(path, directory), path.rpartition("/")[2]
    places = [f"{subsystem}/devices/{name}" if subsystem.startswith("sys/bus/") else f"{subsystem}/{name}"]
    if number := directory.text("dev"):
        places.append(f"sys/dev/char/{number}")
    return places


def _subsystem(path: str, directory: tree.Directory) -> str:
    link = directory.entries["subsystem"]
    assert isinstance(link, tree.Link)
    return tree.absolute(f"{path}/subsystem", link.target)


def _kind(name: str) -> str:
    """`dri/renderD128` -> `renderD`."""
    return name.rpartition("/")[2].rstrip("0123456789")


def _rank(path: str) -> tuple[int, str]:
    name = path.rpartition("/")[2]
    if re.fullmatch(r"renderD\d+", name):
        return 0, path
    return (1 if re.fullmatch(r"card\d+", name) else 2), path
