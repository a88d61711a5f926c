"""The negotiation between the scheduler of 1.28 to 1.30 and a driver's controller, in virtual time and without HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.tiny_controller import TinyController
from tools.simcluster import kinds
from tools.simcluster.classic import control
from tools.simcluster.classic.cluster import ClassicCluster
from tools.simcluster.kinds import CLAIM, POD, SCHEDULING, Json
from tools.simcluster.store import Change

DRIVER = "gpu.resource.intel.com"
ALL = pytest.mark.parametrize("cluster", ["1.28", "1.29", "1.30"], indirect=True)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClassicCluster]:
    """Three nodes, a class, and nobody who allocates."""
    made = ClassicCluster(str(tmp_path), kubernetes=getattr(request, "param", "1.28"), with_kubelet=False)
    made.create_nodes(3)
    made.create_resource_class("gpu", DRIVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control.run, made.registry, lambda _line: None)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
async def controller(cluster: ClassicCluster) -> AsyncIterator[TinyController]:
    async with trio.open_nursery() as nursery:
        tiny = TinyController(cluster)
        nursery.start_soon(tiny.run)
        yield tiny
        nursery.cancel_scope.cancel()


async def settled(cluster: ClassicCluster, *, seconds: float = 0.5) -> None:
    """Until nobody has written for a while."""
    while True:
        before = cluster.store.revision
        await trio.sleep(seconds)
        if cluster.store.revision == before:
            return


def said(cluster: ClassicCluster, pod: str) -> str:
    """Why the pod has no node."""
    conditions = cluster.registry.get(POD, pod, "default")["status"].get("conditions") or ()
    return next((each.get("message", "") for each in conditions if each["type"] == "PodScheduled"), "")


def answer(cluster: ClassicCluster, pod: str, **unsuitable: list[str]) -> None:
    """What a driver says: entry -> nodes."""
    scheduling = cluster.scheduling(pod)
    assert scheduling is not None
    status = {"resourceClaims": [{"name": entry, "unsuitableNodes": nodes} for entry, nodes in unsuitable.items()]}
    cluster.registry.amend(SCHEDULING, scheduling, lambda body: body.update(status=status), subresource="status")


def allocate(cluster: ClassicCluster, name: str, *nodes: str, reserved_for: Json | None = None, shareable: bool = False) -> None:
    """What a driver writes."""
    field = {"key": "metadata.name", "operator": "In", "values": list(nodes)}
    allocation: Json = {"resourceHandles": [], "shareable": shareable}
    if nodes:
        allocation["availableOnNodes"] = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    status: Json = {"driverName": DRIVER, "allocation": allocation}
    if reserved_for is not None:
        metadata = reserved_for["metadata"]
        status["reservedFor"] = [{"resource": "pods", "name": metadata["name"], "uid": metadata["uid"]}]
    cluster.registry.amend(CLAIM, cluster.claim(name), lambda body: body.update(status=status), subresource="status")


class Diary:
    """States of one kind, as they were written."""

    def __init__(self, kind: kinds.Kind) -> None:
        self._kind = kind
        self.states: list[Json] = []

    def note(self, kind: kinds.Kind, change: Change) -> None:
        if kind == self._kind:
            self.states.append(change.object)


# --- the way it goes -------------------------------------------------------------------------------------------------------------


@ALL
async def test_a_pod_gets_its_node_and_the_context_goes(
    autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController
) -> None:
    cluster.create_resource_claim("t", "gpu", template=True)
    pod = cluster.create_pod("p", templates={"gpu": "t"})
    node = await cluster.wait_bound("p")
    assert controller.allocations[-1][1] == node
    [claim] = cluster.claims_of_pod("p")
    assert claim["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert [each["name"] for each in claim["status"]["reservedFor"]] == ["p"]
    await settled(cluster)
    assert cluster.scheduling("p") is None


@ALL
async def test_one_pending_claim_needs_no_information_to_select_a_node(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("c", "gpu")
    pod = cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    assert scheduling["metadata"]["ownerReferences"][0] | {"uid": ""} == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "uid": "",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert scheduling["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert scheduling["spec"]["potentialNodes"] == ["node-0000", "node-0001", "node-0002"]
    assert scheduling["spec"]["selectedNode"] in scheduling["spec"]["potentialNodes"]
    assert said(cluster, "p") == "0/3 nodes are available: waiting for resource driver to allocate resource."


@ALL
async def test_five_claims_are_asked_about_before_a_node_is_selected(
    autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController
) -> None:
    controller.devices, controller.allocates, controller.answers = 5, False, False
    names = [f"c{number}" for number in range(5)]
    for name in names:
        cluster.create_resource_claim(name, "gpu")
    cluster.create_pod("p", claims={name: name for name in names})
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and "selectedNode" not in scheduling["spec"]
    assert said(cluster, "p").endswith("waiting for resource driver to provide information.")
    controller.allocates = controller.answers = True
    cluster.create_nodes(1, prefix="another")
    node = await cluster.wait_bound("p")
    assert controller.allocations == [(name, node) for name in names]


async def test_nodes_that_do_not_suit_are_left_out(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    for name in ("a", "b"):
        cluster.create_resource_claim(name, "gpu")
    cluster.create_pod("p", claims={"a": "a", "b": "b"})
    await settled(cluster)
    answer(cluster, "p", a=["node-0000"], b=["node-0002"])
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"]["selectedNode"] == "node-0001"


async def test_a_selected_node_that_turns_out_not_to_suit_is_changed(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("c", "gpu")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    selected = []
    for _ in range(2):
        scheduling = cluster.scheduling("p")
        assert scheduling is not None
        selected.append(scheduling["spec"]["selectedNode"])
        answer(cluster, "p", gpu=list(selected))
        await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    assert len({*selected, scheduling["spec"]["selectedNode"]}) == 3


@ALL
async def test_a_full_cluster_is_said_and_ends_when_the_driver_says_so(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("c", "gpu")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    nodes = ["node-0000", "node-0001", "node-0002"]
    answer(cluster, "p", gpu=nodes)
    await settled(cluster)
    assert said(cluster, "p") == "0/3 nodes are available: 3 resourceclaim cannot be allocated for the node (unsuitable)."
    answer(cluster, "p", gpu=nodes[1:])
    await settled(cluster, seconds=20)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"]["selectedNode"] == nodes[0]


async def test_of_many_nodes_128_are_potential_and_more_are_looked_at(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_nodes(300, prefix="many")
    cluster.create_resource_claim("c", "gpu")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    potential = scheduling["spec"]["potentialNodes"]
    assert len(potential) == 128 == len(set(potential)) and potential == sorted(potential)


async def test_one_feasible_node_is_asked_about(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    """PreScore is left out then."""
    for name in ("a", "b"):
        cluster.create_resource_claim(name, "gpu")
    cluster.create_nodes(1, prefix="only", labels={"here": "yes"})
    cluster.create_pod("p", claims={"a": "a", "b": "b"}, nodeSelector={"here": "yes"})
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"] == {"potentialNodes": ["only-0000"]}


# --- what keeps a pod from a node ------------------------------------------------------------------------------------------------


async def test_the_class_says_which_nodes_suit(autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController) -> None:
    cluster.create_nodes(1, prefix="gpu", labels={"gpu": "flex"})
    term = {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["flex"]}]}
    cluster.create_resource_class("flex", DRIVER, suitable_nodes={"nodeSelectorTerms": [term]})
    cluster.create_resource_claim("c", "flex")
    cluster.create_pod("p", claims={"gpu": "c"})
    assert await cluster.wait_bound("p") == "gpu-0000"


async def test_a_class_that_is_missing_is_waited_for(
    autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController
) -> None:
    cluster.create_resource_claim("c", "later")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    assert "resource class later does not exist" in said(cluster, "p")
    cluster.create_resource_class("later", DRIVER)
    await cluster.wait_bound("p")


async def test_claims_in_other_states_are_waited_for(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("now", "gpu", mode="Immediate")
    cluster.create_resource_claim("used", "gpu")
    other = cluster.create_pod("other", nodeName="node-0000")
    allocate(cluster, "used", "node-0000", reserved_for=other)
    for name in ("now", "used", "missing"):
        cluster.create_pod(name, claims={"gpu": name})
    await settled(cluster)
    assert "unallocated immediate resourceclaim" in said(cluster, "now")
    assert "resourceclaim in use" in said(cluster, "used")
    assert said(cluster, "missing") == ""
    allocate(cluster, "now", "node-0001")
    assert await cluster.wait_bound("now") == "node-0001"
    cluster.create_resource_claim("missing", "gpu")
    await settled(cluster)
    assert cluster.scheduling("missing") is not None


async def test_several_pods_share_a_claim_that_may_be_shared(
    autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController
) -> None:
    controller.shareable = True
    cluster.create_resource_claim("c", "gpu")
    for name in ("one", "two"):
        cluster.create_pod(name, claims={"gpu": "c"})
    assert await cluster.wait_bound("one") == await cluster.wait_bound("two")
    assert len(cluster.claim("c")["status"]["reservedFor"]) == 2


# --- deallocation ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "is_cleared"), [("1.28", False), ("1.29", True), ("1.30", True)], indirect=["cluster"])
async def test_a_claim_that_blocks_is_deallocated(autojump_clock: MockClock, cluster: ClassicCluster, is_cleared: bool) -> None:
    """From 1.29 on the selected node is taken back first; before, the driver finds the old one."""
    for name in ("a", "b"):
        cluster.create_resource_claim(name, "gpu")
    cluster.create_pod("p", claims={"a": "a", "b": "b"})
    await settled(cluster)
    answer(cluster, "p", a=[], b=[])
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    node = scheduling["spec"]["selectedNode"]
    allocate(cluster, "a", node)
    answer(cluster, "p", a=[], b=[node])
    await settled(cluster, seconds=20)
    assert cluster.claim("a")["status"]["deallocationRequested"] is True
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    assert scheduling["spec"].get("selectedNode", "") == ("" if is_cleared else node)
    assert "resourceclaim must be reallocated" in said(cluster, "p")
    cluster.registry.amend(CLAIM, cluster.claim("a"), lambda body: body.update(status={}), subresource="status")
    await settled(cluster)
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"]["selectedNode"] != node


async def test_a_claim_that_somebody_uses_or_that_was_immediate_is_not_deallocated(
    autojump_clock: MockClock, cluster: ClassicCluster
) -> None:
    cluster.create_resource_claim("used", "gpu")
    cluster.create_resource_claim("now", "gpu", mode="Immediate")
    other = cluster.create_pod("other", nodeName="node-0000")
    allocate(cluster, "used", "node-0000", reserved_for=other, shareable=True)
    allocate(cluster, "now", "node-0001")
    cluster.create_pod("p", claims={"a": "used", "b": "now"})
    await settled(cluster)
    assert "resourceclaim not available on the node" in said(cluster, "p")
    assert not cluster.claim("used")["status"].get("deallocationRequested")
    assert not cluster.claim("now")["status"].get("deallocationRequested")


# --- what differs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "is_reserved"), [("1.28", True), ("1.29", True), ("1.30", False)], indirect=["cluster"])
async def test_up_to_1_29_an_allocated_claim_is_reserved_and_given_back_while_others_are_pending(
    autojump_clock: MockClock, cluster: ClassicCluster, is_reserved: bool
) -> None:
    diary = Diary(CLAIM)
    for name in ("allocated", "pending"):
        cluster.create_resource_claim(name, "gpu")
    allocate(cluster, "allocated", "node-0001")
    with cluster.store.listening(diary.note):
        cluster.create_pod("p", claims={"a": "allocated", "b": "pending"})
        await settled(cluster)
    states = [bool(state["status"].get("reservedFor")) for state in diary.states]
    assert (True in states) is is_reserved
    assert not cluster.claim("allocated")["status"].get("reservedFor")
    scheduling = cluster.scheduling("p")
    assert scheduling is not None and scheduling["spec"]["selectedNode"] == "node-0001"


@pytest.mark.parametrize(("cluster", "backs_off"), [("1.28", True), ("1.29", False), ("1.30", False)], indirect=["cluster"])
async def test_who_waits_for_a_driver_backs_off_in_1_28(autojump_clock: MockClock, cluster: ClassicCluster, backs_off: bool) -> None:
    cluster.create_resource_claim("c", "gpu")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    answer(cluster, "p", gpu=[])
    await settled(cluster)
    # Neither the first information nor about the selected node: nothing that 1.28 hurries for.
    scheduling = cluster.scheduling("p")
    assert scheduling is not None
    node = scheduling["spec"]["selectedNode"]
    others = [name for name in scheduling["spec"]["potentialNodes"] if name != node]
    answer(cluster, "p", gpu=others[:1])
    began = trio.current_time()
    with cluster.store.listening((diary := Diary(SCHEDULING)).note):
        answer(cluster, "p", gpu=others)
        cluster.registry.amend(kinds.NODE, cluster.registry.get(kinds.NODE, node), lambda body: body["spec"].update(unschedulable=True))
        await cluster.store.until(lambda: said(cluster, "p").startswith("0/3 nodes are available: 2 resourceclaim"), POD)
    assert diary.states
    assert (trio.current_time() - began > 0.5) is backs_off


# --- the end of pods -------------------------------------------------------------------------------------------------------------


@ALL
async def test_a_pod_that_goes_while_it_negotiates_leaves_nothing(
    autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController
) -> None:
    controller.allocates = False
    cluster.create_resource_claim("t", "gpu", template=True)
    cluster.create_pod("p", templates={"gpu": "t"})
    await settled(cluster)
    assert cluster.scheduling("p") is not None
    cluster.delete_pod("p")
    await settled(cluster)
    assert cluster.scheduling("p") is None
    assert cluster.store.all(CLAIM) == []


async def test_what_one_pod_gives_back_another_gets(autojump_clock: MockClock, cluster: ClassicCluster, controller: TinyController) -> None:
    cluster.create_resource_claim("t", "gpu", template=True)
    names = [f"p{number}" for number in range(6)]
    for name in names:
        cluster.create_pod(name, templates={"gpu": "t"})
    await settled(cluster, seconds=20)
    bound = [name for name in names if cluster.registry.get(POD, name, "default")["spec"].get("nodeName")]
    assert len(bound) == 3
    for name in bound:
        cluster.delete_pod(name, grace_seconds=0)
    for name in set(names) - set(bound):
        await cluster.wait_bound(name, deadline=60)


async def test_a_cluster_of_another_release_takes_over(autojump_clock: MockClock, cluster: ClassicCluster) -> None:
    cluster.create_resource_claim("c", "gpu")
    cluster.create_pod("p", claims={"gpu": "c"})
    await settled(cluster)
    cluster.upgrade("1.31")
    assert [kind.plural for kind in (kinds.RESOURCE_CLASS, CLAIM, SCHEDULING) if cluster.store.all(kind)] == []
