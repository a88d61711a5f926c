"""resource.k8s.io/v1alpha2 of Kubernetes 1.28 to 1.30, as much of it as a controller reads; and the Pods and Leases beside it.

Sequences are tuples: with structs that the garbage collector does not know inside, it forgets them too, and has next to nothing to go
through in 40 000 claims.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dra.kube.meta import ObjectMeta


class ParametersRef(msgspec.Struct, rename="camel", frozen=True, gc=False):
    api_group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    """Of a class's parameters, where they are namespaced."""


class SelectorRequirement(msgspec.Struct, frozen=True, gc=False):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class SelectorTerm(msgspec.Struct, rename="camel", frozen=True, gc=False):
    match_expressions: tuple[SelectorRequirement, ...] | None = None
    """Of labels."""
    match_fields: tuple[SelectorRequirement, ...] | None = None
    """Of `metadata.name` alone."""


class NodeSelector(msgspec.Struct, rename="camel", frozen=True, gc=False):
    node_selector_terms: tuple[SelectorTerm, ...] | None = None


class ResourceClass(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    driver_name: str = ""
    parameters_ref: ParametersRef | None = None
    suitable_nodes: NodeSelector | None = None
    structured_parameters: bool | None = None
    """1.30: the scheduler allocates, and no controller is to touch claims of this class."""


class ResourceHandle(msgspec.Struct, rename="camel", frozen=True, gc=False):
    driver_name: str = ""
    data: str = ""


class Allocation(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_handles: tuple[ResourceHandle, ...] | None = None
    available_on_nodes: NodeSelector | None = None
    shareable: bool | None = None


class Consumer(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """An entry of `reservedFor`."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    driver_name: str = ""
    allocation: Allocation | None = None
    reserved_for: tuple[Consumer, ...] | None = None
    deallocation_requested: bool | None = None


class ClaimSpec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_class_name: str = ""
    parameters_ref: ParametersRef | None = None
    allocation_mode: str = "WaitForFirstConsumer"


class ResourceClaim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()

    @property
    def node(self) -> str:
        """The node of an allocation made for one node by its name; empty otherwise."""
        selector = self.status.allocation.available_on_nodes if self.status.allocation is not None else None
        for term in (selector.node_selector_terms or []) if selector is not None else []:
            for field in term.match_fields or []:
                if field.key == "metadata.name" and field.values:
                    return field.values[0]
        return ""


class SchedulingSpec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    selected_node: str = ""
    potential_nodes: tuple[str, ...] | None = None


class ClaimSchedulingStatus(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str
    """What the pod calls the claim."""
    unsuitable_nodes: tuple[str, ...] | None = None


class SchedulingStatus(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_claims: tuple[ClaimSchedulingStatus, ...] | None = None


class PodSchedulingContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: SchedulingSpec = SchedulingSpec()
    status: SchedulingStatus = SchedulingStatus()


class ClaimSource(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class PodClaim(msgspec.Struct, frozen=True, gc=False):
    name: str
    source: ClaimSource = ClaimSource()


class PodSpec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_claims: tuple[PodClaim, ...] | None = None


class PodClaimStatus(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str
    resource_claim_name: str | None = None
    """None: the pod needs no claim there."""


class PodStatus(msgspec.Struct, rename="camel", frozen=True, gc=False):
    resource_claim_statuses: tuple[PodClaimStatus, ...] | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class LeaseSpec(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    """coordination.k8s.io/v1."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    """RFC 3339 with microseconds, by the holder's clock."""
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class GpuClassParameters(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """gpu.resource.intel.com/v1alpha2, cluster-wide. The spec is looked at field by field: see `dra.classic.parameters`."""

    metadata: ObjectMeta
    spec: dict[str, Any] = {}


class GpuClaimParameters(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same, in a namespace."""

    metadata: ObjectMeta
    spec: dict[str, Any] = {}
