from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dra.classic import claim_state
from dra.classic.claim_state import Todo
from dra.classic.names import FINALIZER
from dra.kube.classic import Consumer, ResourceClaim, ResourceClass
from dra.kube.meta import ObjectMeta
from tests.dra.classic.nodes import holds

OURS = ResourceClass(metadata=ObjectMeta(name="intel-gpu"), driver_name="gpu.resource.intel.com")
ALLOCATION = {"resourceHandles": [{"driverName": "gpu.resource.intel.com", "data": "{}"}]}
POD = [{"resource": "pods", "name": "p", "uid": "u"}]


def claim(
    *, mode: str = "WaitForFirstConsumer", finalizers: list[str] | None = None, deleted: bool = False, **status: Any
) -> ResourceClaim:
    metadata = {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "7", "finalizers": finalizers}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    body = {"metadata": metadata, "spec": {"resourceClassName": "intel-gpu", "allocationMode": mode}, "status": status}
    return msgspec.convert(body, ResourceClaim)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (claim(), Todo.NOTHING),
        (claim(mode="Immediate"), Todo.ALLOCATE),
        (claim(mode="Immediate", driverName="gpu.resource.intel.com", allocation=ALLOCATION), Todo.NOTHING),
        (claim(finalizers=[FINALIZER], allocation=ALLOCATION, deallocationRequested=True), Todo.DEALLOCATE),
        (claim(finalizers=[FINALIZER], allocation=ALLOCATION, deleted=True), Todo.DEALLOCATE),
        (claim(finalizers=[FINALIZER], deleted=True), Todo.DEALLOCATE),  # it was never allocated: the finalizer alone is left
        (claim(finalizers=[FINALIZER], allocation=ALLOCATION, deleted=True, reservedFor=POD), Todo.NOTHING),
        (claim(finalizers=["somebody/else"], allocation=ALLOCATION, deleted=True), Todo.NOTHING),
        (claim(mode="Immediate", deleted=True), Todo.NOTHING),
    ],
)
def test_what_is_to_be_done(found: ResourceClaim, expected: Todo) -> None:
    assert claim_state.todo(found, OURS) is expected


@pytest.mark.parametrize(
    "of_class",
    [None, ResourceClass(metadata=OURS.metadata, driver_name="other"), msgspec.structs.replace(OURS, structured_parameters=True)],
)
def test_claims_of_others_classes_and_of_structured_ones_are_left_alone(of_class: ResourceClass | None) -> None:
    assert claim_state.todo(claim(mode="Immediate"), of_class) is Todo.NOTHING


def test_a_claim_of_ours_is_let_go_whatever_became_of_its_class() -> None:
    assert claim_state.todo(claim(finalizers=[FINALIZER], deleted=True), None) is Todo.DEALLOCATE


def test_every_write_counts_for_the_version_that_was_read() -> None:
    found = claim(finalizers=["a"])
    bodies = [
        claim_state.with_finalizer(found),
        claim_state.without_finalizer(found),
        claim_state.deallocated(found),
        claim_state.allocated(found, holds(), shareable=True, pod=Consumer("pods", "p", "u")),
    ]
    assert all(body["metadata"].items() >= {"uid": "u", "resourceVersion": "7"}.items() for body in bodies)
    assert bodies[0]["metadata"]["finalizers"] == ["a", FINALIZER]
    assert bodies[3]["status"]["reservedFor"] == POD


def test_an_allocation_ends_together_with_the_request_for_its_end() -> None:
    """The API server refuses either alone (resource.k8s.io/v1alpha2 validation)."""
    assert claim_state.deallocated(claim())["status"] == {"allocation": None, "driverName": None, "deallocationRequested": None}


def test_the_node_of_an_allocation_is_read_back() -> None:
    body = claim_state.allocated(claim(), holds(node="worker-7"), shareable=False, pod=None)
    assert msgspec.convert({**body, "spec": {}}, ResourceClaim).node == "worker-7"
