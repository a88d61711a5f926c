"""Binds pending pods to nodes and allocates their claims: one pass over what is pending, as often as anything changed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial

from dra.structured import pools
from dra.structured.allocator import Allocator, Broken, Unschedulable
from tools.simcluster import events, pod_claims
from tools.simcluster.kinds import CLAIM, DEVICE_CLASS, NODE, POD, SLICE, TAINT_RULE, Json
from tools.simcluster.registry import Registry

FINALIZER = "resource.kubernetes.io/delete-protection"
"""On every allocated claim, so that it is deallocated before it goes."""


def schedule(registry: Registry, log: Callable[[str], None]) -> None:
    """Try every pod that has no node."""
    for pod in [pod for pod in registry.store.each(POD) if not pod["spec"].get("nodeName")]:
        if pod["status"].get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp") or pod["spec"].get("schedulingGates"):
            continue
        why = "no nodes available to schedule pods"
        for node in [node for node in registry.store.each(NODE) if not (node.get("spec") or {}).get("unschedulable")]:
            try:
                _bind(registry, pod, node["metadata"]["name"])
            except (Unschedulable, Broken) as error:
                why = str(error)
            else:
                log(f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} is bound to {node['metadata']['name']}")
                break
        else:
            report(registry, pod, why)


def _bind(registry: Registry, pod: Json, node: str) -> None:
    claims = claims_of(registry, pod)
    pending = [claim for claim in claims if not (claim.get("status") or {}).get("allocation")]
    for claim in claims:
        if claim not in pending and not _allows(claim, node):
            raise Unschedulable("resourceclaim not available on the node")
        if len((claim.get("status") or {}).get("reservedFor") or ()) >= (256 if registry.release.minor >= 32 else 32):
            raise Unschedulable("resourceclaim in use")
    allocations = {}
    if pending:
        allocator = Allocator(
            pools.gather(registry.store.each(SLICE), node, registry.store.each(TAINT_RULE), registry.release),
            {each["metadata"]["name"]: each for each in registry.store.each(DEVICE_CLASS)},
            [claim for claim in registry.store.each(CLAIM) if (claim.get("status") or {}).get("allocation")],
            registry.release,
            share_id=lambda: str(uuid.uuid4()),
        )
        uids = [claim["metadata"]["uid"] for claim in pending]
        allocations = dict(zip(uids, allocator.allocate(pending), strict=True))
    consumer = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    for claim in claims:
        allocation = allocations.get(claim["metadata"]["uid"])
        if allocation is not None and FINALIZER not in (claim["metadata"].get("finalizers") or ()):
            claim = registry.amend(CLAIM, claim, _protect)  # noqa: PLW2901 the next write builds on it
        registry.amend(CLAIM, claim, partial(_reserve, allocation=allocation, consumer=consumer), subresource="status")
    pod = registry.amend(POD, pod, lambda body: body["spec"].update(nodeName=node))
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": registry.timestamp()}
    registry.amend(POD, pod, lambda body: condition(body, scheduled), subresource="status")


def claims_of(registry: Registry, pod: Json) -> list[Json]:
    """The claims of a pod, each once.

    Raises:
        Unschedulable: one is not there yet, or is going.
    """
    found: dict[str, Json] = {}
    for entry, name in pod_claims.claim_names(pod):
        if not name:
            raise Unschedulable(f'waiting for resourceclaim of pod claim "{entry}" to be created')
        claim = registry.store.get(CLAIM, pod["metadata"]["namespace"], name)
        if claim is None:
            raise Unschedulable(f'resourceclaim "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            raise Unschedulable(f'resourceclaim "{name}" is being deleted')
        found[claim["metadata"]["uid"]] = claim
    return list(found.values())


def _allows(claim: Json, node: str) -> bool:
    selector = claim["status"]["allocation"].get("nodeSelector")
    return selector is None or pools.selects(selector, node)


def _protect(body: Json) -> None:
    body["metadata"]["finalizers"] = [*(body["metadata"].get("finalizers") or ()), FINALIZER]


def _reserve(body: Json, allocation: Json | None, consumer: Json) -> None:
    status = body.setdefault("status", {})
    if allocation is not None:
        status["allocation"] = allocation
    if consumer["uid"] not in {each["uid"] for each in status.get("reservedFor") or ()}:
        status["reservedFor"] = [*(status.get("reservedFor") or ()), consumer]


def condition(body: Json, new: Json) -> None:
    status = body.setdefault("status", {})
    others = [each for each in status.get("conditions") or () if each["type"] != new["type"]]
    status["conditions"] = [*others, new]


def report(registry: Registry, pod: Json, why: str, *, nodes: int = 1) -> None:
    """Condition and event, but not the same twice: they would set off the next pass."""
    message = f"0/{nodes} nodes are available: {why}."
    old = next((each for each in pod["status"].get("conditions") or () if each["type"] == "PodScheduled"), None)
    if old is not None and (old["status"], old.get("message")) == ("False", message):
        return
    not_yet = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": registry.timestamp(),
    }
    pod = registry.amend(POD, pod, lambda body: condition(body, not_yet), subresource="status")
    events.say(registry, pod, "Warning", "FailedScheduling", message, "default-scheduler")
