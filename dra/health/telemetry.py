"""What people plot of a GPU: samples for metrics, made of two readings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from dra.health import rates
from dra.health.facts import Severity
from dra.health.readings import ErrorKind, Reading
from dra.health.thresholds import severity_of_counter

_MHZ: Final = 1_000_000


class Sample(msgspec.Struct, frozen=True):
    metric: str
    """`temperature_celsius`: a key of `METRICS`."""
    labels: tuple[str, ...]
    """Values, in the order of the metric's labels."""
    value: float


class Metric(msgspec.Struct, frozen=True):
    text: str
    labels: tuple[str, ...] = ()
    total: bool = False
    """It only grows, until its driver is bound again."""


METRICS: Final = {
    "temperature_celsius": Metric("Temperature of a GPU, by sensor.", ("sensor",)),
    "power_watts": Metric("Average power since the reading before, by what is measured.", ("part",)),
    "energy_joules": Metric("Energy used, by what is measured.", ("part",), total=True),
    "fan_rpm": Metric("Speed of a fan, in revolutions a minute.", ("fan",)),
    "frequency_hertz": Metric("Actual frequency of a GT; 0 while it sleeps.", ("gt",)),
    "busy_ratio": Metric("Share of the time since the reading before in which a GT did not sleep, 0 to 1.", ("gt",)),
    "throttled": Metric("1 while a GPU is slowed down, by reason; pl1, pl2 and pl4 are power limits, normal under load.", ("reason",)),
    "memory_used_bytes": Metric("Local memory in use, where the kernel tells it without rights (xe, prelim i915)."),
    "pcie_errors": Metric("Errors on the way to the card that the kernel counted.", ("severity",), total=True),
    "hardware_errors": Metric("Errors that the card's driver counted.", ("severity",), total=True),
}
"""By name. Series are as many as a card has sensors, GTs, fans and reasons: nothing that grows."""

_SEVERITIES: Final[Mapping[Severity, ErrorKind]] = {Severity.FAILED: "fatal", Severity.DEGRADED: "nonfatal", Severity.FINE: "correctable"}


def samples(before: Reading | None, now: Reading) -> list[Sample]:
    """All there is to tell of one GPU now. What cannot be read, and what takes two readings to know, is left out."""
    return list(_samples(before, now))


def _samples(before: Reading | None, now: Reading) -> Iterator[Sample]:
    for sensor in now.sensors:
        yield Sample("temperature_celsius", (sensor.label,), sensor.celsius)
    for meter in now.meters:
        if (watts := rates.watts(before, now, meter)) is not None:
            yield Sample("power_watts", (meter.label,), watts)
        if meter.energy_joules is not None:
            yield Sample("energy_joules", (meter.label,), meter.energy_joules)
    for fan, rpm in now.fans_rpm.items():
        yield Sample("fan_rpm", (fan,), rpm)
    for gt in now.gts:
        if gt.act_mhz is not None:
            yield Sample("frequency_hertz", (gt.name,), gt.act_mhz * _MHZ)
        if (busy := rates.busy(before, now, gt)) is not None:
            yield Sample("busy_ratio", (gt.name,), busy)
    for reason in sorted({reason for gt in now.gts for reason in gt.throttled}):
        yield Sample("throttled", (reason,), float(any(gt.throttled.get(reason, False) for gt in now.gts)))
    if now.memory_used_bytes is not None:
        yield Sample("memory_used_bytes", (), now.memory_used_bytes)
    for word in _SEVERITIES.values():
        counts = [count for aer in now.aer.values() if (count := aer.count(word)) is not None]
        if counts:
            yield Sample("pcie_errors", (word,), sum(counts))
    if now.errors:
        by_severity = dict.fromkeys(_SEVERITIES.values(), 0)
        for name, count in now.errors.items():
            if (severity := severity_of_counter(name)) is not None:
                by_severity[_SEVERITIES[severity]] += count
        for word, count in by_severity.items():
            yield Sample("hardware_errors", (word,), count)
