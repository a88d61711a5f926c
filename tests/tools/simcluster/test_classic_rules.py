"""What the API server of 1.28 to 1.30 takes of resource.k8s.io/v1alpha2, and what may not change any more."""

from __future__ import annotations

from typing import Any

import pytest

from tools.simcluster.classic import types
from tools.simcluster.kinds import CLAIM, POD, RESOURCE_CLASS, SCHEDULING, TEMPLATE, Json, Kind
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.releases import release
from tools.simcluster.store import Store
from tools.simcluster.typed import checked

DRIVER = "gpu.resource.intel.com"
CONSUMER = {"resource": "pods", "name": "p", "uid": "1"}
OTHER = {"resource": "pods", "name": "q", "uid": "2"}
ALLOCATED = {"driverName": DRIVER, "allocation": {"resourceHandles": [{"driverName": DRIVER, "data": "x"}]}}
SHARED = {"driverName": DRIVER, "allocation": {"shareable": True}}


@pytest.fixture
def server() -> Registry:
    return Registry(Store(), release("1.28"))


def claim(server: Registry, **spec: Any) -> Json:
    return server.create(CLAIM, {"metadata": {"name": "c"}, "spec": {"resourceClassName": "gpu", **spec}}, "default")


def status(server: Registry, new: Json) -> Json:
    return server.amend(CLAIM, server.get(CLAIM, "c", "default"), lambda body: body.update(status=new), subresource="status")


def test_defaults_and_a_status_that_nobody_may_bring_along(server: Registry) -> None:
    made = server.create(CLAIM, {"metadata": {"name": "c"}, "spec": {"resourceClassName": "gpu"}, "status": {"driverName": "x"}}, "default")
    assert made["spec"]["allocationMode"] == "WaitForFirstConsumer"
    assert "status" not in made
    inner = {"resourceClassName": "gpu"}
    template = server.create(TEMPLATE, {"metadata": {"name": "t"}, "spec": {"spec": inner}}, "default")
    assert template["spec"]["spec"]["allocationMode"] == "WaitForFirstConsumer"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"allocation": {}}], "status.driverName: Required value: must be specified when `allocation` is set"),
        ([ALLOCATED, {**ALLOCATED, "allocation": {"resourceHandles": []}}], "status.allocation: Invalid value: field is immutable"),
        ([ALLOCATED, {**ALLOCATED, "driverName": "other.example.com"}], "status.driverName: Invalid value: field is immutable"),
        ([{"reservedFor": [CONSUMER]}], "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"),
        ([{**ALLOCATED, "reservedFor": [CONSUMER, OTHER]}], "status.reservedFor: Forbidden: may not be reserved more than once"),
        ([{**SHARED, "reservedFor": [CONSUMER, CONSUMER]}], "status.reservedFor: Duplicate value"),
        ([{**ALLOCATED, "reservedFor": [{**CONSUMER, "uid": ""}]}], "status.reservedFor[0].uid: Required value"),
        (
            [{**SHARED, "reservedFor": [{**CONSUMER, "uid": str(number)} for number in range(33)]}],
            "status.reservedFor: Too long: must have at most 32 items",
        ),
        ([{"deallocationRequested": True}], "may not be set when `allocation` is not set"),
        (
            [{**ALLOCATED, "reservedFor": [CONSUMER], "deallocationRequested": True}],
            "status.deallocationRequested: Forbidden: deallocation cannot be requested while `reservedFor` is set",
        ),
        ([{**ALLOCATED, "deallocationRequested": True}, ALLOCATED], "may not be cleared when `allocation` is set"),
        (
            [{**ALLOCATED, "deallocationRequested": True}, {**ALLOCATED, "deallocationRequested": True, "reservedFor": [CONSUMER]}],
            "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
        ),
        (
            [{"driverName": DRIVER, "allocation": {"resourceHandles": [{"data": "x" * (16 * 1024 + 1)}]}}],
            "status.allocation.resourceHandles[0].data: Too long",
        ),
        ([{"driverName": DRIVER, "allocation": {"resourceHandles": [{}] * 33}}], "status.allocation.resourceHandles: Too long"),
        (
            [{"driverName": DRIVER, "allocation": {"availableOnNodes": {}}}],
            "status.allocation.availableOnNodes.nodeSelectorTerms: Required value",
        ),
    ],
)
def test_what_may_not_be_said_of_a_claim(server: Registry, steps: list[Json], said: str) -> None:
    claim(server)
    for step in steps[:-1]:
        status(server, step)
    with pytest.raises(Refused) as refused:
        status(server, steps[-1])
    assert refused.value.code == 422
    assert said in refused.value.message


