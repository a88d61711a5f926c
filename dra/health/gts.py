"""What each GT of a GPU shows of itself: frequencies, why it is slowed down, and how long it has been idle.

The drivers tell the same in different places; a layout is where one of them does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from dra.health import figures
from dra.sysfs import Directory

FASTEST_MHZ: Final = 100_000
"""Far above what any has; more is nonsense."""
_REASON: Final = re.compile(r"[a-z0-9_]{1,24}")


class Gt(msgspec.Struct, frozen=True):
    """Frequencies are in MHz. None: the driver does not say."""

    name: str
    """`gt0`; xe counts on over all tiles."""
    act_mhz: int | None = None
    """0 while it sleeps."""
    cur_mhz: int | None = None
    """What is asked for."""
    min_mhz: int | None = None
    max_mhz: int | None = None
    idle_ms: int | None = None
    """How long it has slept (RC6, C6) since its driver was bound."""
    throttled: Mapping[str, bool] = {}
    """By reason, `thermal`, `pl1`: whether it is slowed down for it now."""


class _Layout(msgspec.Struct, frozen=True):
    """Where a driver keeps a GT's files, from the GT's directory; `{}` is the frequency's name."""

    frequency: str
    idle: str
    throttle: str
    """The directory, and how names of reasons begin there."""


_XE: Final = _Layout("freq0/{}_freq", "gtidle/idle_residency_ms", "freq0/throttle/reason_")  # xe_gt_{freq,idle,throttle}.c
_I915: Final = _Layout("rps_{}_freq_mhz", "rc6_residency_ms", "throttle_reason_")  # gt/intel_gt_sysfs_pm.c
_I915_FLAT: Final = _Layout("gt_{}_freq_mhz", "power/rc6_residency_ms", "throttle_reason_")
"""One GT, in the card's own directory: all there is before Linux 5.18 (i915_sysfs.c)."""


def read(device: Directory, card: Directory | None) -> tuple[Gt, ...]:
    """All GTs of one function; none of a VF, whose PF has them."""
    tiles = [name for name in device.names() if re.fullmatch(r"tile[0-9]{1,2}", name)]
    found = [_gt(gt, name, _XE) for tile in tiles for name, gt in _below(device.below(tile))]
    if card is not None:
        found += [_gt(gt, name, _I915) for name, gt in _below(card.below("gt"))] or [_gt(card, "gt0", _I915_FLAT)]
    return tuple(gt for gt in found if gt != Gt(gt.name))


def _below(directory: Directory) -> list[tuple[str, Directory]]:
    return [(name, directory.below(name)) for name in directory.names() if re.fullmatch(r"gt[0-9]{1,2}", name)]


def _gt(gt: Directory, name: str, layout: _Layout) -> Gt:
    act, cur, least, most = (_mhz(gt, layout.frequency.format(which)) for which in ("act", "cur", "min", "max"))
    return Gt(name, act, cur, least, most, figures.count(gt, layout.idle), _throttled(gt, layout.throttle))


def _mhz(gt: Directory, name: str) -> int | None:
    value = figures.count(gt, name)
    return value if value is not None and value <= FASTEST_MHZ else None


def _throttled(gt: Directory, throttle: str) -> dict[str, bool]:
    directory, _, beginning = throttle.rpartition("/")
    where, found = gt.below(directory), {}
    for name in where.names():
        reason = name.removeprefix(beginning)
        # `status` only says that there is a reason.
        if name.startswith(beginning) and reason != "status" and _REASON.fullmatch(reason) and (on := where.number(name)) in (0, 1):
            found[reason] = on == 1
    return found
