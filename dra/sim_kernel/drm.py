"""Minors: the numbers of cards and render nodes, and of the other numbered things a GPU driver makes (hwmon, mei)."""

from __future__ import annotations

import re
from typing import Final

from dra.sim_kernel import tree, uevents

MAJOR: Final = 226
"""include/uapi/linux/major.h"""

_FIRST: Final = {"card": 0, "renderD": 128}
_EACH: Final = 64
"""Numbers kept for each kind; when they are all taken both kinds draw from one pool from 192 on (drivers/gpu/drm/drm_drv.c)."""
_POOL: Final = range(192, 1 << 20)
_USED_BYTES: Final = 32 << 20
"""What a driver itself takes of a VF's memory: representative."""


class Minors:
    """Which DRM numbers are taken: by devices there are, and by file descriptors open on devices that are gone."""

    def __init__(self, files: tree.Tree) -> None:
        self._tree = files
        self.held: set[int] = set()

    def lowest(self, kind: str) -> int:
        """The number the next `card` or `renderD` gets."""
        chars = self._tree.directory("sys/dev/char")
        taken = {int(name.partition(":")[2]) for name in (chars.entries if chars else ()) if name.startswith(f"{MAJOR}:")} | self.held
        first = _FIRST[kind]
        own = next((number for number in range(first, first + _EACH) if number not in taken), None)
        return own if own is not None else next(number for number in _POOL if number not in taken)


def number_minors(files: tree.Tree, minors: Minors, path: str) -> None:
    """Give the minors below the `drm` directory at `path` numbers that are free: the render node first, then the card."""
    directory = files.directory(path)
    assert directory is not None, path
    taken: dict[str, int] = {}
    for kind in ("renderD", "card"):
        for name in [name for name in directory.entries if re.fullmatch(rf"{kind}\d+", name)]:
            minor = minors.lowest(kind)
            entry = directory.entries.pop(name)
            assert isinstance(entry, tree.Directory), name
            _number(entry, name, f"{kind}{minor}", (MAJOR, minor), devname=f"dri/{kind}{minor}")
            directory.entries[f"{kind}{minor}"] = entry
            files.put(f"sys/dev/char/{MAJOR}:{minor}", tree.Link(tree.relative(f"sys/dev/char/{MAJOR}:{minor}", f"{path}/{kind}{minor}")))
            taken[kind] = minor
    for name in [name for name in directory.entries if name.startswith("controlD")]:
        del directory.entries[name]
        if "card" in taken:
            directory.entries[f"controlD{taken['card'] + 64}"] = tree.Link(f"card{taken['card']}")


def tell_memory(directory: tree.Directory, size_bytes: int) -> None:
    """Write a VF's local memory into the files that prelim i915 has for it, in a `drm` directory."""
    for card in directory.entries.values():
        if isinstance(card, tree.Directory) and "lmem_total_bytes" in card.entries:
            card.entries["lmem_total_bytes"] = tree.File(f"{size_bytes}\n")
            card.entries["lmem_avail_bytes"] = tree.File(f"{max(0, size_bytes - _USED_BYTES)}\n")


def number_class(files: tree.Tree, directory: tree.Directory, kind: str) -> None:
    """Give the `hwmonN` or `meiN` in a directory the lowest number free in its class."""
    others = files.directory(f"sys/class/{kind}")
    taken = set(others.entries if others else ())
    names = sorted((name for name in directory.entries if re.fullmatch(rf"{kind}\d+", name)), key=lambda name: int(name[len(kind) :]))
    free = (number for number in range(1 << 20) if f"{kind}{number}" not in taken)
    found = [(name, directory.entries.pop(name)) for name in names]  # all out first: one may get the number of another
    for (name, entry), number in zip(found, free, strict=False):
        assert isinstance(entry, tree.Directory), name
        major = (entry.text("dev") or "").partition(":")[0]
        _number(entry, name, f"{kind}{number}", (int(major), number) if major else None, devname=f"{kind}{number}")
        directory.entries[f"{kind}{number}"] = entry


def fresh(card_path: str) -> tree.Directory:
    """A plain `drm` directory for a driver that has made none on this function before; numbers are to be given."""
    made = tree.Directory()
    for name in ("renderD0", "card0"):
        minor = tree.Directory()
        here = f"{card_path}/drm/{name}"
        minor.entries.update(
            dev=tree.File(f"{MAJOR}:0\n"),
            uevent=tree.File(f"MAJOR={MAJOR}\nMINOR=0\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor\n", 0o644),
            device=tree.Link(tree.relative(f"{here}/device", card_path)),
            subsystem=tree.Link(tree.relative(f"{here}/subsystem", "sys/class/drm")),
        )
        made.entries[name] = minor
    return made


def _number(entry: tree.Directory, old: str, new: str, number: tuple[int, int] | None, *, devname: str) -> None:
    """Rewrite what says the number in a device's own directory, its connectors included."""
    if number is not None:
        major, minor = number
        entry.entries["dev"] = tree.File(f"{major}:{minor}\n")
        uevents.set_properties(entry, uevents.properties(entry) | {"MAJOR": str(major), "MINOR": str(minor), "DEVNAME": devname})
    for name in [name for name in entry.entries if name.startswith(f"{old}-")]:
        connector = entry.entries.pop(name)
        entry.entries[new + name[len(old) :]] = connector
        if isinstance(connector, tree.Directory) and isinstance(connector.entries.get("device"), tree.Link):
            connector.entries["device"] = tree.Link(f"../../{new}")
