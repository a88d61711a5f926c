"""What of the driver is still in the API server, followed live: what nodes say of themselves, and who holds what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import trio

from dra import remains
from dra.cluster_watch import COMPONENT_LABEL
from dra.kube.classic import ResourceClaim
from dra.kube.watched import PluginPod, WatchedClaim, WatchedNode
from dra.names import DRIVER_NAME
from dra.remains import HeldClaim
from dra.slices import GROUP
from nursery_apps.controller import kinds
from nursery_apps.controller.dialect import Dialect, Spoken
from nursery_apps.mirror import Mirror
from nursery_apps.seams import KubeApi, Resource

T = TypeVar("T")
Json = dict[str, Any]

PODS: Final[Resource[PluginPod]] = Resource("v1", "pods", PluginPod, namespaced=True)
NODES: Final[Resource[WatchedNode]] = Resource("v1", "nodes", WatchedNode)

READ_SECONDS: Final = 20.0
"""For everything to be read once."""


class Remnants:
    """`read` begins to follow everything."""

    def __init__(
        self, kube: KubeApi, spoken: Spoken, *, namespace: str, random: Callable[[], float], on_change: Callable[[], None]
    ) -> None:
        """`namespace` is the driver's."""
        self._kube, self._namespace, self._random, self._on_change = kube, namespace, random, on_change
        group_version = f"{GROUP}/{spoken.version}"
        self.is_classic = spoken.dialect is Dialect.CLASSIC
        is_structured = spoken.dialect is Dialect.STRUCTURED
        self._nodes: Mirror[WatchedNode] = self._mirror(NODES)
        self._pods: Mirror[PluginPod] = self._mirror(PODS, namespace=namespace)
        self.slice_kind: Resource[Json] = Resource(group_version, "resourceslices", dict)
        self.slices: Mirror[Json] | None = None
        self._claims: Mirror[WatchedClaim] | None = None
        if is_structured:
            self.slices = self._mirror(self.slice_kind, field_selector=f"spec.driver={DRIVER_NAME}")
            self._claims = self._mirror(Resource(group_version, "resourceclaims", WatchedClaim, namespaced=True))
        # With structured DRA the kind is often not installed, and says nothing but what is tainted.
        self.states: Mirror[Json] | None = self._mirror(kinds.STATES, namespace=namespace) if self.is_classic else None
        self._classic_claims: Mirror[ResourceClaim] | None = self._mirror(kinds.CLAIMS) if self.is_classic else None

    async def read(self, nursery: trio.Nursery) -> list[str]:
        """Begin to follow everything in `nursery`; what could not be read, and why."""
        mirrors: list[tuple[str, Mirror[Any] | None]] = [
            ("nodes", self._nodes),
            ("pods", self._pods),
            ("resourceslices", self.slices),
            ("gpuallocationstates", self.states),
            ("resourceclaims", self._claims or self._classic_claims),
        ]
        followed = [(plural, mirror) for plural, mirror in mirrors if mirror is not None]
        with trio.move_on_after(READ_SECONDS):
            async with trio.open_nursery() as starting:
                for _, mirror in followed:
                    starting.start_soon(nursery.start, mirror.run)
        return [f"{plural} cannot be read: {mirror.error.value}" for plural, mirror in followed if mirror.error.value is not None]

    def _mirror(self, what: Resource[T], *, namespace: str = "", field_selector: str = "") -> Mirror[T]:
        return Mirror(
            self._kube,
            what,
            namespace=namespace,
            field_selector=field_selector,
            random=self._random,
            on_change=lambda *_: self._on_change(),
        )

    @property
    def nodes(self) -> dict[str, WatchedNode]:
        return {name: node for (_, name), node in self._nodes.objects.items()}

    def ready_nodes(self) -> frozenset[str]:
        """Those whose plugin is Ready."""
        return remains.ready_nodes(self._pods.objects.values())

    def unready_nodes(self) -> frozenset[str]:
        """Those whose plugin is not."""
        return remains.unready_nodes(self._pods.objects.values())

    def devices(self) -> dict[str, int]:
        """Nodes that still say something of themselves, and how many devices they offer."""
        found: dict[str, int] = {}
        for body in self.slices.objects.values() if self.slices is not None else ():
            node = body["spec"].get("nodeName") or body["spec"]["pool"]["name"]
            found[node] = found.get(node, 0) + len(body["spec"].get("devices") or ())
        for body in self.states.objects.values() if self.states is not None else ():
            found[body["metadata"]["name"]] = len((body.get("spec") or {}).get("allocatableDevices") or {})
        return found

    def held(self) -> list[HeldClaim]:
        if self._claims is not None:
            return remains.claims(self._claims.objects.values())
        return remains.classic_claims(self._classic_claims.objects.values()) if self._classic_claims is not None else []

    def controllers(self) -> list[str]:
        """Pods that would make the controllers' Lease again."""
        return sorted(
            name
            for (_, name), pod in self._pods.objects.items()
            if (pod.metadata.labels or {}).get(COMPONENT_LABEL) == "controller" and pod.status.phase in ("Pending", "Running")
        )
