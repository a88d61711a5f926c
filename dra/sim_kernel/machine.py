"""The document that describes fake machines: nested objects that mirror /sys, /dev and /proc, and the answers to DRM queries.

A directory is an object, a read-only file its content, anything else an object with `@`: `rw`, `rw600`, `wo`, `admin_ro` (files),
`link`, `chr` (device node) and `shared` (a directory kept once under the document's `shared`).
"""

from __future__ import annotations

import errno as errnos
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from dra import names
from dra.kernel_tree import MemoryRegion

FILE_MODES: Final[Mapping[str, int]] = {"rw": 0o644, "rw600": 0o600, "wo": 0o200, "admin_ro": 0o400}
ROOTS: Final = ("sys", "dev", "proc")

GROUPS: Final[Mapping[str, int]] = {"root": 0, "video": 44, "render": 105}
"""Numeric groups of device nodes. video is Debian's static 44; render has no fixed number anywhere, 105 is one that is seen."""


class Answer(msgspec.Struct, frozen=True):
    """What the driver of one function answers to the DRM memory query."""

    driver: Literal["i915", "xe"]
    regions: tuple[MemoryRegion, ...]
    errno: int | None = None
    """What it fails with instead, for a card that is wedged when the machine starts."""


class Machine(msgspec.Struct, frozen=True):
    """One machine of a document, known to be well formed. `tree` and `shared` are the document's own objects: never changed."""

    name: str
    tree: Mapping[str, Any]
    shared: Mapping[str, Any]
    answers: Mapping[str, Answer]
    """By PCI address."""
    open_as: tuple[int, int] | None = None
    """Major and minor that cards and render nodes show instead of their own; see `read`."""


def read(document: object, name: str | None = None) -> Machine:
    """Check a document and pick one machine of it; None picks the only one.

    The document's `openAs`, for example "10:229" (/dev/fuse), makes cards and render nodes stand for a device that this machine really
    has, so that a container which is given one can open it. Without it they carry DRM's own numbers, which no driver serves here.

    Raises:
        ValueError: the document is malformed; the message names the place in it (`machine.server.tree.sys.bus`).
    """
    top = _object(document, "document")
    machines = _object(top.get("machine"), "machine")
    if name is None:
        if len(machines) != 1:
            raise ValueError(f"machine: the document holds {len(machines)} machines, name one of {', '.join(sorted(machines))}")
        name = next(iter(machines))
    if name not in machines:
        raise ValueError(f"machine: no machine {name!r}, there is {', '.join(sorted(machines))}")
    where = f"machine.{name}"
    machine = _object(machines[name], where)
    shared = _object(top.get("shared", {}), "shared")
    tree = _object(machine.get("tree"), f"{where}.tree")
    for root in ROOTS:
        _object(tree.get(root), f"{where}.tree.{root}")
    for root in tree:
        if root not in ROOTS:
            raise ValueError(f"{where}.tree.{root}: the roots are {', '.join(ROOTS)}")
    check(tree, shared, f"{where}.tree")
    answers = _object(machine.get("ioctl", {}), f"{where}.ioctl")
    by_bdf = {bdf: answer(value, f"{where}.ioctl.{bdf}", bdf) for bdf, value in answers.items()}
    return Machine(name, tree, shared, by_bdf, _open_as(top.get("openAs")))


def _open_as(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,4}):(\d{1,7})", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"openAs: {value!r} is not a device number such as 10:229")
    return int(match[1]), int(match[2])


def check(node: object, shared: Mapping[str, Any], where: str) -> None:
    """Check a piece of tree, and every shared directory it uses, once each.

    Raises:
        ValueError: it is malformed; the message starts with `where` and goes on to the place.
    """
    seen: set[str] = set()
    for place, name, inside in _check(node, where):
        _shared(name, place, shared, seen, (*inside, name))


