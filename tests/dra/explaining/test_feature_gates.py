"""Which feature gates `doctor` can see, and which it misses."""

from __future__ import annotations

from typing import Any

from dra.explaining import feature_gates
from dra.explaining.checks import Finding, Verdict
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import claim, device, exactly, gpu_class, own_pod, slice_of, warning

METRICS = """# HELP kubernetes_feature_enabled [BETA] This metric records the data about the stage and enablement of a k8s feature.
# TYPE kubernetes_feature_enabled gauge
kubernetes_feature_enabled{name="DRAPartitionableDevices",stage="BETA"} 0
kubernetes_feature_enabled{name="DRADeviceTaints",stage="BETA"} 1
kubernetes_feature_enabled{name="DRAAdminAccess",stage=""} 1
"""
ALL_OFF = dict.fromkeys((gate.name for gate in feature_gates.GATES), False)


def asked(told: dict[str, bool] | None, *, version: str = "v1.36.3", **objects: Any) -> dict[Verdict, Finding]:
    return {each.verdict: each for each in feature_gates.findings(world.cluster(version, **objects), told)}


def test_gates_are_read_of_metrics() -> None:
    assert feature_gates.read(METRICS) == {"DRAPartitionableDevices": False, "DRADeviceTaints": True, "DRAAdminAccess": True}


def test_what_is_off_and_not_missed_is_well() -> None:
    told = asked({**ALL_OFF, "DRADeviceTaints": True})
    assert set(told) == {Verdict.OK}
    assert told[Verdict.OK].seen.startswith("on: DRADeviceTaints; off, which nothing here misses: DRAAdminAccess, ")


def test_what_the_driver_or_a_class_misses_is_not() -> None:
    event = warning(own_pod(), "CountersNotSupported", "x")
    assert (
        asked(ALL_OFF, events=[event])[Verdict.WARNING].seen == "DRAPartitionableDevices is off, and is missed: Event CountersNotSupported"
    )
    counted = gpu_class()
    counted["spec"]["extendedResourceName"] = "intel.com/gpu"
    assert "DRAExtendedResource is off" in asked(ALL_OFF, classes=[counted])[Verdict.WARNING].seen


def test_without_metrics_what_is_in_use_is_on_and_what_the_driver_missed_is_off() -> None:
    shared = device(1, allowMultipleAllocations=True, taints=[{"key": "k", "effect": "NoSchedule"}])
    looks = claim("c", exactly(adminAccess=True))
    event = warning(own_pod(), "CountersNotSupported", "x")
    told = asked(None, slices=[slice_of(shared)], claims=[looks], events=[event])
    assert told[Verdict.OK].seen == "on: DRAAdminAccess, DRADeviceTaints, DRAConsumableCapacity"
    assert "DRAPartitionableDevices" in told[Verdict.WARNING].seen
    assert told[Verdict.UNKNOWN].seen == "not seen: DRAExtendedResource (by default on), ResourceHealthStatus (by default on)"


def test_gates_that_a_release_does_not_have_are_not_asked_for() -> None:
    assert asked(None, version="v1.32.2")[Verdict.UNKNOWN].seen == "not seen: DRAAdminAccess (by default off)"


def test_dra_that_is_switched_off_is_a_problem() -> None:
    assert asked({"DynamicResourceAllocation": False})[Verdict.PROBLEM].seen == "DynamicResourceAllocation is off"
