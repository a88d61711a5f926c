"""What a reading means: the conditions that sysfs tells of, each fine or not.

A condition is mentioned when its files could be read. What counters say holds for one reading, the one that finds them grown: for how long
it is believed is not for here to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dra.health import limits as bounds
from dra.health import rates
from dra.health.facts import Fact, Facts, Severity
from dra.health.limits import Limits
from dra.health.monitors import Meter
from dra.health.readings import ErrorKind, Reading

HYSTERESIS_CELSIUS: Final = 5.0
"""A card at its limit swings by a degree or two with its fans; what was said of it holds until it is this much cooler."""

_HEAT: Final = frozenset(("prochot", "ratl"))
"""Reasons for slowing down that mean heat without saying so: the board's hot signal, and the running average of temperature. The power and
current limits (pl1, pl2, pl4, vr_tdc) are met by every card that works hard."""

_NOT_CORRECTED: Final[Mapping[ErrorKind, Severity]] = {"fatal": Severity.FAILED, "nonfatal": Severity.DEGRADED}
"""The worse first. After a nonfatal one the link holds, and its driver decides what was lost."""

_MEMORY: Final = {
    "OK": Severity.FINE,
    "MEMORY_HEALTH_ALARM": Severity.DEGRADED,
    "EC_PENDING": Severity.DEGRADED,  # rows are spared at the next reset
    "DEGRADED": Severity.FAILED,  # there was nothing left to spare them with
}
"""The words of `device_memory_health` (intel_sysfs_mem_health.c of prelim i915); the fifth is MEMORY_HEALTH_UNKNOWN, which says nothing."""

_TOLD: Final = 3
"""Counters that are named in one text; a card that dies moves dozens."""

_GPU_HEALTH: Final = {"ok": Severity.FINE, "warning": Severity.DEGRADED, "critical": Severity.FAILED}
"""The words of `gpu_health` (Documentation/ABI/testing/sysfs-driver-intel-xe-ras)."""


def facts(before: Reading | None, now: Reading, *, device: str, previous: Facts, limits: Limits) -> Facts:
    """All that sysfs says of a GPU.

    Args:
        before: the last reading of the same GPU; None if this is the first.
        device: its PCI device id, `0x56c0`.
        previous: what this returned for that reading, so that a temperature near its limit is not told again and again.
    """
    if now.off_bus:
        return {"off-bus": Fact("off-bus", Severity.FAILED, "its configuration space reads all ones")}
    told = (
        Fact("off-bus", Severity.FINE) if now.off_bus is False else None,
        _pcie(before, now),
        _link(now),
        _memory(now),
        _errors(before, now),
        _temperature(now, device, previous, limits),
        _power(before, now, device, limits),
        _throttled(now),
    )
    return {fact.condition: fact for fact in told if fact is not None}


def _pcie(before: Reading | None, now: Reading) -> Fact | None:
    if not now.aer:
        return None
    earlier = before.aer if before is not None else {}
    for kind, severity in _NOT_CORRECTED.items():
        grown = rates.grown({at: aer.count(kind) for at, aer in earlier.items()}, {at: aer.count(kind) for at, aer in now.aer.items()})
        if grown:
            seen = ", ".join(f"{more} at {at}" for at, more in sorted(grown.items()))
            return Fact("pcie", severity, f"{kind} errors on its link since the last reading: {seen}")
    return Fact("pcie", Severity.FINE)


def _link(now: Reading) -> Fact | None:
    """Width only: links slow down to save power, but keep their lanes."""
    link = now.link
    if link is None or link.width_possible is None:
        return None
    if link.width >= link.width_possible:
        return Fact("link", Severity.FINE)
    return Fact("link", Severity.DEGRADED, f"{link.width} lanes, both sides can do {link.width_possible}")


def _memory(now: Reading) -> Fact | None:
    word = now.memory_health
    severity = _MEMORY.get(word or "")
    return None if severity is None else _worded("memory", severity, f"device_memory_health is {word}")


def _errors(before: Reading | None, now: Reading) -> Fact | None:
    found = []
    if now.gpu_health is not None and (severity := _GPU_HEALTH.get(now.gpu_health)) is not None:
        found.append(_worded("errors", severity, f"gpu_health is {now.gpu_health}"))
    if now.errors:
        grown = rates.grown(before.errors, now.errors) if before is not None else {}
        by_name = {name: severity_of_counter(name) or Severity.FINE for name in sorted(grown)}
        worst = max(by_name.values(), default=Severity.FINE)
        told = [f"{name} grew by {grown[name]}" for name, severity in by_name.items() if severity is worst]
        found.append(_worded("errors", worst, ", ".join(told[:_TOLD]) + (f" and {len(told) - _TOLD} more" if len(told) > _TOLD else "")))
    return max(found, key=lambda fact: fact.severity, default=None)


def severity_of_counter(name: str) -> Severity | None:
    """`gt0/soc_fatal_psf_0`: what it means that this counter has grown; FINE for what was corrected, None for what is no error of the
    hardware (the driver counts its own events as well, `driver_object_migration`)."""
    words = name.rpartition("/")[2].split("_")
    by_word = {"fatal": Severity.FAILED, "nonfatal": Severity.DEGRADED, "correctable": Severity.FINE}
    return next((severity for word, severity in by_word.items() if word in words), None)


def _temperature(now: Reading, device: str, previous: Facts, limits: Limits) -> Fact | None:
    """The worst sensor's; what holds from before holds for each of them."""
    held = previous["temperature"].severity if "temperature" in previous else Severity.FINE
    found = []
    for sensor in now.sensors:
        bound = bounds.of_sensor(limits, sensor, device)
        fact = Fact("temperature", Severity.FINE)
        for severity, limit in ((Severity.DEGRADED, bound.degraded_celsius), (Severity.FAILED, bound.failed_celsius)):
            if limit is not None and sensor.celsius >= limit - (HYSTERESIS_CELSIUS if held >= severity else 0):
                fact = Fact("temperature", severity, f"{sensor.label} at {sensor.celsius:.0f} °C, limit {limit:.0f} °C")
        found.append(fact)
    return max(found, key=lambda fact: fact.severity, default=None)


def _power(before: Reading | None, now: Reading, device: str, limits: Limits) -> Fact | None:
    meter = _whole(now.meters)
    watts = rates.watts(before, now, meter) if meter is not None else None
    if meter is None or watts is None:
        return None
    limit = bounds.of_meter(limits, meter, device)
    severity = Severity.DEGRADED if watts > limit else Severity.FINE
    return _worded("power", severity, f"{watts:.0f} W on average, limit {limit:.0f} W")


def _whole(meters: tuple[Meter, ...]) -> Meter | None:
    """The meter of the whole card, or that of the package, which is most of it."""
    by_label = {meter.label: meter for meter in meters}
    return by_label.get("card") or by_label.get("pkg")


def _throttled(now: Reading) -> Fact | None:
    known = [gt for gt in now.gts if gt.throttled]
    heat = sorted({reason for gt in known for reason, on in gt.throttled.items() if on and ("therm" in reason or reason in _HEAT)})
    return _worded("throttled", Severity.DEGRADED if heat else Severity.FINE, f"slowed down for {', '.join(heat)}") if known else None


def _worded(condition: str, severity: Severity, text: str) -> Fact:
    return Fact(condition, severity, text if severity is not Severity.FINE else "")
