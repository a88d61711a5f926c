"""The small controllers: claims from templates, deallocation, garbage, eviction; and the one task that runs them and the scheduler.

All are level-triggered passes over what is stored: after any write they look again, until nothing is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

import trio

from tools.simcluster import events, kinds, scheduler
from tools.simcluster.allocator import tolerates
from tools.simcluster.kinds import CLAIM, NAMESPACE, NODE, POD, SLICE, TAINT_RULE, TEMPLATE, Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registry import Registry

POD_CLAIM: Final = "resource.kubernetes.io/pod-claim-name"
"""Annotation of a generated claim: its name in the pod."""
FINAL: Final = ("Succeeded", "Failed")
_OWNERS: Final = {"Node": NODE, "Pod": POD, "ResourceClaim": CLAIM}


async def run(registry: Registry, log: Callable[[str], None], *, schedules: bool = True) -> None:
    """Run until cancelled. Without `schedules` pods stay where a test puts them."""
    while True:
        before = registry.store.revision
        make_claims(registry)
        release_claims(registry, log)
        collect_garbage(registry, log)
        wait = evict(registry, log)
        if schedules:
            scheduler.schedule(registry, log)
        # Others get their turn between passes, also when there is always something to do.
        await trio.lowlevel.checkpoint()
        if registry.store.revision == before:
            with trio.move_on_after(wait):
                await registry.store.changed()


def make_claims(registry: Registry) -> None:
    """A claim for every pod claim that names a template, recorded in the pod's status."""
    store = registry.store
    for pod in [pod for pod in store.each(POD) if pod["spec"].get("resourceClaims")]:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp") or pod["status"].get("phase") in FINAL:
            continue
        known = {status["name"] for status in pod["status"].get("resourceClaimStatuses") or ()}
        made = []
        for entry in pod["spec"]["resourceClaims"]:
            template_name = entry.get("resourceClaimTemplateName")
            template = store.get(TEMPLATE, metadata["namespace"], template_name) if template_name else None
            if template is None or entry["name"] in known:
                continue
            try:
                claim = registry.create(CLAIM, _generated(pod, entry["name"], template), metadata["namespace"])
            except Refused as refused:
                text = f"PodResourceClaim {entry['name']}: failed to create ResourceClaim: {refused.message}"
                events.say(registry, pod, "Warning", "FailedResourceClaimCreation", text, "resource_claim", once=True)
                continue
            made.append({"name": entry["name"], "resourceClaimName": claim["metadata"]["name"]})
        if made:
            registry.amend(POD, pod, partial(_record, made=made), subresource="status")


