"""What a claim was given, as the API server has it: read before each prepare, and answered from the journal while it is silent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import trio

from dra import allocation, claim_metadata
from dra.devices import Inventory
from dra.kube.claims import ResourceClaim
from dra.names import PoolName
from dra.records import Grant, Record
from nursery_apps.latest import Latest
from nursery_apps.node.claim_desk import ClaimRef, Progress
from nursery_apps.node.claim_reader import ClaimReader
from nursery_apps.node.offering import Planned

log = logging.getLogger(__name__)

API_PATIENCE_SECONDS: Final = 5.0
"""A claim that is granted already is answered from the journal when the API server is silent for so long: containers must restart
through an outage, and a reallocation of a prepared claim is rare."""


class Allocated(msgspec.Struct, frozen=True):
    """What one claim is to hold here."""

    grants: tuple[Grant, ...]
    pod_claim: str = ""
    """What the pod calls the claim, if it was made from a template."""


class Allocations(Protocol):
    """Where it is known what a claim was given."""

    async def of(self, ref: ClaimRef, record: Record | None, progress: Progress) -> Allocated:
        """What the claim is to hold.

        Args:
            record: what the journal says the claim holds.
            progress: told what is waited for, and whom the claim is reserved for where that is known.

        Raises:
            DriverError: it cannot be prepared as it stands.
        """


class ApiAllocations:
    """Keeps the promise of `Allocations` with structured DRA."""

    def __init__(self, reader: ClaimReader, inventory: Latest[Inventory], planned: Callable[[], Planned], pool: PoolName) -> None:
        """`planned`: VFs that are not made yet, as they will be."""
        self._reader, self._inventory, self._planned, self._pool = reader, inventory, planned, pool

    async def of(self, ref: ClaimRef, record: Record | None, progress: Progress) -> Allocated:
        progress.wait_for(f"the API server to answer for claim {ref.namespace}/{ref.name}")
        claim: ResourceClaim | None = None
        with trio.move_on_after(API_PATIENCE_SECONDS if record is not None else float("inf")):
            claim = await self._reader.read(ref)
        if claim is None:
            assert record is not None
            log.warning("API server silent for %.0f s: answering from the journal", API_PATIENCE_SECONDS)
            return Allocated(record.grants)
        progress.consumers = claim.consumers
        planned = self._planned()
        known = {**planned.gpus, **self._inventory.value.by_name}
        grants = allocation.grants(claim, ref.uid, self._pool, known, profiles=planned.profiles)
        return Allocated(grants, claim_metadata.pod_claim_of(claim))
