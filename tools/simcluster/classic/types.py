"""The JSON types of resource.k8s.io/v1alpha2, as `typed` has those of the newest version."""

from __future__ import annotations

from typing import Final

from msgspec import field

from tools.simcluster import kinds
from tools.simcluster.kinds import Kind
from tools.simcluster.typed import TYPES as NEWEST
from tools.simcluster.typed import Consumer, Metadata, NodeSelector, Object, Part


class _Parameters(Part):
    api_group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


class _Class(Object):
    driver_name: str = ""
    parameters_ref: _Parameters | None = None
    suitable_nodes: NodeSelector | None = None
    structured_parameters: bool = False


class _ClaimSpec(Part):
    resource_class_name: str = ""
    parameters_ref: _Parameters | None = None
    allocation_mode: str = ""


class _Handle(Part):
    driver_name: str = ""
    data: str = ""


class _Allocation(Part):
    resource_handles: list[_Handle] = field(default_factory=list)
    available_on_nodes: NodeSelector | None = None
    shareable: bool = False


class _ClaimStatus(Part):
    driver_name: str = ""
    allocation: _Allocation | None = None
    reserved_for: list[Consumer] = field(default_factory=list)
    deallocation_requested: bool = False


class _Claim(Object):
    spec: _ClaimSpec = field(default_factory=_ClaimSpec)
    status: _ClaimStatus = field(default_factory=_ClaimStatus)


class _TemplateSpec(Part):
    spec: _ClaimSpec = field(default_factory=_ClaimSpec)
    metadata: Metadata = field(default_factory=Metadata)


class _Template(Object):
    spec: _TemplateSpec = field(default_factory=_TemplateSpec)


class _SchedulingSpec(Part):
    selected_node: str = ""
    potential_nodes: list[str] = field(default_factory=list)


class _ClaimNodes(Part):
    name: str = ""
    unsuitable_nodes: list[str] = field(default_factory=list)


class _SchedulingStatus(Part):
    resource_claims: list[_ClaimNodes] = field(default_factory=list)


class _Scheduling(Object):
    spec: _SchedulingSpec = field(default_factory=_SchedulingSpec)
    status: _SchedulingStatus = field(default_factory=_SchedulingStatus)


class _Unread(Object):
    """1.30's first try at structured parameters."""


TYPES: Final[dict[Kind, type[Object]]] = {
    **NEWEST,
    kinds.RESOURCE_CLASS: _Class,
    kinds.CLAIM: _Claim,
    kinds.TEMPLATE: _Template,
    kinds.SCHEDULING: _Scheduling,
    kinds.SLICE: _Unread,
    kinds.CLAIM_PARAMETERS: _Unread,
    kinds.CLASS_PARAMETERS: _Unread,
}
