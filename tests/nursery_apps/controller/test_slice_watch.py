"""A cluster whose plugins and nodes fail, and what its people are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra.kube.events import Regarding, Weight
from nursery_apps.controller.slice_watch import SliceWatch
from nursery_apps.seams import Unavailable
from tests.fakes.gpu_states import CARD, slice_of
from tests.fakes.kube_api import FakeKubeApi, until


class Cluster:
    def __init__(self, version: str = "v1") -> None:
        self.api = FakeKubeApi(versions=[version])
        self.said: list[tuple[str, str, str]] = []
        """(reason, kind, name)"""
        self.regarding: list[Regarding] = []
        self.counts: Mapping[str, int] = {}
        self.watch = SliceWatch(
            self.api, version=version, namespace="intel-gpu", announce=self._announce, on_counts=self._count, random=lambda: 0.5
        )
        self.node()
        self.api.put(
            "pods",
            {
                "metadata": {"name": "plugin-x", "labels": {"app.kubernetes.io/component": "node-plugin"}},
                "spec": {"nodeName": "n1"},
                "status": {"phase": "Running"},
            },
            namespace="intel-gpu",
        )
        self.api.put("resourceslices", slice_of("n1", CARD))

    def node(self, ready: str = "True") -> None:
        self.api.put("nodes", {"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})

    def claim(self, *pods: str) -> None:
        result = {"request": "gpu", "driver": "gpu.intel.com", "pool": "n1", "device": CARD}
        status: dict[str, Any] = {"allocation": {"devices": {"results": [result]}}}
        status["reservedFor"] = [{"resource": "pods", "name": pod, "uid": pod} for pod in pods]
        self.api.put("resourceclaims", {"metadata": {"name": "c"}, "status": status}, namespace="team-a")

    def _announce(self, about: Regarding, weight: Weight, reason: str, _text: str) -> None:
        assert (weight is Weight.NORMAL) is reason.endswith("Ended")
        self.said.append((reason, about.kind, about.name))
        self.regarding.append(about)

    def _count(self, counts: Mapping[str, int]) -> None:
        self.counts = counts


@pytest.fixture(params=["v1", "v1beta1", "v1alpha3"])
async def cluster(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Cluster:
    made = Cluster(request.param)
    await nursery.start(made.watch.run)
    return made


async def test_slices_that_stay_away_are_told_once_and_when_they_are_back(autojump_clock: MockClock, cluster: Cluster) -> None:
    await trio.sleep(300)
    assert cluster.said == [] and set(cluster.counts.values()) == {0}
    cluster.api.remove("resourceslices", "00-n1")
    await trio.sleep(50)
    assert cluster.said == []
    await trio.sleep(600)
    assert cluster.said == [("SlicesMissing", "Node", "n1")] and cluster.counts["SlicesMissing"] == 1
    cluster.api.put("resourceslices", slice_of("n1", CARD))
    await trio.sleep(10)
    assert cluster.said[1:] == [("SlicesMissingEnded", "Node", "n1")] and cluster.counts["SlicesMissing"] == 0
    assert cluster.regarding[0].uid == "n1"


async def test_a_plugin_that_restarts_is_no_incident(autojump_clock: MockClock, cluster: Cluster) -> None:
    for _ in range(5):
        cluster.api.remove("resourceslices", "00-n1")
        await trio.sleep(30)
        cluster.api.put("resourceslices", slice_of("n1", CARD))
        await trio.sleep(30)
    assert cluster.said == []


async def test_a_claim_on_a_node_that_died(autojump_clock: MockClock, cluster: Cluster) -> None:
    cluster.claim("pod1")
    await trio.sleep(100)
    cluster.node("Unknown")
    await trio.sleep(100)
    assert cluster.said == [("ClaimOnDeadNode", "ResourceClaim", "c")]
    [about] = cluster.regarding
    assert about.namespace == "team-a" and about.api_version.startswith("resource.k8s.io/")
    cluster.api.remove("nodes", "n1")
    await trio.sleep(100)
    assert len(cluster.said) == 1
    cluster.claim()
    await trio.sleep(10)
    assert cluster.said[1:] == [("ClaimOnDeadNodeEnded", "ResourceClaim", "c")]


async def test_nothing_is_judged_by_old_copies(autojump_clock: MockClock, cluster: Cluster) -> None:
    cluster.api.failures += [("watch", Unavailable(0, "Unreachable", "no"))] * 4
    cluster.api.failures += [("list", Unavailable(0, "Unreachable", "no"))] * 40
    cluster.api.cut()
    await until(lambda: cluster.watch.why_behind is not None, seconds=60)
    cluster.api.remove("resourceslices", "00-n1")
    await trio.sleep(90)
    assert cluster.watch.why_behind is not None and cluster.said == []
    cluster.api.failures.clear()
    await until(lambda: cluster.said == [("SlicesMissing", "Node", "n1")], seconds=300)
