"""Writes into claims: protection, allocation and its end. Each write counts only for the version that was read, and only for a leader."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from dra.classic import claim_state
from dra.classic.handle import Handle
from dra.kube.classic import Consumer, ResourceClaim
from dra.names import ClaimUid
from nursery_apps.controller import kinds
from nursery_apps.controller.leadership import Fence
from nursery_apps.controller.stores import Stores
from nursery_apps.controller.work_queue import Again
from nursery_apps.seams import ApiError, Conflict, Forbidden, Invalid, KubeApi, NotFound

log = logging.getLogger(__name__)


class ClaimWriter:
    """Every method raises `Again` for what may go better next time."""

    def __init__(self, kube: KubeApi, stores: Stores, fence: Fence) -> None:
        self._kube = kube
        self._stores = stores
        self._fence = fence
        self._doubtful: set[ClaimUid] = set()
        """Claims with a write that got no answer: it may have happened."""

    async def sure(self, claim: ResourceClaim) -> ResourceClaim:
        """The claim as it is, read again if a write to it got no answer.

        Such a write may still be on its way. It counts for the version that it was made for, so a claim that shows nothing of it is given
        another version, by taking its finalizer away, before anybody relies on what it shows.
        """
        if ClaimUid(claim.metadata.uid) not in self._doubtful:
            return claim
        found = await self._read_again(claim)
        if found.status.allocation is None and claim_state.has_finalizer(found):
            self._doubtful.add(ClaimUid(claim.metadata.uid))  # until this one is answered
            found = await self._patch(found, claim_state.without_finalizer(found))
            self._doubtful.discard(ClaimUid(claim.metadata.uid))
        return found

    async def protect(self, claim: ResourceClaim) -> ResourceClaim:
        """With our finalizer: it comes before anything else, so that a claim with devices cannot vanish."""
        if claim_state.has_finalizer(claim):
            return claim
        return await self._patch(claim, claim_state.with_finalizer(claim))

    async def allocate(self, claim: ResourceClaim, handle: Handle, *, shareable: bool, pod: Consumer | None) -> ResourceClaim:
        """
        Raises:
            ValueError: the handle is too long.
        """
        body = claim_state.allocated(claim, handle, shareable=shareable, pod=pod)
        return await self._patch(claim, body, subresource="status")

    async def deallocate(self, claim: ResourceClaim) -> None:
        """Take the allocation away, then the finalizer. Success for a claim that is gone."""
        status = claim.status
        with contextlib.suppress(NotFound):
            if status.allocation is not None or status.deallocation_requested or status.driver_name:
                claim = await self._patch(claim, claim_state.deallocated(claim), subresource="status")
            await self._forget_original(claim)
            if claim_state.has_finalizer(claim):
                await self._patch(claim, claim_state.without_finalizer(claim))

    async def _forget_original(self, claim: ResourceClaim) -> None:
        """What the original driver noted of the claim in the states of nodes."""
        uid = claim.metadata.uid
        for state in list(self._stores.states.objects.values()):
            if uid in ((state.get("spec") or {}).get("allocatedClaims") or {}):
                metadata = state["metadata"]
                self._check_fence()
                try:
                    body = {"spec": {"allocatedClaims": {uid: None}}}
                    namespace = metadata.get("namespace", "")
                    await self._kube.patch(kinds.STATES, metadata["name"], body, content_type=kinds.MERGE, namespace=namespace)
                except NotFound:
                    continue
                except ApiError as error:
                    raise _again(error, f"GpuAllocationState {metadata['name']}") from None

    async def _patch(self, claim: ResourceClaim, body: dict[str, Any], *, subresource: str = "") -> ResourceClaim:
        name, namespace = claim.metadata.name, claim.metadata.namespace
        self._check_fence()
        stored: ResourceClaim | None = None
        try:
            stored = await self._kube.patch(
                kinds.CLAIMS, name, body, content_type=kinds.MERGE, namespace=namespace, subresource=subresource
            )
        except NotFound:
            self._stores.claims.forget(name, namespace=namespace)
            raise
        except Conflict:
            pass
        except (Forbidden, Invalid) as error:
            log.error("claim %s/%s: the API server refuses what this controller writes: %s", namespace, name, error)
            raise _again(error, f"claim {namespace}/{name}") from None
        except ApiError as error:
            self._doubtful.add(ClaimUid(claim.metadata.uid))
            raise _again(error, f"claim {namespace}/{name}") from None
        except BaseException:
            self._doubtful.add(ClaimUid(claim.metadata.uid))
            raise
        if stored is None:
            await self._read_again(claim)
            raise Again(f"claim {namespace}/{name} was written by somebody else meanwhile")
        if stored.metadata.deletion_timestamp is not None and not stored.metadata.finalizers:
            self._stores.claims.forget(name, namespace=namespace)  # this write was the last thing that kept it
        else:
            self._stores.claims.adopt(stored)
        return stored

    async def _read_again(self, claim: ResourceClaim) -> ResourceClaim:
        name, namespace = claim.metadata.name, claim.metadata.namespace
        try:
            found = await self._kube.get(kinds.CLAIMS, name, namespace=namespace)
        except NotFound:
            self._stores.claims.forget(name, namespace=namespace)
            self._doubtful.discard(ClaimUid(claim.metadata.uid))
            raise Again(f"claim {namespace}/{name} is gone") from None
        except ApiError as error:
            raise _again(error, f"claim {namespace}/{name}") from None
        self._stores.claims.adopt(found)
        self._doubtful.discard(ClaimUid(claim.metadata.uid))
        return found

    def _check_fence(self) -> None:
        if not self._fence.holds():
            raise Again("this controller no longer leads")


def _again(error: ApiError, where: str) -> Again:
    return Again(f"{where}: {error}", not_before_seconds=error.retry_after_seconds or 0.0)
