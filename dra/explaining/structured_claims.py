"""Why one claim is not allocated, or cannot be used although it is (structured DRA)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dra.explaining import happenings, removal, slice_gpus
from dra.explaining.cluster import Cluster, Json
from dra.explaining.requests import Requests, node_names
from dra.explaining.verdicts import Cause, ClaimVerdict, NodeVerdict, RequestVerdict, State


def explain(
    cluster: Cluster, requests: Requests, claim: Json, pod: Json | None, *, entry: str = "", beside: Sequence[Json] = ()
) -> ClaimVerdict:
    """
    Args:
        pod: that is to use it; None where nobody does.
        beside: the pod's other claims that wait, too.
    """
    metadata = claim["metadata"]
    made = ClaimVerdict(
        namespace=metadata.get("namespace", ""),
        claim=metadata["name"],
        entry=entry,
        state=State.PENDING,
        summary="it waits to be allocated",
    )
    if metadata.get("deletionTimestamp"):
        used = [each.get("name", "") for each in (claim.get("status") or {}).get("reservedFor") or ()]
        waits = f"until {', '.join(used)} ends" if used else f"for its finalizers ({', '.join(metadata.get('finalizers') or ()) or 'none'})"
        return msgspec.structs.replace(
            made,
            state=State.BROKEN,
            causes=("the claim is being deleted: no further pod can have it",),
            summary=f"the claim is being deleted and waits {waits}",
            cure="use another claim, or create it anew when it is gone",
        )
    if (claim.get("status") or {}).get("allocation"):
        return _allocated(cluster, made, claim, pod)
    return _pending(cluster, requests, made, claim, pod, beside)


def _allocated(cluster: Cluster, made: ClaimVerdict, claim: Json, pod: Json | None) -> ClaimVerdict:
    results = (claim["status"]["allocation"].get("devices") or {}).get("results") or ()
    devices = tuple(f"{each['pool']}/{each['device']}" for each in results)
    made = msgspec.structs.replace(made, state=State.ALLOCATED, devices=devices, node=results[0]["pool"] if results else "")
    said = happenings.warnings(cluster, [each for each in (pod, claim) if each is not None])
    failed = happenings.last(said, happenings.NOT_PREPARED)
    if failed is not None and pod is not None and (pod.get("status") or {}).get("phase") == "Pending":
        text = happenings.message(failed)
        return msgspec.structs.replace(
            made,
            state=State.BROKEN,
            causes=(f"the node could not prepare it: {text}",),
            summary=f"allocated ({', '.join(devices)}), but preparing it on the node fails: {text}",
            cure="the sentence says what is wrong; docs/troubleshooting.md has each of them. The kubelet tries again by itself",
        )
    unready = [
        f"{device.get('device')}: {condition.get('message') or condition.get('reason')}"
        for device in claim["status"].get("devices") or ()
        for condition in device.get("conditions") or ()
        if condition.get("type") == "Ready" and condition.get("status") == "False"
    ]
    offered = {
        (spec["driver"], spec["pool"]["name"], d["name"]) for spec in slice_gpus.current(cluster.slices) for d in spec.get("devices") or ()
    }
    gone = [
        f"{each['device']} is not offered by its node any more"
        for each in results
        if (each["driver"], each["pool"], each["device"]) not in offered
    ]
    if causes := (*unready, *gone):
        return msgspec.structs.replace(
            made,
            state=State.BROKEN,
            causes=causes,
            summary=f"allocated, but its GPU cannot be used: {causes[0]}",
            cure="delete the pod: its next claim gets another GPU; docs/troubleshooting.md says what to do about this one",
        )
    return msgspec.structs.replace(made, summary=f"it is not pending: allocated, {', '.join(devices)}")


def _pending(
    cluster: Cluster, requests: Requests, made: ClaimVerdict, claim: Json, pod: Json | None, beside: Sequence[Json]
) -> ClaimVerdict:
    verdicts = requests.explain(claim, pod)
    causes: list[str] = []
    if pod is None:
        causes.append("no pod asks for it: a claim is allocated when a pod that names it is scheduled")
    causes += [f"request {each.request}: {each.problem}" for each in verdicts if each.problem]
    made = msgspec.structs.replace(made, requests=verdicts, causes=tuple(causes))
    # A class that is missing ends the scheduler's attempt, whatever the other requests.
    problem = next((each for each in verdicts if each.problem), None)
    if problem is not None:
        return msgspec.structs.replace(made, summary=problem.problem, cure=problem.cure)
    fitting = node_names(verdicts)
    waiting = [claim, *beside]
    together = {name: requests.together(waiting, node) for node in requests.nodes() if (name := node["metadata"]["name"]) in fitting}
    if good := [name for name, why in together.items() if why is None]:
        if pod is None:
            return msgspec.structs.replace(
                made, summary=f"nobody uses it; it would fit on {_list(good)}", cure="create a pod that names the claim"
            )
        return msgspec.structs.replace(
            made,
            summary=f"it fits on {_list(good)}: something else keeps the pod from there, or the scheduler has not looked again yet",
            cure="see the scheduler's own words below",
        )
    if together:
        name, why = next(iter(together.items()))
        return msgspec.structs.replace(made, summary=f"{name}: {why}", cure="ask for less in one pod, or wait until something is let go")
    return _nearest(cluster, made, verdicts)


def _nearest(cluster: Cluster, made: ClaimVerdict, verdicts: Sequence[RequestVerdict]) -> ClaimVerdict:
    """The request that fits nowhere, and of its nodes the one that is closest to do."""
    request = next((each for each in verdicts if not any(node.fits for node in each.nodes)), verdicts[0] if verdicts else None)
    if request is None:
        return msgspec.structs.replace(made, summary="the claim asks for nothing")
    if not request.nodes and (leaving := [name for node in cluster.nodes if removal.leaving(cluster, name := node["metadata"]["name"])]):
        return msgspec.structs.replace(
            made,
            summary=f"no node offers any device: the driver is being removed from {_list(leaving)}",
            cure="take decommission out of the plugin's settings, or go on: docs/uninstalling.md",
        )
    if not request.nodes:
        return msgspec.structs.replace(
            made,
            summary=f"no node offers any device (request {request.request} wants {request.wants})",
            cure="see that the driver's node plugin runs: kubectl get resourceslices",
        )
    if all(node.excluded for node in request.nodes):
        node = max(request.nodes, key=lambda each: each.fitting)
        cure = f"kubectl uncordon {node.node}" if node.excluded == "the node is cordoned" else "correct the pod, or the node"
        return msgspec.structs.replace(made, summary=f"no node with devices is for this pod; {node.node}: {node.excluded}", cure=cure)
    node = max((each for each in request.nodes if not each.excluded), key=_closeness)
    misses = [verdict for verdict in node.devices if verdict.cause is not Cause.FITS]
    if not misses:
        return msgspec.structs.replace(
            made, summary=f"{node.node}: {node.text}, and it has no other devices", cure=f"ask for {node.fitting}"
        )
    nearest = max(misses, key=lambda each: each.cause.rank)
    broken = [verdict for verdict in misses if verdict.cause is Cause.CEL_ERROR]
    if broken:
        return msgspec.structs.replace(made, summary=f"{node.node}, {broken[0].device}: {broken[0].text}", cure=broken[0].cure)
    if nearest.cause in (Cause.CLASS, Cause.SELECTOR) and node.fitting:
        return msgspec.structs.replace(
            made,
            summary=f"{node.node}: {node.text}; its other devices are not meant by request {request.request}",
            cure=f"ask for {node.fitting}, or make the selector wider",
        )
    if nearest.cause in (Cause.CLASS, Cause.SELECTOR):
        there = sum(len(each.devices) for each in request.nodes)
        for_example = f"{node.node}, {nearest.device}: {nearest.text}"
        return msgspec.structs.replace(
            made,
            summary=f"none of the cluster's {there} devices is meant by request {request.request}; {for_example}",
            cure="correct the selector, or add such a GPU: `kubectl intel-gpu list` shows what there is",
        )
    summary = f"{node.node}: {node.text}; {nearest.device} is {nearest.text}" if nearest.cause is Cause.HELD else ""
    cure = nearest.cure
    if node.fitting and request.count > 1:
        cure = f"ask for {node.fitting}{f', or {cure}' if cure else ''}"
    return msgspec.structs.replace(made, summary=summary or f"{node.node}: {node.text}; {nearest.device}: {nearest.text}", cure=cure)


def _closeness(node: NodeVerdict) -> tuple[int, int]:
    return node.fitting, max((verdict.cause.rank for verdict in node.devices), default=-1)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more nodes" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
