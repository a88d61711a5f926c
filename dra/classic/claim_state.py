"""What is to be done about a claim by itself, whatever its pods do: the table of kubernetes-sigs' controller library, as a function.

A claim is recognized as ours by its finalizer or by the driver that its status names, never by its class: a class may be changed or deleted
at any time (no field of ResourceClass is immutable in v1alpha2).
"""

from __future__ import annotations

import enum
from typing import Any

from dra.classic import handle as handles
from dra.classic.handle import Handle
from dra.classic.names import CLASSIC_DRIVER_NAME, FINALIZER
from dra.kube.classic import Consumer, ResourceClaim, ResourceClass

IMMEDIATE = "Immediate"


class Todo(enum.StrEnum):
    NOTHING = "nothing"
    DEALLOCATE = "deallocate"
    """Let its devices go, in the API and here, and then the object."""
    ALLOCATE = "allocate"
    """On any node: it waits for no pod."""


def todo(claim: ResourceClaim, of_class: ResourceClass | None) -> Todo:
    """
    Args:
        of_class: the class that the claim names, None if there is none.
    """
    if claim.status.reserved_for:
        return Todo.NOTHING
    if claim.metadata.deletion_timestamp is not None or claim.status.deallocation_requested:
        return Todo.DEALLOCATE if has_finalizer(claim) or is_allocated(claim) else Todo.NOTHING
    if claim.status.allocation is not None or claim.spec.allocation_mode != IMMEDIATE:
        return Todo.NOTHING
    return Todo.ALLOCATE if is_of_ours(of_class) else Todo.NOTHING


def is_of_ours(of_class: ResourceClass | None) -> bool:
    """Whether claims of a class are this driver's to allocate. With structured parameters (1.30) the scheduler does it."""
    return of_class is not None and of_class.driver_name == CLASSIC_DRIVER_NAME and not of_class.structured_parameters


def has_finalizer(claim: ResourceClaim) -> bool:
    return FINALIZER in (claim.metadata.finalizers or [])


def is_allocated(claim: ResourceClaim) -> bool:
    """By us."""
    return claim.status.allocation is not None and claim.status.driver_name == CLASSIC_DRIVER_NAME


def handle_data(claim: ResourceClaim) -> str:
    """Our handle's text, empty if the claim has none."""
    allocation = claim.status.allocation
    for handle in (allocation.resource_handles or []) if allocation is not None else []:
        if handle.driver_name in ("", CLASSIC_DRIVER_NAME):
            return handle.data
    return ""


# --- bodies of patches


def with_finalizer(claim: ResourceClaim) -> dict[str, Any]:
    """Merge patch of the claim, valid only for the version that was read."""
    return _metadata(claim, [*(claim.metadata.finalizers or []), FINALIZER])


def without_finalizer(claim: ResourceClaim) -> dict[str, Any]:
    return _metadata(claim, [name for name in claim.metadata.finalizers or [] if name != FINALIZER])


def allocated(claim: ResourceClaim, handle: Handle, *, shareable: bool, pod: Consumer | None) -> dict[str, Any]:
    """Merge patch of the claim's status: where it is available, and for whom it is reserved at once, which saves a round of scheduling.

    Raises:
        ValueError: the handle is too long.
    """
    where = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [handle.node]}]}
    status: dict[str, Any] = {
        "driverName": CLASSIC_DRIVER_NAME,
        "allocation": {
            # One, never two: the kubelet sends an entry for each and takes the answers by claim.
            "resourceHandles": [{"driverName": CLASSIC_DRIVER_NAME, "data": handles.render(handle)}],
            # By the name, not by the label kubernetes.io/hostname, which may say something else.
            "availableOnNodes": {"nodeSelectorTerms": [where]},
            "shareable": shareable,
        },
    }
    if pod is not None:
        status["reservedFor"] = [{"resource": pod.resource, "name": pod.name, "uid": pod.uid}]
    return _precondition(claim) | {"status": status}


def deallocated(claim: ResourceClaim) -> dict[str, Any]:
    """Merge patch of the claim's status. The request can be cleared only together with the allocation."""
    return _precondition(claim) | {"status": {"allocation": None, "driverName": None, "deallocationRequested": None}}


def _metadata(claim: ResourceClaim, finalizers: list[str]) -> dict[str, Any]:
    made = _precondition(claim)
    made["metadata"]["finalizers"] = finalizers or None
    return made


def _precondition(claim: ResourceClaim) -> dict[str, Any]:
    return {"metadata": {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version}}
