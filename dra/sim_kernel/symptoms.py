"""What the files of a card show of its health, and how somebody makes them show something else.

A file that the card's driver does not have cannot be made to show anything; only `gpu_health` appears when it is asked for, as it does on
the few platforms that have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dra import models
from dra.sim_kernel import config_space, driver_counters, pci, requests, uevents
from dra.sim_kernel.driver_counters import files, grow
from dra.sim_kernel.drivers import Function
from dra.sim_kernel.tree import Directory, File

_MEMORY: Final = {
    "ok": ("OK", None),
    "alarm": ("MEMORY_HEALTH_ALARM", {"MEM_HEALTH_ALARM": "1"}),
    "pending": ("EC_PENDING", {"RESET_REQUIRED": "1", "EC_PENDING": "1"}),
    "degraded": ("DEGRADED", {"DEGRADED": "1", "EC_FAILED": "1"}),
    "unknown": ("MEMORY_HEALTH_UNKNOWN", {"SPARING_STATUS_UNKNOWN": "1", "RESET_REQUIRED": "1"}),
}
"""What `device_memory_health` reads, and what comes with MEMORY_HEALTH=1 (prelim i915)."""

_AER: Final = {"fatal": ("MalfTLP", "FATAL"), "nonfatal": ("CmpltTO", "NONFATAL"), "correctable": ("BadTLP", "COR")}
"""The kind of error that is counted, and how the name of the last line ends (drivers/pci/pcie/aer.c)."""


def show(bus: pci.Bus, events: uevents.Uevents, function: Function, symptom: requests.Symptom) -> None:
    """
    Raises:
        ValueError: the card has no file that could show it.
    """
    match symptom:
        case requests.Heat(_, celsius, sensor):
            for file in _needed(function, list(_sensors(function, sensor)), f"temperature {sensor}" if sensor else "temperature"):
                file.text = f"{round(celsius * 1000)}\n"
        case requests.Consume(_, joules):
            for file in _needed(function, driver_counters.energy(function), "energy"):
                grow(file, round(joules * 1e6))
        case requests.Idle(_, milliseconds, gt):
            for file in _needed(function, driver_counters.idle(function, gt), "idle time"):
                grow(file, milliseconds)
        case requests.Aer(_, severity, count):
            _count_aer(function, severity, count)
        case requests.Narrow(_, lanes):
            widths = [file for name, file in files(_slot_port(bus, function)) if name == "current_link_width"]
            _needed(function, widths, "link")[0].text = f"{lanes}\n"
        case requests.OffBus():
            function.directory.entries["config"] = File(config_space.GONE, 0o644)
        case requests.CountErrors(_, counter, count):
            found = [file for name, file in driver_counters.errors(function).items() if name == counter]
            grow(_needed(function, found, f"counter {counter}")[0], count)
        case requests.MemoryHealth(_, state):
            _memory_health(events, function, state)
        case requests.Throttle(_, reason):
            _throttle(function, reason)
        case requests.GpuHealth(_, state):
            if function.driver != "xe":
                raise ValueError(f"{function.bdf} is not bound to xe, the only driver with gpu_health")
            function.directory.entries["gpu_health"] = File(f"{state}\n", 0o644)


def _sensors(function: Function, label: str | None) -> Iterator[File]:
    for _, hwmon in driver_counters.hwmons(function):
        for name, file in files(hwmon):
            if re.fullmatch(r"temp\d+_input", name) and label in (None, hwmon.text(name.replace("input", "label"))):
                yield file


def _count_aer(function: Function, severity: str, count: int) -> None:
    kind, word = _AER[severity]
    file = _needed(function, [file for name, file in files(function.directory) if name == f"aer_dev_{severity}"], "AER counters")[0]
    counts = {name: int(value) for name, value in (line.rsplit(" ", 1) for line in file.text.splitlines())}
    for name in (kind, f"TOTAL_ERR_{word}"):
        counts[name] += count
    file.text = "".join(f"{name} {value}\n" for name, value in counts.items())


def _slot_port(bus: pci.Bus, function: Function) -> Directory:
    """The topmost port of the card's own switch, or the function itself if it has none."""
    top = function
    while (above := bus.at(top.path.rpartition("/")[0])) is not None and above.identity[1] in models.table().card_ports:
        top = above
    return top.directory


def _memory_health(events: uevents.Uevents, function: Function, state: str) -> None:
    word, properties = _MEMORY[state]
    for name, card in driver_counters.cards(function):
        if isinstance(file := card.entries.get("device_memory_health"), File):
            file.text = f"{word}\n"
            if properties is not None:
                events.emit("change", "drm", f"{function.path}/drm/{name}", {"MEMORY_HEALTH": "1", **properties})
            return
    raise ValueError(f"{function.bdf} shows no device_memory_health: only cards of prelim i915 do")


def _throttle(function: Function, reason: str) -> None:
    places = [(name, file) for _, gt in driver_counters.gts(function) for name, file in _throttle_files(gt)]
    reasons = {name for name, _ in places} - {"status", "reasons"}
    if reason not in ("none", *reasons):
        raise ValueError(f"{function.bdf} shows no reason {reason!r} to be slowed down, only {', '.join(sorted(reasons)) or 'none'}")
    for name, file in places:
        slowed = reason != "none" if name == "status" else name == reason
        file.text = f"{reason}\n" if name == "reasons" else f"{int(slowed)}\n"


def _throttle_files(gt: Directory) -> Iterator[tuple[str, File]]:
    """By reason, besides `status` and xe's `reasons`, which names them."""
    for name, file in files(gt):
        if name.startswith("throttle_reason_"):
            yield name.removeprefix("throttle_reason_"), file
    xe = freq.directory("throttle") if (freq := gt.directory("freq0")) is not None else None
    for name, file in files(xe):
        yield name.removeprefix("reason_"), file


def _needed(function: Function, found: list[File], what: str) -> list[File]:
    if not found:
        raise ValueError(f"{function.bdf} shows no {what}")
    return found
