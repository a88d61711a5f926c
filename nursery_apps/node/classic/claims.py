"""Claims of resource.k8s.io/v1alpha2: what one was given, by its handle alone, and whether it is still this node's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from dra import backoff, sriov_settings
from dra.classic import grants, originals, standing
from dra.classic import handle as handles
from dra.classic.handle import Handle
from dra.classic.inventory import GpuAllocationState
from dra.classic.names import CLASSIC_DRIVER_NAME, GROUP_VERSION
from dra.devices import Inventory
from dra.errors import NotYet
from dra.kube.classic import ResourceClaim
from dra.names import ClaimUid, NodeName
from dra.records import Record
from dra.sriov_settings import Sriov
from nursery_apps.latest import Latest
from nursery_apps.node.allocations import Allocated
from nursery_apps.node.claim_desk import ClaimRef, Progress
from nursery_apps.seams import ApiError, KubeApi, NotFound, Resource

CLAIMS: Final[Resource[ResourceClaim]] = Resource("resource.k8s.io/v1alpha2", "resourceclaims", ResourceClaim, namespaced=True)
STATES: Final[Resource[GpuAllocationState]] = Resource(GROUP_VERSION, "gpuallocationstates", GpuAllocationState, namespaced=True)


class HandleAllocations:
    """Keeps the promise of `nursery_apps.node.allocations.Allocations`."""

    def __init__(
        self,
        kube: KubeApi,
        node: NodeName,
        namespace: str,
        *,
        inventory: Latest[Inventory],
        sriov: Latest[Sriov],
        random: Callable[[], float],
    ) -> None:
        """`kube` and `namespace` are for the node's GpuAllocationState, where the original driver put what its handles do not say."""
        self._kube, self._node, self._namespace = kube, node, namespace
        self._inventory, self._sriov, self._random = inventory, sriov, random

    async def of(self, ref: ClaimRef, record: Record | None, progress: Progress) -> Allocated:
        if ref.handle:
            handle = handles.parse(ref.handle)
        elif record is not None:
            return Allocated(record.grants)  # of the original's: what it allocated later is no reason to change it
        else:
            handle = await self._originals(ref.uid, progress)
        while True:
            seen = self._inventory.version
            try:
                return Allocated(grants.grants(handle, ref.uid, self._node, self._inventory.value, unknown_profiles=self._unknown_profiles))
            except NotYet as missing:
                progress.wait_for(str(missing))
                await self._inventory.wait_newer(seen)

    def _unknown_profiles(self, names: Iterable[str]) -> list[str]:
        return sriov_settings.unknown_profiles(self._sriov.value, names)

    async def _originals(self, uid: ClaimUid, progress: Progress) -> Handle:
        delays = backoff.delays(self._random, first_seconds=0.2, cap_seconds=5)
        while True:
            try:
                state = await self._kube.get(STATES, self._node, namespace=self._namespace)
            except NotFound:
                state = None
            except ApiError as error:
                progress.wait_for(f"GpuAllocationState {self._node}, which alone says what the claim was given: {error}")
                await trio.sleep(max(next(delays), error.retry_after_seconds or 0))
                continue
            return originals.handle_of(state, uid, self._node)


class ClassicClaims:
    """Keeps the promise of `nursery_apps.node.reconciler.ClaimLookup`."""

    driver = CLASSIC_DRIVER_NAME

    def __init__(self, kube: KubeApi, node: NodeName) -> None:
        self._kube, self._node = kube, node

    async def why_gone(self, record: Record) -> str | None:
        try:
            claim = await self._find(record)
        except NotFound:
            return "is deleted" if await self._is_served() else None
        if claim is None:
            return "is deleted"
        return standing.why_gone(claim, record, self._node)

    async def _find(self, record: Record) -> ResourceClaim | None:
        if record.name:
            return await self._kube.get(CLAIMS, record.name, namespace=record.namespace)
        # Taken over from the original driver, which kept UIDs only: few, and gone with the pods of that time.
        return next((claim for claim in (await self._kube.list(CLAIMS)).items if claim.metadata.uid == record.uid), None)

    async def _is_served(self) -> bool:
        """An API server that was upgraded before its nodes answers 404 too, and the pods of these nodes still run."""
        return "resourceclaims" in dict((await self._kube.served()).resources).get("v1alpha2", ())
