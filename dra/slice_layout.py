"""Which devices and which counter sets go into which slice of a pool.

From 1.35 on counter sets have slices of their own, without devices. 1.33 and 1.34 look for a counter set in the slice of the device that
consumes it, and give out what they see of an incomplete pool: there a card, its VFs and their counter set are one slice's, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dra.pool import Device, Pool

DEVICES: Final = 128
"""Most devices of a slice."""
DEVICES_ADVANCED: Final = 64
"""The same where any of them has a taint or consumes counters (validation of 1.35 and newer)."""
COUNTER_SETS: Final = 8
"""Most counter sets of a slice of their own (1.35)."""
COUNTERS: Final = 32
"""Most counters of a slice with devices, over all its sets (1.33, 1.34). What its devices consume needs no look: 64 of 16 make 1024."""


class Part(msgspec.Struct, frozen=True):
    """What one slice says."""

    devices: tuple[Device, ...] = ()
    counters: Mapping[str, Mapping[str, int]] = {}


def parts(pool: Pool, *, split: bool) -> list[Part]:
    """The pool, a part a slice; one empty part for no devices, because an empty slice says "none" where no slice says "unknown".

    Args:
        pool: checked by `dra.slice_limits`: a device consumes of one set at most, and the devices of a set fit into one slice.
        split: whether counter sets go into slices of their own. They come first: a server that drops them is found out before it is
            sent a device.
    """
    used = {name for device in pool.devices for name in device.consumes}
    counters = {name: amounts for name, amounts in pool.counters.items() if name in used}
    size = DEVICES_ADVANCED if used or any(device.taints for device in pool.devices) else DEVICES
    if counters and not split:
        return _joined(pool.devices, counters, size)
    names = list(counters)
    return [
        *(Part((), {name: counters[name] for name in names[at : at + COUNTER_SETS]}) for at in range(0, len(names), COUNTER_SETS)),
        *([Part(pool.devices[at : at + size]) for at in range(0, len(pool.devices), size)] or [Part()]),
    ]


def _joined(devices: tuple[Device, ...], counters: Mapping[str, Mapping[str, int]], size: int) -> list[Part]:
    """Cards whole, in the order of their first device, as many a slice as fit."""
    cards: dict[str, list[Device]] = {}
    for device in devices:
        cards.setdefault(next(iter(device.consumes), f"/{device.name}"), []).append(device)  # no counter set has a slash
    found = [Part()]
    for name, members in cards.items():
        own = {name: counters[name]} if name in counters else {}
        joined = Part((*found[-1].devices, *members), {**found[-1].counters, **own})
        if _fits(joined, size):
            found[-1] = joined
        else:
            found.append(Part(tuple(members), own))
    return found


def _fits(part: Part, size: int) -> bool:
    return len(part.devices) <= size and sum(map(len, part.counters.values())) <= COUNTERS
