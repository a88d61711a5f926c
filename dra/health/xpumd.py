"""What Intel's XPU Manager daemon says of GPUs, as facts.

It names what it watches by dotted names of its configuration (`memory`, `temperature.core.gpu`); their first part chooses the condition,
and the worst of several counts. What it does not know is no fact: a GPU of which it knows nothing is one it does not speak of.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Final, Literal

import msgspec

from dra.health.facts import Fact, Facts, Severity
from dra.names import Bdf
from dra.wire import deviceinfo_pb2 as wire

METHOD: Final = "/deviceinfo.DeviceInfo/WatchDeviceHealth"
REQUEST: Final = wire.WatchDeviceHealthRequest().SerializeToString()

TEXT_LENGTH: Final = 240
"""Characters of a fact's text: with one for each of four conditions, a GPU's fit the 1024 bytes of a pod's status and of an Event."""
NAME_LENGTH: Final = 40
WORDS_LENGTH: Final = 100
"""Characters of one entry's reason and message: two whole entries fit a text."""

Least = Literal["warning", "critical", "failed"]
"""The least of the daemon's severities that counts; those below are fine."""

_LEAST: Final[Mapping[Least, int]] = {
    "warning": wire.SEVERITY_LEVEL_WARNING,
    "critical": wire.SEVERITY_LEVEL_CRITICAL,
    "failed": wire.SEVERITY_LEVEL_FAILED,
}
_SEVERITIES: Final[Mapping[int, Severity]] = {
    wire.SEVERITY_LEVEL_OK: Severity.FINE,
    wire.SEVERITY_LEVEL_WARNING: Severity.DEGRADED,
    wire.SEVERITY_LEVEL_CRITICAL: Severity.FAILED,
    wire.SEVERITY_LEVEL_FAILED: Severity.FAILED,
}
"""UNKNOWN is not among them, nor is what a later version may add: nobody can say what it means."""

_OWN_CONDITION: Final = frozenset(("memory", "temperature", "power"))
_INTEL: Final = "8086"
# The kernel's form, and those without a domain or with one of another length.
_ADDRESS: Final = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])")


class Heard(msgspec.Struct, frozen=True):
    facts: Mapping[Bdf, Facts]
    """Of the GPUs of which it says anything that is known."""
    passed_over: tuple[str, ...]
    """Devices that are none of ours, a sentence each; the same for the same device."""


def decode(data: bytes) -> wire.DeviceHealthResponse:
    """
    Raises:
        ValueError: the bytes are no such message.
    """
    try:
        return wire.DeviceHealthResponse.FromString(data)
    except Exception as error:  # protobuf's DecodeError, which only the generated modules may import
        raise ValueError(f"no DeviceHealthResponse: {error}") from error


def heard(response: wire.DeviceHealthResponse, *, known: Container[Bdf], least: Least) -> Heard:
    """What a response says of the GPUs that are `known`. A device that is in it twice is one, with all that is said of it."""
    said: dict[Bdf, list[wire.HealthStatus]] = {}
    passed_over: list[str] = []
    for device in response.devices:
        pci = device.info.pci
        bdf = address(pci.bdf)
        if bdf is None:
            passed_over.append(f"{_plain(pci.bdf, NAME_LENGTH)!r} is no PCI address")
        elif pci.vendor_id and pci.vendor_id.strip().lower().removeprefix("0x") != _INTEL:
            passed_over.append(f"{bdf} is of vendor {_plain(pci.vendor_id, NAME_LENGTH)!r}, not Intel's")
        elif bdf not in known:
            passed_over.append(f"{bdf} is none of this node's GPUs")
        else:
            said.setdefault(bdf, []).extend(device.health)
    facts = {bdf: _facts(entries, _LEAST[least]) for bdf, entries in said.items()}
    return Heard({bdf: each for bdf, each in facts.items() if each}, tuple(passed_over))


def address(text: str) -> Bdf | None:
    """A PCI address as the kernel writes it, from any usual way to write it: `3A:00.0` is `0000:3a:00.0`. None if it is none."""
    found = _ADDRESS.fullmatch(text.strip().lower())
    return Bdf(f"{int(found[1] or '0', 16):04x}:{found[2]}") if found else None


def _facts(entries: Iterable[wire.HealthStatus], least: int) -> Facts:
    by_condition: dict[str, list[wire.HealthStatus]] = {}
    for entry in entries:
        if entry.severity in _SEVERITIES:
            first = entry.name.partition(".")[0].lower()
            by_condition.setdefault(first if first in _OWN_CONDITION else "other", []).append(entry)
    return {condition: _fact(condition, known, least) for condition, known in by_condition.items()}


def _fact(condition: str, entries: Iterable[wire.HealthStatus], least: int) -> Fact:
    bad = sorted((entry for entry in entries if entry.severity >= least), key=lambda entry: (-entry.severity, entry.name))
    if not bad:
        return Fact(condition, Severity.FINE)
    return Fact(condition, _SEVERITIES[bad[0].severity], _text(bad))


def _text(bad: list[wire.HealthStatus]) -> str:
    """The worst first, as many as fit, and how many do not."""
    text = _sentence(bad[0])
    for index, entry in enumerate(bad[1:], start=1):
        longer = f"{text}; {_sentence(entry)}"
        rest = f"; and {len(bad) - index} more"
        # Whoever follows needs room for the number of those that do not fit.
        if len(longer) > TEXT_LENGTH - len(rest):
            return text + rest
        text = longer
    return text


def _sentence(entry: wire.HealthStatus) -> str:
    """`temperature.core.gpu: critical, CriticalTemperature (thermal throttling)`"""
    severity = wire.SeverityLevel.Name(entry.severity).removeprefix("SEVERITY_LEVEL_").lower()
    words = _plain(entry.reason, WORDS_LENGTH)
    if entry.message:
        words = _plain(f"{words} ({entry.message})" if words else entry.message, WORDS_LENGTH)
    return f"{_plain(entry.name, NAME_LENGTH)}: {severity}" + (f", {words}" if words else "")


def _plain(text: str, length: int) -> str:
    """In one line, and not too long: it is a foreigner's."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
