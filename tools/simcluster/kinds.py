"""The kinds the server knows: a table. Custom resources join it while it runs (`custom_kinds`)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tools.simcluster.releases import Release

RESOURCE_GROUP: Final = "resource.k8s.io"

Json = dict[str, Any]


class Kind(msgspec.Struct, frozen=True, eq=False):
    """One and the same as long as group and plural are: the definition of a custom kind may change under its objects."""

    group: str
    """Empty for the core group."""
    kind: str
    plural: str
    namespaced: bool = False
    version: str = "v1"
    """The served version; for `resource.k8s.io` the release says which ones."""
    has_status: bool = False
    returns_deleted: bool = False
    """Whether DELETE answers with the object rather than a Status."""
    selectable: tuple[str, ...] = ()
    """Fields that a fieldSelector may name, beside metadata.name and metadata.namespace."""
    short_names: tuple[str, ...] = ()
    singular: str = ""
    """Where it is not the kind in lower case."""
    is_custom: bool = False
    needs_version: bool = False
    """Whether a PUT without a resourceVersion is refused."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and (self.plural, self.group) == (other.plural, other.group)

    def __hash__(self) -> int:
        return hash(self.plural)

    @property
    def qualified(self) -> str:
        """As messages name it: `resourceslices.resource.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NODE: Final = Kind("", "Node", "nodes", has_status=True, selectable=("spec.unschedulable",), short_names=("no",))
NAMESPACE: Final = Kind("", "Namespace", "namespaces", has_status=True, selectable=("status.phase",), short_names=("ns",))
POD: Final = Kind(
    "",
    "Pod",
    "pods",
    namespaced=True,
    has_status=True,
    returns_deleted=True,
    selectable=("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"),
    short_names=("po",),
)
EVENT: Final = Kind(
    "",
    "Event",
    "events",
    namespaced=True,
    selectable=(
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    short_names=("ev",),
)
CONFIG_MAP: Final = Kind("", "ConfigMap", "configmaps", namespaced=True, short_names=("cm",))
LEASE: Final = Kind("coordination.k8s.io", "Lease", "leases", namespaced=True, needs_version=True)
DEVICE_CLASS: Final = Kind(RESOURCE_GROUP, "DeviceClass", "deviceclasses", returns_deleted=True)
CLAIM: Final = Kind(RESOURCE_GROUP, "ResourceClaim", "resourceclaims", namespaced=True, has_status=True, returns_deleted=True)
TEMPLATE: Final = Kind(RESOURCE_GROUP, "ResourceClaimTemplate", "resourceclaimtemplates", namespaced=True, returns_deleted=True)
SLICE: Final = Kind(RESOURCE_GROUP, "ResourceSlice", "resourceslices", returns_deleted=True, selectable=("spec.nodeName", "spec.driver"))
TAINT_RULE: Final = Kind(RESOURCE_GROUP, "DeviceTaintRule", "devicetaintrules", has_status=True)

RESOURCE_CLASS: Final = Kind(RESOURCE_GROUP, "ResourceClass", "resourceclasses", returns_deleted=True)
SCHEDULING: Final = Kind(
    RESOURCE_GROUP, "PodSchedulingContext", "podschedulingcontexts", namespaced=True, has_status=True, returns_deleted=True
)
CLAIM_PARAMETERS: Final = Kind(RESOURCE_GROUP, "ResourceClaimParameters", "resourceclaimparameters", namespaced=True, returns_deleted=True)
CLASS_PARAMETERS: Final = Kind(RESOURCE_GROUP, "ResourceClassParameters", "resourceclassparameters", namespaced=True, returns_deleted=True)
DEFINITION: Final = Kind(
    "apiextensions.k8s.io",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    has_status=True,
    short_names=("crd", "crds"),
    needs_version=True,
)

ALL: Final = (
    NODE,
    NAMESPACE,
    POD,
    EVENT,
    CONFIG_MAP,
    LEASE,
    DEFINITION,
    DEVICE_CLASS,
    CLAIM,
    TEMPLATE,
    SLICE,
    TAINT_RULE,
    RESOURCE_CLASS,
    SCHEDULING,
    CLAIM_PARAMETERS,
    CLASS_PARAMETERS,
)
BY_PLURAL: Final = {(kind.group, kind.plural): kind for kind in ALL}


Served = dict[str, dict[str, list[Kind]]]
"""Group -> version -> kinds, in the server's order."""


def served(release: Release) -> Served:
    """Without custom resources."""
    groups: Served = {}
    for kind in ALL:
        if kind.group != RESOURCE_GROUP:
            groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    groups[RESOURCE_GROUP] = {version: [BY_PLURAL[RESOURCE_GROUP, plural] for plural in plurals] for version, plurals in release.served}
    return groups


def selectable(kind: Kind, release: Release) -> tuple[str, ...]:
    """Fields a selector may name; slices by pool only from 1.37."""
    more = ("spec.pool.name",) if kind is SLICE and release.minor >= 37 else ()
    own = ("metadata.name", "metadata.namespace") if kind.namespaced else ("metadata.name",)
    return (*own, *kind.selectable, *more)
