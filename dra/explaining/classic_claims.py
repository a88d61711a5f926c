"""Why one claim is not allocated with classic DRA: what our controller would answer of each node, by its own rules, and what it did answer.

The controller's rules are those of `dra.classic.ledger`; which of several fitting GPUs it takes is a setting that does not matter here.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from dra.classic import claim_state, handle, parameters
from dra.classic.handle import Handle
from dra.classic.ledger import Ask, Ledger
from dra.classic.names import GROUP, HEARTBEAT_LABEL, heartbeat_name
from dra.classic.parameters import ClaimParameters, ClassParameters, Demand
from dra.classic.placement import Policy
from dra.errors import ClaimRefused
from dra.explaining import classic_gpus, happenings, node_rules
from dra.explaining.cluster import Cluster, Json, named
from dra.explaining.gpus import Node, free
from dra.explaining.verdicts import Cause, ClaimVerdict, DeviceVerdict, NodeVerdict, RequestVerdict, State
from dra.kube.classic import GpuClaimParameters, GpuClassParameters, Lease, ResourceClaim, ResourceClass
from dra.names import ClaimUid

_LEASE_SECONDS: Final = 50
"""Of a Lease that does not say: what the controller takes."""
T = TypeVar("T")


def explain(cluster: Cluster, body: Json, pod: Json | None, beside: Sequence[Json]) -> ClaimVerdict:
    """As `structured_claims.explain`."""
    claim = msgspec.convert(body, ResourceClaim)
    made = ClaimVerdict(
        namespace=claim.metadata.namespace, claim=claim.metadata.name, state=State.PENDING, summary="it waits to be allocated"
    )
    said = happenings.warnings(cluster, [each for each in (body, pod) if each is not None])
    if claim.metadata.deletion_timestamp:
        text = "the claim is being deleted: no further pod can have it"
        return msgspec.structs.replace(
            made, state=State.BROKEN, causes=(text,), summary=text, cure="use another claim, or create it anew when it is gone"
        )
    if claim.status.allocation is not None:
        return _allocated(made, claim, pod, said)
    return _pending(cluster, made, body, claim, pod, beside, said)


def ledger(cluster: Cluster) -> Ledger:
    """The controller's, made from what is in the API."""
    made = Ledger(Policy(), on_better=lambda _node: None)
    for name, state in classic_gpus.states(cluster).items():
        made.set_state(name, state)
        made.set_alive(name, _alive(cluster, name))
    for claim, holding in classic_gpus.handles(cluster):
        if holding.node:
            made.hold(ClaimUid(claim.metadata.uid), holding.node, holding, written=True)
    return made


def _alive(cluster: Cluster, node: str) -> bool:
    """Whether its plugin renews its Lease; where Leases were not read, it counts as alive."""
    if "leases" in cluster.unread:
        return True
    for body in cluster.leases:
        if body["metadata"]["name"] == heartbeat_name(node) and HEARTBEAT_LABEL in (body["metadata"].get("labels") or {}):
            lease = msgspec.convert(body, Lease)
            if not lease.spec.renew_time:
                return False
            age = datetime.datetime.fromisoformat(cluster.at) - datetime.datetime.fromisoformat(lease.spec.renew_time)
            return age.total_seconds() <= (lease.spec.lease_duration_seconds or _LEASE_SECONDS)
    return False


def _allocated(made: ClaimVerdict, claim: ResourceClaim, pod: Json | None, said: Sequence[Json]) -> ClaimVerdict:
    try:
        holding: Handle | None = handle.parse(claim_state.handle_data(claim)) if claim_state.is_allocated(claim) else None
    except ClaimRefused:
        holding = None
    devices = tuple(part.uid + (f" VF {', '.join(map(str, part.vfs))}" if part.vfs else "") for part in holding.parts) if holding else ()
    made = msgspec.structs.replace(made, state=State.ALLOCATED, node=claim.node, devices=devices)
    failed = happenings.last(said, happenings.NOT_PREPARED)
    if failed is not None and pod is not None and (pod.get("status") or {}).get("phase") == "Pending":
        text = happenings.message(failed)
        return msgspec.structs.replace(
            made,
            state=State.BROKEN,
            causes=(f"the node could not prepare it: {text}",),
            summary=f"allocated on {claim.node}, but preparing it there fails: {text}",
            cure="the sentence says what is wrong; docs/troubleshooting.md has each of them. The kubelet tries again by itself",
        )
    what = f" ({', '.join(devices)})" if devices else ""
    return msgspec.structs.replace(made, summary=f"it is not pending: allocated on {claim.node or 'any node'}{what}")


