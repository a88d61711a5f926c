"""Whether a journalled claim is still what the API server has, with structured DRA."""

from __future__ import annotations

from collections.abc import Callable

from dra.kube.claims import ResourceClaim
from dra.names import DRIVER_NAME, PoolName
from dra.records import Record
from nursery_apps.seams import KubeApi, NotFound, Resource


class StructuredClaims:
    """Keeps the promise of `nursery_apps.node.reconciler.ClaimLookup`."""

    driver = DRIVER_NAME

    def __init__(self, kube: KubeApi, claims: Callable[[], Resource[ResourceClaim] | None], pool: PoolName) -> None:
        """`claims` names the served version of ResourceClaim, None while DRA is off."""
        self._kube, self._claims, self._pool = kube, claims, pool

    async def why_gone(self, record: Record) -> str | None:
        resource = self._claims()
        if resource is None or not record.name:
            return None  # DRA is off for now, or the claim was taken over and only its UID is known
        try:
            claim = await self._kube.get(resource, record.name, namespace=record.namespace)
        except NotFound:
            return "is deleted"
        return _gone(claim, record, self._pool)


def _gone(claim: ResourceClaim, record: Record, pool: PoolName) -> str | None:
    """Why the API server's claim is no longer the one recorded; None if it is, or if that cannot be said."""
    if claim.metadata.uid != record.uid:
        return "was replaced by another of its name"
    allocation = claim.status.allocation if claim.status is not None else None
    if allocation is None:
        return "is no longer allocated"
    ours = {result.device for result in allocation.devices.results or [] if result.driver == DRIVER_NAME and result.pool == pool}
    if not ours & {grant.device for grant in record.grants}:
        return "is allocated elsewhere"
    if not claim.consumers:
        return "is reserved for nobody"
    return None  # a consumer that is no pod (1.37: podgroups) counts as one too