def _generated(pod: Json, entry: str, template: Json) -> Json:
    metadata, inner = pod["metadata"], template["spec"].get("metadata") or {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "metadata": {
            "generateName": f"{metadata['name']}-{entry}-",
            "labels": inner.get("labels"),
            "annotations": {**(inner.get("annotations") or {}), POD_CLAIM: entry},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"]["spec"],
    }


def _record(body: Json, made: list[Json]) -> None:
    body["status"]["resourceClaimStatuses"] = [*(body["status"].get("resourceClaimStatuses") or ()), *made]


def release_claims(registry: Registry, log: Callable[[str], None]) -> None:
    """Consumers that are gone or ended are taken off; a claim without consumers is deallocated, a generated one of an ended pod deleted."""
    pods = {pod["metadata"]["uid"]: pod for pod in registry.store.each(POD)}
    for claim in list(registry.store.each(CLAIM)):
        metadata, status = claim["metadata"], claim.get("status") or {}
        reserved = status.get("reservedFor") or []
        staying = [
            each
            for each in reserved
            if each.get("resource") != "pods" or ((pod := pods.get(each["uid"])) and pod["status"].get("phase") not in FINAL)
        ]
        owner = next((pods.get(each["uid"]) for each in metadata.get("ownerReferences") or () if each["kind"] == "Pod"), None)
        if owner is not None and owner["status"].get("phase") in FINAL and not metadata.get("deletionTimestamp"):
            registry.delete(CLAIM, metadata["name"], metadata["namespace"])
            continue
        if status.get("allocation") and not staying and (reserved or metadata.get("deletionTimestamp")):
            log(f"claim {metadata['namespace']}/{metadata['name']} is deallocated")
            registry.amend(CLAIM, claim, lambda body: body.update(status={}), subresource="status")
            registry.amend(CLAIM, claim, _unprotect)
        elif len(staying) != len(reserved):
            registry.amend(CLAIM, claim, partial(_keep, consumers=staying), subresource="status")
        elif metadata.get("deletionTimestamp") and not status.get("allocation") and scheduler.FINALIZER in metadata.get("finalizers", ()):
            registry.amend(CLAIM, claim, _unprotect)


def _keep(body: Json, consumers: list[Json]) -> None:
    body["status"]["reservedFor"] = consumers


def _unprotect(body: Json) -> None:
    body["metadata"]["finalizers"] = [each for each in body["metadata"].get("finalizers") or () if each != scheduler.FINALIZER]


def collect_garbage(registry: Registry, log: Callable[[str], None]) -> None:
    """Objects whose owners are all gone (known by UID), and what is in a namespace that is gone."""
    store = registry.store
    for kind in kinds.ALL:
        for body in list(store.each(kind)):
            metadata = body["metadata"]
            owners = [owner for owner in metadata.get("ownerReferences") or () if owner["kind"] in _OWNERS]
            orphaned = bool(owners) and not any(_lives(registry, owner, metadata.get("namespace", "")) for owner in owners)
            homeless = kind.namespaced and store.get(NAMESPACE, "", metadata["namespace"]) is None
            if (orphaned or homeless) and not metadata.get("deletionTimestamp"):
                log(f"garbage: {kind.kind} {metadata['name']}")
                registry.delete(kind, metadata["name"], metadata.get("namespace", ""))


def _lives(registry: Registry, owner: Json, namespace: str) -> bool:
    kind = _OWNERS[owner["kind"]]
    found = registry.store.get(kind, namespace if kind.namespaced else "", owner["name"])
    return found is not None and found["metadata"]["uid"] == owner["uid"]


def evict(registry: Registry, log: Callable[[str], None]) -> float:
    """Delete pods on devices with a NoExecute taint that their claim does not tolerate; seconds until the next toleration ends."""
    if not registry.release.has("DRADeviceTaints"):
        return math.inf
    store, next_one = registry.store, math.inf
    taints = _no_execute(registry)
    if not taints:
        return math.inf
    for claim in list(store.each(CLAIM)):
        status = claim.get("status") or {}
        for result in (status.get("allocation") or {}).get("devices", {}).get("results") or ():
            for driver, pool, device, taint in taints:
                if any(here and here != result[key] for key, here in (("driver", driver), ("pool", pool), ("device", device))):
                    continue
                left = _tolerated_for(registry, result.get("tolerations") or [], taint)
                if left > 0:
                    next_one = min(next_one, left)
                    continue
                for consumer in status.get("reservedFor") or ():
                    _evict(registry, claim, consumer, log)
    return next_one


def _no_execute(registry: Registry) -> list[tuple[str, str, str, Json]]:
    """(driver, pool, device, taint), empty names for any."""
    found = []
    for each in registry.store.each(SLICE):
        spec = each["spec"]
        for device in spec.get("devices") or ():
            found += [(spec["driver"], spec["pool"]["name"], device["name"], taint) for taint in device.get("taints") or ()]
    for rule in registry.store.each(TAINT_RULE) if registry.release.has("DRADeviceTaintRules") else ():
        chosen = rule["spec"].get("deviceSelector") or {}
        taint = {"timeAdded": rule["metadata"]["creationTimestamp"], **rule["spec"]["taint"]}
        found.append((chosen.get("driver", ""), chosen.get("pool", ""), chosen.get("device", ""), taint))
    return [entry for entry in found if entry[3].get("effect") == "NoExecute"]


def _tolerated_for(registry: Registry, tolerations: list[Json], taint: Json) -> float:
    """Seconds for which the taint is still tolerated: 0 for not at all, inf for ever."""
    matching = [each for each in tolerations if tolerates([each], taint)]
    if not matching:
        return 0.0
    limits = [each["tolerationSeconds"] for each in matching if each.get("tolerationSeconds") is not None]
    if not limits:
        return math.inf
    began, now = datetime.fromisoformat(taint["timeAdded"]), datetime.fromisoformat(registry.timestamp(micro=True))
    return max(0.0, float(min(limits)) - (now - began).total_seconds())


def _evict(registry: Registry, claim: Json, consumer: Json, log: Callable[[str], None]) -> None:
    namespace = claim["metadata"]["namespace"]
    pod = registry.store.get(POD, namespace, consumer["name"])
    if pod is None or pod["metadata"]["uid"] != consumer["uid"] or pod["metadata"].get("deletionTimestamp"):
        return
    log(f"pod {namespace}/{consumer['name']} is evicted from a tainted device")
    events.say(registry, pod, "Normal", "DeviceTaintManagerEviction", "Marking for deletion", "device-taint-eviction")
    registry.delete(POD, consumer["name"], namespace)
