"""What the original driver's controller did to its users (v0.3.0, found by reading), told as stories that end well.

Each test is named after what users saw, and says where the original went wrong.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra.classic.names import FINALIZER
from nursery_apps.controller.leadership import Fence
from nursery_apps.seams import Unavailable
from tests.fakes.classic_cluster import NAMESPACE, ClassicCluster, gpu, until, vf

CUT = (("flex170_m4", 4),)


@pytest.fixture
def cluster(autojump_clock: MockClock) -> ClassicCluster:
    return ClassicCluster()


def runs(cluster: ClassicCluster, name: str, node: str = "n1", **more: Any) -> None:
    """A pod with a claim of its own, for a node."""
    cluster.claim(name, **more)
    cluster.pod(f"pod-{name}", [name], nodes=[node], selected=node)


def answered(cluster: ClassicCluster, name: str) -> bool:
    return cluster.handle(name) is not None or bool((cluster.unsuitable(f"pod-{name}") or {}).get(name))


@pytest.mark.parametrize("what", ["tainted", "without its VFs", "gone", "without a state"])
async def test_a_taint_on_a_card_whose_vfs_are_in_use_stops_allocation_in_the_whole_cluster(
    cluster: ClassicCluster, autojump_clock: MockClock, what: str
) -> None:
    """S-1: an allocated VF that was not among the consumed ones was a nil pointer, again after every restart."""
    cluster.node("n1", [gpu(1), vf(1, 0), gpu(2)])
    cluster.node("n2", [gpu(1)])
    async with cluster.allocating():
        runs(cluster, "admins", type="vf")
        runs(cluster, "cut", type="vf", memory=3500)
        await until(lambda: cluster.handle("admins") is not None and cluster.handle("cut") is not None)
    cards = [gpu(1)["uid"], gpu(2)["uid"]]
    match what:
        case "tainted":
            taints = {uid: {"reason": "hot"} for uid in cards}
            cluster.node("n1", [gpu(1), vf(1, 0), gpu(2)], taintedDevices=taints)
        case "without its VFs":
            cluster.node("n1", [gpu(1), gpu(2)])
        case "gone":
            cluster.node("n1", [])
        case "without a state":
            cluster.api.remove("gpuallocationstates", "n1", namespace=NAMESPACE)
    async with cluster.allocating() as work:
        runs(cluster, "elsewhere", node="n2")
        runs(cluster, "here")
        await until(lambda: cluster.handle("elsewhere") is not None and answered(cluster, "here"))
        assert cluster.handle("here") is None and len(work.ledger.holdings()) == 3
        for name in ("admins", "cut"):
            cluster.unreserve(name)
        await until(lambda: cluster.handle("admins") is None and cluster.handle("cut") is None)


async def test_a_hundred_pods_at_once_crash_or_stall_the_controller(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-2: workers changed one map under a read lock, and took the lock twice."""
    for node in range(10):
        cluster.node(f"n{node}", [gpu(number) for number in range(1, 6)])
    async with cluster.allocating() as work:
        for number in range(100):
            runs(cluster, f"c{number}", node=f"n{number % 10}")
        await until(lambda: sum(cluster.handle(f"c{number}") is not None for number in range(100)) == 50)
        for number in range(100):
            cluster.api.remove("podschedulingcontexts", f"pod-c{number}", namespace="default")
            cluster.api.remove("pods", f"pod-c{number}", namespace="default")
            if cluster.handle(f"c{number}"):
                cluster.unreserve(f"c{number}", deallocate=False)
            cluster.delete_claim(f"c{number}")
        await until(lambda: not cluster.api.of("resourceclaims"))
        assert not work.ledger.holdings()


@pytest.mark.parametrize("first", [{}, {"of_class": "intel-gpu-shared", "memory": 4000}])
@pytest.mark.parametrize("quotas", ["prelim", "none"])
async def test_vfs_are_cut_out_of_a_gpu_that_somebody_uses(
    cluster: ClassicCluster, autojump_clock: MockClock, first: dict[str, Any], quotas: str
) -> None:
    """S-7: whether the GPU is in use was not looked at, and of a VF of no particular size nothing was counted."""
    cluster.node("n1", [gpu(1, quotas=quotas)])
    async with cluster.allocating():
        runs(cluster, "user", **first)
        await until(lambda: cluster.handle("user") is not None)
        runs(cluster, "vfs", type="vf")
        await until(lambda: answered(cluster, "vfs"))
    assert cluster.handle("vfs") is None


