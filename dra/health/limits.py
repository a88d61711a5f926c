"""Where a GPU's temperatures and power begin to be too much: what is set, else what its driver says, else what is known of its model.

The tables are those of Intel's XPU Manager (device_thresholds.json at 34c32c6), by PCI device id.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dra.health.monitors import Meter, Sensor

_CORE_THROTTLE_CELSIUS: Final = {"0x56c0": 100.0, "0x56c1": 95.0, "0x56c2": 100.0}
_CORE_THROTTLE_DEFAULT: Final = 105.0
_CORE_SHUTDOWN_CELSIUS: Final = {"0x56c0": 125.0, "0x56c1": 125.0, "0x56c2": 125.0}
_CORE_SHUTDOWN_DEFAULT: Final = 130.0
_MEMORY_SHUTDOWN_CELSIUS: Final = {"0x56c0": 105.0, "0x56c1": 105.0, "0x56c2": 105.0}
_MEMORY_SHUTDOWN_DEFAULT: Final = 100.0

_TDP_WATTS: Final = {
    "0x56c0": 150.0,  # Flex 170
    "0x56c1": 38.0,  # Flex 140, each of its two GPUs
    "0x56c2": 150.0,
    **dict.fromkeys(("0x0bd4", "0x0bd5", "0x0bd6", "0x0be5"), 600.0),  # Max 1550
    **dict.fromkeys(("0x0bd7", "0x0bd8"), 450.0),
    **dict.fromkeys(("0x0bd9", "0x0bda", "0x0bdb", "0x0b6e"), 300.0),  # Max 1100
    "0x4907": 25.0,  # SG1
    "0xe20b": 190.0,  # Arc B580
    "0xe20c": 150.0,  # Arc B570
    "0xe210": 190.0,
    "0xe216": 75.0,
}
_TDP_DEFAULT: Final = 300.0

POWER_MARGIN: Final = 1.1
"""Above what the board is made for by more than this: the driver holds the average over 28 s (power1_max_interval) to the limit, with
sensors that are some per cent off, and a reading's interval is shorter than that."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say instead of all else; None: nothing."""

    temperature_degraded_celsius: float | None = None
    """Of every sensor."""
    temperature_failed_celsius: float | None = None
    power_watts: float | None = None
    """Of the whole card, no margin added."""


class Bounds(msgspec.Struct, frozen=True):
    """The temperatures of one sensor from which on it is too hot. None: there is none."""

    degraded_celsius: float | None
    failed_celsius: float | None


def of_sensor(limits: Limits, sensor: Sensor, device: str) -> Bounds:
    """Tables know the package and the memory; the others have what their driver says."""
    degraded, failed = sensor.max_celsius, sensor.failed_celsius
    if sensor.label == "pkg":
        degraded = degraded or _CORE_THROTTLE_CELSIUS.get(device, _CORE_THROTTLE_DEFAULT)
        failed = failed or _CORE_SHUTDOWN_CELSIUS.get(device, _CORE_SHUTDOWN_DEFAULT)
    elif sensor.label.startswith("vram"):
        failed = failed or _MEMORY_SHUTDOWN_CELSIUS.get(device, _MEMORY_SHUTDOWN_DEFAULT)
    return Bounds(limits.temperature_degraded_celsius or degraded, limits.temperature_failed_celsius or failed)


def of_meter(limits: Limits, meter: Meter, device: str) -> float:
    """Average power of a card, in watts, that is too much."""
    if limits.power_watts is not None:
        return limits.power_watts
    rated = meter.rated_watts or _TDP_WATTS.get(device, _TDP_DEFAULT)
    return min(rated * POWER_MARGIN, meter.crit_watts or rated * POWER_MARGIN)
