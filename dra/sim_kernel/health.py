"""Cards in trouble, and the events that say so: wedged, survivability mode, resets, PCIe errors, and display noise."""

from __future__ import annotations

import re
from typing import Literal

from dra.sim_kernel import drivers, pci, tree, uevents
from dra.sim_kernel.drivers import Function

Mode = Literal["Boot", "Runtime"]


def wedge(events: uevents.Uevents, function: Function, methods: str = "rebind,bus-reset") -> None:
    """Make the driver give the card up. sysfs stays as it is; the event depends on the driver (drm_dev_wedged_event, intel_gt_reset.c).

    With the methods `none` the event only informs: the driver has recovered already.
    """
    path, card = _card(function)
    function.wedged = methods != "none"
    if function.driver == "i915" and "prelim_uapi_version" in card.entries:
        events.emit("change", "drm", path, {"RESET_FAILED": "1", "RESET_UNIT": "gt0"})
    else:
        events.emit("change", "drm", path, {"WEDGED": methods, **uevents.properties(card)})


def rebind(bus: pci.Bus, function: Function) -> None:
    """Unbind and bind again, which is what clears a wedged card."""
    driver = function.driver
    if driver is None:
        raise ValueError(f"{function.bdf} has no driver to bind again")
    bus.unbind(function)
    bus.bind(function, driver)


def survivability(bus: pci.Bus, events: uevents.Uevents, function: Function, mode: Mode | None) -> None:
    """Put an xe card into survivability mode, or (None) let it have its firmware again.

    `Boot`: it comes up bound and without DRM nodes. `Runtime`: it is wedged where it stands and asks for firmware.
    """
    if function.driver != "xe":
        raise ValueError(f"{function.bdf} is not bound to xe, the only driver with a survivability mode")
    if mode == "Runtime":
        wedge(events, function, "vendor-specific")
        function.survivability = mode
        drivers.put_survivability(function)
        return
    bus.unbind(function)
    function.survivability = mode
    bus.bind(function, "xe")


def reset_cycle(events: uevents.Uevents, function: Function) -> None:
    """i915 resets the engine and is well again (intel_gt_handle_error)."""
    path, _ = _card(function)
    for values in ({"ERROR": "1"}, {"RESET": "1"}, {"ERROR": "0"}):
        events.emit("change", "drm", path, values)


def pcie_error(events: uevents.Uevents, function: Function, *, recovered: bool) -> None:
    """Error recovery on the link begins and ends (pci_uevent_ers, drivers/pci/pci-driver.c)."""
    values = uevents.pci_properties(function.directory, "change")
    events.emit("change", "pci", function.path, values | {"ERROR_EVENT": "BEGIN_RECOVERY", "DEVICE_ONLINE": "0"})
    outcome, online = ("SUCCESSFUL_RECOVERY", "1") if recovered else ("FAILED_RECOVERY", "0")
    events.emit("change", "pci", function.path, values | {"ERROR_EVENT": outcome, "DEVICE_ONLINE": online})


def display_noise(events: uevents.Uevents, function: Function) -> None:
    """Somebody plugged in a monitor: a change of the card that means nothing to us."""
    path, _ = _card(function)
    events.emit("change", "drm", path, {"HOTPLUG": "1", "CONNECTOR": "203"})


def _card(function: Function) -> tuple[str, tree.Directory]:
    minors = function.directory.directory("drm")
    for name in minors.entries if minors else ():
        card = minors.directory(name) if minors else None
        if re.fullmatch(r"card\d+", name) and card is not None:
            return f"{function.path}/drm/{name}", card
    raise ValueError(f"{function.bdf} has no card node")