def test_the_life_of_a_claim(server: Registry) -> None:
    claim(server)
    server.amend(
        CLAIM, server.get(CLAIM, "c", "default"), lambda body: body["metadata"].update(finalizers=[f"{DRIVER}/deletion-protection"])
    )
    status(server, {**ALLOCATED, "reservedFor": [CONSUMER]})
    assert server.delete(CLAIM, "c", "default")["metadata"]["deletionTimestamp"]
    with pytest.raises(Refused, match="new entries may not be added"):
        status(server, {**ALLOCATED, "reservedFor": [OTHER]})
    status(server, {**ALLOCATED, "deallocationRequested": True})
    status(server, {})
    assert server.get(CLAIM, "c", "default")["status"] == {}
    server.amend(CLAIM, server.get(CLAIM, "c", "default"), lambda body: body["metadata"].update(finalizers=[]))
    assert server.store.get(CLAIM, "default", "c") is None


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (RESOURCE_CLASS, {}, "driverName: Required value"),
        (RESOURCE_CLASS, {"driverName": "-"}, "driverName: Invalid value"),
        (RESOURCE_CLASS, {"driverName": DRIVER, "parametersRef": {"kind": "X"}}, "parametersRef.name: Required value"),
        (RESOURCE_CLASS, {"driverName": DRIVER, "suitableNodes": {}}, "suitableNodes.nodeSelectorTerms: Required value"),
        (CLAIM, {"spec": {}}, "spec.resourceClassName: Required value"),
        (CLAIM, {"spec": {"resourceClassName": "g", "allocationMode": "Later"}}, 'Unsupported value: "Later"'),
        (CLAIM, {"spec": {"resourceClassName": "g", "parametersRef": {"name": "x"}}}, "spec.parametersRef.kind: Required value"),
        (TEMPLATE, {"spec": {"spec": {}}}, "spec.spec.resourceClassName: Required value"),
        (SCHEDULING, {"spec": {"potentialNodes": [f"n{i}" for i in range(129)]}}, "spec.potentialNodes: Too long"),
        (SCHEDULING, {"spec": {"potentialNodes": ["n", "n"]}}, 'spec.potentialNodes[1]: Duplicate value: "n"'),
        (POD, {"spec": {"containers": [], "resourceClaims": [{"name": "x"}]}}, "spec.resourceClaims[0].source: Invalid value"),
        (
            POD,
            {"spec": {"containers": [], "resourceClaims": [{"name": "x", "resourceClaimName": "newer spelling"}]}},
            "spec.resourceClaims[0].source: Invalid value",
        ),
    ],
)
def test_what_may_not_be_created(server: Registry, kind: Kind, body: Json, said: str) -> None:
    with pytest.raises(Refused) as refused:
        server.create(kind, {"metadata": {"name": "x"}, **body}, "default" if kind.namespaced else "")
    assert refused.value.code == 422
    assert said in refused.value.message


def test_specs_are_immutable_and_classes_are_not(server: Registry) -> None:
    made = claim(server)
    with pytest.raises(Refused, match="spec: Invalid value: field is immutable"):
        server.amend(CLAIM, made, lambda body: body["spec"].update(resourceClassName="other"))
    made = server.create(RESOURCE_CLASS, {"metadata": {"name": "gpu"}, "driverName": DRIVER})
    made = server.amend(
        RESOURCE_CLASS, made, lambda body: body.update(driverName="UPPER.example.com", parametersRef={"kind": "A", "name": "b"})
    )
    assert made["driverName"] == "UPPER.example.com"


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([f"n{i}" for i in range(129)], "status.claims[0].unsuitableNodes: Too long: must have at most 128 items"),
        (["n", "n"], 'status.claims[0].unsuitableNodes[1]: Duplicate value: "n"'),
    ],
)
def test_unsuitable_nodes_are_128_at_most_and_each_once(server: Registry, nodes: list[str], said: str) -> None:
    made = server.create(SCHEDULING, {"metadata": {"name": "p"}, "spec": {"selectedNode": "n"}}, "default")
    with pytest.raises(Refused) as refused:
        new = {"resourceClaims": [{"name": "gpu", "unsuitableNodes": nodes}]}
        server.amend(SCHEDULING, made, lambda body: body.update(status=new), subresource="status")
    assert said in refused.value.message
    server.amend(SCHEDULING, made, lambda body: body["spec"].update(selectedNode="m"))


@pytest.mark.parametrize(
    ("kind", "body", "at"),
    [
        (RESOURCE_CLASS, {"driverName": 5}, "$.driverName"),
        (CLAIM, {"spec": {"resourceClassName": []}}, "$.spec.resourceClassName"),
        (CLAIM, {"status": {"allocation": {"resourceHandles": [{"data": {}}]}}}, "$.status.allocation.resourceHandles[0].data"),
        (SCHEDULING, {"status": {"resourceClaims": [{"unsuitableNodes": "n"}]}}, "$.status.resourceClaims[0].unsuitableNodes"),
    ],
)
def test_types_are_looked_at_first(kind: Kind, body: Json, at: str) -> None:
    with pytest.raises(Refused) as refused:
        checked(kind, {"metadata": {"name": "x"}, **body}, types.TYPES)
    assert refused.value.code == 400
    assert at in refused.value.message
