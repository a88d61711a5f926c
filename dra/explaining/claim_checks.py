"""Pods that wait for the driver's GPUs, and claims that hold some for nobody."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Final

from dra.explaining import classic_gpus, happenings, pod_claims
from dra.explaining.checks import Finding, Verdict
from dra.explaining.cluster import Cluster, Json, key_of
from dra.names import DRIVER_NAME

PENDING_SECONDS: Final = 60
"""A pod that has just come is no news."""
IDLE_SECONDS: Final = 600
"""As long may a claim be between two pods."""


def findings(cluster: Cluster) -> Iterator[Finding]:
    yield from _waiting(cluster)
    yield from _stranded(cluster)


def classes(cluster: Cluster) -> set[str]:
    """Names of those by which this driver's devices are asked for."""
    if cluster.is_classic:
        return {body["metadata"]["name"] for body in cluster.classes if classic_gpus.is_ours(body)}
    return {body["metadata"]["name"] for body in cluster.classes if DRIVER_NAME in str(body.get("spec"))}


def _asks(spec: Json, ours: set[str]) -> bool:
    """Whether a claim's spec names one of the classes."""
    if spec.get("resourceClassName") in ours:
        return True
    wishes = [
        wish
        for request in (spec.get("devices") or {}).get("requests") or ()
        for wish in (request.get("exactly") or {}, *(request.get("firstAvailable") or ()))
    ]
    return any(wish.get("deviceClassName") in ours for wish in wishes)


def _wants(cluster: Cluster, pod: Json, ours: set[str]) -> bool:
    namespace = pod["metadata"].get("namespace", "")
    templates = {key_of(body): (body.get("spec") or {}).get("spec") or {} for body in cluster.templates}
    for entry in pod_claims.entries(pod):
        claim = cluster.claim(namespace, entry.claim) if entry.claim else None
        spec = (claim.get("spec") or {}) if claim is not None else templates.get(f"{namespace}/{entry.template}", {})
        if _asks(spec, ours):
            return True
    return False


def _waiting(cluster: Cluster) -> Iterator[Finding]:
    ours = classes(cluster)
    unplaced, unstarted = [], []
    for pod in cluster.pods:
        if (pod.get("status") or {}).get("phase") != "Pending" or not pod["spec"].get("resourceClaims") or not _wants(cluster, pod, ours):
            continue
        if not pod["spec"].get("nodeName"):
            if _older(pod["metadata"].get("creationTimestamp"), PENDING_SECONDS, cluster.at):
                unplaced.append(pod)
        elif happenings.last(happenings.warnings(cluster, (pod,)), happenings.NOT_PREPARED):
            unstarted.append(pod)
    if unplaced:
        yield _pods(unplaced, "wait for GPUs")
    if unstarted:
        yield _pods(unstarted, "do not start, because their GPUs cannot be prepared")
    if not unplaced and not unstarted:
        yield Finding(Verdict.OK, "pods that wait", "", "none for long")


def _pods(pods: Sequence[Json], what: str) -> Finding:
    first = pods[0]["metadata"]
    cure = f"kubectl intel-gpu why -n {first.get('namespace', '')} pod/{first['name']}"
    return Finding(Verdict.WARNING, "pods that wait", "", f"{len(pods)} {what}: {_few([key_of(pod) for pod in pods])}", cure)


def _stranded(cluster: Cluster) -> Iterator[Finding]:
    nodes = {node["metadata"]["name"] for node in cluster.nodes}
    idle, gone = [], []
    for key, node, since, kept in _holders(cluster):
        if not kept and _older(since, IDLE_SECONDS, cluster.at):
            idle.append(key)
        if nodes and node and node not in nodes:
            gone.append(key)
    if idle:
        seen = f"{len(idle)} hold GPUs and no pod uses them: {_few(idle)}"
        yield Finding(Verdict.WARNING, "claims", "", seen, "delete those that nobody needs; claims of templates go with their pods")
    if gone:
        seen = f"{len(gone)} hold GPUs of nodes that are not there: {_few(gone)}"
        yield Finding(Verdict.PROBLEM, "claims", "", seen, "delete the pods that use them, with --force if they do not end")


def _holders(cluster: Cluster) -> Iterator[tuple[str, str, str | None, bool]]:
    """(namespace/name, node, since when, whether it is used or was asked to wait for its user) of each claim that has devices."""
    if cluster.is_classic:
        for claim, holding in classic_gpus.handles(cluster):
            kept = bool(claim.status.reserved_for) or claim.spec.allocation_mode == "Immediate"
            yield f"{claim.metadata.namespace}/{claim.metadata.name}", holding.node, None, kept
        return
    for body in cluster.claims:
        status = body.get("status") or {}
        allocation = status.get("allocation") or {}
        pools = [each["pool"] for each in (allocation.get("devices") or {}).get("results") or () if each["driver"] == DRIVER_NAME]
        if pools:
            since = allocation.get("allocationTimestamp") or body["metadata"].get("creationTimestamp")
            yield key_of(body), pools[0], since, bool(status.get("reservedFor"))


def _older(since: str | None, seconds: int, at: str) -> bool:
    """What has no time counts as old."""
    try:
        age = datetime.datetime.fromisoformat(at) - datetime.datetime.fromisoformat(since or "")
    except (TypeError, ValueError):
        return True
    return age.total_seconds() >= seconds


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
