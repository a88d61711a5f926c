"""Claims and pods meet the controller: what it writes, and when it writes again."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra.classic.names import FINALIZER
from dra.classic.placement import Policy
from nursery_apps.seams import Conflict, Throttled, Unavailable
from tests.fakes.classic_cluster import ClassicCluster, gpu, until, vf


@pytest.fixture
def cluster(autojump_clock: MockClock) -> ClassicCluster:
    return ClassicCluster()


async def test_a_pod_gets_a_gpu_of_the_node_that_was_selected(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1), gpu(2)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
    claim = cluster.the_claim("c")
    assert cluster.devices("c") == ["01:00.0"]
    assert claim["metadata"]["finalizers"] == [FINALIZER]
    assert claim["status"]["driverName"] == "gpu.resource.intel.com"
    assert claim["status"]["reservedFor"] == [{"resource": "pods", "name": "p", "uid": "pod-p"}]
    allocation = claim["status"]["allocation"]
    assert allocation["shareable"] is False
    assert allocation["availableOnNodes"] == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    }


async def test_every_claim_of_a_pod_is_answered_for_every_node_that_was_asked_about(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("one", [gpu(1)])
    cluster.node("two", [gpu(1), gpu(2)])
    cluster.claim("a")
    cluster.claim("b")
    cluster.pod("p", {"first": "a", "second": "b"}, nodes=["one", "two", "none-here"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") is not None)
    assert cluster.unsuitable("p") == {"first": ["one", "none-here"], "second": ["one", "none-here"]}


async def test_an_answer_is_written_also_when_no_node_is_unsuitable(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") is not None)
    assert cluster.unsuitable("p") == {"c": []}


async def test_the_selected_node_is_answered_for_although_it_is_not_among_the_potential_ones(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n2"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") is not None)
    assert cluster.unsuitable("p") == {"c": ["n2", "n1"]}


async def test_a_list_of_129_unsuitable_nodes_is_cut_and_keeps_the_selected_one(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=[f"n{number}" for number in range(128)], selected="last")
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") is not None)
    answer = cluster.unsuitable("p")
    assert answer is not None and len(answer["c"]) == 128 and "last" in answer["c"]


async def test_a_pod_that_waits_is_answered_anew_as_soon_as_a_device_is_free(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("first")
    cluster.pod("one", ["first"], nodes=["n1"], selected="n1")
    cluster.claim("second")
    async with cluster.allocating():
        await until(lambda: cluster.handle("first") is not None)
        cluster.pod("two", ["second"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.unsuitable("two") == {"second": ["n1"]})
        assert ("Pod", "two", "NoSuitableNode", "no node suits. 1 node: 1 of a whole GPU wanted; 0 of 1 fit") in cluster.events
        cluster.api.remove("podschedulingcontexts", "one", namespace="default")
        cluster.unreserve("first")
        began = trio.current_time()
        await until(lambda: cluster.handle("second") is not None)
    assert trio.current_time() - began < 1
    assert cluster.handle("first") is None


async def test_a_claim_that_is_deleted_lets_its_device_go_and_then_itself(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating() as work:
        await until(lambda: cluster.handle("c") is not None)
        cluster.delete_claim("c")
        await trio.sleep(60)
        assert cluster.handle("c") is not None, "a claim in use must keep its devices"
        cluster.unreserve("c", deallocate=False)
        await until(lambda: ("resourceclaims", "default", "c") not in cluster.api.objects)
        assert not work.ledger.holdings()


async def test_a_claim_with_our_finalizer_and_nothing_else_can_be_deleted(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """The controller died between protecting and allocating it."""
    cluster.node("n1", [gpu(1)])
    claim = cluster.claim("c")
    metadata = {**claim["metadata"], "finalizers": [FINALIZER, "somebody/else"]}
    cluster.change("resourceclaims", "c", {"metadata": metadata})
    cluster.delete_claim("c")
    async with cluster.allocating():
        await until(lambda: cluster.the_claim("c")["metadata"].get("finalizers") == ["somebody/else"])


async def test_an_immediate_claim_goes_to_the_first_node_that_fits_and_waits_for_one(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1, memory=4096)])
    cluster.claim("c", mode="Immediate", memory=8192)
    async with cluster.allocating():
        await until(lambda: bool(cluster.events))
        assert cluster.events[0][2] == "NoSuitableNode"
        cluster.node("n2", [gpu(1)])
        await until(lambda: cluster.handle("c") is not None)
    found = cluster.handle("c")
    assert found is not None and found.node == "n2"
    assert "reservedFor" not in cluster.the_claim("c")["status"]


async def test_an_immediate_claim_goes_only_where_its_class_lets_it(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    for node in ("n1", "n2"):
        cluster.node(node, [gpu(1)])
        cluster.api.put("nodes", {"metadata": {"name": node, "labels": {"zone": node}}})
    of_class = cluster.api.objects["resourceclasses", "", "intel-gpu"]
    there = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["n2"]}]}]}
    cluster.api.put("resourceclasses", {**of_class, "suitableNodes": there})
    cluster.claim("c", mode="Immediate")
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
    found = cluster.handle("c")
    assert found is not None and found.node == "n2"


async def test_an_immediate_claim_of_a_class_that_becomes_ours_later_is_allocated_then(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.resource_class("theirs", driver="gpu.example.com")
    cluster.claim("c", of_class="theirs", mode="Immediate")
    async with cluster.allocating():
        await trio.sleep(60)
        assert cluster.handle("c") is None
        cluster.resource_class("theirs")
        await until(lambda: cluster.handle("c") is not None)


async def test_an_allocated_claim_outlives_its_class_and_its_parameters(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c", memory=1024)
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating() as work:
        await until(lambda: cluster.handle("c") is not None)
        cluster.api.remove("resourceclasses", "intel-gpu")
        cluster.api.remove("gpuclaimparameters", "c-params", namespace="default")
        cluster.unreserve("c")
        await until(lambda: cluster.handle("c") is None and not work.ledger.holdings())
    assert "finalizers" not in cluster.the_claim("c")["metadata"]


async def test_missing_parameters_are_named_and_waited_for(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c", memory=1024)
    spec = cluster.api.objects["gpuclaimparameters", "default", "c-params"]
    cluster.api.remove("gpuclaimparameters", "c-params", namespace="default")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: bool(cluster.events))
        kinds = {(kind, name, reason) for kind, name, reason, _ in cluster.events}
        assert kinds >= {("ResourceClaim", "c", "ParametersNotFound"), ("Pod", "p", "ParametersNotFound")}
        assert "GpuClaimParameters default/c-params" in cluster.events[0][3]
        cluster.api.put("gpuclaimparameters", spec, namespace="default")
        await until(lambda: cluster.handle("c") is not None)


@pytest.mark.parametrize("error", [Conflict(409, "Conflict", "x"), Throttled(429, "TooManyRequests", "x", retry_after_seconds=3)])
async def test_a_write_that_was_refused_is_made_again(cluster: ClassicCluster, autojump_clock: MockClock, error: Exception) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    cluster.api.failures += [("patch", error), ("patch", error)]  # type: ignore[list-item]
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
    assert cluster.devices("c") == ["01:00.0"]


async def test_a_write_whose_answer_was_lost_is_looked_up_before_anything_else_is_decided(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.node("n2", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1", "n2"], selected="n1")
    lost = Unavailable(0, "Lost", "no answer")

    def store_and_lose(plural: str, body: dict[str, object]) -> None:
        status = body.get("status")
        if plural == "resourceclaims" and isinstance(status, dict) and status.get("allocation") and not cluster.api.failures:
            cluster.api.on_store = lambda _plural, _body: None
            cluster.api.put("resourceclaims", {**body, "metadata": dict(body["metadata"])}, namespace="default")  # type: ignore[call-overload]
            cluster.schedule("p", nodes=["n1", "n2"], selected="n2")
            raise lost

    cluster.api.on_store = store_and_lose
    async with cluster.allocating() as work:
        await until(lambda: cluster.handle("c") is not None)
        await trio.sleep(120)
        [holding] = work.ledger.holdings().values()
    found = cluster.handle("c")
    assert found is not None and found.node == holding.node == "n1" and holding.written


async def test_on_1_28_the_node_that_was_just_given_up_is_not_given_again_at_once(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    """The scheduler of 1.28 leaves it selected when it asks for the end of an allocation (dynamicresources.go, PostFilter)."""
    cluster.node("n1", [gpu(1)])
    cluster.node("n2", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1", "n2"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
        cluster.unreserve("c")
        await until(lambda: cluster.handle("c") is None)
        await trio.sleep(20)
        assert cluster.handle("c") is None
        cluster.schedule("p", nodes=["n1", "n2"], selected="n2")
        await until(lambda: cluster.handle("c") is not None)
    found = cluster.handle("c")
    assert found is not None and found.node == "n2"


async def test_entries_of_other_drivers_in_a_context_stay(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [])
    cluster.claim("c")
    cluster.pod("p", ["c"])
    theirs = {"name": "nic", "unsuitableNodes": ["n9"]}
    cluster.change("podschedulingcontexts", "p", {"status": {"resourceClaims": [theirs]}})
    cluster.schedule("p", nodes=["n1"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"nic": ["n9"], "c": ["n1"]})


async def test_a_node_whose_plugin_died_gets_nothing_new_and_is_taken_again_when_it_lives(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    async with cluster.allocating():
        await trio.sleep(1)
        cluster.beating.clear()
        await trio.sleep(60)
        cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.unsuitable("p") == {"c": ["n1"]})
        cluster.heartbeat("n1")
        await until(lambda: cluster.handle("c") is not None)


async def test_vfs_of_one_card_are_given_to_pod_after_pod_by_one_layout(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1), gpu(2)])
    async with cluster.allocating():
        for name in ("a", "b"):
            cluster.claim(name, type="vf", memory=3500)
            cluster.pod(f"pod-{name}", [name], nodes=["n1"], selected="n1")
            await until(lambda name=name: cluster.handle(name) is not None)
    a, b = cluster.handle("a"), cluster.handle("b")
    assert a is not None and b is not None
    assert cluster.devices("a") == ["01:00.0#1"] and cluster.devices("b") == ["01:00.0#2"]
    assert a.parts[0].layout == b.parts[0].layout == (("flex170_m4", 4),)


async def test_vfs_that_an_administrator_made_are_given_and_their_card_is_not(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1), vf(1, 0), vf(1, 1)])
    cluster.claim("v", type="vf")
    cluster.claim("whole")
    cluster.pod("p", ["v"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("v") is not None)
        cluster.pod("q", ["whole"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.unsuitable("q") == {"whole": ["n1"]})
    found = cluster.handle("v")
    assert found is not None
    [part] = found.parts
    assert (part.uid, part.parent, part.index) == ("0000:01:00.1-0x56c0", "0000:01:00.0-0x56c0", 1)


async def test_a_monitor_sees_the_node_and_may_be_shared_by_pods(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("m", of_class="intel-gpu-monitor")
    cluster.pod("p", ["m"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("m") is not None)
    found = cluster.handle("m")
    assert found is not None and found.monitor and not found.parts and found.node == "n1"
    assert cluster.the_claim("m")["status"]["allocation"]["shareable"] is True


async def test_another_controllers_allocations_are_counted_before_the_first_decision(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    for name in ("a", "b"):
        cluster.claim(name)
        cluster.pod(f"p{name}", [name], nodes=["n1"], selected="n1")
        async with cluster.allocating():
            await until(lambda name=name: cluster.handle(name) is not None or cluster.unsuitable(f"p{name}") is not None)
    assert cluster.devices("a") == ["01:00.0"] and cluster.handle("b") is None


async def test_nothing_is_written_once_the_lease_has_run_out(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    from nursery_apps.controller.leadership import Fence

    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    fence = Fence()
    async with cluster.allocating(fence):
        await trio.sleep(1)
        cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
        await trio.sleep(300)
    assert cluster.handle("c") is None and "finalizers" not in cluster.the_claim("c")["metadata"]


def slow_writes(cluster: ClassicCluster, name: str) -> trio.Event:
    """Writes to one claim's status reach the server only after the event."""
    arrives, patch = trio.Event(), cluster.api.patch

    async def late(what: Any, which: str, body: object, **more: Any) -> Any:
        if which == name and more.get("subresource"):
            await arrives.wait()
        return await patch(what, which, body, **more)

    cluster.api.patch = late  # type: ignore[method-assign]
    return arrives


