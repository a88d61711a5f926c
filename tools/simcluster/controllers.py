"""The small controllers: claims from templates, deallocation, eviction; and the one task that runs them and the scheduler.

All are level-triggered passes over what is stored: after any write they look again, until nothing is left to do. Classic DRA has its own
(`classic.control`), which are driven by what is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial

import trio

from dra.structured.allocator import tolerates
from tools.simcluster import events, generated_claims, scheduler
from tools.simcluster.classic import control
from tools.simcluster.garbage import Garbage
from tools.simcluster.generated_claims import FINAL
from tools.simcluster.kinds import CLAIM, POD, SLICE, TAINT_RULE, Json
from tools.simcluster.registry import Registry


async def run(registry: Registry, log: Callable[[str], None], *, schedules: bool = True) -> None:
    """Run until cancelled. Without `schedules` pods stay where a test puts them."""
    while True:
        if registry.release.is_classic:
            await control.run(registry, log, schedules=schedules)
        else:
            await _run_structured(registry, log, schedules=schedules)


async def _run_structured(registry: Registry, log: Callable[[str], None], *, schedules: bool) -> None:
    """Until the server is another one."""
    garbage = Garbage(registry, log)
    with registry.store.listening(garbage.note):
        while not registry.release.is_classic:
            before = registry.store.revision
            make_claims(registry)
            release_claims(registry, log)
            garbage.collect()
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
    for pod in [pod for pod in registry.store.each(POD) if pod["spec"].get("resourceClaims")]:
        generated_claims.make(registry, pod)


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
