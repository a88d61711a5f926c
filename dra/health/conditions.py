"""Every condition of a GPU that is watched. Keys are those of device taints too (`gpu.intel.com/<key>`), so they never change: tolerations
name them."""

from __future__ import annotations

from typing import Final

import msgspec


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    meaning: str
    """What is seen, and where."""
    cure: str
    at_once: bool = False
    """Believed as soon as it is told: it is no measurement that may be a spike."""
    by_hand: bool = False
    """Mostly somebody's doing, who undoes it too: over as soon as it is over, unless it comes back soon."""
    sources: tuple[str, ...] = ()
    """Who tells it: inventory, uevents, sysfs, xpumd."""


_ALL: Final = (
    Condition(
        key="wedged",
        at_once=True,
        sources=("inventory",),
        meaning="The driver gave up on the card (uevent `WEDGED=` or `RESET_FAILED=1`, or its query answers ECANCELED or EIO).",
        cure="Bind the driver again or reset the bus, as the event names; `health.recovery` does it for idle cards.",
    ),
    Condition(
        key="survivability",
        at_once=True,
        sources=("inventory",),
        meaning="xe has the card in survivability mode.",
        cure="Flash its firmware.",
    ),
    Condition(
        key="no-driver",
        by_hand=True,
        sources=("inventory",),
        meaning="No DRM driver is bound to it.",
        cure="See the kernel's log; bind it.",
    ),
    Condition(
        key="no-nodes",
        by_hand=True,
        sources=("inventory",),
        meaning="Its driver is bound but has made no device nodes.",
        cure="See the kernel's log; bind it again.",
    ),
    Condition(
        key="absent",
        at_once=True,
        by_hand=True,
        sources=("inventory",),
        meaning="A claim holds it, and it is not on the bus.",
        cure="Plug it in again.",
    ),
    Condition(
        key="off-bus",
        at_once=True,
        sources=("sysfs",),
        meaning="Its configuration space reads all ones: it fell off the bus.",
        cure="Power cycle the machine; check the slot, the riser and the power supply.",
    ),
    Condition(
        key="unresponsive",
        at_once=True,
        sources=("sysfs",),
        meaning="Reading its sysfs files hangs in the kernel.",
        cure="See the kernel's log; restart the machine if it does not come back.",
    ),
    Condition(
        key="pcie",
        at_once=True,
        sources=("uevents", "sysfs"),
        meaning="Errors on its PCIe link that were not corrected (`aer_dev_fatal`, `aer_dev_nonfatal`), or a recovery that failed.",
        cure="Check slot, riser and cables; then bind it again.",
    ),
    Condition(
        key="link",
        sources=("sysfs",),
        meaning="Its slot's link is narrower than both sides can do (`current_link_width`).",
        cure="Reseat the card; check slot and riser.",
    ),
    Condition(
        key="memory",
        at_once=True,
        sources=("uevents", "sysfs", "xpumd"),
        meaning="Its memory is failing (uevent `MEMORY_HEALTH=1`, `device_memory_health`, or what xpumd says of memory).",
        cure="Reset the card so that bad rows are spared; replace it if that does not last.",
    ),
    Condition(
        key="errors",
        at_once=True,
        sources=("sysfs",),
        meaning="Its counters of errors that were not corrected have grown (`error_counter/*_fatal*`, `gpu_health` critical).",
        cure="Bind it again; replace it if they keep growing.",
    ),
    Condition(
        key="temperature",
        sources=("sysfs", "xpumd"),
        meaning="Hotter than its limit (hwmon `temp*_input` against `temp*_crit`, `temp*_max` or the model's own).",
        cure="Check fans, airflow and the room.",
    ),
    Condition(
        key="power",
        sources=("sysfs", "xpumd"),
        meaning="Its average power stays above what its board is made for (hwmon energy against `power*_crit` or the model's own).",
        cure="Lower `power1_max`; check the power supply.",
    ),
    Condition(
        key="throttled",
        sources=("sysfs",),
        meaning="It is slowed down for heat (`throttle/reason_*`, `throttle_reason_*`); for power alone is normal under load.",
        cure="As for temperature.",
    ),
    Condition(
        key="other",
        sources=("xpumd",),
        meaning="xpumd says it is ill in a way that has no key of its own; the message says which.",
        cure="See xpumd's documentation.",
    ),
)

CONDITIONS: Final = {each.key: each for each in _ALL}
