"""The driver's side of the negotiation with the scheduler (PodSchedulingContext, Kubernetes 1.28 to 1.30), without its reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from dra.errors import NotYet
from dra.kube.classic import Pod, PodClaim, PodSchedulingContext

MOST_NODES: Final = 128
"""Of a list of unsuitable nodes (PodSchedulingNodeListMaxSize); more and the API server refuses the whole status."""


class PodClaimName(msgspec.Struct, frozen=True):
    """A claim of a pod."""

    in_pod: str
    """What the pod calls it."""
    name: str
    generated: bool
    """From a template: it must belong to the pod."""


def is_of_pod(context: PodSchedulingContext, pod: Pod) -> bool:
    """Whether the context is the pod's, not that of an earlier pod of the same name."""
    owners = context.metadata.owner_references or ()
    return any(owner.controller and owner.uid == pod.metadata.uid for owner in owners)


def claims_of(pod: Pod) -> list[PodClaimName]:
    """The claims of a pod that it has by now.

    Raises:
        NotYet: one of them is still to be made from its template.
    """
    statuses = {status.name: status for status in pod.status.resource_claim_statuses or []}
    found = []
    for claim in pod.spec.resource_claims or []:
        if claim.source.resource_claim_name is not None:
            found.append(PodClaimName(claim.name, claim.source.resource_claim_name, generated=False))
        elif claim.name not in statuses:
            raise NotYet(f"claim {_where(pod, claim)} is not made from its template yet", reason="ClaimNotGenerated")
        elif (name := statuses[claim.name].resource_claim_name) is not None:
            found.append(PodClaimName(claim.name, name, generated=True))
    return found


def nodes_of(context: PodSchedulingContext) -> list[str]:
    """All nodes that the scheduler asks about, the one that it has chosen too: it need not be among the others."""
    nodes = dict.fromkeys(context.spec.potential_nodes or [])
    if context.spec.selected_node:
        nodes[context.spec.selected_node] = None
    return list(nodes)


def unsuitable(nodes: Iterable[str], selected: str) -> list[str]:
    """At most as many as the API server takes, the selected node among them if it is unsuitable."""
    found = list(dict.fromkeys(nodes))
    if len(found) <= MOST_NODES:
        return found
    kept = found[:MOST_NODES]
    if selected in found and selected not in kept:
        kept[-1] = selected
    return kept


def status_patch(context: PodSchedulingContext, ours: Mapping[str, Sequence[str]]) -> dict[str, Any] | None:
    """Merge patch of the context's status, None if it says so already.

    Every claim of ours gets an entry, also with no node in it: the scheduler counts the entries to know whether it has been told. Those of
    other drivers stay.

    Args:
        ours: unsuitable nodes by what the pod calls the claim.
    """
    now = {entry.name: list(entry.unsuitable_nodes or []) for entry in context.status.resource_claims or []}
    if all(name in now and set(now[name]) == set(nodes) for name, nodes in ours.items()):
        return None
    wanted = now | {name: list(nodes) for name, nodes in ours.items()}
    return {
        "metadata": {"uid": context.metadata.uid, "resourceVersion": context.metadata.resource_version},
        "status": {"resourceClaims": [{"name": name, "unsuitableNodes": nodes} for name, nodes in wanted.items()]},
    }


def _where(pod: Pod, claim: PodClaim) -> str:
    return f"{claim.name} of pod {pod.metadata.namespace}/{pod.metadata.name}"
