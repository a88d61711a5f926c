"""What the simulated kernel's events say of a GPU, and when it no longer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dra.health import uevent_facts
from dra.health.facts import Facts, Severity
from dra.names import Bdf
from dra.sim_kernel import requests
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60 = MAX = Bdf("0000:18:00.0")
"""One of each of the two machines."""
FINE, DEGRADED, FAILED = Severity.FINE, Severity.DEGRADED, Severity.FAILED


class Listener:
    """Takes in everything a machine tells."""

    def __init__(self, kernel: SimKernel) -> None:
        self.known: Mapping[Bdf, Facts] = {}
        self.history: list[dict[Bdf, dict[str, Severity]]] = []
        kernel.subscribe(self._hear)

    def _hear(self, action: str, subsystem: str, path: str, properties: dict[str, str]) -> None:
        known = uevent_facts.after(self.known, action=action, subsystem=subsystem, sys_path=path, properties=properties)
        if known is not self.known:
            self.known = known
            self.history.append({bdf: {key: fact.severity for key, fact in facts.items()} for bdf, facts in known.items()})


def test_recovery_from_an_error_on_the_link() -> None:
    kernel = machines.kernel("server-4x-b60")
    listener = Listener(kernel)
    kernel.pcie_error(B60, recovered=True)
    kernel.pcie_error(B60, recovered=False)
    assert listener.history == [{B60: {"pcie": severity}} for severity in (DEGRADED, FINE, DEGRADED, FAILED)]


@pytest.mark.parametrize(
    ("state", "expected"), [("alarm", DEGRADED), ("pending", DEGRADED), ("degraded", FAILED), ("unknown", DEGRADED), ("ok", None)]
)
def test_memory_that_fails(state: Any, expected: Severity | None) -> None:
    kernel = machines.kernel("server-8x-max1550")
    listener = Listener(kernel)
    kernel.show(requests.MemoryHealth(MAX, state))
    assert listener.history == ([{MAX: {"memory": expected}}] if expected is not None else [])


def test_both_hold_until_the_driver_is_bound_again() -> None:
    kernel = machines.kernel("server-8x-max1550")
    listener = Listener(kernel)
    kernel.show(requests.MemoryHealth(MAX, "degraded"))
    kernel.pcie_error(MAX, recovered=False)
    kernel.show(requests.MemoryHealth("0000:42:00.0", "alarm"))
    assert set(listener.known[MAX]) == {"memory", "pcie"}
    kernel.unbind(MAX)
    assert set(listener.known[MAX]) == {"memory", "pcie"}, "without its driver nobody has mended it"
    kernel.bind(MAX, "i915")
    assert set(listener.known) == {Bdf("0000:42:00.0")}


def test_a_card_that_is_pulled_out_takes_it_along() -> None:
    kernel = machines.kernel("server-4x-b60")
    listener = Listener(kernel)
    kernel.pcie_error(B60, recovered=False)
    kernel.unplug(B60)
    assert listener.known == {}


def test_other_events_say_nothing_of_health() -> None:
    kernel = machines.kernel("server-4x-b60")
    listener = Listener(kernel)
    kernel.wedge(B60)
    kernel.display_noise(B60)
    kernel.unwedge(B60)
    kernel.write(f"sys/bus/pci/devices/{B60}/sriov_numvfs", "2")
    assert listener.history == []


@pytest.mark.parametrize(
    ("path", "properties"),
    [
        ("/devices/virtual/drm/card0", {"MEMORY_HEALTH": "1", "DEGRADED": "1"}),
        ("/devices/pci0000:15/0000:15:01.0/0000:18:00.0/drm/card0", {"MEMORY_HEALTH": "1"}),
        ("/devices/pci0000:15/0000:15:01.0/0000:18:00.0/drm/card0", {"DEGRADED": "1"}),
        ("", {"MEMORY_HEALTH": "1", "DEGRADED": "1"}),
    ],
)
def test_events_that_are_half_there(path: str, properties: dict[str, str]) -> None:
    known: Mapping[Bdf, Facts] = {}
    assert uevent_facts.after(known, action="change", subsystem="drm", sys_path=path, properties=properties) is known
