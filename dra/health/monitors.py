"""What hwmon shows of a card: temperatures, power and energy, fans (Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon).

Discrete cards only, and only their PF. Channels are known by their labels: their numbers differ between drivers and releases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from dra.health import figures
from dra.sysfs import Directory

HOTTEST_CELSIUS: Final = 200.0
"""Silicon is dead long before; a card that is gone reads 255."""
STRONGEST_WATTS: Final = 10_000.0
"""More than a power supply has; i915 shows an unset limit as a very large one."""

_PACKAGE, _CARD = "pkg", "card"
_TEMPERATURE, _POWER, _FAN = (re.compile(rf"{kind}([0-9]{{1,2}})_input") for kind in ("temp", "(?:energy|power)", "fan"))
_TILE: Final = re.compile(r"i915_(gt[0-9])")
"""i915 makes one more hwmon device for each tile, with its energy alone."""


class Sensor(msgspec.Struct, frozen=True, gc=False):
    """One temperature, all in degrees Celsius. None: the driver does not say."""

    label: str
    """`pkg`, `vram`, `vram_ch_3`, `mctrl`, `pcie`."""
    celsius: float
    max_celsius: float | None = None
    """It should not stay above."""
    failed_celsius: float | None = None
    """The lower of critical and emergency: the card shuts down, or is about to."""


class Meter(msgspec.Struct, frozen=True, gc=False):
    """Power of one part of a card. None: the driver does not say."""

    label: str
    """`card`, `pkg`, `gt0`."""
    energy_joules: float | None = None
    """Since its driver was bound; power is what it grows by."""
    watts: float | None = None
    """Where a driver measures it itself."""
    rated_watts: float | None = None
    """What the board is made for (TDP)."""
    max_watts: float | None = None
    """The limit that is set (PL1)."""
    crit_watts: float | None = None


class Monitors(msgspec.Struct, frozen=True):
    sensors: tuple[Sensor, ...] = ()
    meters: tuple[Meter, ...] = ()
    fans_rpm: Mapping[str, int] = {}
    """By name, `fan1`, in revolutions a minute; 0 is a fan that stands still, as it may when the card is cool."""


def read(device: Directory) -> Monitors:
    """All hwmon devices of one function."""
    sensors: dict[str, Sensor] = {}
    meters: dict[str, Meter] = {}
    fans: dict[str, int] = {}
    for name in device.below("hwmon").names():
        hwmon = device.below(f"hwmon/{name}")
        names, tile = hwmon.names(), _TILE.fullmatch(hwmon.text("name") or "")
        for number in figures.numbered(names, _TEMPERATURE):
            if (sensor := _sensor(hwmon, number)) is not None:
                sensors.setdefault(sensor.label, sensor)
        for number in sorted(set(figures.numbered(names, _POWER))):
            meter = _meter(hwmon, number, tile[1] if tile else _CARD)
            meters.setdefault(meter.label, meter)
        for number in figures.numbered(names, _FAN):
            if (rpm := figures.count(hwmon, f"fan{number}_input")) is not None:
                fans.setdefault(f"fan{number}", rpm)
    return Monitors(tuple(sensors.values()), tuple(meters.values()), fans)


def _sensor(hwmon: Directory, number: int) -> Sensor | None:
    milli = hwmon.number(f"temp{number}_input")
    if milli is None or not -HOTTEST_CELSIUS <= milli / 1000 <= HOTTEST_CELSIUS:
        return None
    # i915 has one temperature, its package's, and no label for it (i915_hwmon.c).
    label = figures.label(hwmon, f"temp{number}_label", _PACKAGE if number == 1 else f"temp{number}")
    most, *deadly = (_celsius(hwmon, f"temp{number}_{name}") for name in ("max", "crit", "emergency"))
    return Sensor(label, milli / 1000, most, min((limit for limit in deadly if limit is not None), default=None))


def _celsius(hwmon: Directory, name: str) -> float | None:
    return figures.scaled(hwmon, name, 1000, most=HOTTEST_CELSIUS)


def _meter(hwmon: Directory, number: int, otherwise: str) -> Meter:
    unlabelled = otherwise if number == 1 else f"power{number}"
    joules = figures.count(hwmon, f"energy{number}_input")
    return Meter(
        figures.label(hwmon, f"energy{number}_label", figures.label(hwmon, f"power{number}_label", unlabelled)),
        energy_joules=joules / 1e6 if joules is not None else None,
        watts=_watts(hwmon, f"power{number}_average") or _watts(hwmon, f"power{number}_input"),
        rated_watts=_watts(hwmon, f"power{number}_rated_max"),
        max_watts=_watts(hwmon, f"power{number}_max"),
        crit_watts=_watts(hwmon, f"power{number}_crit"),
    )


def _watts(hwmon: Directory, name: str) -> float | None:
    return figures.scaled(hwmon, name, 1e6, most=STRONGEST_WATTS)