def _pending(
    cluster: Cluster, made: ClaimVerdict, body: Json, claim: ResourceClaim, pod: Json | None, beside: Sequence[Json], said: Sequence[Json]
) -> ClaimVerdict:
    name = claim.spec.resource_class_name
    class_body = named(cluster.classes, name)
    if class_body is None:
        there = ", ".join(sorted(each["metadata"]["name"] for each in cluster.classes)) or "none"
        text = f"there is no ResourceClass {name}"
        return msgspec.structs.replace(made, causes=(text,), summary=text, cure=f"create it, or ask for one that is there: {there}")
    if not classic_gpus.is_ours(class_body):
        text = f"ResourceClass {name} is not this driver's: {class_body.get('driverName', '')} allocates its claims"
        return msgspec.structs.replace(made, causes=(text,), summary=text, cure="look at that driver's controller")
    waiting = [body, *(each for each in beside if classic_gpus.is_ours(named(cluster.classes, each["spec"]["resourceClassName"]) or {}))]
    try:
        asks = [_ask(cluster, each) for each in waiting]
    except ClaimRefused as refused:
        return msgspec.structs.replace(
            made,
            causes=(str(refused),),
            summary=str(refused),
            cure="correct or create the parameters: the claim is looked at again at once",
        )
    causes: list[str] = []
    if pod is None and claim.spec.allocation_mode != claim_state.IMMEDIATE:
        causes.append("no pod asks for it: with WaitForFirstConsumer it is allocated when a pod that names it is scheduled")
    if told := _unsuitable(cluster, claim, pod):
        causes.append(f"the controller called these nodes unsuitable: {', '.join(told)}")
    nodes = _nodes(cluster, asks, pod)
    demand = asks[0].demand.of_claim
    wants = f"{demand.count} × {demand.type} of class {name}" + "".join(
        f", {amount}"
        for amount, there in ((f"{demand.memory} MiB", demand.memory), (f"{demand.millicores} millicores", demand.millicores))
        if there
    )
    request = RequestVerdict(request="", wants=wants, count=demand.count, nodes=nodes)
    made = msgspec.structs.replace(made, causes=tuple(causes), requests=(request,))
    good = [node.node for node in nodes if node.fits]
    if good and pod is None and claim.spec.allocation_mode != claim_state.IMMEDIATE:
        return msgspec.structs.replace(
            made, summary=f"nobody uses it; it would fit on {', '.join(good)}", cure="create a pod that names the claim"
        )
    if good:
        return msgspec.structs.replace(
            made,
            summary=f"it fits on {', '.join(good)}: if it stays pending, nobody has answered the scheduler yet",
            cure="does a controller run? kubectl get lease gpu-controller in the driver's namespace names it",
        )
    if not nodes:
        return msgspec.structs.replace(
            made, summary="no node has a GpuAllocationState: no node plugin of this driver runs", cure="see that the node plugin's pods run"
        )
    nearest = max(nodes, key=lambda node: (not node.excluded, node.fitting))
    why = nearest.excluded or nearest.text
    held = next((device for device in nearest.devices if device.cause is Cause.HELD), None)
    ill = next((device for device in nearest.devices if device.cause is Cause.TAINT), None)
    cure = held.cure if held is not None else ill.cure if ill is not None else "see the controller's words below" if said else ""
    return msgspec.structs.replace(
        made, summary=f"{nearest.node}: {why}" + (f"; {held.device} is {held.text}" if held is not None else ""), cure=cure
    )


def _nodes(cluster: Cluster, asks: Sequence[Ask], pod: Json | None) -> tuple[NodeVerdict, ...]:
    book = ledger(cluster)
    shown = {node.name: node for node in classic_gpus.nodes(cluster)}
    found = []
    for name in sorted(shown):
        node = cluster.node(name)
        devices = tuple(_devices(shown[name], asks[0].demand))
        if (why := node_rules.excluded(pod, node) if node is not None else None) is not None:
            found.append(NodeVerdict(node=name, excluded=why, devices=devices))
            continue
        unfit = book.why_unsuitable(name, asks)
        found.append(NodeVerdict(node=name, devices=devices, fits=unfit is None, text=unfit or "it fits"))
    return tuple(found)