async def test_a_claim_is_allocated_that_nothing_was_set_aside_for(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-9: a failed write of the record was logged, and the claim stored as allocated. Here the claim is the record."""
    cluster.node("n1", [gpu(1)])
    cluster.api.failures += [("patch", Unavailable(500, "InternalError", "x"))] * 4
    async with cluster.allocating() as work:
        runs(cluster, "a")
        await until(lambda: cluster.handle("a") is not None)
        found = cluster.handle("a")
        [holding] = work.ledger.holdings().values()
        assert holding.handle == found and holding.written
        runs(cluster, "b")
        await until(lambda: answered(cluster, "b"))
    assert cluster.handle("b") is None


async def test_a_claim_that_fails_keeps_devices_from_the_pods_other_claims(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-9 too: what a claim had consumed before it failed stayed consumed for the next one."""
    cluster.node("n1", [gpu(1), gpu(2)])
    cluster.claim("three", count=3)
    cluster.claim("one")
    cluster.pod("p", ["three", "one"], nodes=["n1"], selected="n1")
    async with cluster.allocating() as work:
        await until(lambda: cluster.unsuitable("p") is not None)
        assert not work.ledger.holdings()
        runs(cluster, "both", count=2)
        await until(lambda: cluster.handle("both") is not None)


@pytest.mark.parametrize("mode", ["WaitForFirstConsumer", "Immediate"])
async def test_a_claim_without_a_type_is_never_served_or_gets_nothing(
    cluster: ClassicCluster, autojump_clock: MockClock, mode: str
) -> None:
    """S-12: an omitted type was the empty string, which no branch took."""
    cluster.node("n1", [gpu(1)])
    for kind in ("absent", "empty"):
        cluster.claim(kind, mode=mode, count=1, **({"type": ""} if kind == "empty" else {}))
        cluster.pod(f"pod-{kind}", [kind], nodes=["n1"], selected="n1")
        async with cluster.allocating():
            await until(lambda kind=kind: cluster.handle(kind) is not None)
            assert cluster.devices(kind) == ["01:00.0"]
            cluster.api.remove("podschedulingcontexts", f"pod-{kind}", namespace="default")
            cluster.delete_claim(kind)
            cluster.unreserve(kind, deallocate=False)
            await until(lambda kind=kind: ("resourceclaims", "default", kind) not in cluster.api.objects)


async def test_a_claim_of_any_device_with_a_count_fails_although_there_are_enough(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    """S-13: as many GPUs as asked for were added to the VFs that were found, and then the number had to match."""
    cluster.node("n1", [gpu(1), vf(1, 0), gpu(2, maxvfs=0), gpu(3, maxvfs=0)])
    async with cluster.allocating():
        runs(cluster, "any", type="any", count=3)
        await until(lambda: cluster.handle("any") is not None)
    assert sorted(cluster.devices("any")) == ["01:00.1", "02:00.0", "03:00.0"]


async def test_a_vf_of_a_shared_class_can_never_be_prepared(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-14: the memory asked for was recorded, and compared with the memory the VF has. A handle names VFs and compares nothing."""
    cluster.node("n1", [gpu(1)])
    async with cluster.allocating():
        runs(cluster, "a", of_class="intel-gpu-shared", type="vf", memory=3500)
        await until(lambda: cluster.handle("a") is not None)
    found = cluster.handle("a")
    assert found is not None
    [part] = found.parts
    assert (part.memory, part.vfs, part.layout) == (0, (1,), CUT)


async def test_claims_deleted_before_they_were_allocated_are_remembered_for_ever(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    """S-18: pending placements of claims that went were never forgotten."""
    cluster.node("n1", [gpu(1)])
    async with cluster.allocating() as work:
        await trio.sleep(1)
        for number in range(20):
            cluster.claim(f"c{number}")
            cluster.api.failures += [("patch", Unavailable(503, "x", "x"))]
            cluster.pod(f"p{number}", [f"c{number}"], nodes=["n1"], selected="n1")
            await trio.sleep(0.01)
            cluster.api.remove("podschedulingcontexts", f"p{number}", namespace="default")
            cluster.delete_claim(f"c{number}")
            await trio.sleep(0.01)
        await trio.sleep(120)
        assert (dict(work.ledger.holdings()), work.allocator.waiting, len(work.queue), work.queue.failing) == ({}, 0, 0, 0)


async def test_a_pod_that_was_being_negotiated_waits_for_another_round_after_a_restart(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    """S-18 too: placements were lost with the process, and allocation failed until the scheduler asked again."""
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"c": []})
    cluster.schedule("p", nodes=["n1"], selected="n1")
    async with cluster.allocating():
        began = trio.current_time()
        await until(lambda: cluster.handle("c") is not None)
    assert trio.current_time() - began < 1


@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_a_controller_that_dies_between_two_writes_leaks_devices(
    cluster: ClassicCluster, autojump_clock: MockClock, writes: int
) -> None:
    """S-19: a claim without an allocation was taken to have nothing, though the node's record said otherwise."""
    cluster.node("n1", [gpu(1)])
    runs(cluster, "a")
    with trio.CancelScope() as life:
        left = [writes]

        def count(plural: str, _body: Any) -> None:
            if plural == "resourceclaims":
                left[0] -= 1
                if left[0] < 0:
                    life.cancel()
                    raise Unavailable(0, "Killed", "x")

        cluster.api.on_store = count
        async with cluster.allocating():
            await trio.sleep(60)
            life.cancel()
    cluster.api.on_store = lambda _plural, _body: None
    cluster.api.remove("podschedulingcontexts", "pod-a", namespace="default")
    cluster.api.remove("pods", "pod-a", namespace="default")
    assert (FINALIZER in cluster.the_claim("a")["metadata"].get("finalizers", [])) is (writes > 0)
    if cluster.handle("a") is not None:
        cluster.unreserve("a", deallocate=False)
    cluster.delete_claim("a")
    async with cluster.allocating() as work:
        await until(lambda: ("resourceclaims", "default", "a") not in cluster.api.objects)
        assert not work.ledger.holdings()
        runs(cluster, "b")
        await until(lambda: cluster.handle("b") is not None)


async def test_a_pod_on_a_hundred_nodes_takes_six_seconds_to_be_answered(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-20: every node's record was read from the API server, one after the other, for each pod anew."""
    nodes = [f"n{number}" for number in range(100)]
    for node in nodes:
        cluster.node(node, [gpu(1)])
    cluster.claim("c", count=2)
    async with cluster.allocating():
        await trio.sleep(1)
        cluster.api.calls.clear()
        cluster.pod("p", ["c"], nodes=nodes)
        await until(lambda: cluster.unsuitable("p") is not None)
        assert [call[:2] for call in cluster.api.calls] == [("get", "pods"), ("patch", "podschedulingcontexts")]


async def test_a_claim_is_recorded_in_an_object_that_four_programs_write(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-22: conflicts by design. Allocating and taking back writes nothing into the node's state."""
    cluster.node("n1", [gpu(1)])
    before = cluster.api.objects["gpuallocationstates", NAMESPACE, "n1"]
    async with cluster.allocating():
        runs(cluster, "a")
        await until(lambda: cluster.handle("a") is not None)
        cluster.api.remove("podschedulingcontexts", "pod-a", namespace="default")
        cluster.unreserve("a")
        await until(lambda: cluster.handle("a") is None)
    assert cluster.api.objects["gpuallocationstates", NAMESPACE, "n1"] == before


async def test_a_node_whose_plugin_is_dead_gets_pods_that_never_start(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-25: the status stayed Ready."""
    cluster.node("n1", [gpu(1)])
    async with cluster.allocating():
        await trio.sleep(1)
        cluster.beating.clear()
        await trio.sleep(60)
        runs(cluster, "a")
        await until(lambda: answered(cluster, "a"))
    assert cluster.handle("a") is None


async def test_two_controllers_give_one_gpu_twice(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-25: there was no election. One whose Lease has run out writes nothing, however late it wakes."""
    cluster.node("n1", [gpu(1)])
    fence = Fence()
    fence.until = float("inf")
    async with cluster.allocating(fence):
        await trio.sleep(1)
        fence.until = trio.current_time()
        async with cluster.allocating():
            runs(cluster, "a")
            runs(cluster, "b")
            await until(lambda: answered(cluster, "a") and answered(cluster, "b"))
            await trio.sleep(120)
    assert [cluster.handle(name) is not None for name in ("a", "b")].count(True) == 1


async def test_the_device_selector_of_a_class_is_not_looked_at(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """S-25."""
    cluster.node("n1", [gpu(1), gpu(2, name="Max 1100", model="0x0bda")])
    cluster.resource_class("only-max", deviceSelector=[{"type": "gpu", "name": "max *"}])
    async with cluster.allocating():
        runs(cluster, "a", of_class="only-max")
        await until(lambda: cluster.handle("a") is not None)
        runs(cluster, "b", of_class="only-max")
        await until(lambda: answered(cluster, "b"))
    assert cluster.devices("a") == ["02:00.0"] and cluster.handle("b") is None
