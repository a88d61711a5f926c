"""What the kernel says of a GPU's health by uevent, and for how long: until the device is found, bound or taken away anew.

`WEDGED=` and `RESET_FAILED=1` are the inventory's: it withdraws the card for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dra.health.facts import Fact, Facts, Severity
from dra.names import Bdf, is_bdf

_BDF: Final = re.compile(r"/([0-9a-f:]+\.[0-7])(?=/|$)")

_RECOVERY: Final = {
    "BEGIN_RECOVERY": Fact("pcie", Severity.DEGRADED, "the kernel recovers it from an error on its link"),
    "SUCCESSFUL_RECOVERY": Fact("pcie", Severity.FINE),
    "FAILED_RECOVERY": Fact("pcie", Severity.FAILED, "recovery from an error on its link failed"),
}
"""ERROR_EVENT of the PCI device (pci_uevent_ers, drivers/pci/pci-driver.c)."""

_MEMORY: Final = (
    ("EC_FAILED", Severity.FAILED, "errors could not be repaired"),
    ("DEGRADED", Severity.FAILED, "degraded"),
    ("MEM_HEALTH_ALARM", Severity.DEGRADED, "alarm"),
    ("EC_PENDING", Severity.DEGRADED, "bad rows are spared at the next reset"),
    ("RESET_REQUIRED", Severity.DEGRADED, "a reset is required"),
    ("SPARING_STATUS_UNKNOWN", Severity.DEGRADED, "it is not known whether bad rows were spared"),
)
"""What prelim i915 adds to MEMORY_HEALTH=1 of the card, the worst first. One that comes without any of them says nothing."""

_ANEW: Final = frozenset(("add", "bind", "remove"))


def after(known: Mapping[Bdf, Facts], *, action: str, subsystem: str, sys_path: str, properties: Mapping[str, str]) -> Mapping[Bdf, Facts]:
    """What events say of all devices after one more; the same object if that one says nothing of health."""
    bdf = _device(sys_path)
    if bdf is None:
        return known
    if subsystem == "pci" and action in _ANEW:
        return {one: facts for one, facts in known.items() if one != bdf} if bdf in known else known
    fact = _fact(action, subsystem, properties)
    return known if fact is None else {**known, bdf: {**known.get(bdf, {}), fact.condition: fact}}


def _fact(action: str, subsystem: str, properties: Mapping[str, str]) -> Fact | None:
    if action != "change":
        return None
    if subsystem == "pci":
        return _RECOVERY.get(properties.get("ERROR_EVENT", ""))
    if subsystem == "drm" and properties.get("MEMORY_HEALTH") == "1":
        said = [(severity, text) for name, severity, text in _MEMORY if properties.get(name) == "1"]
        if said:
            return Fact("memory", said[0][0], f"its driver reports on its memory: {', '.join(text for _, text in said)}")
    return None


def _device(sys_path: str) -> Bdf | None:
    """The function an event is about: the last address in its path, whether it is its own or that of a card below it."""
    found = [text for text in _BDF.findall(sys_path) if is_bdf(text)]
    return Bdf(found[-1]) if found else None
