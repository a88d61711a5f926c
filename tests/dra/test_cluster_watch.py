"""What is wrong in a cluster, and when it is said."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from dra import cluster_watch
from dra.cluster_watch import CLAIM_ON_DEAD_NODE, SLICES_MISSING, SLICES_STALE, Incidents, Subject
from dra.kube.watched import PluginPod, WatchedClaim, WatchedNode, WatchedSlice


def pod(node: str = "n1", *, phase: str = "Running", component: str = "node-plugin", **metadata: Any) -> PluginPod:
    labels = {"app.kubernetes.io/component": component}
    body = {"metadata": {"name": f"p-{node}", "labels": labels, **metadata}, "spec": {"nodeName": node}, "status": {"phase": phase}}
    return msgspec.convert(body, PluginPod)


def node(name: str = "n1", *, ready: str = "True", kubelet: str = "v1.34.1") -> WatchedNode:
    status = {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"kubeletVersion": kubelet}}
    return msgspec.convert({"metadata": {"name": name, "uid": f"uid-{name}"}, "status": status}, WatchedNode)


def slice_of(name: str = "n1", *, generation: int = 1, count: int = 1, owner: str | None = None) -> WatchedSlice:
    metadata = {"name": "s", "ownerReferences": [{"kind": "Node", "uid": owner or f"uid-{name}"}]}
    pool = {"name": name, "generation": generation, "resourceSliceCount": count}
    return msgspec.convert({"metadata": metadata, "spec": {"nodeName": name, "pool": pool}}, WatchedSlice)


def claim(pool: str = "n1", *, driver: str = "gpu.intel.com", reserved: int = 1) -> WatchedClaim:
    status = {
        "allocation": {"devices": {"results": [{"driver": driver, "pool": pool, "device": "d"}]}},
        "reservedFor": [{"resource": "pods", "name": f"pod{index}", "uid": "u"} for index in range(reserved)],
    }
    return msgspec.convert({"metadata": {"name": "c", "namespace": "ns", "uid": "uid-c"}, "status": status}, WatchedClaim)


def wrong(*things: PluginPod | WatchedNode | WatchedSlice | WatchedClaim) -> dict[str, str]:
    """Reason -> sentence."""
    found = cluster_watch.look(
        [each for each in things if isinstance(each, PluginPod)],
        {each.metadata.name: each for each in things if isinstance(each, WatchedNode)},
        [each for each in things if isinstance(each, WatchedSlice)],
        [each for each in things if isinstance(each, WatchedClaim)],
    )
    return {subject.reason: text for subject, text in found.items()}


def test_all_is_well() -> None:
    assert wrong(node(), pod(), slice_of(), claim()) == {}
    assert wrong() == {}


def test_nothing_published() -> None:
    assert "has published nothing" in wrong(node(), pod())[SLICES_MISSING]
    assert SLICES_MISSING in wrong(node(), pod(phase="Pending"))


@pytest.mark.parametrize(
    "things",
    [
        [node(ready="False"), pod()],
        [node(ready="Unknown"), pod()],
        [pod()],
        [node(kubelet="v1.30.4"), pod()],
        [node(), pod(phase="Failed")],
        [node(), pod(deletionTimestamp="2026-01-01T00:00:00Z")],
        [node(), pod(component="controller")],
        [node(), pod("")],
    ],
)
def test_where_nothing_is_expected(things: list[Any]) -> None:
    assert wrong(*things) == {}


def test_stale_slices() -> None:
    assert (
        "of the pool's 3 slices of generation 2 there are 1"
        in wrong(node(), pod(), slice_of(generation=2, count=3), slice_of())[SLICES_STALE]
    )
    assert wrong(node(), pod(), slice_of(generation=2), slice_of(generation=1)) == {}
    assert "was deleted" in wrong(node(), pod(), slice_of(owner="another"))[SLICES_STALE]
    assert "no plugin runs here" in wrong(node(), slice_of(), node("n2"), pod("n2"), slice_of("n2"))[SLICES_STALE]
    assert wrong(node(), slice_of()) == {}


def test_claims_on_dead_nodes() -> None:
    assert "node gone, which does not exist any more; it is reserved for pods/pod0," in wrong(claim("gone"))[CLAIM_ON_DEAD_NODE]
    assert "which is not ready" in wrong(node(ready="Unknown"), claim())[CLAIM_ON_DEAD_NODE]
    assert "pods/pod2 and others" in wrong(claim("gone", reserved=7))[CLAIM_ON_DEAD_NODE]
    assert wrong(claim("gone", driver="other")) == wrong(claim("gone", reserved=0)) == {}
    assert wrong(msgspec.convert({"metadata": {"name": "c"}, "status": {}}, WatchedClaim)) == {}


ONE = Subject(SLICES_MISSING, "Node", "", "n1", "u")
TWO = Subject(CLAIM_ON_DEAD_NODE, "ResourceClaim", "ns", "c", "u")


def test_only_what_lasts_is_told_and_once() -> None:
    incidents = Incidents(60)
    assert incidents.see(0, {ONE: "a"}).begun == () and incidents.due() == 60
    assert incidents.see(59, {ONE: "a", TWO: "b"}).begun == ()
    assert incidents.see(60, {ONE: "a now", TWO: "b"}).begun == ((ONE, "a now"),) and incidents.due() == 119
    assert incidents.see(61, {ONE: "still", TWO: "b"}).begun == ()
    assert incidents.counts() == {SLICES_MISSING: 1, SLICES_STALE: 0, CLAIM_ON_DEAD_NODE: 0}
    assert incidents.see(62, {TWO: "b"}).ended == (ONE,) and incidents.counts()[SLICES_MISSING] == 0
    assert incidents.see(70, {ONE: "again", TWO: "b"}).ended == ()
    told = incidents.see(130, {ONE: "again", TWO: "b"})
    assert told.begun == ((TWO, "b"), (ONE, "again")) or told.begun == ((ONE, "again"), (TWO, "b"))
    assert incidents.due() == math.inf


def test_what_comes_and_goes_within_the_grace_is_never_told() -> None:
    incidents = Incidents(60)
    for second in range(0, 1000, 40):
        told = incidents.see(second, {ONE: "a"} if second % 80 == 0 else {})
        assert (told.begun, told.ended) == ((), ())