async def test_a_claim_of_two_pods_keeps_its_device_while_it_is_being_written(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    """The second pod's node used to take it over in memory, so that a third pod got the device of a write that was on its way."""
    cluster.node("n1", [gpu(1)])
    cluster.node("n2", [gpu(1)])
    cluster.claim("both", shareable=True)
    cluster.claim("other")
    arrives = slow_writes(cluster, "both")
    async with cluster.allocating():
        cluster.pod("one", ["both"], nodes=["n1", "n2"], selected="n1")
        await trio.sleep(1)
        cluster.pod("two", ["both"], nodes=["n1", "n2"], selected="n2")
        await trio.sleep(1)
        cluster.pod("three", ["other"], nodes=["n1"], selected="n1")
        await trio.sleep(1)
        arrives.set()
        await until(lambda: cluster.handle("both") is not None)
        await trio.sleep(120)
    both = cluster.handle("both")
    assert both is not None and both.node == "n1"
    assert cluster.handle("other") is None and cluster.unsuitable("three") == {"other": ["n1"]}


async def test_what_was_decided_for_a_node_that_the_scheduler_gave_up_others_may_have(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("first")
    cluster.claim("second")
    cluster.api.failures += [("patch", Unavailable(503, "ServiceUnavailable", "x"))]
    async with cluster.allocating():
        await trio.sleep(1)
        cluster.pod("one", ["first"], nodes=["n1"], selected="n1")
        await trio.sleep(0.01)
        cluster.schedule("one", nodes=["n1"])
        await until(lambda: cluster.unsuitable("one") == {"first": []})
        cluster.pod("two", ["second"], nodes=["n1"], selected="n1")
        await until(lambda: cluster.handle("second") is not None)
    assert cluster.handle("first") is None


async def test_a_pod_that_names_one_claim_twice_needs_one_device(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", {"a": "c", "b": "c"}, nodes=["n1"])
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"a": [], "b": []})
        cluster.schedule("p", nodes=["n1"], selected="n1")
        await until(lambda: cluster.handle("c") is not None)
    assert cluster.devices("c") == ["01:00.0"]


async def test_an_allocation_of_ours_without_our_finalizer_is_taken_back_all_the_same(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.handle("c") is not None)
        cluster.api.remove("podschedulingcontexts", "p", namespace="default")
        metadata = {key: value for key, value in cluster.the_claim("c")["metadata"].items() if key != "finalizers"}
        cluster.change("resourceclaims", "c", {"metadata": metadata})
        cluster.unreserve("c")
        await until(lambda: cluster.handle("c") is None)


async def test_a_policy_that_changes_counts_for_pods_that_wait(cluster: ClassicCluster, autojump_clock: MockClock) -> None:
    cluster.node("n1", [gpu(1)])
    cluster.claim("c", type="vf", count=16)
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        await until(lambda: cluster.unsuitable("p") == {"c": ["n1"]})
        cluster.policy.set(Policy(vf_memory={"0x56c0": 1000}))
        await until(lambda: cluster.handle("c") is not None)
    found = cluster.handle("c")
    assert found is not None and found.parts[0].layout == (("flex170_m16", 16),)


async def test_a_controller_that_starts_allocates_by_the_policy_that_came_meanwhile(
    cluster: ClassicCluster, autojump_clock: MockClock
) -> None:
    cluster.node("n1", [gpu(1, memory=8192), gpu(2)])
    cluster.claim("c")
    cluster.pod("p", ["c"], nodes=["n1"], selected="n1")
    async with cluster.allocating():
        cluster.policy.set(Policy(order="balanced"))
        await until(lambda: cluster.handle("c") is not None)
    assert cluster.devices("c") == ["02:00.0"]