def answer(value: object, where: str, bdf: str) -> Answer:
    """Read one entry of a machine's `ioctl` object.

    Raises:
        ValueError: it is malformed.
    """
    if not names.is_bdf(bdf):
        raise ValueError(f"{where}: {bdf!r} is not a PCI address")
    entry = _object(value, where)
    driver = entry.get("driver")
    if driver == "i915":
        key, size, kinds = "regions", "probed_size", {"system": "system", "device": "device"}
    elif driver == "xe":
        key, size, kinds = "mem_regions", "total_size", {"system": "system", "vram": "device"}
    else:
        raise ValueError(f"{where}.driver: {driver!r} is neither i915 nor xe")
    failure = entry.get("errno", entry.get("error"))
    if failure is not None:
        code = getattr(errnos, str(failure), failure)
        if not _is_count(code):
            raise ValueError(f"{where}.errno: must be the name of an errno, such as ECANCELED")
        return Answer(driver, (), code)
    regions = entry.get(key)
    if not isinstance(regions, list):
        raise ValueError(f"{where}.{key}: must be a list of regions")
    made = []
    for index, raw in enumerate(regions):
        place = f"{where}.{key}[{index}]"
        region = _object(raw, place)
        kind, instance, size_bytes = kinds.get(str(region.get("class"))), region.get("instance", 0), region.get(size)
        if kind is None:
            raise ValueError(f"{place}.class: must be one of {', '.join(kinds)}")
        if not _is_count(instance) or not _is_count(size_bytes):
            raise ValueError(f"{place}: instance and {size} must be whole numbers")
        used = region.get("used", 0) if driver == "xe" else None
        if used is not None and not _is_count(used):
            raise ValueError(f"{place}.used: must be a whole number")
        made.append(msgspec.convert({"kind": kind, "instance": instance, "size_bytes": size_bytes, "used_bytes": used}, MemoryRegion))
    return Answer(driver, tuple(made))


def _shared(name: str, place: str, shared: Mapping[str, Any], seen: set[str], inside: tuple[str, ...]) -> None:
    if name in inside[:-1]:
        raise ValueError(f"{place}: shared {name!r} contains itself")
    if name in seen:
        return
    if name not in shared:
        raise ValueError(f"{place}: there is no shared {name!r}")
    directory = _object(shared[name], f"shared.{name}")
    if "@" in directory:
        raise ValueError(f"shared.{name}: must be a directory")
    for below, other, _ in _check(directory, f"shared.{name}"):
        _shared(other, below, shared, seen, (*inside, other))
    seen.add(name)


def _check(node: object, where: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Check everything but shared directories, which are yielded as (place, id, ())."""
    if isinstance(node, str):
        return
    entry = _object(node, where)
    kind = entry.get("@")
    if kind is None:
        for name, below in entry.items():
            if not name or name in (".", "..") or "/" in name or "\0" in name:
                raise ValueError(f"{where}: {name!r} cannot be a file name")
            if not isinstance(below, str):
                yield from _check(below, f"{where}.{name}")
        return
    if isinstance(kind, str) and kind in FILE_MODES:
        if not isinstance(entry.get("v", ""), str):
            raise ValueError(f"{where}.v: the content of a file must be a string")
    elif kind == "link":
        if not isinstance(entry.get("to"), str) or not entry["to"]:
            raise ValueError(f"{where}.to: the target of a link must be a string")
    elif kind == "chr":
        _node(entry, where)
    elif kind == "shared":
        if not isinstance(entry.get("id"), str):
            raise ValueError(f"{where}.id: must name a shared directory")
        yield where, entry["id"], ()
    else:
        raise ValueError(f"{where}: {kind!r} is not a kind of node; known are {', '.join(FILE_MODES)}, link, chr and shared")


def _node(entry: Mapping[str, Any], where: str) -> None:
    if not _is_count(entry.get("major")) or not _is_count(entry.get("minor")):
        raise ValueError(f"{where}: major and minor must be whole numbers")
    mode = entry.get("mode")
    if not isinstance(mode, str) or not mode or set(mode) - set("01234567"):
        raise ValueError(f'{where}.mode: must be permission bits in octal, such as "0660"')
    if entry.get("group") not in GROUPS:
        raise ValueError(f"{where}.group: must be one of {', '.join(GROUPS)}")


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: must be an object")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{where}: keys must be strings, not {key!r}")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
