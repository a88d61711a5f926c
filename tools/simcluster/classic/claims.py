"""What kube-controller-manager does with claims of v1alpha2: makes them from templates, takes consumers off that are gone, asks for
deallocation when the last is, deletes generated ones; and for a pod that somebody put on a node by hand it does the scheduler's part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tools.simcluster import generated_claims, pod_claims
from tools.simcluster.classic.rules import DELAYED
from tools.simcluster.classic.users import Users, key_of
from tools.simcluster.generated_claims import FINAL
from tools.simcluster.kinds import CLAIM, POD, SCHEDULING, TEMPLATE, Json, Kind
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry
from tools.simcluster.store import Change, Key


class ClaimController:
    """`note` is told every write, `step` does what one pod or claim needs."""

    def __init__(self, registry: Registry, users: Users, log: Callable[[str], None]) -> None:
        self._registry, self._users, self._log = registry, users, log
        self._pods: dict[Key, None] = dict.fromkeys(key_of(pod) for pod in registry.store.each(POD))
        self._claims: dict[Key, None] = dict.fromkeys(key_of(claim) for claim in registry.store.each(CLAIM))

    def note(self, kind: Kind, change: Change) -> None:
        body = change.object
        if kind is POD:
            self._pods[key_of(body)] = None
            for _, name in pod_claims.claim_names(body):
                self._claims[body["metadata"]["namespace"], name] = None
        elif kind is CLAIM:
            self._claims[key_of(body)] = None
            self._pods.update(dict.fromkeys(self._users.of_claim(key_of(body))))
        elif kind is TEMPLATE and change.type == "ADDED":
            self._pods.update(dict.fromkeys(self._users.of_template(key_of(body))))

    def step(self) -> bool:
        """Whether there was anything to look at."""
        store = self._registry.store
        if self._pods:
            key = next(iter(self._pods))
            del self._pods[key]
            if (pod := store.get(POD, *key)) is not None and pod["spec"].get("resourceClaims"):
                self._look_at_pod(pod)
            return True
        if self._claims:
            key = next(iter(self._claims))
            del self._claims[key]
            if (claim := store.get(CLAIM, *key)) is not None:
                self._look_at_claim(claim)
            return True
        return False

    # --- pods --------------------------------------------------------------------------------------------------------------------

    def _look_at_pod(self, pod: Json) -> None:
        generated_claims.make(self._registry, pod)
        if pod["spec"].get("nodeName") and not _done(pod) and not pod["metadata"].get("deletionTimestamp"):
            self._stand_in(self._registry.get(POD, pod["metadata"]["name"], pod["metadata"]["namespace"]))

    def _stand_in(self, pod: Json) -> None:
        """The pod has a node and nobody schedules it: reserve what is allocated, and say on which node the rest is wanted."""
        store, metadata = self._registry.store, pod["metadata"]
        for _, name in pod_claims.claim_names(pod):
            claim = store.get(CLAIM, metadata["namespace"], name)
            if claim is None or claim["metadata"].get("deletionTimestamp"):
                continue
            if (claim.get("status") or {}).get("allocation"):
                if not is_reserved(claim, pod) and can_be_reserved(claim):
                    try:
                        self._registry.amend(CLAIM, claim, partial(reserve, pod=pod), subresource="status")
                    except Refused as refused:
                        self._log(f"pod {metadata['name']} cannot have claim {name}: {refused.message}")
            elif claim["spec"]["allocationMode"] == DELAYED and store.get(SCHEDULING, metadata["namespace"], metadata["name"]) is None:
                body = {"metadata": scheduling_metadata(pod), "spec": {"selectedNode": pod["spec"]["nodeName"]}}
                self._registry.create(SCHEDULING, body, metadata["namespace"])

    # --- claims ------------------------------------------------------------------------------------------------------------------

    def _look_at_claim(self, claim: Json) -> None:
        metadata, status = claim["metadata"], claim.get("status") or {}
        reserved = status.get("reservedFor") or []
        staying = [consumer for consumer in reserved if self._uses(metadata["namespace"], consumer)]
        if len(staying) < len(reserved):
            # Whoever removes the last consumer asks for deallocation; a claim that nobody ever reserved stays allocated.
            deallocate = not staying and claim["spec"]["allocationMode"] == DELAYED
            if deallocate:
                self._log(f"claim {metadata['namespace']}/{metadata['name']} is not used any more: deallocation is requested")
            self._registry.amend(CLAIM, claim, partial(_keep, consumers=staying, deallocate=deallocate), subresource="status")
        elif not reserved and not metadata.get("deletionTimestamp") and self._outlived_its_pod(claim):
            self._registry.delete(CLAIM, metadata["name"], metadata["namespace"])

    def _uses(self, namespace: str, consumer: Json) -> bool:
        if consumer.get("resource") != "pods" or consumer.get("apiGroup"):
            return True
        pod = self._registry.store.get(POD, namespace, consumer["name"])
        return pod is not None and pod["metadata"]["uid"] == consumer["uid"] and not _done(pod)

    def _outlived_its_pod(self, claim: Json) -> bool:
        """Generated for a pod that is done or another one by now. If there is none at all it is the garbage collector's."""
        owner = next((each for each in claim["metadata"].get("ownerReferences") or () if each.get("controller")), None)
        if owner is None or owner["kind"] != "Pod":
            return False
        pod = self._registry.store.get(POD, claim["metadata"]["namespace"], owner["name"])
        return pod is not None and (pod["metadata"]["uid"] != owner["uid"] or _done(pod))


def _done(pod: Json) -> bool:
    """It will not run (again)."""
    gone = pod["metadata"].get("deletionTimestamp") and not pod["spec"].get("nodeName")
    return bool(gone) or pod["status"].get("phase") in FINAL


def _keep(body: Json, consumers: list[Json], deallocate: bool) -> None:
    body["status"]["reservedFor"] = consumers
    if not consumers:
        del body["status"]["reservedFor"]
    if deallocate:
        body["status"]["deallocationRequested"] = True


def is_reserved(claim: Json, pod: Json) -> bool:
    consumers = (claim.get("status") or {}).get("reservedFor") or ()
    return pod["metadata"]["uid"] in {consumer["uid"] for consumer in consumers}


def can_be_reserved(claim: Json) -> bool:
    """For one more pod."""
    status = claim["status"]
    return bool(status["allocation"].get("shareable")) or not status.get("reservedFor")


def reserve(body: Json, pod: Json) -> None:
    consumer = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    body["status"]["reservedFor"] = [*(body["status"].get("reservedFor") or ()), consumer]


def scheduling_metadata(pod: Json) -> Json:
    """Of the PodSchedulingContext of a pod."""
    metadata = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {"name": metadata["name"], "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}]}
