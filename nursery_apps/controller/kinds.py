"""What the controller reads and writes, by kind."""

from __future__ import annotations

from typing import Any, Final

from dra.classic.names import GROUP_VERSION
from dra.kube.classic import Lease, Pod, PodSchedulingContext, ResourceClaim, ResourceClass
from dra.kube.node import Node
from nursery_apps.seams import Resource

CLASSIC: Final = "resource.k8s.io/v1alpha2"

CLASSES: Final[Resource[ResourceClass]] = Resource(CLASSIC, "resourceclasses", ResourceClass)
CLAIMS: Final[Resource[ResourceClaim]] = Resource(CLASSIC, "resourceclaims", ResourceClaim, namespaced=True)
CONTEXTS: Final[Resource[PodSchedulingContext]] = Resource(CLASSIC, "podschedulingcontexts", PodSchedulingContext, namespaced=True)
NODES: Final[Resource[Node]] = Resource("v1", "nodes", Node)
PODS: Final[Resource[Pod]] = Resource("v1", "pods", Pod, namespaced=True)
LEASES: Final[Resource[Lease]] = Resource("coordination.k8s.io/v1", "leases", Lease, namespaced=True)

# Objects of these were perhaps stored before their kind had a schema: one that cannot be understood must not hide the others.
CLASS_PARAMETERS: Final[Resource[dict[str, Any]]] = Resource(GROUP_VERSION, "gpuclassparameters", dict)
CLAIM_PARAMETERS: Final[Resource[dict[str, Any]]] = Resource(GROUP_VERSION, "gpuclaimparameters", dict, namespaced=True)
STATES: Final[Resource[dict[str, Any]]] = Resource(GROUP_VERSION, "gpuallocationstates", dict, namespaced=True)

MERGE: Final = "application/merge-patch+json"
