"""What makes the shared counters of a ResourceSlice valid (KEP-4815, pkg/apis/resource/validation of Kubernetes 1.33 to 1.37).

In 1.33 and 1.34 counter sets and the devices that consume them are in one slice; from 1.35 on sets have a slice of their own, so that a
slice cannot tell any more whether the counters of its devices exist.
"""

from __future__ import annotations

from typing import Final

from tools.simcluster import names
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Cause
from tools.simcluster.releases import Release

SETS: Final = 8
COUNTERS: Final = 32
"""Of a set, and of a device from one set; up to 1.34 of all sets of a slice, and of a device from all sets."""
SETS_CONSUMED: Final = 2
"""By one device."""
COUNTERS_CONSUMED: Final = 1024
"""By all devices of a slice, up to 1.34."""


def faults(spec: Json, release: Release) -> list[Cause]:
    apart = release.minor >= 35
    found: list[Cause] = []
    # An empty list is a list, too.
    if apart and spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        found.append(Cause("spec", 'Invalid value: "": only one of `sharedCounters` or `devices` is allowed'))
    sets: list[Json] = spec.get("sharedCounters") or []
    devices: list[Json] = spec.get("devices") or []
    for index, device in enumerate(devices):
        found += _consumed(f"spec.devices[{index}]", device.get("consumesCounters") or [], sets, apart=apart)
    total = sum(len(use.get("counters") or {}) for device in devices for use in device.get("consumesCounters") or ())
    if not apart and total > COUNTERS_CONSUMED:
        text = f"Invalid value: {total}: the total number of counters in devices must not exceed {COUNTERS_CONSUMED}"
        found.append(Cause("spec.devices", text))
    return found + _shared(sets, apart=apart)


def _shared(sets: list[Json], *, apart: bool) -> list[Cause]:
    at = "spec.sharedCounters"
    if apart and len(sets) > SETS:
        return [_too_many(at, len(sets), SETS)]
    total = sum(len(entry.get("counters") or {}) for entry in sets)
    found: list[Cause] = []
    if not apart and total > COUNTERS:
        found.append(Cause(at, f"Invalid value: {total}: the total number of shared counters must not exceed {COUNTERS}"))
    for index, entry in enumerate(sets):
        found += _named(f"{at}[{index}].name", entry.get("name") or "")
        found += _counters(f"{at}[{index}].counters", entry.get("counters") or {}, apart=apart)
    return found + _repeated(at, "name", sets, apart=apart)


def _consumed(device: str, uses: list[Json], sets: list[Json], *, apart: bool) -> list[Cause]:
    at = f"{device}.consumesCounters"
    if apart and len(uses) > SETS_CONSUMED:
        return [_too_many(at, len(uses), SETS_CONSUMED)]
    total = sum(len(use.get("counters") or {}) for use in uses)
    found: list[Cause] = []
    if not apart and total > COUNTERS:
        found.append(Cause(device, f"Invalid value: {total}: the total number of counters must not exceed {COUNTERS}"))
    known = {entry.get("name"): entry.get("counters") or {} for entry in sets}
    for index, use in enumerate(uses):
        name, counters = use.get("counterSet") or "", use.get("counters") or {}
        if apart or not name:
            found += _named(f"{at}[{index}].counterSet", name)
        found += _counters(f"{at}[{index}].counters", counters, apart=apart)
        if apart:
            continue
        if name not in known:
            text = f'Invalid value: "{name}": must reference a counterSet defined in the ResourceSlice sharedCounters'
            found.append(Cause(f"{at}[{index}].counterSet", text))
        for counter in counters.keys() - known.get(name, counters).keys():
            text = f'Invalid value: "{counter}": must reference a counter defined in the ResourceSlice sharedCounters'
            found.append(Cause(f"{at}[{index}].counters", text))
    return found + _repeated(at, "counterSet", uses, apart=apart)


def _counters(at: str, counters: Json, *, apart: bool) -> list[Cause]:
    if not counters:
        return [Cause(at, "Required value", "FieldValueRequired")]
    if apart and len(counters) > COUNTERS:
        return [_too_many(at, len(counters), COUNTERS)]
    found: list[Cause] = []
    for name, counter in counters.items():
        if not names.label(name):
            found.append(Cause(at, f'Invalid value: "{name}": {names.LABEL_RULE}'))
        try:
            names.quantity((counter or {}).get("value"))
        except ValueError as error:
            found.append(Cause(f"{at}[{name}].value", f"Invalid value: {error}"))
    return found


def _named(at: str, name: str) -> list[Cause]:
    if not name:
        return [Cause(at, "Required value", "FieldValueRequired")]
    return [] if names.label(name) else [Cause(at, f'Invalid value: "{name}": {names.LABEL_RULE}')]


def _repeated(at: str, key: str, entries: list[Json], *, apart: bool) -> list[Cause]:
    known: set[str] = set()
    found: list[Cause] = []
    for index, entry in enumerate(entries):
        name = entry.get(key) or ""
        if name in known:
            found.append(Cause(f"{at}[{index}]" + ("" if apart else f".{key}"), f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        known.add(name)
    return found


def _too_many(at: str, there: int, most: int) -> Cause:
    return Cause(at, f"Too many: {there}: must have at most {most} items", "FieldValueTooMany")
