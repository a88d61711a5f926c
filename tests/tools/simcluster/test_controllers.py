"""Templates, deallocation, garbage and eviction, without a kubelet: the scheduler and the controllers by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kinds import Json


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[SimCluster]:
    async with SimCluster(str(tmp_path), kubernetes="1.37", with_kubelet=False).running() as running:
        running.create(kinds.NODE, {"metadata": {"name": "node1"}})
        publish(running)
        yield running


def publish(cluster: SimCluster, **device: Any) -> Json:
    node = cluster.registry.get(kinds.NODE, "node1")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": node["metadata"]["uid"], "controller": True}
    pool = {"name": "node1", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.intel.com", "nodeName": "node1", "pool": pool, "devices": [{"name": "gpu-0", **device}]}
    return cluster.create(kinds.SLICE, {"metadata": {"name": "s", "ownerReferences": [owner]}, "spec": spec})


async def bound(cluster: SimCluster, name: str) -> None:
    def has_node(pods: list[Json]) -> bool:
        return any(pod["metadata"]["name"] == name and pod["spec"].get("nodeName") for pod in pods)

    await cluster.wait(kinds.POD, has_node, f"{name} bound")


async def test_the_next_pod_gets_the_device_when_the_first_has_gone(cluster: SimCluster) -> None:
    cluster.create_claim("t", template=True)
    cluster.create_pod("one", templates={"gpu": "t"})
    await bound(cluster, "one")
    cluster.create_pod("two", templates={"gpu": "t"})
    assert "cannot allocate all claims" in await cluster.wait_event("two", "FailedScheduling")
    cluster.delete_pod("one", grace_seconds=0)
    await bound(cluster, "two")
    [claim] = cluster.claims_of_pod("two")
    assert claim["metadata"]["name"].startswith("two-gpu-")
    await cluster.wait(kinds.CLAIM, lambda claims: len(claims) == 1, "the first claim gone")


async def test_a_claim_of_a_user_is_deallocated_and_stays(cluster: SimCluster) -> None:
    cluster.create_claim("c")
    cluster.create_pod("p", claims={"gpu": "c"})
    await bound(cluster, "p")
    assert cluster.claim("c")["status"]["allocation"]["devices"]["results"][0]["device"] == "gpu-0"
    cluster.delete_pod("p", grace_seconds=0)
    await cluster.wait(kinds.CLAIM, lambda claims: not claims[0]["metadata"].get("finalizers"), "deallocated")
    assert cluster.claim("c")["status"] == {}


async def test_slices_go_with_their_node(cluster: SimCluster) -> None:
    cluster.registry.delete(kinds.NODE, "node1")
    await cluster.wait(kinds.SLICE, lambda slices: not slices)


async def test_a_no_execute_taint_evicts_who_does_not_tolerate_it(cluster: SimCluster) -> None:
    cluster.create_claim("c", tolerations=[{"key": "gpu.intel.com/slow", "operator": "Exists"}])
    cluster.create_pod("p", claims={"gpu": "c"})
    await bound(cluster, "p")

    def taint(key: str) -> None:
        def change(body: Json) -> None:
            body["spec"]["devices"][0]["taints"] = [{"key": key, "effect": "NoExecute"}]

        cluster.registry.amend(kinds.SLICE, cluster.slices()[0], change)

    taint("gpu.intel.com/slow")
    revision = cluster.store.revision
    cluster.create_pod("later")
    await bound(cluster, "later")
    assert cluster.store.revision > revision
    assert not cluster.registry.get(kinds.POD, "p", "default")["metadata"].get("deletionTimestamp")
    taint("gpu.intel.com/dead")
    await cluster.wait_event("p", "DeviceTaintManagerEviction")
    assert cluster.registry.get(kinds.POD, "p", "default")["metadata"]["deletionTimestamp"]


async def test_an_administrators_taint_rule_evicts_too(cluster: SimCluster) -> None:
    cluster.create_claim("c")
    cluster.create_pod("p", claims={"gpu": "c"})
    await bound(cluster, "p")
    spec = {"deviceSelector": {"driver": "gpu.intel.com"}, "taint": {"key": "example.com/repair", "effect": "NoExecute"}}
    cluster.create(kinds.TAINT_RULE, {"metadata": {"name": "r"}, "spec": spec})
    await cluster.wait_event("p", "DeviceTaintManagerEviction")


async def test_the_classes_of_the_driver_are_there_and_select(cluster: SimCluster) -> None:
    names = {each["metadata"]["name"] for each in cluster.store.all(kinds.DEVICE_CLASS)}
    assert names == {"gpu.intel.com", "gpu-vf.intel.com", "gpu-vfio.intel.com", "gpu-monitor.intel.com"}
    cluster.create_claim("vf", device_class="gpu-vf.intel.com")
    cluster.create_pod("p", claims={"gpu": "vf"})
    assert "cannot allocate" in await cluster.wait_event("p", "FailedScheduling")
    cluster.registry.amend(
        kinds.SLICE, cluster.slices()[0], lambda body: body["spec"]["devices"][0].update(attributes={"type": {"string": "vf"}})
    )
    await bound(cluster, "p")


async def test_a_claim_that_cannot_be_made_is_told_in_an_event(cluster: SimCluster) -> None:
    label = {"resource.kubernetes.io/admin-access": "true"}
    namespace = cluster.registry.create(kinds.NAMESPACE, {"metadata": {"name": "admins", "labels": label}})
    cluster.create_claim("t", template=True, namespace="admins", adminAccess=True)
    cluster.registry.amend(kinds.NAMESPACE, namespace, lambda body: body["metadata"].update(labels={}))
    cluster.create_pod("p", templates={"gpu": "t"}, namespace="admins")
    assert "admin access" in await cluster.wait_event("p", "FailedResourceClaimCreation")
