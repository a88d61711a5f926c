"""A cluster as it was read at one moment. Everything that is told of it is computed from this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from dra import semver

Json = dict[str, Any]

CLASSIC: Final = "v1alpha2"
"""The version of `resource.k8s.io` with which a controller of the driver allocates (Kubernetes 1.28 to 1.30)."""


class Habits(msgspec.Struct, frozen=True):
    """How a release decides: see `dra.structured.release.Release`."""

    minor: int

    def has(self, gate: str) -> bool:
        """Which gates are on nobody can read. What an API server does not keep because of a gate is not in what it answers, so that all
        count as on, but for the one that changes how amounts are rounded and is off by default."""
        return gate != "DRAFractionalCapacityRange"


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Objects are JSON as the API server sent it; those of `resource.k8s.io` in the shape of v1, except for classic DRA's.

    What a command does not need is not read and empty here; what could not be read is in `unread`.
    """

    version: str
    """`v1.34.3`."""
    api: str
    """Version of `resource.k8s.io` that was read; empty where none is served."""
    at: str
    """When, RFC 3339."""
    namespace: str = ""
    """The only one of which claims were read; empty for all."""
    nodes: tuple[Json, ...] = ()
    slices: tuple[Json, ...] = ()
    claims: tuple[Json, ...] = ()
    templates: tuple[Json, ...] = ()
    classes: tuple[Json, ...] = ()
    """DeviceClasses, or ResourceClasses with classic DRA."""
    taint_rules: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()
    events: tuple[Json, ...] = ()
    states: tuple[Json, ...] = ()
    """GpuAllocationStates; the rest is classic DRA's too."""
    contexts: tuple[Json, ...] = ()
    """PodSchedulingContexts."""
    leases: tuple[Json, ...] = ()
    """By which node plugins say that they live."""
    class_parameters: tuple[Json, ...] = ()
    claim_parameters: tuple[Json, ...] = ()
    unread: Mapping[str, str] = {}
    """Plural -> why it could not be read; of those that can be done without."""

    @property
    def is_classic(self) -> bool:
        return self.api == CLASSIC

    @property
    def habits(self) -> Habits:
        return Habits((semver.release(self.version) or (1, 37))[1])

    def node(self, name: str) -> Json | None:
        return named(self.nodes, name)

    def claim(self, namespace: str, name: str) -> Json | None:
        return named(self.claims, name, namespace)

    def pod(self, namespace: str, name: str) -> Json | None:
        return named(self.pods, name, namespace)

    def events_of(self, body: Json) -> Iterator[Json]:
        """Those about the object, of this life of it."""
        uid = body["metadata"].get("uid")
        return (event for event in self.events if (event.get("involvedObject") or {}).get("uid") == uid)


def named(objects: tuple[Json, ...], name: str, namespace: str = "") -> Json | None:
    for body in objects:
        metadata = body["metadata"]
        if metadata["name"] == name and metadata.get("namespace", "") == namespace:
            return body
    return None


def key_of(body: Json) -> str:
    """`namespace/name`."""
    metadata = body["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
