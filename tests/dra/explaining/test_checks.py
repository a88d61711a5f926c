"""What `doctor` asks of a cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.explaining import checks
from dra.explaining.checks import Finding, Verdict
from dra.explaining.cluster import Cluster
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import device, gpu_class, own_pod, slice_of, warning


def well(version: str = "v1.36.3", **objects: Any) -> Cluster:
    given: dict[str, Any] = {"nodes": [world.node()], "classes": [gpu_class()], "slices": [slice_of(device(1))], "pods": [own_pod()]}
    return world.cluster(version, **{**given, **objects})


def found(cluster: Cluster, check: str) -> Finding:
    [finding] = [each for each in checks.of_cluster(cluster) if each.check == check]
    return finding


def test_nothing_is_wrong_with_a_cluster_that_is_well() -> None:
    assert checks.worst(checks.of_cluster(well())) is Verdict.OK


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("v1.27.16", Verdict.PROBLEM),
        ("v1.28.0", Verdict.OK),
        ("v1.37.2+k3s1", Verdict.OK),
        ("v1.38.0", Verdict.WARNING),
    ],
)
def test_the_release(version: str, verdict: Verdict) -> None:
    assert found(well(version), "Kubernetes").verdict is verdict


def test_a_cluster_without_the_api_or_a_class() -> None:
    assert found(msgspec.structs.replace(well(), api=""), "dynamic resource allocation").verdict is Verdict.PROBLEM
    other = {"metadata": {"name": "gpu.nvidia.com"}, "spec": {"selectors": [{"cel": {"expression": 'device.driver == "gpu.nvidia.com"'}}]}}
    assert found(well(classes=[other]), "classes").verdict is Verdict.PROBLEM


def test_a_driver_that_is_not_installed_or_not_ready() -> None:
    assert "no pod" in found(well(pods=[]), "node plugins").seen
    told = found(well(pods=[own_pod(), own_pod("n2", ready=False)]), "node plugins")
    assert (told.verdict, told.seen) == (Verdict.PROBLEM, "1 of 2 are Ready")
    unread = msgspec.structs.replace(well(pods=[]), unread={"pods": "not allowed"})
    assert found(unread, "node plugins").verdict is Verdict.UNKNOWN
    assert found(unread, "rights").seen == "pods could not be read: not allowed"


def test_a_controller_is_missed_only_where_it_allocates() -> None:
    classic = msgspec.structs.replace(well("v1.28.15"), api="v1alpha2")
    assert found(classic, "controller").verdict is Verdict.PROBLEM
    assert [each for each in checks.of_cluster(well()) if each.check == "controller"] == []
    ready = well("v1.28.15", pods=[own_pod(), own_pod(component="controller")])
    assert found(msgspec.structs.replace(ready, api="v1alpha2"), "controller").verdict is Verdict.OK


def test_two_versions_side_by_side() -> None:
    told = found(well(pods=[own_pod(), own_pod("n2", image="intel-gpu-dra:2")]), "one version")
    assert told.verdict is Verdict.WARNING and "1 with intel-gpu-dra:2" in told.seen


def test_the_drivers_own_warnings_count_and_others_do_not() -> None:
    plugin = own_pod()
    events = [warning(plugin, "PrepareFailed", "x"), warning(plugin, "PrepareFailed", "y"), warning(plugin, "BackOff", "z")]
    told = found(well(events=events), "Events")
    assert (told.seen, told.cure) == ("PrepareFailed 2×", "docs/events/PrepareFailed.md")


def test_warnings_are_told_for_an_hour() -> None:
    old = {**warning(own_pod(), "PrepareFailed", "x"), "lastTimestamp": "2026-11-26T10:59:59Z"}
    assert found(well(events=[old]), "Events").verdict is Verdict.OK


def test_what_could_not_be_read_is_no_problem_but_unknown() -> None:
    unread = dict.fromkeys(("pods", "deviceclasses", "events"), "not allowed")
    blind = msgspec.structs.replace(well("v1.30.1", pods=[], classes=[]), api="v1alpha2", unread=unread)
    for check in ("node plugins", "controller", "classes", "Events"):
        assert found(blind, check).verdict is Verdict.UNKNOWN
