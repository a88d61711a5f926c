"""kube-scheduler with the DRA plugin of 1.28 to 1.30: it says in a PodSchedulingContext which nodes it thinks of and which it has selected,
the drivers say which do not suit them, and when all claims are allocated the pod is bound.

After kk 1.28.15, 1.29.6 and 1.30.14 dynamicresources.go. What differs: 1.28 and 1.29 write in Reserve, so that an allocated claim of a pod
whose other claims are pending is reserved and given back in the same attempt; 1.30 writes in PreBind and Unreserve. From 1.29 on the
selected node is taken back before a claim is deallocated, and a pod that waits for a driver does not back off.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from tools.simcluster import scheduler as structured
from tools.simcluster.classic import attempt, wakening
from tools.simcluster.classic.attempt import Gated, PodClaim, Unschedulable
from tools.simcluster.classic.claims import is_reserved, reserve, scheduling_metadata
from tools.simcluster.classic.nodes import Nodes
from tools.simcluster.classic.queue import PodQueue
from tools.simcluster.classic.rules import NODES
from tools.simcluster.classic.users import Users, key_of
from tools.simcluster.kinds import CLAIM, NODE, POD, RESOURCE_CLASS, SCHEDULING, Json, Kind
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Change, Key

_WAITS: Final = "waiting for resource driver to allocate resource"
_ASKS: Final = "waiting for resource driver to provide information"


class Scheduler:
    """`note` is told every write, `step` tries one pod."""

    def __init__(self, registry: Registry, users: Users, log: Callable[[str], None], *, chance: random.Random | None = None) -> None:
        self._registry, self._users, self._log = registry, users, log
        self._chance = chance or random.Random()
        self._nodes = Nodes(registry.store, self._chance)
        self._queue = PodQueue()
        self._pending: set[Key] = set()
        """Pods that wait for a driver."""
        self._changes: list[tuple[Kind, Change]] = []
        for pod in registry.store.each(POD):
            if _is_waiting(pod):
                self._queue.add(key_of(pod))

    def note(self, kind: Kind, change: Change) -> None:
        self._nodes.note(kind, change)
        if kind in (POD, CLAIM, SCHEDULING, RESOURCE_CLASS, NODE):
            # What happens within an attempt is looked at after it, its own writes too.
            self._changes.append((kind, change))

    def step(self) -> bool:
        """Whether there was a pod to try."""
        changes, self._changes = self._changes, []
        for kind, change in changes:
            self._heed(kind, change)
        key = self._queue.next()
        if key is None:
            return False
        pod = self._registry.store.get(POD, *key)
        if pod is not None and _is_waiting(pod):
            self._try(key, pod)
        else:
            self._forget(key)
        return True

    def quiet_until(self) -> float:
        """When there is something to do even if nobody writes (Trio's clock)."""
        return self._queue.quiet_until()

    # --- waking ------------------------------------------------------------------------------------------------------------------

    def _heed(self, kind: Kind, change: Change) -> None:
        key = key_of(change.object)
        if kind is POD:
            if change.type == "DELETED" or not _is_waiting(change.object):
                self._forget(key)
            elif change.before is None or not _is_waiting(change.before):
                self._queue.add(key)
            elif wakening.updated(change):
                self._queue.wake(key, at_once=False)
        elif kind is CLAIM:
            for user in self._users.of_claim(key):
                if (pod := self._registry.store.get(POD, *user)) is not None:
                    self._wake(user, wakening.by_claim(pod, change))
        elif kind is SCHEDULING:
            if (pod := self._registry.store.get(POD, *key)) is not None:
                self._wake(key, wakening.by_scheduling(self._registry.store, pod, change))
        elif change.type != "DELETED" and (kind is RESOURCE_CLASS or _opens(change)):
            for user in self._queue.waiting():
                self._wake(user, wakening.AFTER_BACKOFF)

    def _wake(self, key: Key, hint: str) -> None:
        if hint != wakening.SKIP:
            at_once = hint == wakening.AT_ONCE if self._registry.release.minor == 28 else key in self._pending
            self._queue.wake(key, at_once=at_once)

    def _forget(self, key: Key) -> None:
        self._queue.remove(key)
        self._pending.discard(key)

    # --- an attempt --------------------------------------------------------------------------------------------------------------

    def _try(self, key: Key, pod: Json) -> None:
        self._pending.discard(key)
        try:
            node = self._find_node(pod)
        except Gated:
            self._queue.wait(key, is_gated=True)
        except Unschedulable as failed:
            if failed.is_pending:
                self._pending.add(key)
            structured.report(self._registry, pod, str(failed), nodes=len(self._nodes))
            self._queue.wait(key)
        except Refused as refused:
            structured.report(self._registry, pod, refused.message, nodes=len(self._nodes))
            self._queue.back_off(key)
        else:
            self._forget(key)
            self._log(f"pod {key[0]}/{key[1]} is bound to {node}")

    def _find_node(self, pod: Json) -> str:
        """The node the pod is bound to.

        Raises:
            Unschedulable
            Refused: somebody else was faster.
        """
        store = self._registry.store
        claims = attempt.claims_of(store, pod)
        scheduling = attempt.scheduling_of(store, pod)
        found = attempt.filtered(store, self._nodes, pod, claims, scheduling)
        if not found.feasible:
            self._make_room(pod, claims, scheduling)
            reasons = ", ".join(f"{count} {why}" for why, count in sorted(found.reasons.items()))
            raise Unschedulable(reasons or "no nodes available to schedule pods")
        node = self._nodes.emptiest(found.feasible)
        if any(each.is_pending for each in claims):
            self._negotiate(pod, claims, scheduling, found.feasible, node)
        for each in claims:
            if not is_reserved(each.claim, pod):
                self._registry.amend(CLAIM, each.claim, partial(reserve, pod=pod), subresource="status")
        self._bind(pod, node)
        if scheduling is not None:
            self._registry.delete(SCHEDULING, pod["metadata"]["name"], pod["metadata"]["namespace"])
        return node

    def _negotiate(self, pod: Json, claims: list[PodClaim], scheduling: Json | None, feasible: list[str], node: str) -> None:
        """PreScore and Reserve of a pod with pending claims, which always end in waiting.

        Raises:
            Unschedulable
        """
        old = (scheduling or {}).get("spec") or {}
        spec = dict(old)
        # PreScore is left out where only one node is feasible; Reserve then asks about that one, if nothing was asked before.
        if len(feasible) > 1 and not set(feasible) <= set(old.get("potentialNodes") or ()):
            some = feasible if len(feasible) <= NODES else self._chance.sample(feasible, NODES)
            spec["potentialNodes"] = sorted(some)
        if not spec.get("potentialNodes"):
            spec["potentialNodes"] = [node]
        if self._registry.release.minor <= 29:
            for each in claims:
                if not each.is_pending and not is_reserved(each.claim, pod):
                    each.claim = self._registry.amend(CLAIM, each.claim, partial(reserve, pod=pod), subresource="status")
        pending = [each for each in claims if each.is_pending]
        said = attempt.statuses(scheduling)
        selects = len(pending) == 1 or all(each.entry in said for each in pending)
        if selects:
            spec["selectedNode"] = node
        if spec != old:
            self._publish(pod, scheduling, spec)
        self._unreserve(pod, claims)
        raise Unschedulable(_WAITS if selects else _ASKS, is_pending=self._registry.release.minor >= 29)

    def _publish(self, pod: Json, scheduling: Json | None, spec: Json) -> None:
        if scheduling is None:
            self._registry.create(SCHEDULING, {"metadata": scheduling_metadata(pod), "spec": spec}, pod["metadata"]["namespace"])
        else:
            self._registry.amend(SCHEDULING, scheduling, lambda body: body.update(spec=spec))

    def _unreserve(self, pod: Json, claims: list[PodClaim]) -> None:
        """The pod does not get its node this time: others may have what is allocated."""
        for each in claims:
            if not each.is_pending and is_reserved(each.claim, pod):
                each.claim = self._registry.amend(CLAIM, each.claim, partial(_release, uid=pod["metadata"]["uid"]), subresource="status")

    def _make_room(self, pod: Json, claims: list[PodClaim], scheduling: Json | None) -> None:
        """PostFilter: have one claim deallocated that keeps the pod from other nodes and that nobody else uses."""
        candidates = [each for each in attempt.blocking(self._nodes, pod, claims) if _is_unused(each.claim, pod)]
        if not candidates:
            return
        if self._registry.release.minor >= 29 and scheduling is not None and scheduling["spec"].get("selectedNode"):
            # Else the driver would deallocate and at once allocate again for the same node, which is what happens in 1.28.
            self._registry.amend(SCHEDULING, scheduling, lambda body: body["spec"].pop("selectedNode"))
        chosen = self._chance.choice(candidates).claim
        self._log(f"claim {chosen['metadata']['namespace']}/{chosen['metadata']['name']} is in the way: deallocation is requested")
        self._registry.amend(CLAIM, chosen, _request_deallocation, subresource="status")

    def _bind(self, pod: Json, node: str) -> None:
        pod = self._registry.amend(POD, pod, lambda body: body["spec"].update(nodeName=node))
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._registry.timestamp()}
        self._registry.amend(POD, pod, lambda body: structured.condition(body, scheduled), subresource="status")


def _is_waiting(pod: Json) -> bool:
    """For the scheduler."""
    if pod["spec"].get("nodeName") or pod["spec"].get("schedulingGates") or pod["metadata"].get("deletionTimestamp"):
        return False
    return bool(pod["status"].get("phase") == "Pending")


def _is_unused(claim: Json, pod: Json) -> bool:
    reserved = claim["status"].get("reservedFor") or ()
    return not reserved or [each["uid"] for each in reserved] == [pod["metadata"]["uid"]]


def _opens(change: Change) -> bool:
    """Whether a node is new, or takes pods that it did not take before."""
    before, now = change.before, change.object
    if before is None:
        return True
    return (before.get("spec"), before["metadata"].get("labels")) != (now.get("spec"), now["metadata"].get("labels"))


def _release(body: Json, uid: str) -> None:
    body["status"]["reservedFor"] = [each for each in body["status"]["reservedFor"] if each["uid"] != uid]
    if not body["status"]["reservedFor"]:
        del body["status"]["reservedFor"]


def _request_deallocation(body: Json) -> None:
    body["status"].pop("reservedFor", None)
    body["status"]["deallocationRequested"] = True
