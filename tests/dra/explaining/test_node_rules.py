"""What of a pod keeps it from a node."""

from __future__ import annotations

from typing import Any

import pytest

from dra.explaining.node_rules import excluded
from tests.fakes.gpu_clusters import node, pod

IN_A = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
REQUIRED = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": IN_A}}
TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, None),
        ({"nodeName": "n2"}, "bound to node n2"),
        ({"nodeSelector": {"zone": "a"}}, None),
        ({"nodeSelector": {"zone": "b"}}, "wants zone=b, the node has zone=a"),
        ({"nodeSelector": {"disk": "ssd"}}, "no such label"),
        ({"affinity": REQUIRED}, None),
        ({"containers": [{"resources": {"requests": {"cpu": "9"}}}]}, "more cpu than the node has (8)"),
        ({"containers": [{"resources": {"requests": {"cpu": "900m"}}}]}, None),
    ],
)
def test_of_the_pod(spec: dict[str, Any], said: str | None) -> None:
    found = excluded(pod("p", **spec), node("n1", labels={"zone": "a"}))
    assert found is None if said is None else said in str(found)


def test_affinity_that_does_not_match() -> None:
    assert excluded(pod("p", affinity=REQUIRED), node("n1", labels={"zone": "b"})) is not None


def test_of_the_node() -> None:
    assert excluded(None, node(unschedulable=True)) == "the node is cordoned"
    assert excluded(pod("p"), node(taints=[TAINT])) == "the node has the taint dedicated=db:NoSchedule, which the pod does not tolerate"
    assert excluded(pod("p", tolerations=[{"key": "dedicated", "value": "db"}]), node(taints=[TAINT])) is None
    assert excluded(pod("p", tolerations=[{"operator": "Exists"}]), node(taints=[TAINT], unschedulable=True)) is None
