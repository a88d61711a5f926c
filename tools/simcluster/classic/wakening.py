"""What a pod that waits is woken by: the queueing hints of the scheduler's DRA plugin (kk 1.28, isSchedulableAfter...)."""

from __future__ import annotations

from typing import Final

from tools.simcluster import pod_claims
from tools.simcluster.classic.rules import DELAYED
from tools.simcluster.kinds import CLAIM, Json
from tools.simcluster.store import Change, Store

SKIP: Final = "skip"
AFTER_BACKOFF: Final = "after back-off"
AT_ONCE: Final = "at once"


def by_claim(pod: Json, change: Change) -> str:
    """A claim of the pod: it is there, or its status has changed. What else changes is of no interest, the driver's finalizer above all.

    Here its own reservation is of none either: by the sources 1.28 and 1.29 may go round and round between Reserve and Unreserve.
    """
    if change.type == "DELETED":
        return SKIP
    if change.before is None:
        return AT_ONCE
    uid = pod["metadata"]["uid"]
    return SKIP if _status_without(change.before, uid) == _status_without(change.object, uid) else AT_ONCE


def _status_without(claim: Json, consumer: str) -> Json:
    status = claim.get("status") or {}
    return {**status, "reservedFor": [each for each in status.get("reservedFor") or () if each["uid"] != consumer]}


def by_scheduling(store: Store, pod: Json, change: Change) -> str:
    """The pod's PodSchedulingContext: wait until all drivers have said something of all claims, then lose no time."""
    now, before = change.object, change.before
    if change.type == "DELETED" or not _is_informed(store, pod, now):
        return SKIP
    said = (now.get("status") or {}).get("resourceClaims") or []
    if before is None or len((before.get("status") or {}).get("resourceClaims") or ()) < len(said):
        return AT_ONCE
    selected = now["spec"].get("selectedNode")
    if selected and any(selected in (entry.get("unsuitableNodes") or ()) for entry in said):
        return AT_ONCE
    if (before.get("status") or {}) == (now.get("status") or {}) and before["spec"] != now["spec"]:
        return SKIP
    return AFTER_BACKOFF


def _is_informed(store: Store, pod: Json, scheduling: Json) -> bool:
    said = {entry["name"] for entry in (scheduling.get("status") or {}).get("resourceClaims") or ()}
    for entry, name in pod_claims.claim_names(pod):
        claim = store.get(CLAIM, pod["metadata"]["namespace"], name)
        if claim is None:
            return False
        is_pending = claim["spec"]["allocationMode"] == DELAYED and not (claim.get("status") or {}).get("allocation")
        if is_pending and entry not in said:
            return False
    return True


def updated(change: Change) -> bool:
    """Whether a pod changed in a way that may make it schedulable: not by its conditions."""
    return change.before is None or _relevant(change.before) != _relevant(change.object)


def _relevant(pod: Json) -> tuple[object, ...]:
    metadata = pod["metadata"]
    return pod["spec"], metadata.get("labels"), pod["status"].get("resourceClaimStatuses"), bool(metadata.get("deletionTimestamp"))
