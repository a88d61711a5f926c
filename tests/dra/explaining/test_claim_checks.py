"""What `doctor` says of pods that wait and of claims that hold GPUs for nobody."""

from __future__ import annotations

from typing import Any

import pytest

from dra.explaining import claim_checks
from dra.explaining.checks import Finding, Verdict
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import claim, exactly, gpu_class, holding, node, pod, warning

CARD = "0000-01-00-0-0x56c0"


def asked(**objects: Any) -> list[Finding]:
    return list(claim_checks.findings(world.cluster(**{"nodes": [node()], "classes": [gpu_class()], **objects})))


def found(check: str, **objects: Any) -> Finding:
    [finding] = [each for each in asked(**objects) if each.check == check]
    return finding


def came(body: dict[str, Any], at: str) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "creationTimestamp": at}}


def test_pods_that_wait_for_gpus_of_ours_and_not_since_just_now() -> None:
    other = claim("other", exactly(of_class="gpu.nvidia.com"))
    pods = [
        came(pod("old", "c"), "2026-11-26T11:59:00Z"),
        came(pod("new", "c"), "2026-11-26T11:59:30Z"),
        pod("foreign", "other"),
        pod("placed", "c", nodeName="n1"),
        pod("ended", "c", phase="Succeeded"),
    ]
    told = found("pods that wait", claims=[claim("c"), other], pods=pods)
    assert (told.verdict, told.seen) == (Verdict.WARNING, "1 wait for GPUs: default/old")
    assert told.cure == "kubectl intel-gpu why -n default pod/old"
    assert found("pods that wait", claims=[other], pods=[pod("foreign", "other")]).verdict is Verdict.OK


def test_a_pod_whose_claim_is_yet_to_be_made_is_known_by_its_template() -> None:
    template = {"metadata": {"name": "t", "namespace": "default"}, "spec": {"spec": claim("x")["spec"]}}
    assert found("pods that wait", templates=[template], pods=[pod("p", template="t")]).seen == "1 wait for GPUs: default/p"


def test_a_pod_that_does_not_start_because_of_its_claim() -> None:
    stuck = pod("stuck", "c", nodeName="n1")
    event = warning(stuck, "FailedPrepareDynamicResources", "not done within 35 s")
    told = found("pods that wait", claims=[claim("c")], pods=[stuck], events=[event])
    assert told.seen == "1 do not start, because their GPUs cannot be prepared: default/stuck"


@pytest.mark.parametrize(("since", "wrong"), [("2026-11-26T11:49:00Z", True), ("2026-11-26T11:55:00Z", False)])
def test_claims_that_hold_for_nobody_for_long(since: str, wrong: bool) -> None:
    claims = [came(holding("idle", CARD), since), came(holding("used", CARD, pods=("p",)), since)]
    told = [each for each in asked(claims=claims) if each.check == "claims"]
    assert [each.seen for each in told] == (["1 hold GPUs and no pod uses them: default/idle"] if wrong else [])


def test_claims_on_a_node_that_is_gone() -> None:
    told = found("claims", claims=[holding("lost", CARD, pods=("p",), node="n9")])
    assert told.verdict is Verdict.PROBLEM and "default/lost" in told.seen
    assert [each for each in asked(nodes=[], claims=[holding("lost", CARD, pods=("p",))]) if each.check == "claims"] == [], "nodes unread"
