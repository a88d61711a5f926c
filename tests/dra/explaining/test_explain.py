"""Whole answers: the summary and the cure."""

from __future__ import annotations

from typing import Any

import pytest

from dra.explaining import explain
from dra.explaining.cluster import Cluster
from dra.explaining.verdicts import Explanation, State
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import claim, device, exactly, gpu_class, holding, pod, slice_of, warning

CARD, OTHER = "0000-01-00-0-0x56c0", "0000-02-00-0-0x56c0"
POD = pod("p", "c")


def cluster(*claims: dict[str, Any], pods: Any = (POD,), **objects: Any) -> Cluster:
    given: dict[str, Any] = {"nodes": [world.node()], "classes": [gpu_class()], "slices": [slice_of(device(1), device(2))]}
    return world.cluster(claims=claims, pods=pods, **{**given, **objects})


def of_pod(seen: Cluster, name: str = "p") -> Explanation:
    found = seen.pod("default", name)
    assert found is not None
    told = explain.pod(seen, found)
    assert told.fine or told.summary
    return told


def test_held_gpus_name_the_holder_and_whom_to_wait_for() -> None:
    told = of_pod(cluster(claim("c"), holding("a", CARD, pods=("x",)), holding("b", OTHER, pods=("y",))))
    assert not told.fine
    assert told.summary == f"claim c: n1: asks for 1, none fit; {CARD} is held by claim default/a of pod x"
    assert told.cure == "wait until pod x in namespace default ends, or delete it"


def test_a_count_that_no_node_has_says_how_many_there_are() -> None:
    told = of_pod(cluster(claim("c", exactly(count=2)), holding("a", CARD, pods=("x",))))
    assert "asks for 2, 1 fits" in told.summary
    assert told.cure.startswith("ask for 1, or wait until pod x")


def test_a_count_beyond_all_that_are_meant_says_so() -> None:
    told = of_pod(cluster(claim("c", exactly(count=3))))
    assert told.summary == "claim c: n1: asks for 3, 2 fit, and it has no other devices" and told.cure == "ask for 2"
    mixed = slice_of(device(1), device(2, "vf", card=2))
    whole = exactly(count=2, selectors=world.selectors(world.is_type("gpu")))
    assert of_pod(cluster(claim("c", whole), slices=[mixed])).cure == "ask for 1, or make the selector wider"


def test_requests_that_fit_alone_but_not_together() -> None:
    told = of_pod(cluster(claim("c", exactly("one", count=2), exactly("two"))))
    assert told.summary == "claim c: n1: each request has devices that fit, but there are not enough for all of them together"


def test_constraints_that_no_choice_satisfies_are_named() -> None:
    same = {"matchAttribute": "gpu.intel.com/pciAddress"}
    told = of_pod(cluster(claim("c", exactly(count=2), constraints=[same])))
    assert "no choice of them satisfies the constraints (gpu.intel.com/pciAddress)" in told.summary


def test_two_claims_of_a_pod_are_looked_at_together() -> None:
    told = of_pod(cluster(claim("c", exactly(count=2)), claim("d"), pods=[pod("p", "c", "d")]))
    assert "not enough for all of them together" in told.summary


def test_what_fits_is_not_blamed() -> None:
    told = of_pod(cluster(claim("c")))
    assert not told.fine and "it fits on n1" in told.summary


def test_a_cordoned_node() -> None:
    told = of_pod(cluster(claim("c"), nodes=[world.node(unschedulable=True)]))
    assert told.summary == "claim c: no node with devices is for this pod; n1: the node is cordoned"
    assert told.cure == "kubectl uncordon n1"


def test_no_slices_at_all() -> None:
    assert "no node offers any device" in of_pod(cluster(claim("c"), slices=[])).summary
    leaving = world.said_of_node("n1", "Decommissioned", "nothing is left")
    told = of_pod(cluster(claim("c"), slices=[], events=[leaving]))
    assert told.summary == "claim c: no node offers any device: the driver is being removed from n1"


def test_a_missing_template_a_missing_claim_and_a_missing_class() -> None:
    assert of_pod(cluster(pods=[pod("p", template="t")])).summary == "claim made: there is no ResourceClaimTemplate t in namespace default"
    assert of_pod(cluster()).summary == "claim c: there is no ResourceClaim c in namespace default"
    told = of_pod(cluster(claim("c", exactly(of_class="nope"))))
    assert told.summary == "claim c: there is no DeviceClass nope" and "gpu.intel.com" in told.cure


def test_a_claim_that_is_being_deleted() -> None:
    going = claim("c")
    going["metadata"]["deletionTimestamp"] = world.AT
    told = of_pod(cluster(going))
    assert told.claims[0].state is State.BROKEN and "being deleted" in told.summary


def test_a_prepare_that_fails_is_told_in_the_plugins_words() -> None:
    bound = pod("p", "c", nodeName="n1")
    failed = warning(bound, "FailedPrepareDynamicResources", "0000-01-00-0-0x56c0 is wedged: rebind its driver or reset it")
    told = of_pod(cluster(holding("c", CARD, pods=("p",)), pods=[bound], events=[failed]))
    assert not told.fine and told.claims[0].state is State.BROKEN
    assert "is wedged: rebind its driver" in told.summary


def test_an_allocated_device_that_is_gone() -> None:
    told = of_pod(cluster(holding("c", "0000-09-00-0-0x56c0", pods=("p",))))
    assert "is not offered by its node any more" in told.summary


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_what_is_not_pending_is_fine(phase: str) -> None:
    told = of_pod(cluster(holding("c", CARD, pods=("p",)), pods=[pod("p", "c", phase=phase, nodeName="n1")]))
    assert told.fine and told.summary.startswith("it is not pending")


def test_a_gated_pod_is_told_before_its_claims() -> None:
    told = of_pod(cluster(claim("c"), pods=[pod("p", "c", schedulingGates=[{"name": "kueue"}])]))
    assert told.summary == "the pod has scheduling gates: kueue"


def test_a_claim_nobody_uses() -> None:
    seen = cluster(claim("c"), pods=())
    told = explain.claim(seen, seen.claims[0])
    assert told.summary == "nobody uses it; it would fit on n1"


def test_a_claim_is_judged_for_the_pod_that_waits_for_it() -> None:
    elsewhere = pod("p", "c", nodeSelector={"zone": "b"})
    seen = cluster(claim("c"), pods=[elsewhere])
    assert "nodeSelector wants zone=b" in explain.claim(seen, seen.claims[0]).summary
