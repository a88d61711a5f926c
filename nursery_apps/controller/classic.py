"""Classic allocation while this process leads: made anew each time it does, from nothing but what the API server has."""

from __future__ import annotations

import enum
import gc
import logging
from collections.abc import Callable
from typing import Any

import trio

from dra.classic.ledger import Ledger
from dra.classic.placement import Policy
from dra.kube.classic import PodSchedulingContext, ResourceClaim
from dra.kube.event_reasons import Reason
from dra.kube.events import Regarding, Weight
from nursery_apps.controller.allocator import Allocator, Announce, OnAllocated
from nursery_apps.controller.bookkeeper import Bookkeeper
from nursery_apps.controller.claim_writer import ClaimWriter
from nursery_apps.controller.leadership import Fence
from nursery_apps.controller.stores import Key, Stores
from nursery_apps.controller.work_queue import WorkQueue
from nursery_apps.latest import Latest
from nursery_apps.seams import Clock, KubeApi

log = logging.getLogger(__name__)


class About(enum.Enum):
    CLAIM = "claim"
    CONTEXT = "context"


class ClassicAllocation:
    """`run` is the task."""

    def __init__(
        self,
        kube: KubeApi,
        fence: Fence,
        *,
        namespace: str,
        policy: Latest[Policy],
        workers: int,
        clock: Clock,
        random: Callable[[], float],
        announce: Announce,
        on_allocated: OnAllocated,
    ) -> None:
        """
        Args:
            namespace: the driver's own.
            policy: may change while this runs.
            announce: (about what, how grave, reason, sentence) becomes an Event.
        """
        self._policy = policy
        self._announce = announce
        self.queue: WorkQueue[tuple[About, Key]] = WorkQueue(self._work, workers=workers, random=random)
        self.stores = Stores(kube, namespace, random)
        self.ledger = Ledger(policy.value, on_better=self._node_is_better)
        self._bookkeeper = Bookkeeper(self.stores, self.ledger, clock=clock, on_trouble=self._trouble)
        self.allocator = Allocator(
            kube,
            self.stores,
            self.ledger,
            ClaimWriter(kube, self.stores, fence),
            announce=announce,
            enqueue_claim=lambda key: self.queue.add((About.CLAIM, key)),
            enqueue_context=lambda key: self.queue.add((About.CONTEXT, key)),
            on_allocated=on_allocated,
        )
        self.stores.on_claim = self._claim
        self.stores.on_context = self._context
        self.stores.on_state = self._bookkeeper.state
        self.stores.on_lease = self._bookkeeper.lease
        self.stores.on_terms = self.allocator.concerned_by_claim

    async def run(self) -> None:
        """Allocate until cancelled. Nothing is decided before every claim was read: they are the ledger."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.stores.run)
                log.info(
                    "%d claims, %d of them with devices, on %d nodes: allocating",
                    len(self.stores.claims.objects),
                    len(self.ledger.holdings()),
                    len(list(self.ledger.nodes())),
                )
                # What was read stays while this process leads. With 5 000 nodes every full collection would go through it for 0.1 s, and
                # all decisions wait.
                gc.freeze()
                nursery.start_soon(self._bookkeeper.run)
                nursery.start_soon(self._follow_policy)
                nursery.start_soon(self.queue.run)
        finally:
            gc.unfreeze()

    async def _work(self, item: tuple[About, Key]) -> float | None:
        about, key = item
        return await (self.allocator.claim(key) if about is About.CLAIM else self.allocator.context(key))

    async def _follow_policy(self) -> None:
        while True:
            seen = self._policy.version
            self.ledger.set_policy(self._policy.value)  # it may have changed while everything was read, too
            await self._policy.wait_newer(seen)

    def _claim(self, before: ResourceClaim | None, after: ResourceClaim | None) -> None:
        self._bookkeeper.claim(before, after)
        changed: Any = after or before
        self.allocator.concerned_by_claim((changed.metadata.namespace, changed.metadata.name))

    def _context(self, before: PodSchedulingContext | None, after: PodSchedulingContext | None) -> None:
        if before is not None and after is not None and before.spec == after.spec and before.metadata.uid == after.metadata.uid:
            return  # our own answer, or another driver's
        changed: Any = after or before
        self.queue.add((About.CONTEXT, (changed.metadata.namespace, changed.metadata.name)))

    def _node_is_better(self, node: str) -> None:
        self.allocator.concerned_by_node(node)

    def _trouble(self, claim: ResourceClaim, reason: Reason, sentence: str) -> None:
        metadata = claim.metadata
        about = Regarding("ResourceClaim", metadata.name, metadata.namespace, metadata.uid, "resource.k8s.io/v1alpha2")
        self._announce(about, Weight.WARNING, reason, sentence)
