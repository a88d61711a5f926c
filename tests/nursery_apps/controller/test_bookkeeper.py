"""What the ledger knows of claims and nodes, as they come from the API server."""

from __future__ import annotations

from typing import Any

from trio.testing import MockClock

from dra.classic.names import FINALIZER
from tests.fakes.classic_cluster import ClassicCluster, gpu, until
from tests.fakes.kube_api import Json

ORIGINAL: Json = {
    "gpus": [{"uid": gpu(1)["uid"], "memory": 16384, "millicores": 1000, "type": "gpu", "parentuid": "", "vfindex": 0, "profile": ""}]
}


def allocate(cluster: ClassicCluster, name: str, *handles: str, node: str = "n1") -> None:
    cluster.claim(name)
    allocation: dict[str, Any] = {
        "resourceHandles": [{"driverName": "gpu.resource.intel.com", "data": data} for data in handles],
        "availableOnNodes": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]},
    }
    claim = cluster.the_claim(name)
    metadata = {**claim["metadata"], "finalizers": [FINALIZER]}
    status = {"driverName": "gpu.resource.intel.com", "allocation": allocation}
    cluster.change("resourceclaims", name, {"metadata": metadata, "status": status})


async def test_a_handle_of_a_later_version_blocks_its_node_until_the_claim_is_gone(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1), gpu(2)])
    allocate(cluster, "future", '{"version":9,"node":"n1"}')
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"c": ["n1"]})
        assert ("ResourceClaim", "future", "UnknownHandle") in {event[:3] for event in cluster.events}
        cluster.unreserve("future")
        await until(lambda: cluster.handle("c") is not None)


async def test_claims_that_the_original_allocated_keep_what_its_state_says(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    allocate(cluster, "old")
    uid = cluster.the_claim("old")["metadata"]["uid"]
    cluster.node("n1", [gpu(1), gpu(2)], allocatedClaims={uid: ORIGINAL})
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating() as work:
        await until(lambda: cluster.handle("c") is not None)
        assert cluster.devices("c") == ["02:00.0"]
        cluster.unreserve("old")
        await until(lambda: len(work.ledger.holdings()) == 1)
    state = cluster.api.objects["gpuallocationstates", "intel-gpu-resource-driver", "n1"]
    assert state["spec"]["allocatedClaims"] == {}, "nobody is to find it there again"
    assert "finalizers" not in cluster.the_claim("old")["metadata"]


async def test_a_claim_of_the_originals_that_no_state_explains_blocks_its_node(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1)])
    allocate(cluster, "old")
    async with cluster.allocating() as work:
        await until(lambda: bool(cluster.events))
        why = work.ledger.why_not_ready("n1")
    assert why is not None and "default/old has something of node n1 that nobody can tell" in why


async def test_a_state_that_cannot_be_understood_hides_its_node_and_no_other(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("bad", [{**gpu(1), "memory": "16 GiB"}])
    cluster.node("good", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["bad", "good"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"c": ["bad"]})


async def test_a_lease_that_nobody_renewed_for_long_is_not_waited_for_once_more(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1)])
    cluster.wall += 3600
    async with cluster.allocating() as work:
        cluster.beating.clear()
        await until(lambda: work.stores.why_behind is None)
        assert work.ledger.why_not_ready("n1") == "its node plugin does not renew its Lease"
        cluster.heartbeat("n1")
        await until(lambda: work.ledger.why_not_ready("n1") is None)


async def test_a_node_that_vanishes_with_its_state_is_forgotten_and_its_claims_can_still_be_deleted(autojump_clock: MockClock) -> None:
    cluster = ClassicCluster()
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
        cluster.api.remove("gpuallocationstates", "n1", namespace="intel-gpu-resource-driver")
        cluster.delete_claim("c")
        cluster.unreserve("c", deallocate=False)
        await until(lambda: ("resourceclaims", "default", "c") not in cluster.api.objects)
