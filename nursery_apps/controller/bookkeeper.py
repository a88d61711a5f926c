"""Keeps the ledger true to the API server: claims, states of nodes, and whether their plugins live."""

from __future__ import annotations

import logging
import math
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import trio

from dra.classic import claim_state, handle, originals
from dra.classic.inventory import GpuAllocationState
from dra.classic.ledger import Ledger
from dra.classic.names import HEARTBEAT_LABEL, heartbeat_name
from dra.errors import ClaimRefused
from dra.kube.classic import Lease, ResourceClaim
from dra.kube.event_reasons import Reason
from dra.names import ClaimUid, NodeName
from nursery_apps.controller.stores import Stores
from nursery_apps.seams import Clock

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 50.0
"""What is taken for a Lease that does not say how long it lasts: three renewals of a plugin may fail."""
LONG_AGO_SECONDS: Final = 600.0
"""By wall clocks. A Lease last renewed so long ago is not waited for once more when the controller starts: no clocks differ that much."""


class OnTrouble(Protocol):
    def __call__(self, claim: ResourceClaim, reason: Reason, sentence: str, /) -> None:
        """Something of a claim cannot be understood."""


class Bookkeeper:
    """Told of changes by the stores; `run` watches over time."""

    def __init__(self, stores: Stores, ledger: Ledger, *, clock: Clock, on_trouble: OnTrouble) -> None:
        self._stores = stores
        self._ledger = ledger
        self._clock = clock
        self._on_trouble = on_trouble
        self._expiry: dict[str, float] = {}
        """By node, on Trio's clock."""
        self._states: dict[str, GpuAllocationState] = {}
        self._waiting: dict[str, set[tuple[str, str]]] = {}
        """Claims of the original's by node, whose devices only the node's state knows."""
        self._changed = trio.Event()

    # --- claims

    def claim(self, before: ResourceClaim | None, after: ResourceClaim | None) -> None:
        if before is not None and (after is None or after.metadata.uid != before.metadata.uid):
            self._ledger.release(ClaimUid(before.metadata.uid))
        if after is None:
            return
        uid = ClaimUid(after.metadata.uid)
        if claim_state.is_allocated(after):
            self._hold(uid, after)
        elif (holding := self._ledger.holding(uid)) is None or holding.written:
            # A decision that is not written yet stays: the claim will say so soon, or whoever decided lets it go.
            self._ledger.release(uid)

    def _hold(self, uid: ClaimUid, claim: ResourceClaim) -> None:
        data = claim_state.handle_data(claim)
        if not data:
            self._hold_original(uid, claim)
            return
        try:
            found = handle.parse(data)
        except ClaimRefused as refusal:
            self._riddle(uid, claim, claim.node, str(refusal))
            return
        if not found.node and not found.monitor:
            self._riddle(uid, claim, claim.node, "its handle names no node")
            return
        self._ledger.hold(uid, found.node or claim.node, found, written=True)

    def _hold_original(self, uid: ClaimUid, claim: ResourceClaim) -> None:
        state = self._states.get(claim.node)
        if state is None:
            self._waiting.setdefault(claim.node, set()).add((claim.metadata.namespace, claim.metadata.name))
            return
        try:
            found = originals.handle_of(state, uid, NodeName(claim.node))
        except ClaimRefused:
            self._riddle(uid, claim, claim.node, "it was allocated by another driver, and no GpuAllocationState says what it has")
            return
        # How a card was cut for the original's claims its node knows, and that changes as they go: nothing else of it is given away.
        parts = tuple(msgspec.structs.replace(part, layout=()) for part in found.parts)
        self._ledger.hold(uid, claim.node, msgspec.structs.replace(found, parts=parts), written=True)

    def _riddle(self, uid: ClaimUid, claim: ResourceClaim, node: str, why: str) -> None:
        sentence = f"claim {claim.metadata.namespace}/{claim.metadata.name} has something of node {node} that nobody can tell: {why}"
        log.error("%s; nothing more is allocated there until it is deleted", sentence)
        self._ledger.block(uid, node, sentence)
        self._on_trouble(claim, "UnknownHandle", f"{sentence}; nothing more is allocated there until this claim is deleted")

    # --- nodes

    def state(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        changed = after or before
        assert changed is not None
        node: str = changed["metadata"]["name"]
        found = None
        if after is not None:
            try:
                found = msgspec.convert(after, GpuAllocationState)
            except msgspec.ValidationError as error:
                log.error("GpuAllocationState of node %s cannot be understood, nothing is allocated there: %s", node, error)
        if found is not None:
            self._states[node] = found
        else:
            self._states.pop(node, None)
        self._ledger.set_state(node, found)
        if found is not None:
            for namespace, name in self._waiting.pop(node, ()):
                if (claim := self._stores.claims.find(name, namespace=namespace)) is not None:
                    self.claim(None, claim)

    def lease(self, before: Lease | None, after: Lease | None) -> None:
        changed = after or before
        assert changed is not None
        if HEARTBEAT_LABEL not in (changed.metadata.labels or {}):
            return
        node = changed.metadata.name.removeprefix(heartbeat_name(""))
        if after is None:
            self._expiry.pop(node, None)
            self._ledger.set_alive(node, False)
            return
        if before is not None and before.spec.renew_time == after.spec.renew_time:
            return
        lasts = float(after.spec.lease_duration_seconds or HEARTBEAT_SECONDS)
        if before is None and self._is_old(after):
            lasts = 0.0
        self._expiry[node] = trio.current_time() + lasts
        self._ledger.set_alive(node, lasts > 0)
        self._changed.set()

    def _is_old(self, lease: Lease) -> bool:
        renewed = lease.spec.renew_time
        try:
            at = msgspec.convert(renewed, datetime).timestamp() if renewed else -math.inf
        except msgspec.ValidationError:
            return False
        return self._clock() - at > LONG_AGO_SECONDS

    async def run(self) -> None:
        """Declare plugins dead that have not renewed their Lease in time, until cancelled."""
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(min(self._expiry.values(), default=math.inf)):
                await self._changed.wait()
            now = trio.current_time()
            for node in [node for node, at in self._expiry.items() if at <= now]:
                del self._expiry[node]
                log.warning("the plugin of node %s has stopped renewing its Lease: nothing new is allocated there", node)
                self._ledger.set_alive(node, False)
