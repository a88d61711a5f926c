"""Allocates claims and takes allocations back, one key at a time: a claim by itself, or a pod's claims as its scheduling context asks.

Nothing is remembered between two looks that could not be found out again, save what is held in the ledger until it is written.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from dra.classic import claim_state, node_selector, scheduling
from dra.classic.claim_state import Todo
from dra.classic.handle import Handle
from dra.classic.ledger import Ask, Ledger
from dra.classic.placement import Unfit
from dra.errors import ClaimRefused, NotYet
from dra.kube import event_reasons
from dra.kube.classic import Consumer, Pod, PodSchedulingContext, ResourceClaim, ResourceClass, SchedulingSpec
from dra.kube.event_reasons import Reason
from dra.kube.events import Regarding, Weight
from dra.names import ClaimUid
from nursery_apps.controller import kinds
from nursery_apps.controller.claim_writer import ClaimWriter
from nursery_apps.controller.steering import ADVICE_SECONDS, Steering
from nursery_apps.controller.stores import Key, Stores
from nursery_apps.controller.waiting import Waiting
from nursery_apps.controller.work_queue import Again
from nursery_apps.seams import ApiError, KubeApi, NotFound

log = logging.getLogger(__name__)

RECHECK_SECONDS: Final = 30.0
"""As the Go library: a context whose lists may have grown stale is looked at again. What makes a node suitable is told at once."""
API_VERSION: Final = kinds.CLASSIC

Announce = Callable[[Regarding, Weight, Reason, str], None]
OnAllocated = Callable[[str, int], None]


class _Pending(msgspec.Struct, frozen=True):
    """A claim of a pod that is ours to allocate."""

    in_pod: str
    claim: ResourceClaim
    ask: Ask


class Allocator:
    """`claim` and `context` are the work of a queue."""

    def __init__(
        self,
        kube: KubeApi,
        stores: Stores,
        ledger: Ledger,
        writer: ClaimWriter,
        *,
        announce: Announce,
        enqueue_claim: Callable[[Key], None],
        enqueue_context: Callable[[Key], None],
        on_allocated: OnAllocated,
    ) -> None:
        """`on_allocated(node, claims)` counts."""
        self._kube = kube
        self._stores = stores
        self._ledger = ledger
        self._writer = writer
        self._announce = announce
        self._enqueue_claim, self._enqueue_context = enqueue_claim, enqueue_context
        self._on_allocated = on_allocated
        self._waiting = Waiting()
        self._steering = Steering(ledger)
        self._pods: dict[Key, Pod] = {}
        """By context, as they were read last: which claims a pod has never changes, only that it is there."""
        self._being_written: set[ClaimUid] = set()
        """Claims that a task is allocating: pods that share one are worked on at the same time, and a write on its way is not to be
        decided anew."""
        self._held_back: dict[Key, tuple[SchedulingSpec, float]] = {}
        """Contexts from which an allocation was just taken back: what the scheduler asked for then, and until when it does not count."""

    # --- who has to look again

    def concerned_by_node(self, node: str) -> None:
        """The node may suit more claims than before."""
        for key in list(self._waiting.asking(node)):
            self._enqueue_context(key)
        for key in list(self._waiting.homeless):
            self._enqueue_claim(key)

    def concerned_by_claim(self, key: Key) -> None:
        """The claim came, changed or went, or is asked for in another way."""
        self._enqueue_claim(key)
        for context in list(self._waiting.contexts_of(key)):
            self._enqueue_context(context)

    @property
    def waiting(self) -> int:
        """Pods and immediate claims that wait for devices."""
        return len(self._waiting)

    # --- a claim by itself

    async def claim(self, key: Key) -> float | None:
        """
        Raises:
            Again: something stood in the way.
        """
        found = self._stores.claims.find(key[1], namespace=key[0])
        if found is None:
            self._waiting.homeless.discard(key)
            return None
        found = await self._writer.sure(found)
        match claim_state.todo(found, self._stores.classes.find(found.spec.resource_class_name)):
            case Todo.DEALLOCATE:
                await self._deallocate(key, found)
            case Todo.ALLOCATE:
                return await self._allocate_anywhere(key, found)
            case Todo.NOTHING:
                self._waiting.homeless.discard(key)
                if not self._waiting.contexts_of(key):
                    self._let_go(ClaimUid(found.metadata.uid))
        return None

    async def _deallocate(self, key: Key, claim: ResourceClaim) -> None:
        for context in self._waiting.contexts_of(key):
            if (asked := self._stores.contexts.find(context[1], namespace=context[0])) is not None:
                # Kubernetes 1.28 leaves the old node selected: giving it again what was just taken back would go on for ever.
                self._held_back[context] = (asked.spec, trio.current_time() + RECHECK_SECONDS)
        await self._writer.deallocate(claim)
        self._ledger.release(ClaimUid(claim.metadata.uid))
        log.info("claim %s/%s: deallocated", *key)

    async def _allocate_anywhere(self, key: Key, claim: ResourceClaim) -> float | None:
        of_class = self._stores.classes.find(claim.spec.resource_class_name)
        assert of_class is not None
        uid = ClaimUid(claim.metadata.uid)
        try:
            demand = self._stores.demand(claim, of_class)
            if demand.of_class.monitor:
                raise ClaimRefused(
                    f"claim {key[0]}/{key[1]}: a monitor claim needs a node, which only a pod brings: leave allocationMode out",
                    reason="InvalidParameters",
                )
        except ClaimRefused as refusal:
            self._tell(_about_claim(claim), event_reasons.of_error(refusal, "ClaimRefused"), str(refusal))
            return None  # whoever mends it is noticed
        asks = (Ask(uid, demand),)
        held = self._ledger.holding(uid)
        nodes = [held.node] if held is not None else await self._nodes_of(of_class)
        why = self._ledger.verdicts(nodes, asks)
        node = next((node for node in nodes if why[node] is None), None)
        if node is None:
            self._ledger.release(uid)
            self._waiting.homeless.add(key)
            self._tell(_about_claim(claim), "NoSuitableNode", _summary(why))
            return None
        self._waiting.homeless.discard(key)
        await self._allocate(node, [_Pending("", claim, asks[0])], None)
        return None

    async def _nodes_of(self, of_class: ResourceClass) -> list[str]:
        """Nodes with this driver on which claims of a class may be: with a pod the scheduler sees to that."""
        nodes = list(self._ledger.nodes())
        if of_class.suitable_nodes is None:
            return nodes
        try:
            listed = (await self._kube.list(kinds.NODES)).items
        except ApiError as error:
            raise Again(f"nodes: {error}", not_before_seconds=error.retry_after_seconds or 0.0) from None
        labels = {node.metadata.name: node.metadata.labels or {} for node in listed}
        return [node for node in nodes if node in labels and node_selector.matches(of_class.suitable_nodes, node, labels[node])]

    # --- the claims of a pod

    async def context(self, key: Key) -> float | None:
        """
        Raises:
            Again: something stood in the way.
        """
        context = self._stores.contexts.find(key[1], namespace=key[0])
        if context is None:
            self._leave(key)
            return None
        nodes = scheduling.nodes_of(context)
        if not nodes or context.metadata.deletion_timestamp is not None:
            return None
        known = self._pods.get(key)
        pod = known if known is not None and scheduling.is_of_pod(context, known) else await self._pod(key, context)
        if pod is None:
            return None
        pending = await self._pending(key, pod)
        if not pending:
            self._stop_waiting(key)
            return None
        selected = context.spec.selected_node
        self._forget_outdated(pending, selected)
        asks = tuple({each.ask.uid: each.ask for each in pending}.values())  # a pod may name one claim twice
        if selected and self._ledger.why_unsuitable(selected, asks) is None and not self._is_held_back(key, context):
            if pod is known and await self._pod(key, context) is None:
                return None  # it went while it waited
            await self._allocate(selected, pending, Consumer(resource="pods", name=pod.metadata.name, uid=pod.metadata.uid))
            self._stop_waiting(key)
            return None
        self._waiting.ask(key, nodes)
        why = self._ledger.verdicts(nodes, asks)
        suitable = [node for node, reason in why.items() if reason is None]
        chosen = self._steering.choose(key, context.spec, asks, suitable, len(self._waiting)) if selected and why[selected] else None
        await self._answer(context, pending, [node for node, reason in why.items() if reason is not None or (chosen and node != chosen)])
        if not suitable:
            self._tell(_about_pod(pod), "NoSuitableNode", _summary(why))
        return RECHECK_SECONDS if chosen is None else ADVICE_SECONDS

    async def _pod(self, key: Key, context: PodSchedulingContext) -> Pod | None:
        """The context's pod as it is now; None if it is gone, going, or another of the same name."""
        self._pods.pop(key, None)
        try:
            pod = await self._kube.get(kinds.PODS, context.metadata.name, namespace=context.metadata.namespace)
        except NotFound:
            return None
        except ApiError as error:
            raise Again(f"pod {context.metadata.name}: {error}", not_before_seconds=error.retry_after_seconds or 0.0) from None
        if pod.metadata.deletion_timestamp is not None or not scheduling.is_of_pod(context, pod):
            return None
        self._pods[key] = pod
        return pod

    async def _pending(self, key: Key, pod: Pod) -> list[_Pending]:
        namespace = pod.metadata.namespace
        try:
            names = scheduling.claims_of(pod)
        except NotYet as error:
            del self._pods[key]  # its status will say more
            raise Again(str(error)) from None
        self._waiting.use(key, {(namespace, each.name) for each in names})
        found = []
        for each in names:
            claim = self._stores.claims.find(each.name, namespace=namespace)
            if claim is None:
                raise Again(f"claim {namespace}/{each.name} is not known yet")
            claim = await self._writer.sure(claim)
            if each.generated and not _belongs(claim, pod):
                raise Again(f"claim {namespace}/{each.name} was not made for pod {pod.metadata.name}")
            of_class = self._stores.classes.find(claim.spec.resource_class_name)
            if claim.status.allocation is not None or claim.spec.allocation_mode == claim_state.IMMEDIATE:
                continue
            if of_class is None or not claim_state.is_of_ours(of_class) or claim.metadata.deletion_timestamp is not None:
                continue
            try:
                demand = self._stores.demand(claim, of_class)
            except ClaimRefused as refusal:
                for about in (_about_claim(claim), _about_pod(pod)):
                    self._tell(about, event_reasons.of_error(refusal, "ClaimRefused"), str(refusal))
                raise Again(str(refusal)) from None
            found.append(_Pending(each.in_pod, claim, Ask(ClaimUid(claim.metadata.uid), demand)))
        return found

    async def _answer(self, context: PodSchedulingContext, pending: Sequence[_Pending], unsuitable: Iterable[str]) -> None:
        """Tell the scheduler which nodes are not for these claims: the same for each of them, since they go together."""
        unfit = scheduling.unsuitable(unsuitable, context.spec.selected_node)
        body = scheduling.status_patch(context, {each.in_pod: unfit for each in pending})
        if body is None:
            return
        name, namespace = context.metadata.name, context.metadata.namespace
        try:
            stored = await self._kube.patch(kinds.CONTEXTS, name, body, content_type=kinds.MERGE, namespace=namespace, subresource="status")
        except NotFound:
            return
        except ApiError as error:
            raise Again(f"context {namespace}/{name}: {error}", not_before_seconds=error.retry_after_seconds or 0.0) from None
        self._stores.contexts.adopt(stored)

    # --- both

    async def _allocate(self, node: str, pending: Sequence[_Pending], pod: Consumer | None) -> None:
        """Decide and write. The decision is taken without a pause after the node was found suitable."""
        wanted = {each.ask.uid: each for each in pending}
        if not self._being_written.isdisjoint(wanted):
            raise Again("a claim of the pod is being allocated for another pod")
        decided = self._ledger.decide(node, [each.ask for each in wanted.values()])
        if isinstance(decided, Unfit):
            raise Again(f"node {node} was taken meanwhile: {decided.why}")
        self._being_written |= wanted.keys()
        try:
            await self._write(node, wanted.values(), decided, pod)
        finally:
            self._being_written -= wanted.keys()
        self._on_allocated(node, len(wanted))

    async def _write(self, node: str, pending: Iterable[_Pending], decided: Mapping[ClaimUid, Handle], pod: Consumer | None) -> None:
        for each in pending:
            demand, where = each.ask.demand, f"claim {each.claim.metadata.namespace}/{each.claim.metadata.name}"
            try:
                claim = await self._writer.protect(each.claim)
                shareable = demand.of_claim.shareable or demand.of_class.monitor
                await self._writer.allocate(claim, decided[each.ask.uid], shareable=shareable, pod=pod)
            except NotFound:
                self._ledger.release(each.ask.uid)
                raise Again(f"{where} is gone") from None
            except ValueError as error:
                self._ledger.release(each.ask.uid)
                self._tell(_about_claim(each.claim), "HandleTooLong", f"{where}: {error}; ask for fewer devices in one claim")
                raise Again(str(error)) from None
            log.info("%s: allocated on node %s", where, node)

    def _forget_outdated(self, pending: Iterable[_Pending], selected: str) -> None:
        """What was decided for a node that the scheduler has given up since, and never written, others may have."""
        for uid in {each.ask.uid for each in pending} - self._being_written:
            held = self._ledger.holding(uid)
            if held is not None and not held.written and held.node != selected:
                self._ledger.release(uid)

    def _is_held_back(self, key: Key, context: PodSchedulingContext) -> bool:
        spec, until = self._held_back.get(key, (None, 0.0))
        if spec == context.spec and trio.current_time() < until:
            return True
        self._held_back.pop(key, None)
        return False

    def _stop_waiting(self, context: Key) -> None:
        self._waiting.stop_asking(context)
        self._steering.forget(context)

    def _leave(self, context: Key) -> None:
        """The pod runs, or is gone: what was decided for it and never written is let go, by whoever looks at the claim next."""
        self._held_back.pop(context, None)
        self._pods.pop(context, None)
        self._steering.forget(context)
        for claim in self._waiting.leave(context):
            self._enqueue_claim(claim)

    def _let_go(self, uid: ClaimUid) -> None:
        """Nobody waits for the claim: what was decided and never written does not count."""
        holding = self._ledger.holding(uid)
        if holding is not None and not holding.written and uid not in self._being_written:
            self._ledger.release(uid)

    def _tell(self, about: Regarding, reason: Reason, sentence: str) -> None:
        log.warning("%s", sentence)
        self._announce(about, Weight.WARNING, reason, sentence)


def _belongs(claim: ResourceClaim, pod: Pod) -> bool:
    return any(owner.controller and owner.uid == pod.metadata.uid for owner in claim.metadata.owner_references or [])


def _about_claim(claim: ResourceClaim) -> Regarding:
    metadata = claim.metadata
    return Regarding("ResourceClaim", metadata.name, metadata.namespace, metadata.uid, API_VERSION)


def _about_pod(pod: Pod) -> Regarding:
    return Regarding("Pod", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)


def _summary(why: dict[str, str | None]) -> str:
    """`no node suits: 3: 1 of a whole GPU wanted; 0 of 8 fit. 1: ...`, the commonest reasons first."""
    reasons: Iterable[tuple[str, int]] = Counter(reason for reason in why.values() if reason).most_common(4)
    said = "; ".join(f"{count} node{'s' if count > 1 else ''}: {reason}" for reason, count in reasons)
    return f"no node suits. {said}" if said else "no node has this driver's plugin"
