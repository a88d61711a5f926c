"""What kube-controller-manager of 1.28 to 1.30 does with claims; nobody schedules, nobody allocates but the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tools.simcluster import kinds
from tools.simcluster.classic import control
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kinds import CLAIM, POD, SCHEDULING, Json

DRIVER = "gpu.resource.intel.com"
PROTECTED = f"{DRIVER}/deletion-protection"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ClassicCluster]:
    made = ClassicCluster(str(tmp_path), kubernetes="1.28", with_kubelet=False)
    made.create_nodes(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(control.run, made.registry, lambda _line: None, schedules=False))
        yield made
        nursery.cancel_scope.cancel()


def allocate(cluster: ClassicCluster, claim: Json, *pods: Json, shareable: bool = False) -> None:
    """As a driver does, finalizer first."""
    consumers = [{"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} for pod in pods]
    status: Json = {"driverName": DRIVER, "allocation": {"shareable": shareable}, "reservedFor": consumers}
    cluster.registry.amend(CLAIM, claim, lambda body: body["metadata"].update(finalizers=[PROTECTED]))
    cluster.registry.amend(CLAIM, claim, lambda body: body.update(status=status), subresource="status")


async def claim_of(cluster: ClassicCluster, pod: str) -> Json:
    """The claim generated for a pod."""

    def recorded(pods: list[Json]) -> bool:
        return any(each["metadata"]["name"] == pod and each["status"].get("resourceClaimStatuses") for each in pods)

    await cluster.wait(POD, recorded, "a claim in the pod's status")
    [status] = cluster.registry.get(POD, pod, "default")["status"]["resourceClaimStatuses"]
    assert status["name"] == "gpu"
    return cluster.claim(status["resourceClaimName"])


async def test_a_template_that_comes_late_is_used(cluster: ClassicCluster) -> None:
    pod = cluster.create_pod("p", templates={"gpu": "t"})
    cluster.create_resource_claim("t", "gpu", template=True)
    claim = await claim_of(cluster, "p")
    assert claim["metadata"]["name"].startswith("p-gpu-")
    assert claim["metadata"]["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpu"}
    assert claim["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert claim["spec"] == {"resourceClassName": "gpu", "allocationMode": "WaitForFirstConsumer"}


async def test_the_last_consumer_asks_for_deallocation(cluster: ClassicCluster) -> None:
    claim = cluster.create_resource_claim("c", "gpu")
    pods = [cluster.create_pod(name, claims={"gpu": "c"}, nodeName="node-0000") for name in ("one", "two")]
    allocate(cluster, claim, *pods, shareable=True)
    cluster.delete_pod("one", grace_seconds=0)
    await cluster.wait(CLAIM, lambda claims: len(claims[0]["status"]["reservedFor"]) == 1, "one consumer less")
    assert not cluster.claim("c")["status"].get("deallocationRequested")
    cluster.registry.amend(POD, pods[1], lambda body: body["status"].update(phase="Succeeded"), subresource="status")
    await cluster.wait(CLAIM, lambda claims: claims[0]["status"].get("deallocationRequested"), "deallocation")
    status = cluster.claim("c")["status"]
    assert status["allocation"] and not status.get("reservedFor")


async def test_an_immediate_claim_stays_allocated(cluster: ClassicCluster) -> None:
    claim = cluster.create_resource_claim("c", "gpu", mode="Immediate")
    pod = cluster.create_pod("p", claims={"gpu": "c"}, nodeName="node-0000")
    allocate(cluster, claim, pod)
    cluster.delete_pod("p", grace_seconds=0)
    await cluster.wait(CLAIM, lambda claims: not claims[0]["status"].get("reservedFor"), "no consumer")
    assert not cluster.claim("c")["status"].get("deallocationRequested")


async def test_what_is_no_pod_stays_a_consumer(cluster: ClassicCluster) -> None:
    claim = cluster.create_resource_claim("c", "gpu")
    pod = cluster.create_pod("p", claims={"gpu": "c"}, nodeName="node-0000")
    allocate(cluster, claim, pod, shareable=True)
    other = {"apiGroup": "example.com", "resource": "things", "name": "t", "uid": "7"}
    cluster.registry.amend(CLAIM, cluster.claim("c"), lambda body: body["status"]["reservedFor"].append(other), subresource="status")
    cluster.delete_pod("p", grace_seconds=0)
    await cluster.wait(CLAIM, lambda claims: claims[0]["status"]["reservedFor"] == [other], "the pod off the list")


@pytest.mark.parametrize("ends", ["finished", "deleted"])
async def test_a_generated_claim_goes_with_its_pod_when_the_driver_lets_it(cluster: ClassicCluster, ends: str) -> None:
    cluster.create_resource_claim("t", "gpu", template=True)
    pod = cluster.create_pod("p", templates={"gpu": "t"})
    claim = await claim_of(cluster, "p")
    allocate(cluster, claim, pod)
    if ends == "finished":
        cluster.registry.amend(POD, pod, lambda body: body["status"].update(phase="Failed"), subresource="status")
    else:
        cluster.delete_pod("p", grace_seconds=0)
    await cluster.wait(CLAIM, lambda claims: claims[0]["metadata"].get("deletionTimestamp"), "a claim that is to go")
    await cluster.wait(CLAIM, lambda claims: claims[0]["status"].get("deallocationRequested"), "deallocation")
    [left] = cluster.store.all(CLAIM)
    assert left["status"]["allocation"] and not left["status"].get("reservedFor")
    cluster.registry.amend(CLAIM, left, lambda body: body.update(status={}), subresource="status")
    cluster.registry.amend(CLAIM, left, lambda body: body["metadata"].update(finalizers=[]))
    assert cluster.store.all(CLAIM) == []


async def test_a_pod_that_somebody_put_on_a_node_is_helped(cluster: ClassicCluster) -> None:
    for name in ("a", "b"):
        cluster.create_resource_claim(name, "gpu")
    allocate(cluster, cluster.claim("a"))
    pod = cluster.create_pod("p", claims={"a": "a", "b": "b"}, nodeName="node-0000")
    await cluster.wait(SCHEDULING, lambda found: found, "a PodSchedulingContext")
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"] == {"selectedNode": "node-0000"}
    assert scheduling["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    await cluster.wait(CLAIM, lambda claims: all(claim["status"].get("reservedFor") for claim in claims[:1]), "a reserved")
    allocate(cluster, cluster.claim("b"))
    await cluster.wait(CLAIM, lambda claims: all(claim["status"].get("reservedFor") for claim in claims), "both reserved")
    cluster.delete_pod("p", grace_seconds=0)
    await cluster.wait(SCHEDULING, lambda found: not found, "the context gone")


async def test_a_pod_that_was_never_scheduled_frees_its_claims_when_it_is_deleted(cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("t", "gpu", template=True)
    cluster.create_pod("p", templates={"gpu": "t"})
    await claim_of(cluster, "p")
    cluster.delete_pod("p")
    await cluster.wait(CLAIM, lambda claims: not claims, "no claim")
    assert cluster.store.all(kinds.POD) == []
