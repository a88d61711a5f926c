"""Getting a wedged card back: which of the ways that its kernel named is taken, when, and in which steps.

A kernel that gives a card up names ways back, least invasive first (`WEDGED=rebind,bus-reset`; drivers/gpu/drm/drm_drv.c,
drm_dev_wedged_event; Documentation/gpu/drm-uapi.rst says what each is to do). Both kill what runs on the card, so only idle ones are taken,
and as an attempt that did not help once seldom helps the tenth time, few a day.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

import msgspec

from dra import binding
from dra.devices import Gpu, Kind, State
from dra.discovery import DRM_DRIVERS, PCI_DEVICES
from dra.kernel_tree import KernelTree
from dra.names import Bdf, ClaimUid
from dra.sysfs import Directory

Method = Literal["rebind", "bus-reset"]
Mode = Literal["off", "rebind", "bus-reset"]
"""The most invasive way that is allowed."""

DAY_SECONDS: Final = 86400.0
APART_SECONDS: Final = 3600.0
"""Between two tries of the same way: what is in its way now, say VFs that somebody else made, seldom goes within minutes."""
ALLOWED: Final[dict[Mode, tuple[Method, ...]]] = {"off": (), "rebind": ("rebind",), "bus-reset": ("rebind", "bus-reset")}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Written down before its first step, and again when it is over: one that was cut short is gone on with."""

    bdf: Bdf
    pci_id: str
    method: Method
    at: float
    """Seconds since the epoch."""
    over: bool = False


def due(
    gpu: Gpu, mode: Mode, per_day: int, attempts: Sequence[Attempt], users: Collection[ClaimUid], now: float
) -> tuple[Method | None, str]:
    """What to try with a card now, and why nothing is, a sentence for people (empty if there is nothing to say).

    Args:
        attempts: earlier ones, of all cards, oldest first.
        users: claims that hold the card or VFs of it.
    """
    mine = [each for each in attempts if (each.bdf, each.pci_id) == (gpu.bdf, gpu.device)]
    if mine and not mine[-1].over and gpu.state in (State.WEDGED, State.NO_DRIVER, State.NO_NODES):
        return mine[-1].method, ""
    if mode == "off" or gpu.state is not State.WEDGED or gpu.kind is Kind.VF or not gpu.recovery:
        return None, ""
    ways: list[Method] = [method for method in ALLOWED[mode] if method in gpu.recovery]
    if not ways:
        return None, f"its kernel names {', '.join(gpu.recovery)}, of which the settings allow none"
    if users:
        return None, f"it is held by claim {min(users)}"
    if gpu.boot_vga:
        return None, "it shows the console of the node"
    today = [each for each in mine if 0 <= now - each.at < DAY_SECONDS]
    if len(today) >= per_day:
        return None, f"it was tried {len(today)} of {per_day} times within a day"
    way = ways[min(len(today), len(ways) - 1)]
    if today and today[-1].method == way and now - today[-1].at < APART_SECONDS:
        return None, f"{way} was tried within the last hour"
    return way, ""


def kept(attempts: Sequence[Attempt], now: float) -> tuple[Attempt, ...]:
    """Without those that count no more. One of a clock that was ahead counts until it is over."""
    return tuple(each for each in attempts if not each.over or 0 <= now - each.at < DAY_SECONDS)


class Reset(msgspec.Struct, frozen=True):
    """Have the bus reset the function, which has no driver now."""


Step = binding.Unbind | Reset | binding.Probe


def next_step(facts: binding.Facts, method: Method, done: Collection[type[Step]]) -> Step | None:
    """The next step, None when it is bound anew.

    Args:
        done: kinds of the steps taken in this life: after an end in the middle they are taken once more, which harms nobody.
    """
    if facts.driver in DRM_DRIVERS:
        return None if binding.Probe in done or binding.Unbind in done else binding.Unbind(facts.driver)
    if facts.driver is not None:
        return None  # somebody has given it to a virtual machine meanwhile
    if method == "bus-reset" and Reset not in done:
        return Reset()
    return binding.Probe()


def refusal(facts: binding.Facts) -> str | None:
    """Why it must not be tried, as things stand."""
    if not facts.present:
        return f"{facts.bdf} is not on the bus"
    if facts.vfs:
        return f"{facts.bdf} has {facts.vfs} VFs that somebody else made: take them away first (0 into sriov_numvfs)"
    return None


def reset(tree: KernelTree, bdf: Bdf) -> None:
    """Reset the function by its bus where the kernel lets that be chosen (`reset_method`, since 5.15), else by what it thinks best.

    Raises:
        OSError: the kernel's answer; ENOTTY means that this function cannot be reset.
    """
    path = f"{PCI_DEVICES}/{bdf}"
    chooses = "bus" in (Directory(tree, path).text("reset_method") or "").split()
    if chooses:
        tree.write(f"{path}/reset_method", "bus")
    try:
        tree.write(f"{path}/reset", "1")
    finally:
        if chooses:
            tree.write(f"{path}/reset_method", "default")