def _devices(node: Node, demand: Demand) -> list[DeviceVerdict]:
    """What is plain to see of each; whether they are enough the controller's rules say of the node."""
    found = []
    for card in node.cards:
        for device in card.devices:
            cause, text, cure = Cause.FITS, "", ""
            holders = tuple(holder for holder in device.holders if not holder.admin)
            if device.taints:
                cause, text = Cause.TAINT, f"tainted: {', '.join(taint.key for taint in device.taints)}"
                cure = f"gpu-controller taint {node.name} --clear, when the GPU is well again"
            elif demand.of_claim.type == "vf" and device.kind != "vf" and not card.vfs:
                cause = Cause.FITS
            elif demand.of_claim.type not in ("any", device.kind):
                cause, text = Cause.SELECTOR, f"it is a {device.kind}, the claim wants a {demand.of_claim.type}"
            elif demand.of_claim.memory and device.memory_bytes and demand.of_claim.memory << 20 > device.memory_bytes:
                cause, text = Cause.CAPACITY, f"it has {device.memory_bytes >> 20} MiB, the claim wants {demand.of_claim.memory}"
            elif holders and not (device.shared and demand.of_class.shared):
                one = holders[0]
                who = f"pod {one.pods[0]}" if one.pods else f"claim {one.claim}"
                cause, text = (
                    Cause.HELD,
                    f"held by claim {one.namespace}/{one.claim}" + (f" of pod {', '.join(one.pods)}" if one.pods else ""),
                )
                cure = f"wait until {who} in namespace {one.namespace} ends, or delete it"
            elif not free(card, device) and not device.shared:
                cause, text = Cause.COUNTERS, "others of its card are in use"
            found.append(
                DeviceVerdict(driver=GROUP, pool=node.name, device=device.name, cause=cause, text=text, holders=holders, cure=cure)
            )
    return found


def _unsuitable(cluster: Cluster, claim: ResourceClaim, pod: Json | None) -> list[str]:
    if pod is None:
        return []
    context = named(cluster.contexts, pod["metadata"]["name"], pod["metadata"].get("namespace", ""))
    entries = {
        entry["name"]
        for entry in (pod.get("spec") or {}).get("resourceClaims") or ()
        if (entry.get("source") or {}).get("resourceClaimName") == claim.metadata.name
    } | {
        made["name"]
        for made in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
        if made.get("resourceClaimName") == claim.metadata.name
    }
    told = ((context or {}).get("status") or {}).get("resourceClaims") or ()
    return sorted({node for entry in told if entry["name"] in entries for node in entry.get("unsuitableNodes") or ()})


# --- what a claim asks for


def _ask(cluster: Cluster, body: Json) -> Ask:
    """
    Raises:
        ClaimRefused: parameters are missing or wrong.
    """
    claim = msgspec.convert(body, ResourceClaim)
    of_class = msgspec.convert(named(cluster.classes, claim.spec.resource_class_name), ResourceClass)
    where = f"claim {claim.metadata.namespace}/{claim.metadata.name}"
    demand = parameters.demand(_of_class(cluster, of_class), _of_claim(cluster, claim, where), where)
    return Ask(ClaimUid(claim.metadata.uid), demand)


def _of_class(cluster: Cluster, of_class: ResourceClass) -> ClassParameters:
    where = f"ResourceClass {of_class.metadata.name}"
    name = parameters.class_name(of_class.parameters_ref, where)
    if name is None:
        return ClassParameters()
    what = f"{parameters.CLASS_KIND} {name}"
    return parameters.class_parameters(_found(named(cluster.class_parameters, name), GpuClassParameters, what, where))


def _of_claim(cluster: Cluster, claim: ResourceClaim, where: str) -> ClaimParameters:
    name = parameters.claim_name(claim.spec.parameters_ref, where)
    if name is None:
        return ClaimParameters()
    what = f"{parameters.CLAIM_KIND} {claim.metadata.namespace}/{name}"
    body = named(cluster.claim_parameters, name, claim.metadata.namespace)
    return parameters.claim_parameters(_found(body, GpuClaimParameters, what, where))


def _found(body: Json | None, kind: type[T], what: str, where: str) -> T:
    if body is None:
        raise ClaimRefused(f"{where} refers to {what}, which is not there", reason="ParametersNotFound")
    try:
        made: Any = msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise ClaimRefused(f"{what}: {error}", reason="InvalidParameters") from None
    return made  # type: ignore[no-any-return]
