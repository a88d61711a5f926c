"""Cards that are made ill: what their files show, what is read of them, and how it ends."""

from __future__ import annotations

import msgspec
import pytest

from dra import discovery
from dra.health import readings, thresholds
from dra.health.facts import Facts, Severity
from dra.health.limits import Limits
from dra.health.readings import Reading
from dra.sim_kernel import control, requests
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

GPU = "0000:18:00.0"
"""One of each of the two machines."""


def look(kernel: SimKernel, at: float = 0.0) -> Reading:
    return readings.read(kernel, discovery.scan(kernel).by_bdf()[GPU], at)  # type: ignore[index]


def wrong(kernel: SimKernel, before: Reading | None = None, previous: Facts | None = None) -> dict[str, Severity]:
    found = thresholds.facts(before, look(kernel, 10.0), device="0xe211", previous=previous or {}, limits=Limits())
    return {condition: fact.severity for condition, fact in found.items() if fact.severity}


@pytest.mark.parametrize(
    ("machine", "symptom", "expected"),
    [
        ("server-4x-b60", {"op": "heat", "bdf": GPU, "celsius": 118}, {"temperature": Severity.FAILED}),
        ("server-4x-b60", {"op": "heat", "bdf": GPU, "celsius": 104, "sensor": "pkg"}, {"temperature": Severity.DEGRADED}),
        ("server-4x-b60", {"op": "consume", "bdf": GPU, "joules": 2300}, {"power": Severity.DEGRADED}),
        ("server-4x-b60", {"op": "aer", "bdf": GPU, "severity": "fatal", "count": 3}, {"pcie": Severity.FAILED}),
        ("server-4x-b60", {"op": "aer", "bdf": GPU, "severity": "nonfatal"}, {"pcie": Severity.DEGRADED}),
        ("server-4x-b60", {"op": "aer", "bdf": GPU, "severity": "correctable"}, {}),
        ("server-4x-b60", {"op": "narrow", "bdf": GPU, "lanes": 4}, {"link": Severity.DEGRADED}),
        ("server-4x-b60", {"op": "off_bus", "bdf": GPU}, {"off-bus": Severity.FAILED}),
        ("server-4x-b60", {"op": "throttle", "bdf": GPU, "reason": "thermal"}, {"throttled": Severity.DEGRADED}),
        ("server-4x-b60", {"op": "throttle", "bdf": GPU, "reason": "pl1"}, {}),
        ("server-4x-b60", {"op": "gpu_health", "bdf": GPU, "state": "critical"}, {"errors": Severity.FAILED}),
        ("server-8x-max1550", {"op": "throttle", "bdf": GPU, "reason": "prochot"}, {"throttled": Severity.DEGRADED}),
        ("server-8x-max1550", {"op": "count_errors", "bdf": GPU, "counter": "gt1/fatal_guc"}, {"errors": Severity.FAILED}),
        ("server-8x-max1550", {"op": "memory_health", "bdf": GPU, "state": "degraded"}, {"memory": Severity.FAILED}),
        ("server-8x-max1550", {"op": "memory_health", "bdf": GPU, "state": "ok"}, {}),
    ],
)
def test_a_symptom_is_seen_and_is_the_same_when_the_machine_is_begun_again(
    machine: str, symptom: dict[str, object], expected: dict[str, Severity]
) -> None:
    kernel, again = machines.kernel(machine), machines.kernel(machine)
    log: list[bytes] = []
    kernel.record(lambda change: log.append(msgspec.json.encode(change)))
    before = look(kernel)
    assert control.perform(kernel, requests.parse(symptom), gate=lambda *_: lambda: None) is None
    assert wrong(kernel, before) == expected
    (line,) = log
    control.perform(again, requests.parse(msgspec.json.decode(line)), gate=lambda *_: lambda: None)
    assert look(again) == look(kernel)


@pytest.mark.parametrize(
    ("machine", "symptom", "why"),
    [
        ("server-8x-max1550", requests.Heat(GPU, 90), "shows no temperature"),
        ("server-4x-b60", requests.Heat(GPU, 90, "mctrl"), "shows no temperature mctrl"),
        ("server-4x-b60", requests.MemoryHealth(GPU, "alarm"), "shows no device_memory_health"),
        ("server-4x-b60", requests.CountErrors(GPU, "gt0/fatal_guc"), "shows no counter gt0/fatal_guc"),
        ("server-4x-b60", requests.Throttle(GPU, "rain"), "shows no reason 'rain'"),
        ("server-8x-max1550", requests.GpuHealth(GPU, "ok"), "not bound to xe"),
        ("server-4x-b60", requests.Heat("0000:ff:00.0", 90), "is on the bus"),
    ],
)
def test_a_card_shows_only_what_its_driver_has_a_file_for(machine: str, symptom: requests.Symptom, why: str) -> None:
    kernel = machines.kernel(machine)
    with pytest.raises(ValueError, match=why):
        kernel.show(symptom)


def test_slowing_down_ends() -> None:
    kernel = machines.kernel("server-4x-b60")
    where = f"sys/bus/pci/devices/{GPU}/tile0/gt0/freq0/throttle"
    kernel.show(requests.Throttle(GPU, "thermal"))
    assert [kernel.read(f"{where}/{name}") for name in ("status", "reasons", "reason_thermal")] == ["1\n", "thermal\n", "1\n"]
    kernel.show(requests.Throttle(GPU, "none"))
    assert [kernel.read(f"{where}/{name}") for name in ("status", "reasons", "reason_thermal")] == ["0\n", "none\n", "0\n"]


def test_what_the_driver_counts_begins_anew_when_it_is_bound_and_that_is_no_growth() -> None:
    kernel = machines.kernel("server-8x-max1550")
    kernel.show(requests.CountErrors(GPU, "gt0/fatal_guc", 5))
    before = look(kernel)
    kernel.unbind(GPU)
    kernel.bind(GPU, "i915")
    after = look(kernel, 10.0)
    assert (before.errors["gt0/fatal_guc"], after.errors["gt0/fatal_guc"]) == (5, 0)
    assert (after.meters[0].energy_joules, after.gts[0].idle_ms) == (0, 0)
    assert wrong(kernel, before) == {}


def test_a_card_that_fell_off_the_bus_is_back_when_it_is_plugged_in_again() -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.show(requests.OffBus(GPU))
    assert look(kernel).off_bus is True
    kernel.unplug(GPU)
    kernel.plug(GPU)
    assert look(kernel).off_bus is False
