"""What two readings of a GPU say together: how fast its counters grow.

A counter that is lower than before began anew (its driver was bound again), so there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dra.health.gts import Gt
from dra.health.monitors import Meter
from dra.health.readings import Reading

SHORTEST_SECONDS: Final = 1.0
"""Two readings closer than this say more of when each file was read than of the card."""


def grown(before: Mapping[str, int | None], now: Mapping[str, int | None]) -> dict[str, int]:
    """The counters that have grown, and by how much. One that was not there before has not."""
    earlier = {name: value for name, value in before.items() if value is not None}
    return {name: value - earlier[name] for name, value in now.items() if value is not None and value > earlier.get(name, value)}


def carried(before: Reading | None, now: Reading) -> Reading:
    """What the next reading is to be compared with: this one, and the counters of the one before where this one could not read them. A card
    that slept, or was off the bus for a moment, may have failed just then."""
    if before is None or not (now.asleep or now.off_bus):
        return now
    return msgspec.structs.replace(now, errors={**before.errors, **now.errors}, aer={**before.aer, **now.aer})


def watts(before: Reading | None, now: Reading, meter: Meter) -> float | None:
    """Average power since the reading before, or what the driver measures itself."""
    if meter.watts is not None:
        return meter.watts
    seconds = _seconds(before, now)
    earlier = next((one for one in before.meters if one.label == meter.label), None) if before is not None else None
    if seconds is None or earlier is None or earlier.energy_joules is None or meter.energy_joules is None:
        return None
    joules = meter.energy_joules - earlier.energy_joules
    return joules / seconds if joules >= 0 else None


def busy(before: Reading | None, now: Reading, gt: Gt) -> float | None:
    """The share of the time since the reading before in which a GT did not sleep, from 0 to 1."""
    seconds = _seconds(before, now)
    earlier = next((one for one in before.gts if one.name == gt.name), None) if before is not None else None
    if seconds is None or earlier is None or earlier.idle_ms is None or gt.idle_ms is None or gt.idle_ms < earlier.idle_ms:
        return None
    return min(1.0, max(0.0, 1 - (gt.idle_ms - earlier.idle_ms) / 1000 / seconds))


def _seconds(before: Reading | None, now: Reading) -> float | None:
    return now.at - before.at if before is not None and now.at - before.at >= SHORTEST_SECONDS else None
